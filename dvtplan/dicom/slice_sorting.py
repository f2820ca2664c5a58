"""Sort single images into volumes by their position in the patient; split or refuse images that are not one volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural, shorten_list
from dvtplan.dicom import image_groups
from dvtplan.dicom.frame import Frame
from dvtplan.dicom.image_groups import MIN_SLICES, SAME_POSITION_MM
from dvtplan.dicom.slice_grid import grid_of
from dvtplan.imaging.geometry import Grid

NEARLY_PARALLEL = 0.995
"""Cosine between the normals of images that may belong to one volume (6 degrees)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Images of one volume, in order along their normal."""

    frames: tuple[Frame, ...]
    grid: Grid
    """Axes: image, row, column."""
    title: str
    """Difference from the other stacks of its series; empty if it is the only one."""
    letter: str = ""
    """a, b, ... if the series has several volumes. One that cannot be read has a letter too."""
    copies: tuple[tuple[Frame, Frame], ...] = ()
    """Images of the volume with a duplicate, and the duplicate, which is not used. Their pixels must be the same."""
    notes: tuple[str, ...] = ()
    """What the user should know: images of the series that are in no volume, or hints that images are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SortedSeries:
    """The volumes of a series. Each image is in one of them, or is named in a note or a fault."""

    stacks: tuple[Stack, ...]
    faults: tuple[str, ...] = ()
    """One line for each volume that cannot be read."""


def sort_into_volumes(frames: Sequence[Frame], name: str) -> SortedSeries:
    """Sort the images of a series into volumes.

    Images that differ in orientation, matrix, pixel size, image type, echo time or b-value belong to different
    volumes, and so do images that lie beside each other. If several images have the same position, the first property
    that differs splits the series.

    Args:
        frames: in any order.
        name: of the series, for messages.

    Returns:
        One stack, or several with titles. Groups of fewer than ``MIN_SLICES`` images are not a stack.

    Raises:
        DvtError: if no volume is left, because of a missing slice, uneven slice distances, images shifted or turned
            against each other, images with the same position and no property that differs, or one SOP instance UID at
            different positions.
    """
    distinct, copies = _without_copies(frames, name)
    volumes, left_out = _find_volumes(distinct, name)
    letters = [_letter(k) if len(volumes) > 1 else "" for k in range(len(volumes))]
    stacks: list[Stack] = []
    faults: list[str] = []
    for letter, (title, images) in zip(letters, volumes, strict=True):
        try:
            if isinstance(images, DvtError):
                raise images
            stack = _stack(images, title, letter, name)
            _require_no_continuation(stack, left_out, name)
            stacks.append(stack)
        except DvtError as error:
            faults.append(" ".join([str(error), *(f"Note: {note}." for note in _left_out_notes(left_out))]))
    if faults and not stacks:
        raise DvtError(faults[0])
    notes = [*_left_out_notes(left_out), *_declared_notes(distinct)]
    return SortedSeries(
        stacks=tuple(
            replace(stack, copies=_copies_of(stack, copies), notes=(*_stack_notes(stack, stacks), *notes))
            for stack in stacks
        ),
        faults=tuple(faults),
    )


def _find_volumes(frames: Sequence[Frame], name: str) -> tuple[list[tuple[str, list[Frame] | DvtError]], list[Frame]]:
    """Return title and images of each possible volume, or why they cannot be divided; and the images in none."""
    volumes: list[tuple[str, list[Frame] | DvtError]] = []
    left_out: list[Frame] = []
    planes = image_groups.by_plane(frames)
    several = sum(len(group) >= MIN_SLICES for _, group in planes) > 1
    for plane, group in planes:
        if len(group) < MIN_SLICES:
            left_out += group
            continue
        try:
            parts = _divide(group, frames, name)
        except DvtError as error:
            volumes.append((plane, error))
            continue
        for difference, part in parts:
            if len(part) < MIN_SLICES:
                left_out += part
            else:
                volumes.append((", ".join(filter(None, (plane if several else "", difference))), part))
    return volumes, left_out


def _letter(k: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    return (_letter(k // 26 - 1) if k >= 26 else "") + chr(ord("a") + k % 26)


def _stack(images: Iterable[Frame], title: str, letter: str, name: str) -> Stack:
    ordered = image_groups.in_order(images)
    _require_one_numbering(ordered, name)
    return Stack(frames=ordered, grid=grid_of(ordered, name), title=title, letter=letter)


def _divide(group: list[Frame], series: Sequence[Frame], name: str) -> list[image_groups.Group]:
    """Divide images of one plane into volumes by their places, their tags, and gaps."""
    parts = []
    for place, there in image_groups.by_place(group):
        for difference, part in image_groups.by_tags(there, name):
            stacks = image_groups.at_gaps(part, series) if len(part) >= MIN_SLICES else [("", part)]
            parts += [(", ".join(filter(None, (place, difference, gap))), images) for gap, images in stacks]
    return parts


def _without_copies(frames: Iterable[Frame], name: str) -> tuple[list[Frame], list[tuple[Frame, Frame]]]:
    """Return the images without duplicates, and each duplicate after the image that is used instead.

    Raises:
        DvtError: if two images have one SOP instance UID, but not the same position.
    """
    used: dict[tuple[str, int], Frame] = {}
    copies = []
    for frame in frames:
        first = used.setdefault((frame.uid or frame.file, frame.index), frame)
        if first is frame:
            continue
        apart_mm = float(np.linalg.norm(np.subtract(first.position_mm, frame.position_mm)))
        if apart_mm > SAME_POSITION_MM or len(image_groups.by_plane([first, frame])) > 1:
            raise DvtError(
                f"{name}: {first.name} and {frame.name} have the same SOPInstanceUID, but not the same position "
                f"({apart_mm:.4g} mm apart), matrix and orientation. Export the series again."
            )
        copies.append((first, frame))
    return list(used.values()), copies


def _copies_of(stack: Stack, copies: Iterable[tuple[Frame, Frame]]) -> tuple[tuple[Frame, Frame], ...]:
    used = {(frame.file, frame.index) for frame in stack.frames}
    return tuple(pair for pair in copies if (pair[0].file, pair[0].index) in used)


def _require_one_numbering(frames: Sequence[Frame], name: str) -> None:
    """Raise a DvtError if the images are numbered as two series.

    One number for all images is not a numbering. Frames of multi-frame files share the number of their file.
    """
    counts = Counter(frame.number for frame in frames if frame.number is not None and frame.frames_in_file == 1)
    repeated = [number for number, count in counts.items() if count > 1]
    if len(counts) > 1 and 2 * len(repeated) > len(counts):
        first, second = [frame for frame in frames if frame.number == repeated[0]][:2]
        raise DvtError(
            f"{name}: {first.name} and {second.name} have the same InstanceNumber {repeated[0]} at different "
            f"positions, and so do others: these are several series. Export each with its own SeriesInstanceUID."
        )


def _require_no_continuation(stack: Stack, left_out: Iterable[Frame], name: str) -> None:
    """Raise a DvtError if an image in no volume may be a slice of this one: its last, or one between the others.

    Between the others only an image of the same kind counts: a projection may lie anywhere.
    """
    first, step_mm = stack.frames[0], stack.grid.spacing_mm[0]
    for frame in left_out:
        if abs(float(first.normal @ frame.normal)) < NEARLY_PARALLEL:
            continue
        place = (float(first.normal @ frame.position_mm) - first.along_normal_mm) / step_mm
        beyond = max(-place, place - len(stack.frames) + 1)
        is_between = beyond < 0 and abs(place - round(place)) > 0.25 and _is_of_same_kind(first, frame)
        if is_between or 0.75 <= beyond <= MIN_SLICES - 0.75:
            where = "between its slices" if is_between else "where the volume continues"
            raise DvtError(
                f"{name}: {frame.name} lies {where}, but is not like its other images "
                f"({_differences(first, frame)}). Export the series again, or remove the file."
            )


def _is_of_same_kind(first: Frame, frame: Frame) -> bool:
    """Return whether two images differ in their geometry only."""
    keys = [value_of for _, value_of, is_constant in image_groups.SPLIT_KEYS if is_constant]
    return first.shape == frame.shape and all(value_of(first) == value_of(frame) for value_of in keys)


def _differences(first: Frame, frame: Frame) -> str:
    """Return how an image differs from the first of a volume."""
    cosines = np.sum([first.along_row, first.along_column] * np.array([frame.along_row, frame.along_column]), axis=1)
    angle = float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))
    candidates = [
        (f"{frame.matrix} pixels instead of {first.matrix}", frame.shape != first.shape),
        (
            f"pixels of {_spacing(frame)} instead of {_spacing(first)} mm",
            not np.allclose(frame.spacing_mm, first.spacing_mm, rtol=image_groups.SAME_SPACING),
        ),
        *(
            (f"{word} {value_of(frame) or 'missing'} instead of {value_of(first) or 'missing'}", True)
            for word, value_of, is_constant in image_groups.SPLIT_KEYS
            if is_constant and value_of(frame) != value_of(first)
        ),
        (f"turned by {angle:.3g} degrees", angle > 0.01),
    ]
    return ", ".join(text for text, differs in candidates if differs) or "it lies beside them"


def _spacing(frame: Frame) -> str:
    return "x".join(f"{mm:.6g}" for mm in frame.spacing_mm)


def _left_out_notes(left_out: Sequence[Frame]) -> list[str]:
    """Return a note that names the images in no volume."""
    if not left_out:
        return []
    names = shorten_list([f"{frame.name} ({frame.plane} {frame.matrix})" for frame in left_out])
    return [f"{plural(len(left_out), 'image')} of the series not part of a volume: {names}"]


def _declared_notes(series: Sequence[Frame]) -> list[str]:
    """Return a note if the series states that it had more images, or numbers are missing."""
    declared = max((frame.declared_images or 0 for frame in series), default=0)
    if declared > len(series):
        return [f"ImagesInAcquisition (0020,1002) is {declared}, but {plural(len(series), 'image')} found: check it"]
    numbers = {frame.number for frame in series if frame.number is not None and frame.frames_in_file == 1}
    if len(numbers) < len(series):
        return []
    last = max(numbers)
    # Images that are numbered on from those of another series may begin anywhere.
    start = 1 if last <= 2 * len(numbers) else min(numbers)
    missing = sorted({*range(start, last + 1)} - numbers) if last - start < 2 * len(numbers) else []
    if missing:
        listed = shorten_list([str(number) for number in missing])
        return [f"its images are numbered to {last}, without {listed}: check that none is missing"]
    return []


def _stack_notes(stack: Stack, stacks: Sequence[Stack]) -> list[str]:
    """Return a note if the volume has fewer slices than it states, or than another that lies in the same place."""
    count = len(stack.frames)
    declared = max(frame.declared_slices or 0 for frame in stack.frames)
    if declared > count:
        return [f"NumberOfSlices (0054,0081) is {declared}, but {plural(count, 'image')} found: check it"]
    longest = max((len(other.frames) for other in stacks if _is_alongside(stack, other)), default=0)
    if longest > count:
        return [f"has {plural(count, 'slice')}, another volume of the series in the same place has {longest}: check it"]
    return []


def _is_alongside(stack: Stack, other: Stack) -> bool:
    """Return whether another stack of the same plane and step has a slice in the same place."""
    first, others = stack.frames[0], [frame.position_mm for frame in other.frames]
    return (
        len(image_groups.by_plane([first, other.frames[0]])) == 1
        and abs(stack.grid.spacing_mm[0] - other.grid.spacing_mm[0])
        < image_groups.SAME_SPACING * stack.grid.spacing_mm[0]
        and float(np.linalg.norm(np.subtract(others, first.position_mm), axis=1).min()) < SAME_POSITION_MM
    )


def describe(stack: Stack) -> str:
    """Return plane, matrix and spacing of a volume in one line."""
    grid = stack.grid
    size = "x".join(map(str, grid.shape))
    spacing = "x".join(f"{mm:.3g}" for mm in grid.spacing_mm)
    return f"{stack.frames[0].plane}, {size}, {spacing} mm"
