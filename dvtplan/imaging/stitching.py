"""Stitch overlapping table stations to one volume, and resample masks back to each station."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from dvtplan.core.errors import DvtError
from dvtplan.imaging.geometry import Grid, anatomical_axes

SIGNAL = 0.1
"""Share of an overlap's 99th percentile above which a voxel counts as signal, for the comparison of gains."""
ANGLE_DEG = 30.0
"""Largest angle between stations of one leg."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitched:
    """One volume stitched from several stations."""

    image: np.ndarray
    """float32, shape ``grid.shape``; 0 outside all stations."""
    grid: Grid
    order: tuple[int, ...]
    """Indices of the input stations from head to foot."""
    seams_mm: tuple[float, ...]
    """LPS z of the middle of each overlap, from head to foot."""
    gains: tuple[float, ...]
    """Factor on each station, from head to foot; the middle station has 1."""


def stitch(stations: Sequence[tuple[np.ndarray, Grid]], names: Sequence[str]) -> Stitched:
    """Stitch stations on the grid of the middle station, extended to cover all.

    The gains of neighbours are matched by the median ratio of their signals in the overlap. Across the overlap
    they fade into each other. Stations may be rotated and shifted. They are interpolated linearly, unless their voxels
    coincide.

    Args:
        stations: arrays in file order with their grids, in any order.
        names: their names, for messages.

    Raises:
        DvtError: for fewer than two stations, neighbours without overlap, or stations in different planes.
    """
    if len(stations) < 2:
        raise DvtError(f"{', '.join(names)}: found one station, expected two or more. Add the others.")
    order = sorted(range(len(stations)), key=lambda k: -_centre_mm(stations[k][1])[2])
    arrays, grids = zip(*(stations[k] for k in order), strict=True)
    titles = [names[k] for k in order]
    middle = grids[len(grids) // 2]
    axis = [name for name, _ in anatomical_axes(middle)].index("SI")
    _require_one_plane(titles, grids, middle)
    whole = _covering(middle, grids)
    resampled = [_onto(array, grid, whole) for array, grid in zip(arrays, grids, strict=True)]
    seams, ratios = [], []
    for (a, in_a), (b, in_b), pair in zip(resampled, resampled[1:], pairwise(titles), strict=False):
        both = in_a & in_b
        if not both.any():
            raise DvtError(f"{pair[0]}, {pair[1]}: do not overlap. Choose stations that overlap.")
        rows = np.flatnonzero(both.any(axis=tuple(k for k in range(3) if k != axis)))
        point = np.zeros(3)
        point[axis] = rows.mean()
        seams.append(float(whole.position_mm(point)[2]))
        ratios.append(_gain(a[both], b[both]))
    gains = np.cumprod([1.0, *ratios])
    gains /= gains[len(gains) // 2]
    return Stitched(
        image=_blend(resampled, gains, axis),
        grid=whole,
        order=tuple(order),
        seams_mm=tuple(seams),
        gains=tuple(float(g) for g in gains),
    )


def _require_one_plane(titles: Sequence[str], grids: Sequence[Grid], middle: Grid) -> None:
    for title, grid in zip(titles, grids, strict=True):
        cosines = np.abs(np.sum(np.multiply(grid.direction, middle.direction), axis=1))
        angle_deg = np.degrees(np.arccos(np.clip(cosines, 0, 1))).max()
        if angle_deg > ANGLE_DEG:
            raise DvtError(
                f"{title}: is rotated by {angle_deg:.0f} degrees against the others. Choose stations of one plane."
            )


def _blend(resampled: Sequence[tuple[np.ndarray, np.ndarray]], gains: np.ndarray, axis: int) -> np.ndarray:
    """Average the stations with weights that fade along an axis; 0 outside all stations."""
    total, weight = (np.zeros(resampled[0][0].shape, np.float32) for _ in range(2))
    for (array, inside), gain in zip(resampled, gains, strict=True):
        share = _fade(inside, axis)
        total += share * array * np.float32(gain)
        weight += share
    return np.divide(total, weight, out=total, where=weight > 0)


def to_station(mask: np.ndarray, grid: Grid, station: Grid) -> np.ndarray:
    """Resample a mask from the grid of the stitched volume to that of a station, by nearest neighbour.

    Args:
        mask: shape ``grid.shape``.
        grid: of the stitched volume.
        station: the target grid.
    """
    matrix, offset = _index_map(station, grid)
    return ndimage.affine_transform(mask, matrix, offset, station.shape, order=0, mode="constant", cval=0)


def _centre_mm(grid: Grid) -> np.ndarray:
    return grid.position_mm((np.array(grid.shape) - 1) / 2)


def _covering(middle: Grid, grids: Sequence[Grid]) -> Grid:
    """Extend the grid of the middle station by whole voxels until it covers all stations."""
    corners = np.concatenate([grid.corners_mm() for grid in grids])
    indices = middle.index_of(corners)
    low, high = np.floor(indices.min(axis=0) + 1e-3), np.ceil(indices.max(axis=0) - 1e-3)
    return middle.window(low, tuple(int(n) for n in high - low + 1))


def _index_map(source: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix and offset from indices of one grid to indices of another."""
    offset = target.index_of(np.asarray(source.origin_mm))
    matrix = (source.steps_mm @ np.linalg.inv(target.steps_mm)).T
    # Voxels that coincide except for rounding must not be interpolated.
    rounded = np.round(offset)
    if np.allclose(matrix, np.round(matrix), atol=1e-6) and np.allclose(offset, rounded, atol=1e-3):
        return np.round(matrix), rounded
    return matrix, offset


def _onto(array: np.ndarray, grid: Grid, whole: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Resample a station to the grid of the whole.

    Returns:
        The image, float32, and where the station reaches, bool.
    """
    matrix, offset = _index_map(whole, grid)
    image = ndimage.affine_transform(array.astype(np.float32), matrix, offset, whole.shape, order=1, mode="constant")
    inside = ndimage.affine_transform(
        np.ones(array.shape, np.uint8), matrix, offset, whole.shape, order=0, mode="constant", cval=0
    )
    return image, inside.astype(bool)


def _gain(a: np.ndarray, b: np.ndarray) -> float:
    """Return the factor that makes the second as bright as the first, from the voxels with signal in both."""
    signal = (a > SIGNAL * np.percentile(a, 99)) & (b > SIGNAL * np.percentile(b, 99))
    return float(np.median(a[signal] / b[signal])) if signal.any() else 1.0


def _fade(inside: np.ndarray, axis: int) -> np.ndarray:
    """Return weights that fall linearly to a station's ends along an axis; 0 outside."""
    rows = np.flatnonzero(inside.any(axis=tuple(k for k in range(3) if k != axis)))
    index = np.arange(inside.shape[axis])
    ramp = np.minimum(index - rows[0] + 1, rows[-1] - index + 1).clip(0).astype(np.float32)
    return inside * ramp.reshape([-1 if k == axis else 1 for k in range(3)])
