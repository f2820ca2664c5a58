"""Read DICOM segmentation objects onto the grid of a series, by the position that each frame states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dvtplan.core import console
from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural, shorten_list
from dvtplan.dicom.frame import Frame
from dvtplan.dicom.frame_tags import FrameTags, named_damage, read_frames
from dvtplan.dicom.mask_objects import Segmentation, segment_label
from dvtplan.dicom.pixels import read_pixels
from dvtplan.dicom.reader import open_files, pydicom, require_pydicom
from dvtplan.dicom.series import StudyContents, read_tags
from dvtplan.dicom.slice_grid import POSITION_TOLERANCE_MM, SPACING_TOLERANCE
from dvtplan.imaging.geometry import Grid

T = TypeVar("T")

BACKGROUND = 0
"""Value of a label map that is not a segment, although some programs describe it as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFrame:
    """One frame of a segmentation object."""

    frame: Frame
    segment: int | None
    """Number of the segment that it shows; None if its pixel values are segment numbers."""
    pixels: np.ndarray
    """(rows, columns): bool, or segment numbers if ``segment`` is None."""


def read_segmentation(
    study: StudyContents, segmentation: Segmentation, grid: Grid, classes: Mapping[str, int]
) -> np.ndarray:
    """Read the mask of a segmentation object. Nothing is resampled: its pixels must lie on voxels of the grid.

    Args:
        study: contains the object.
        segmentation: the object to read.
        grid: grid of the image that it belongs to.
        classes: name -> value. Segment names match in upper or lower case. A single segment matches a single class
            whatever its name.

    Returns:
        uint8 with the shape of the grid; 0 where there is no frame.

    Raises:
        DvtError: if it has other segments, lies on another grid, or its segments overlap.
    """
    label = f"{study.source}: {segmentation.file}"
    names, frames = read_segment_frames(study, segmentation)
    return place_frames(frames, _match_segments(names, classes, label), grid, label)


def _match_segments(names: Mapping[int, str], classes: Mapping[str, int], label: str) -> dict[int, int]:
    """Return segment number -> value."""
    known = {name.lower(): value for name, value in classes.items()}
    values = {number: known[name.lower()] for number, name in names.items() if name.lower() in known}
    if len(classes) == 1 and len(names) == 1 and not values:
        ((number, name),) = names.items()
        ((class_name, value),) = classes.items()
        console.info(f"{label}: segment {name} is imported as {class_name}.")
        return {number: value}
    if not names or len(values) < len(names):
        raise DvtError(
            f"{label}: has the segments {shorten_list(list(names.values())) or '(none)'}, expected "
            f"{shorten_list(list(classes))}. Rename the segments, or give their names as `label_names`."
        )
    return values


def place_frames(frames: Sequence[SegmentFrame], values: Mapping[int, int], grid: Grid, label: str) -> np.ndarray:
    """Copy the segmented pixels of frames to the voxels at their positions.

    Args:
        frames: in any order.
        values: segment number -> value in the mask.
        grid: of the mask.
        label: names the object in messages.

    Returns:
        uint8 with the shape of the grid.

    Raises:
        DvtError: if a frame does not lie on the grid, or segments overlap.
    """
    mask = np.zeros(grid.shape, np.uint8)
    overlapping = 0
    placed: dict[tuple[object, ...], np.ndarray] = {}
    for one in frames:
        start, steps = index_of_pixels(one.frame, grid, label)
        if not np.array_equal(placed.setdefault((one.segment, *start), one.pixels), one.pixels):
            raise DamagedScan(
                f"{label}: frame {one.frame.index + 1} lies where another frame of its segment does, with other "
                "pixels. Export it again."
            )
        for number, value in values.items():
            if one.segment not in (None, number):
                continue
            segmented = one.pixels == number if one.segment is None else one.pixels
            index = (start + np.argwhere(segmented) @ steps).astype(int)
            if len(index) == 0:
                continue
            if index.min() < 0 or (index >= grid.shape).any():
                raise DvtError(
                    f"{label}: frame {one.frame.index + 1} has segmented voxels outside the series. Export it on the "
                    "grid of the series."
                )
            voxels = tuple(index.T)
            overlapping += int(((mask[voxels] != 0) & (mask[voxels] != value)).sum())
            mask[voxels] = value
    if overlapping:
        raise DvtError(
            f"{label}: segments overlap in {plural(overlapping, 'voxel')}, expected one label per voxel. Remove the "
            "overlap."
        )
    return mask


def index_of_pixels(frame: Frame, grid: Grid, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxel index of a frame's first pixel, (3,), and its change per row and per column, (2, 3).

    Raises:
        DvtError: if the pixels of the frame are not voxels of the grid.
    """
    tolerance_mm = POSITION_TOLERANCE_MM + SPACING_TOLERANCE * max(grid.spacing_mm)  # the same as for images
    steps_mm = np.array([frame.along_column, frame.along_row]) * np.array(frame.spacing_mm)[:, None]
    steps = steps_mm @ np.linalg.inv(grid.steps_mm)
    start = grid.index_of(np.asarray(frame.position_mm))
    whole_steps, whole_start = np.rint(steps), np.rint(start)
    corners = (np.array(frame.shape) - 1) * [[0, 0], [0, 1], [1, 0], [1, 1]]
    deviation = start - whole_start + corners @ (steps - whole_steps)
    deviation_mm = float(np.linalg.norm(deviation @ grid.steps_mm, axis=1).max())
    axes = np.abs(whole_steps)
    if deviation_mm > tolerance_mm or (axes.sum(axis=1) != 1).any() or (axes.sum(axis=0) > 1).any():
        raise DvtError(
            f"{label}: frame {frame.index + 1} does not lie on the voxels of the series (up to {deviation_mm:.3g} mm "
            f"away, tolerance {tolerance_mm:.2g} mm). Export it on the grid of the series."
        )
    return whole_start, whole_steps


def misplaced(study: StudyContents, segmentation: Segmentation, header: Any, grid: Grid) -> str:
    """Return why the frames of a segmentation object are not on the voxels of a grid; empty if all are.

    Args:
        study: contains the object.
        segmentation: the object.
        header: its tags.
        grid: where its frames should lie.
    """
    label = f"{study.source}: {segmentation.file}"
    for frame in read_frames(label, header):
        try:
            start, steps = index_of_pixels(frame, grid, label)
        except DvtError:
            return "its frames do not lie on the voxels of the series"
        ends = start + (np.array(frame.shape) - 1) * [[0, 0], [1, 1]] @ steps
        if ends.min() < 0 or (ends > np.array(grid.shape) - 1).any():
            return "its frames lie outside the series"
    return ""


def source_images(header: Any) -> set[str]:
    """Return the SOP instance UIDs of the images that the frames of an object were drawn on, where they name them."""
    groups = [*(header.get("PerFrameFunctionalGroupsSequence") or ())]
    groups += [*(header.get("SharedFunctionalGroupsSequence") or ())]
    images = (
        image
        for group in groups
        for derivation in group.get("DerivationImageSequence") or ()
        for image in derivation.get("SourceImageSequence") or ()
    )
    return {str(image.get("ReferencedSOPInstanceUID") or "") for image in images} - {""}


def read_segment_frames(study: StudyContents, segmentation: Segmentation) -> tuple[dict[int, str], list[SegmentFrame]]:
    """Read the names of the segments by number, and the frames.

    A pixel of a fractional segmentation is segmented from half of the maximum value. The background of a label map is
    not a segment.

    Raises:
        DvtError: if the object is damaged, or a frame has no position or no segment that the object describes.
    """
    label = f"{study.source}: {segmentation.file}"
    with named_damage(label):
        return _read_segment_frames(study, segmentation.file, label)


def _read_segment_frames(study: StudyContents, name: str, label: str) -> tuple[dict[int, str], list[SegmentFrame]]:
    header = read_tags(study, [name])[name]
    frames = read_frames(label, header)
    promised = _number(header.get("NumberOfFrames"), 1)
    if promised != len(frames):
        raise DamagedScan(
            f"{label}: NumberOfFrames is {promised}, but {plural(len(frames), 'frame has', 'frames have')} a position. "
            "Export it again."
        )
    with open_files(study.source) as files:
        pixels = read_pixels(label, dict(files)[name])
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if len(frames) != len(pixels) or any(frame.shape != pixels.shape[1:] for frame in frames):
        raise DamagedScan(f"{label}: has {len(frames)} frame positions for {len(pixels)} frames. Export it again.")
    kind = str(header.get("SegmentationType", "BINARY"))
    names = {_number(one.get("SegmentNumber"), -1): segment_label(one) for one in header.get("SegmentSequence") or ()}
    if kind == "LABELMAP":
        names.pop(BACKGROUND, None)
        made = [
            SegmentFrame(frame=frame, segment=None, pixels=values) for frame, values in zip(frames, pixels, strict=True)
        ]
        undescribed = set(np.unique(pixels).tolist()) - {BACKGROUND, *names}
    else:
        half = float(header.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0.5
        numbers = [_number(FrameTags(header, frame.index).get("ReferencedSegmentNumber"), None) for frame in frames]
        if None in numbers:
            faulty = frames[numbers.index(None)].name
            raise DamagedScan(f"{study.source}: {faulty}: frame without a segment number. Export it again.")
        made = [
            SegmentFrame(frame=frame, segment=number, pixels=values >= half)
            for frame, number, values in zip(frames, numbers, pixels, strict=True)
        ]
        undescribed = {number for number in numbers if number is not None} - set(names)
    if undescribed:
        raise DamagedScan(
            f"{label}: has pixels of segment {min(undescribed)}, but describes only the segments "
            f"{shorten_list([str(number) for number in names]) or '(none)'}. Export it again."
        )
    return names, made


def _number(value: Any, default: T) -> int | T:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def read_algorithm(path: str | Path) -> tuple[str, set[str]]:
    """Read the manufacturer (0008,0070) and the algorithm types (0062,0008) of a segmentation object.

    Returns:
        Both empty for any other file.
    """
    require_pydicom()
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Manufacturer", "SegmentSequence"])
        types = {str(one.get("SegmentAlgorithmType") or "") for one in header.get("SegmentSequence") or ()}
    except Exception:  # any other file
        return "", set()
    return str(header.get("Manufacturer") or ""), types
