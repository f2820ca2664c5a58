"""Single images with their places in the patient, into volumes; what would be a false volume is named or divided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.imaging.geometry import Grid

SAME_PLACE_MM = 1e-3
"""Two images nearer than this, along their normal, are of one place."""
UNEVEN = 0.02
"""How much distances between neighbours may differ, as a share of the usual one. Scanners round positions."""
ROUNDING_MM = 0.02
"""And how much besides."""
MINIMUM = 3
"""Images that make a volume; fewer are a localizer or a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One image of a series and all that decides where it belongs. Positions are LPS, in mm."""

    file: str
    """Name within the folder or archive."""
    index: int = 0
    """Which frame of that file."""
    uid: str = ""
    """Of the image object; a copy of a file has the same."""
    shape: tuple[int, int]
    """Rows, columns."""
    position_mm: tuple[float, float, float]
    """Of the centre of the first pixel."""
    along_row: tuple[float, float, float]
    """Unit vector from one column to the next."""
    along_column: tuple[float, float, float]
    """Unit vector from one row to the next."""
    spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    slope: float = 1.0
    intercept: float = 0.0
    kind: str = ""
    """Magnitude or phase, original or derived: DICOM's ImageType."""
    stack: str = ""
    echo_ms: float | None = None
    b_value: float | None = None
    time_point: str = ""
    acquisition: str = ""
    trigger_ms: float | None = None
    clock: str = ""

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the image, by the right hand from row to column."""
        across = np.cross(self.along_row, self.along_column)
        return across / np.linalg.norm(across)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.file}, frame {self.index + 1}" if self.index else self.file


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Images that make one volume, in order along their normal."""

    frames: tuple[Frame, ...]
    grid: Grid
    """Axes: image, row, column."""
    title: str
    """What sets it apart from other stacks of its series, '' where it is the only one."""
    copies: int = 0
    """Files that were there twice."""


SPLIT_KEYS: tuple[tuple[str, Callable[[Frame], object]], ...] = (
    ("stack", lambda f: f.stack),
    ("kind", lambda f: f.kind),
    ("echo time", lambda f: f.echo_ms),
    ("b-value", lambda f: f.b_value),
    ("time point", lambda f: f.time_point),
    ("acquisition", lambda f: f.acquisition),
    ("trigger time", lambda f: f.trigger_ms),
    ("time", lambda f: f.clock),
)
"""What may tell images of one place apart, in the order in which it is asked."""


def sort_into_volumes(frames: Sequence[Frame], name: str) -> list[Stack]:
    """Sort the images of a series into volumes.

    Images of other orientation, matrix or pixel size are other volumes. Where several images lie at
    one place, the first property that tells them apart divides the series.

    Args:
        frames: in any order.
        name: of the series, for messages.

    Returns:
        One stack, or several with titles; those of fewer than ``MINIMUM`` images are left out.

    Raises:
        DvtError: for a gap, uneven distances, images shifted against each other, or several images of
            one place that nothing tells apart.
    """
    kept = list({(f.uid or f.file, f.index): f for f in reversed(frames)}.values())[::-1]
    groups = [(words, part) for words, part in _divided(kept) if len(part) >= MINIMUM]
    found, faults = [], []
    for words, part in groups:
        try:
            for more, stack in _split_by_key(part, name):
                title = ", ".join(filter(None, (words if len(groups) > 1 else "", more)))
                ordered = _in_order(stack)
                found.append(
                    Stack(frames=ordered, grid=_grid(ordered, name), title=title, copies=len(frames) - len(kept))
                )
        except DvtError as error:
            faults.append(error)
    if faults and not found:
        raise faults[0]
    return found


def _divided(frames: Iterable[Frame]) -> list[tuple[str, list[Frame]]]:
    """By matrix, orientation and pixel size, with words for each part."""
    groups: dict[object, list[Frame]] = defaultdict(list)
    for frame in frames:
        directions = np.round((*frame.along_row, *frame.along_column), 3) + 0.0
        groups[frame.shape, tuple(directions), tuple(np.round(frame.spacing_mm, 4))].append(frame)
    return [(_plane(part[0]), part) for part in groups.values()]


def _plane(frame: Frame) -> str:
    plane = ("sagittal", "coronal", "axial")[int(np.abs(frame.normal).argmax())]
    return f"{plane} {frame.shape[0]}x{frame.shape[1]}"


def _split_by_key(frames: list[Frame], name: str) -> list[tuple[str, list[Frame]]]:
    """Parts without two images of one place, each with what sets it apart."""
    if not _twice(frames):
        return [("", frames)]
    used: list[tuple[str, Callable[[Frame], object]]] = []
    for what, of in SPLIT_KEYS:
        if len({of(frame) for frame in frames}) == 1:
            continue
        used.append((what, of))
        groups: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[tuple(of(frame) for _, of in used)].append(frame)
        if max(map(len, groups.values())) < MINIMUM:
            used.pop()  # nearly every image has its own value: that is no volume's property
        elif not any(map(_twice, groups.values())):
            return [
                (", ".join(f"{word} {value}" for (word, _), value in zip(used, key, strict=True)), part)
                for key, part in sorted(groups.items(), key=lambda item: str(item[0]))
                if len(part) >= MINIMUM
            ]
    first, second = next(pair for pair in _neighbours(frames) if _apart(*pair) < SAME_PLACE_MM)
    raise DvtError(
        f"{name}: several images lie at one place, and nothing tells them apart ({first.name} and {second.name}). "
        "Remove what does not belong, or export the series again."
    )


def _along(frame: Frame) -> float:
    return float(frame.normal @ frame.position_mm)


def _apart(a: Frame, b: Frame) -> float:
    return abs(_along(a) - _along(b))


def _neighbours(frames: Iterable[Frame]) -> list[tuple[Frame, Frame]]:
    return list(pairwise(_in_order(frames)))


def _twice(frames: Iterable[Frame]) -> bool:
    """Whether two images lie at one place."""
    return any(_apart(a, b) < SAME_PLACE_MM for a, b in _neighbours(frames))


def _in_order(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    return tuple(sorted(frames, key=_along))


def _grid(frames: Sequence[Frame], name: str) -> Grid:
    """Where a volume lies, from images in order.

    Raises:
        DvtError: where they do not lie as the slices of one volume do.
    """
    first, normal = frames[0], frames[0].normal
    places = np.array([_along(frame) for frame in frames])
    steps = np.diff(places)
    usual = float(np.median(steps))
    allowed = UNEVEN * usual + ROUNDING_MM
    worst = int(np.abs(steps - usual).argmax())
    if abs(steps[worst] - usual) > allowed:
        between = f"between {frames[worst].name} and {frames[worst + 1].name}"
        if steps[worst] > 1.5 * usual:
            lacking = round(float(steps[worst]) / usual) - 1
            raise DvtError(
                f"{name}: a gap of {steps[worst]:.4g} mm {between}, where slices lie {usual:.4g} mm apart: "
                f"{plural(lacking, 'slice')} missing. Export the series again, whole."
            )
        raise DvtError(
            f"{name}: slices lie unevenly, {usual:.4g} mm apart and {steps[worst]:.4g} mm {between}. "
            "Export the series again, or resample it."
        )
    positions = np.array([frame.position_mm for frame in frames])
    sideways = positions - positions[0] - np.outer(places - places[0], normal)
    drift = np.linalg.norm(sideways, axis=1)
    if drift.max() > allowed:
        raise DvtError(
            f"{name}: slices are shifted against each other, by {drift.max():.3g} mm in "
            f"{frames[int(drift.argmax())].name}, as with a tilted gantry. Resample it onto axes at right angles."
        )
    across, down = np.asarray(first.along_row), np.asarray(first.along_column)
    down = down - across * (across @ down)  # at right angles to the last digit
    down /= np.linalg.norm(down)
    return Grid(
        shape=(len(frames), *first.shape),
        spacing_mm=(float(places[-1] - places[0]) / (len(frames) - 1), *first.spacing_mm),
        origin_mm=first.position_mm,
        direction=tuple(tuple(float(c) for c in v) for v in (normal, down, across)),  # type: ignore[misc]
    )


def describe(stack: Stack) -> str:
    """A line on a volume: its matrix, spacing and plane."""
    grid = stack.grid
    size = "x".join(map(str, grid.shape))
    spacing = "x".join(f"{mm:.3g}" for mm in grid.spacing_mm)
    return f"{_plane(stack.frames[0]).partition(' ')[0]}, {size}, {spacing} mm"
