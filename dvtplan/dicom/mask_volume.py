"""Read the mask of a series from a volume file: values by the names in its header, voxels by their positions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural, shorten_list
from dvtplan.dicom.slice_grid import POSITION_TOLERANCE_MM
from dvtplan.imaging import array_ops, volume_checks, volume_io
from dvtplan.imaging.geometry import Grid, Reorientation, distance_mm, reorientation_between, same_grid
from dvtplan.imaging.value_names import (
    NamedValue,
    ValueNames,
    labels_by_name,
    read_label_descriptions,
    read_value_names,
)

NAMED_BY_OPTION = (
    "the labels of this import are",
    "Name every value with `label_names` when the data set is made, or fix the mask.",
)
"""Where the labels of an import come from, and what to do about other values."""


def read_mask_volume(path: Path, grid: Grid, labels: dict[str, int], series: str) -> np.ndarray:
    """Read a mask onto the grid of a series. Nothing is resampled.

    If the header names the values, the names count and not the numbers. A segmentation of 3D Slicer may have several
    layers, and may be cropped.

    Args:
        path: the file.
        grid: of the series.
        labels: name -> value.
        series: name of the series, for messages.

    Returns:
        uint8 with the shape of the grid.

    Raises:
        DvtError: if the mask lies on other voxels, has unknown labels, or its segments overlap.
    """
    names = read_value_names(path)
    if names.is_segmentation:
        layers, mask_grid = volume_io.read_layers(path)
        return _place(path, _merge(path, layers, names, labels), mask_grid, grid, names, series)
    array, mask_grid = volume_io.read(path)
    turn = reorientation_between(mask_grid, grid, POSITION_TOLERANCE_MM)
    if turn is None:
        raise DvtError(grid_mismatch(path, mask_grid, series, grid) + NOT_RESAMPLED)
    if not names.values:
        _require_described_values(path, array, labels)
    array = _renumber(path, array, names, labels)
    unknown = [*volume_checks.label_faults(path, array, labels, NAMED_BY_OPTION)]
    if unknown:
        raise DvtError(unknown[0])
    return np.ascontiguousarray(turn.apply(array).astype(np.uint8))


NOT_RESAMPLED = " The import does not resample: draw or export the mask on the grid of the series."


def grid_mismatch(name: Path, grid: Grid, series: str, expected: Grid) -> str:
    """Return the beginning of a message about a volume that does not lie on the voxels of a series."""
    distance = distance_mm(grid, expected)
    far = f", up to {distance:.3g} mm away (tolerance {POSITION_TOLERANCE_MM:g} mm)" if np.isfinite(distance) else ""
    return (
        f"{name}: has {'x'.join(map(str, grid.shape))} voxels that are not those of series {series}, "
        f"{'x'.join(map(str, expected.shape))}{far}."
    )


# --- values ---------------------------------------------------------------------------------------


def _renumber(path: Path, array: np.ndarray, names: ValueNames, labels: Mapping[str, int]) -> np.ndarray:
    """Return a mask with the values of its labels, found by the names in its header.

    A text that names neither every value nor any label is not a list of names: the numbers count.
    """
    present = set(array_ops.unique_values(array).tolist()) - {0}
    unnamed = present - {one.value for one in names.values}
    known = labels_by_name(names.values, labels)
    if unnamed:
        if (names.is_cut and not known) or any(one.value != value for one, value in known.items()):
            raise DvtError(
                f"{path}: its header does not name the value {min(unnamed):g}, and gives other values other names than "
                "the labels. Renumber the mask, or fix its header."
            )
        return array
    values = _values(path, names.values, {(0, value) for value in present}, labels)
    if all(one.value == value for one, value in values.items()):
        return array
    mask = np.zeros(array.shape, np.uint8)
    for one, value in values.items():
        mask[array == one.value] = value
    return mask


def _require_described_values(path: Path, array: np.ndarray, labels: Mapping[str, int]) -> None:
    """Refuse a mask with a label description of ITK-SNAP next to it that gives its values the names of other labels."""
    named = read_label_descriptions(path)
    wrong = [one for one, value in labels_by_name(named, labels).items() if value != one.value]
    if any((array == one.value).any() for one in wrong):
        found = shorten_list([f"{one.value} {one.name}" for one in wrong])
        expected = shorten_list([f"{value} {name}" for name, value in labels.items()])
        raise DvtError(
            f"{path}: a label description of ITK-SNAP next to it names the values {found}, expected {expected}. "
            "Renumber the mask, or remove the description if it is of another mask."
        )


def _merge(path: Path, layers: np.ndarray, names: ValueNames, labels: Mapping[str, int]) -> np.ndarray:
    """Return one mask of the segments in the layers of a segmentation."""
    present = {
        (layer, value) for layer, array in enumerate(layers) for value in array_ops.unique_values(array).tolist()
    }
    described = {(one.layer, one.value) for one in names.values}
    undescribed = {value for layer, value in present if value and (layer, value) not in described}
    if undescribed:
        raise DvtError(f"{path}: has voxels of the value {min(undescribed):g}, which is not a segment. Save it again.")
    if (last := max(one.layer for one in names.values)) >= len(layers):
        raise DvtError(f"{path}: has {plural(len(layers), 'layer')}, but a segment in layer {last + 1}. Save it again.")
    mask = np.zeros(layers.shape[1:], np.uint8)
    overlapping = 0
    for one, value in _values(path, names.values, present, labels).items():
        segmented = layers[one.layer] == one.value
        overlapping += int((segmented & (mask != 0) & (mask != value)).sum())
        mask[segmented] = value
    if overlapping:
        raise DvtError(
            f"{path}: segments overlap in {plural(overlapping, 'voxel')}, expected one label per voxel. Remove the "
            "overlap."
        )
    return mask


def _values(
    path: Path, named: tuple[NamedValue, ...], present: set[tuple[int, float]], labels: Mapping[str, int]
) -> dict[NamedValue, int]:
    """Return the label's value of each named value that occurs.

    A single name is the single label, whatever it is called.

    Args:
        path: the file, for messages.
        named: the names of the header.
        present: (layer, value) of the voxels.
        labels: name -> value.

    Raises:
        DvtError: if one does not have the name of a label.
    """
    used = [one for one in named if (one.layer, one.value) in present]
    values = labels_by_name(used, labels)
    unknown = [one.name for one in used if one not in values]
    if unknown and len(labels) == len(named) == 1:
        ((label, value),) = labels.items()
        console.info(f"{path}: {unknown[0]} is imported as {label}.")
        return {used[0]: value}
    if unknown:
        raise DvtError(
            f"{path}: its header names its values {shorten_list([one.name for one in used])}, expected "
            f"{shorten_list(list(labels))}. Rename the segments, or give their names as `label_names`."
        )
    return values


# --- positions ------------------------------------------------------------------------------------


def _place(path: Path, mask: np.ndarray, grid: Grid, target: Grid, names: ValueNames, series: str) -> np.ndarray:
    """Copy a mask to the voxels of a series at its positions. It may be a part of them, or extend beyond them."""
    found = _window(grid, target)
    if found is None:
        raise DvtError(grid_mismatch(path, grid, series, target) + NOT_RESAMPLED)
    turn, start = found
    turned = np.ascontiguousarray(turn.apply(mask))
    before = _voxels_before(turn, start, turned.shape, target.shape)
    if any(names.offset) and turned.shape != target.shape and names.offset != before:
        raise DvtError(
            f"{path}: begins at voxel {_xyz(before)} of series {series}, but its header states {_xyz(names.offset)}. "
            "Save it with the geometry of the series."
        )
    low, high = np.maximum(start, 0), np.minimum(start + turned.shape, target.shape)
    inside = tuple(slice(a, max(a, b)) for a, b in zip(low - start, high - start, strict=True))
    outside = int(np.count_nonzero(turned)) - int(np.count_nonzero(turned[inside]))
    if outside:
        raise DvtError(
            f"{path}: has {plural(outside, 'segmented voxel')} outside series {series}. Save it with the geometry of "
            "the series."
        )
    whole = np.zeros(target.shape, np.uint8)
    if (high > low).all():
        whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = turned[inside]
    return whole


def _window(grid: Grid, target: Grid) -> tuple[Reorientation, np.ndarray] | None:
    """Return how to turn a grid to the axes of another, and the index there of its first voxel; None if its voxels are
    not voxels of the other, or of its continuation."""
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turn = Reorientation((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
            turned = turn.grid(grid)
            start = np.rint(target.index_of(np.asarray(turned.origin_mm))).astype(int)
            if same_grid(turned, target.window(start, turned.shape), POSITION_TOLERANCE_MM):
                return turn, start
    return None


def _voxels_before(
    turn: Reorientation, start: np.ndarray, shape: tuple[int, ...], target: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the number of voxels of the series before the first voxel of a file, along each axis of the file."""
    before = [0, 0, 0]
    for axis, (source, is_flipped) in enumerate(zip(turn.order, turn.flips, strict=True)):
        first = int(start[axis])
        before[source] = target[axis] - first - shape[axis] if is_flipped else first
    return tuple(before)


def _xyz(index: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(n) for n in reversed(index)) + ")"
