"""Sort single images into volumes by their position in the patient; split or refuse images that are not one volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.imaging.geometry import Grid

SAME_POSITION_MM = 1e-3
"""Images closer than this along their normal have the same position."""
SPACING_TOLERANCE = 0.02
"""Allowed deviation of a slice distance, as a fraction of the median. Scanners round positions."""
POSITION_TOLERANCE_MM = 0.02
"""Allowed deviation of a position in mm, in addition."""
MIN_SLICES = 3
"""Images in a volume at least; fewer are a localizer or a screenshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One image of a series, with the properties that decide which volume it belongs to. Positions are LPS in mm."""

    file: str
    """Name within the folder or archive."""
    index: int = 0
    """Frame within the file, from 0."""
    uid: str = ""
    """SOP instance UID; copies of a file share it."""
    shape: tuple[int, int]
    """Rows, columns."""
    position_mm: tuple[float, float, float]
    """Centre of the first pixel."""
    along_row: tuple[float, float, float]
    """Unit vector from one column to the next."""
    along_column: tuple[float, float, float]
    """Unit vector from one row to the next."""
    spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    slope: float = 1.0
    intercept: float = 0.0
    image_type: str = ""
    """ImageType (0008,0008), such as magnitude or phase, original or derived."""
    stack: str = ""
    echo_ms: float | None = None
    b_value: float | None = None
    time_point: str = ""
    acquisition: str = ""
    trigger_ms: float | None = None
    acquisition_time: str = ""

    @property
    def normal(self) -> np.ndarray:
        """Return the unit vector ``along_row`` x ``along_column``."""
        across = np.cross(self.along_row, self.along_column)
        return across / np.linalg.norm(across)

    @property
    def name(self) -> str:
        """Return the name for messages."""
        return f"{self.file}, frame {self.index + 1}" if self.index else self.file


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Images of one volume, in order along their normal."""

    frames: tuple[Frame, ...]
    grid: Grid
    """Axes: image, row, column."""
    title: str
    """Difference from the other stacks of its series; empty if it is the only one."""
    copies: int = 0
    """Number of duplicate images that were ignored."""


SPLIT_KEYS: tuple[tuple[str, Callable[[Frame], object]], ...] = (
    ("stack", lambda f: f.stack),
    ("image type", lambda f: f.image_type),
    ("echo time", lambda f: f.echo_ms),
    ("b-value", lambda f: f.b_value),
    ("time point", lambda f: f.time_point),
    ("acquisition", lambda f: f.acquisition),
    ("trigger time", lambda f: f.trigger_ms),
    ("acquisition time", lambda f: f.acquisition_time),
)
"""Properties that split images with the same position into volumes, in the order in which they are tried."""


def sort_into_volumes(frames: Sequence[Frame], name: str) -> list[Stack]:
    """Sort the images of a series into volumes.

    Images that differ in orientation, matrix or pixel size belong to different volumes. If several images have the
    same position, the first property that differs splits the series.

    Args:
        frames: in any order.
        name: of the series, for messages.

    Returns:
        One stack, or several with titles. Stacks with fewer than ``MIN_SLICES`` images are omitted.

    Raises:
        DvtError: for a missing slice, uneven slice distances, slices shifted against each other, or images with the
            same position and no property that differs.
    """
    distinct = list({(f.uid or f.file, f.index): f for f in reversed(frames)}.values())[::-1]
    groups = [(plane, group) for plane, group in _split_by_plane(distinct) if len(group) >= MIN_SLICES]
    stacks, errors = [], []
    for plane, group in groups:
        try:
            for difference, part in _split_by_key(group, name):
                title = ", ".join(filter(None, (plane if len(groups) > 1 else "", difference)))
                ordered = _in_order(part)
                stacks.append(
                    Stack(frames=ordered, grid=_grid(ordered, name), title=title, copies=len(frames) - len(distinct))
                )
        except DvtError as error:
            errors.append(error)
    if errors and not stacks:
        raise errors[0]
    return stacks


def _split_by_plane(frames: Iterable[Frame]) -> list[tuple[str, list[Frame]]]:
    """Split images by matrix, orientation and pixel size; return the plane's name and the images of each part."""
    groups: dict[object, list[Frame]] = defaultdict(list)
    for frame in frames:
        directions = np.round((*frame.along_row, *frame.along_column), 3) + 0.0
        groups[frame.shape, tuple(directions), tuple(np.round(frame.spacing_mm, 4))].append(frame)
    return [(_plane(group[0]), group) for group in groups.values()]


def _plane(frame: Frame) -> str:
    plane = ("sagittal", "coronal", "axial")[int(np.abs(frame.normal).argmax())]
    return f"{plane} {frame.shape[0]}x{frame.shape[1]}"


def _split_by_key(frames: list[Frame], name: str) -> list[tuple[str, list[Frame]]]:
    """Split images so that no part has two images with the same position; return what differs, and the images.

    Raises:
        DvtError: if no property splits them.
    """
    if not _has_same_position(frames):
        return [("", frames)]
    used: list[tuple[str, Callable[[Frame], object]]] = []
    for word, value_of in SPLIT_KEYS:
        if len({value_of(frame) for frame in frames}) == 1:
            continue
        used.append((word, value_of))
        groups: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[tuple(value_of_used(frame) for _, value_of_used in used)].append(frame)
        if max(map(len, groups.values())) < MIN_SLICES:
            used.pop()  # it differs in nearly every image, so it is not a property of a volume
        elif not any(map(_has_same_position, groups.values())):
            return [
                (", ".join(f"{name_of} {value}" for (name_of, _), value in zip(used, key, strict=True)), group)
                for key, group in sorted(groups.items(), key=lambda item: str(item[0]))
                if len(group) >= MIN_SLICES
            ]
    first, second = next(pair for pair in _neighbours(frames) if _distance_mm(*pair) < SAME_POSITION_MM)
    raise DvtError(
        f"{name}: several images have the same position, and no tag distinguishes them "
        f"({first.name} and {second.name}). Remove the images that do not belong to the series, or export it again."
    )


def _along_normal_mm(frame: Frame) -> float:
    return float(frame.normal @ frame.position_mm)


def _distance_mm(a: Frame, b: Frame) -> float:
    return abs(_along_normal_mm(a) - _along_normal_mm(b))


def _neighbours(frames: Iterable[Frame]) -> list[tuple[Frame, Frame]]:
    return list(pairwise(_in_order(frames)))


def _has_same_position(frames: Iterable[Frame]) -> bool:
    """Return whether two of the images have the same position."""
    return any(_distance_mm(a, b) < SAME_POSITION_MM for a, b in _neighbours(frames))


def _in_order(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    return tuple(sorted(frames, key=_along_normal_mm))


def _grid(frames: Sequence[Frame], name: str) -> Grid:
    """Return the grid of a volume from its images in order.

    Raises:
        DvtError: if they do not lie like the slices of one volume.
    """
    first, normal = frames[0], frames[0].normal
    places_mm = np.array([_along_normal_mm(frame) for frame in frames])
    median_mm = float(np.median(np.diff(places_mm)))
    tolerance_mm = SPACING_TOLERANCE * median_mm + POSITION_TOLERANCE_MM
    _require_even_spacing(frames, places_mm, median_mm, tolerance_mm, name)
    positions = np.array([frame.position_mm for frame in frames])
    sideways = positions - positions[0] - np.outer(places_mm - places_mm[0], normal)
    shift_mm = np.linalg.norm(sideways, axis=1)
    if shift_mm.max() > tolerance_mm:
        raise DvtError(
            f"{name}: slices are shifted against each other, by {shift_mm.max():.3g} mm in "
            f"{frames[int(shift_mm.argmax())].name}, as with a tilted gantry. Resample it to perpendicular axes."
        )
    across, down = np.asarray(first.along_row), np.asarray(first.along_column)
    down = down - across * (across @ down)  # perpendicular to the last digit
    down /= np.linalg.norm(down)
    return Grid(
        shape=(len(frames), *first.shape),
        spacing_mm=(float(places_mm[-1] - places_mm[0]) / (len(frames) - 1), *first.spacing_mm),
        origin_mm=first.position_mm,
        direction=tuple(tuple(float(c) for c in v) for v in (normal, down, across)),  # type: ignore[misc]
    )


def _require_even_spacing(
    frames: Sequence[Frame], places_mm: np.ndarray, median_mm: float, tolerance_mm: float, name: str
) -> None:
    """Raise a DvtError if a slice is missing, or slice distances differ by more than the tolerance."""
    steps_mm = np.diff(places_mm)
    worst = int(np.abs(steps_mm - median_mm).argmax())
    if abs(steps_mm[worst] - median_mm) <= tolerance_mm:
        return
    between = f"between {frames[worst].name} and {frames[worst + 1].name}"
    if steps_mm[worst] > 1.5 * median_mm:
        missing = round(float(steps_mm[worst]) / median_mm) - 1
        raise DvtError(
            f"{name}: a gap of {steps_mm[worst]:.4g} mm {between}, expected a slice every {median_mm:.4g} mm: "
            f"{plural(missing, 'slice')} missing. Export the complete series again."
        )
    raise DvtError(
        f"{name}: slice distances are uneven, {steps_mm[worst]:.4g} mm {between} and {median_mm:.4g} mm elsewhere. "
        "Export the series again, or resample it."
    )


def describe(stack: Stack) -> str:
    """Return plane, matrix and spacing of a volume in one line."""
    grid = stack.grid
    size = "x".join(map(str, grid.shape))
    spacing = "x".join(f"{mm:.3g}" for mm in grid.spacing_mm)
    return f"{_plane(stack.frames[0]).partition(' ')[0]}, {size}, {spacing} mm"
