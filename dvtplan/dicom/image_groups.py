"""Divide the images of a series into groups that may be volumes: by plane, by place, by their tags, and at gaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.dicom.frame import Frame
from dvtplan.dicom.slice_grid import is_even

Group = tuple[str, list[Frame]]
"""What distinguishes the images, and the images."""

SAME_POSITION_MM = 1e-3
"""Images closer than this along their normal have the same position."""
SAME_DIRECTION = 1e-3
"""Images whose unit vectors differ by less than this have the same orientation. The grid is checked more strictly."""
SAME_SPACING = 1e-3
"""Images whose pixel sizes differ by less than this fraction have the same."""
SAME_VALUE = 5e-3
"""Echo times and b-values that differ by less than this fraction are the same."""
SAME_COLUMN_MM = 1.0
"""Images of one volume lie behind each other, at most this far beside the next. The grid is checked more strictly."""
BETWEEN_STACKS = 5
"""Two stacks of a series, as of both legs, are at least this many slices apart."""
MIN_SLICES = 3
"""Images in a volume at least; fewer are a localizer or a screenshot."""

SPLIT_KEYS: tuple[tuple[str, Callable[[Frame], str | float | None], bool], ...] = (
    ("stack", lambda f: f.stack, True),
    ("image type", lambda f: f.image_type, True),
    ("echo time", lambda f: f.echo_ms, True),
    ("b-value", lambda f: f.b_value, True),
    ("inversion time", lambda f: f.inversion_ms, False),
    ("flip angle", lambda f: f.flip_degrees, False),
    ("repetition time", lambda f: f.repetition_ms, False),
    ("time point", lambda f: f.time_point, False),
    ("acquisition", lambda f: f.acquisition, False),
    ("trigger time", lambda f: f.trigger_ms, False),
    ("acquisition time", lambda f: f.acquisition_time, False),
)
"""Properties that distinguish volumes, in the order in which they are tried: name, value, and whether it is the same
in all images of a volume. The others split only images that have the same position, or uneven distances."""


def by_plane(frames: Iterable[Frame]) -> list[Group]:
    """Group images by matrix, orientation and pixel size, each with a tolerance, in an order of their own."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if _same_plane(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    groups.sort(key=lambda group: (group[0].plane, group[0].shape, group[0].spacing_mm, group[0].along_row))
    return [(f"{group[0].plane} {group[0].matrix}", group) for group in groups]


def _same_plane(a: Frame, b: Frame) -> bool:
    return (
        a.shape == b.shape
        and all(
            abs(x - y) < SAME_DIRECTION
            for x, y in zip((*a.along_row, *a.along_column), (*b.along_row, *b.along_column), strict=True)
        )
        and all(abs(x - y) < SAME_SPACING * x for x, y in zip(a.spacing_mm, b.spacing_mm, strict=True))
    )


def by_place(frames: list[Frame]) -> list[Group]:
    """Group images of one plane that lie behind each other, as those of a table station.

    Returns:
        One group if any other would not be a volume.
    """
    axes = np.array([frames[0].along_row, frames[0].along_column]).T
    beside_mm = np.array([frame.position_mm for frame in frames]) @ axes
    groups = [np.arange(len(frames))]
    for axis in (0, 1, 0, 1):
        groups = [part for group in groups for part in _split_at(group, beside_mm[:, axis], SAME_COLUMN_MM)]
    parts = [[frames[k] for k in sorted(group)] for group in groups]
    if len(parts) == 1 or any(_distinct_positions(part) < MIN_SLICES for part in parts):
        return [("", frames)]
    return _with_places(parts)


def _split_at(group: np.ndarray, values: np.ndarray, gap: float) -> list[np.ndarray]:
    """Split indices where their sorted values have a gap."""
    ordered = group[np.argsort(values[group], kind="stable")]
    return list(np.split(ordered, np.flatnonzero(np.diff(values[ordered]) > gap) + 1))


def _with_places(parts: Sequence[list[Frame]]) -> list[Group]:
    """Name groups of images by the axis along which their places differ most, from the head, the right or the front."""
    centres = np.array([np.mean([frame.corners_mm().mean(axis=0) for frame in part], axis=0) for part in parts])
    axis = int(np.ptp(centres, axis=0).argmax())
    order = np.argsort(centres[:, axis] * (-1 if axis == 2 else 1), kind="stable")
    return [(f"centre at {'xyz'[axis]} {centres[k, axis]:.0f} mm", parts[k]) for k in order]


def at_gaps(frames: list[Frame], series: Sequence[Frame]) -> list[Group]:
    """Group the images of one volume, or of several stacks behind each other, as of both legs.

    Args:
        frames: in any order, no two at one position.
        series: all images of the series. A gap is a gap between stacks only if none of their numbers is missing.

    Returns:
        One group if there is no such gap, or images may be missing in it.
    """
    ordered = in_order(frames)
    places_mm = np.array([frame.along_normal_mm for frame in ordered])
    gap_mm = BETWEEN_STACKS * float(np.median(np.diff(places_mm)))
    parts = [[ordered[k] for k in part] for part in _split_at(np.arange(len(ordered)), places_mm, gap_mm)]
    if len(parts) == 1 or min(map(len, parts)) < MIN_SLICES or not _is_complete(series):
        return [("", frames)]
    return _with_places(parts)


def _is_complete(series: Sequence[Frame]) -> bool:
    """Return whether the images are numbered without a gap, or are all the frames of a file."""
    numbers = [frame.number for frame in series if frame.frames_in_file == 1]
    if any(number is None for number in numbers):
        return False
    known = {number for number in numbers if number is not None}
    return len(known) == len(numbers) and (not known or max(known) - min(known) + 1 == len(known))


def by_tags(frames: list[Frame], name: str) -> list[Group]:
    """Group images so that no volume has two images with the same position, or images of two stations.

    Raises:
        DvtError: if no property distinguishes images with the same position.
    """
    used: list[str] = []
    labels: list[tuple[object, ...]] = [()] * len(frames)
    groups: dict[tuple[object, ...], list[Frame]] = {(): frames}
    for word, value_of, is_constant in SPLIT_KEYS:
        if not is_constant and not any(map(_is_ambiguous, groups.values())):
            break
        values = _classes([value_of(frame) for frame in frames])
        if len(set(values)) == 1:
            continue
        finer = [(*label, value) for label, value in zip(labels, values, strict=True)]
        parts: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
        for label, frame in zip(finer, frames, strict=True):
            parts[label].append(frame)
        if max(map(len, parts.values())) < MIN_SLICES:
            continue  # it differs in nearly every image, so it is not a property of a volume
        labels, groups = finer, parts
        used.append(word)
    for group in groups.values():
        if _is_ambiguous(group):
            raise DvtError(_same_position(group, name))
    titles = {key: ", ".join(map(_shown, used, key)) for key in groups}
    ordered = sorted(groups, key=lambda key: [_sort_key(value) for value in key])
    return [part for key in ordered for part in _stations(titles[key], groups[key])]


def _stations(title: str, frames: list[Frame]) -> list[Group]:
    """Divide images with uneven distances by the first property that makes all parts even.

    They are table stations behind each other that overlap or leave a gap. Parts that lie between each other are one
    volume, acquired in several passes.
    """
    if len(frames) < 2 * MIN_SLICES or is_even(_places_mm(frames)):
        return [(title, frames)]
    for word, value_of, _ in SPLIT_KEYS:
        parts: dict[str | float, list[Frame]] = defaultdict(list)
        for value, frame in zip(_classes([value_of(frame) for frame in frames]), frames, strict=True):
            parts[value].append(frame)
        if len(parts) == 1 or min(map(len, parts.values())) < MIN_SLICES:
            continue
        places_mm = sorted((_places_mm(part) for part in parts.values()), key=lambda places: float(places[0]))
        lie_apart = all(
            before[-1] - after[0] < (min(np.ptp(before), np.ptp(after))) / 2 for before, after in pairwise(places_mm)
        )
        if lie_apart and all(map(is_even, places_mm)):
            keys = sorted(parts, key=_sort_key)
            return [(", ".join(filter(None, (title, _shown(word, key)))), parts[key]) for key in keys]
    return [(title, frames)]


def _places_mm(frames: Iterable[Frame]) -> np.ndarray:
    return np.array([frame.along_normal_mm for frame in in_order(frames)])


def _shown(word: str, value: object) -> str:
    return f"{word} {round(value, 6) if isinstance(value, float) else value}"


def _sort_key(value: object) -> tuple[int, float, str]:
    if isinstance(value, float) or str(value).isdecimal():
        return (0, float(str(value)), "")
    return (1, 0.0, str(value))


def _classes(values: Sequence[str | float | None]) -> list[str | float]:
    """Return values with numbers that differ by rounding made equal; a missing value is the only other one."""
    classes: dict[str | float | None, str | float] = {value: value for value in values if isinstance(value, str)}
    label = before = -np.inf
    for value in sorted({value for value in values if isinstance(value, float)}):
        label = label if value - before <= SAME_VALUE * abs(value) else value
        classes[value], before = label, value
    others = {label for value, label in classes.items() if value != ""}
    classes[None] = classes[""] = others.pop() if len(others) == 1 else "unknown"
    return [classes[value] for value in values]


def _same_position(group: list[Frame], name: str) -> str:
    """Return the message about two images with the same position."""
    first, second = next(pair for pair in pairwise(in_order(group)) if abs(_apart_mm(*pair)) < SAME_POSITION_MM)
    beside_mm = float(np.linalg.norm(np.subtract(first.position_mm, second.position_mm)))
    if beside_mm > SAME_COLUMN_MM:
        return (
            f"{name}: {first.name} and {second.name} lie in one plane, {beside_mm:.4g} mm apart (first pixels at "
            f"{_place(first)} and {_place(second)} mm), and the images do not divide into volumes. Export each station "
            "or stack as a series."
        )
    return (
        f"{name}: several images have the same position, and no tag distinguishes them ({first.name} and "
        f"{second.name}, both at {_place(first)} mm). Remove the images that do not belong to the series, or export it "
        "again."
    )


def _place(frame: Frame) -> str:
    return "(" + ", ".join(f"{mm:.6g}" for mm in frame.position_mm) + ")"


def _apart_mm(a: Frame, b: Frame) -> float:
    return b.along_normal_mm - a.along_normal_mm


def _is_ambiguous(frames: Sequence[Frame]) -> bool:
    """Return whether enough images for a volume include two with the same position."""
    return len(frames) >= MIN_SLICES and _distinct_positions(frames) < len(frames)


def _distinct_positions(frames: Iterable[Frame]) -> int:
    return 1 + int((np.diff(_places_mm(frames)) >= SAME_POSITION_MM).sum())


def in_order(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    """Return images in order along their normal."""
    return tuple(sorted(frames, key=lambda frame: frame.along_normal_mm))
