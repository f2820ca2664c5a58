"""Read the voxels of a volume: every slice is filled exactly once, with exactly the values of its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from dvtplan.core.console import progress
from dvtplan.core.errors import DamagedScan
from dvtplan.core.text import plural
from dvtplan.dicom.frame import Frame
from dvtplan.dicom.pixels import read_pixels
from dvtplan.dicom.reader import Opener, open_files
from dvtplan.dicom.slice_sorting import Stack

EXACT = {np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")}
"""Number types of volumes. Slices of several types have the smallest that holds the values of all, else float64."""


def read_stack(source: Path, stack: Stack, label: str) -> np.ndarray:
    """Read the images of a stack, rescaled as their files specify.

    Args:
        source: folder or archive.
        stack: to read.
        label: names the volume in messages.

    Returns:
        With the shape of the stack's grid. The stored number type (such as int16) if nothing has to be rescaled, or
        one that holds those of all slices; else float32, or float64 for integers of 32 bits.

    Raises:
        DvtError: if a file is damaged, its compression is not supported, it has another number of images or pixels
            than its tags state, or a duplicate image has other pixels.
    """
    stored = all(frame.slope == 1 and frame.intercept == 0 for frame in stack.frames)
    array: np.ndarray | None = None
    filled = np.zeros(len(stack.frames), int)
    slots_of: dict[str, dict[int, int]] = {}
    for k, frame in enumerate(stack.frames):
        slots_of.setdefault(frame.file, {})[frame.index] = k
    with open_files(source) as files:
        openers = dict(files)
        for slots in progress(list(slots_of.values()), "Read", leave=False):
            pixels = _read_images(source, stack.frames[next(iter(slots.values()))], openers)
            for index, k in slots.items():
                image = _values(pixels[index], stack.frames[k], stored)
                if array is None:
                    array = np.empty(stack.grid.shape, image.dtype)
                if image.dtype != array.dtype:
                    array = array.astype(_common_type(array.dtype, image.dtype), copy=False)
                array[k] = image
                filled[k] += 1
        if array is None or (filled != 1).any():
            wrong = stack.frames[int((filled != 1).argmax())].name
            raise DamagedScan(f"{label}: {wrong} was not read exactly once. Export the series again.")
        for copies in _by_file(stack.copies):
            pixels = _read_images(source, copies[0][1], openers)
            for used, copy in copies:
                k = slots_of[used.file][used.index]
                if not np.array_equal(_values(pixels[copy.index], copy, stored).astype(array.dtype), array[k]):
                    raise DamagedScan(
                        f"{label}: {used.name} and {copy.name} are the same image by their SOPInstanceUID, but have "
                        "different pixels. Remove the wrong one."
                    )
    return array


def _by_file(copies: Iterable[tuple[Frame, Frame]]) -> list[list[tuple[Frame, Frame]]]:
    """Group duplicates by their file."""
    files: dict[str, list[tuple[Frame, Frame]]] = {}
    for pair in copies:
        files.setdefault(pair[1].file, []).append(pair)
    return list(files.values())


def _read_images(source: Path, frame: Frame, openers: Mapping[str, Opener]) -> np.ndarray:
    """Read the images of a frame's file, (images, rows, columns).

    Raises:
        DamagedScan: if it has another number of images, or of pixels, than its tags state.
    """
    pixels = read_pixels(f"{source}: {frame.file}", openers[frame.file])
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if len(pixels) != frame.frames_in_file:
        raise DamagedScan(
            f"{source}: {frame.file}: has the pixels of {plural(len(pixels), 'image')}, expected "
            f"{frame.frames_in_file}, as many as positions. Export it again."
        )
    if pixels.shape[1:] != frame.shape:
        raise DamagedScan(
            f"{source}: {frame.name}: {pixels.shape[1:]} pixels, expected {frame.shape}. Export it again."
        )
    return pixels


def _values(image: np.ndarray, frame: Frame, stored: bool) -> np.ndarray:
    """Return the values of an image: as stored, or rescaled."""
    if stored:
        return image
    wide = image.dtype.itemsize > 2 and image.dtype != np.float32
    return (image * np.float64(frame.slope) + frame.intercept).astype(np.float64 if wide else np.float32)


def _common_type(one: np.dtype, other: np.dtype) -> np.dtype:
    """Return the smallest number type that holds the values of both."""
    common = np.promote_types(one, other)
    return common if common in EXACT else np.dtype(np.float64)
