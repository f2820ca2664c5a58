"""Overlapping table stations into one volume, and what was found there back to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from dvtplan.core.errors import DvtError
from dvtplan.imaging.geometry import Grid, anatomical_axes

SIGNAL = 0.1
"""Share of an overlap's 99th percentile above which a voxel counts as signal, when gains are compared."""
ANGLE_DEG = 30.0
"""Stations that are turned further than this against each other are no stations of one leg."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitched:
    """One volume of several stations."""

    image: np.ndarray
    """float32, in the order of ``grid``; 0 where no station reaches."""
    grid: Grid
    order: tuple[int, ...]
    """Which station was given as which, from head to foot."""
    seams_mm: tuple[float, ...]
    """LPS z of the middle of each overlap, from head to foot."""
    gains: tuple[float, ...]
    """What each station, from head to foot, was multiplied with; the middle one by 1."""


def stitch(stations: Sequence[tuple[np.ndarray, Grid]], names: Sequence[str]) -> Stitched:
    """Put stations together on the grid of the middle one, extended to what all of them cover.

    Neighbours are brought to one gain, by the median ratio of what both show of their overlap, and
    fade into each other across it. Stations may be turned and shifted against each other; they are
    interpolated linearly, and where their voxels coincide nothing is interpolated at all.

    Args:
        stations: arrays in file order with their grids, in any order.
        names: of them, for messages.

    Raises:
        DvtError: for fewer than two, for neighbours without overlap, or for stations that lie in
            different planes.
    """
    if len(stations) < 2:
        raise DvtError(f"{', '.join(names)}: one station is no leg of several. Name two or more.")
    order = sorted(range(len(stations)), key=lambda k: -_centre_mm(stations[k][1])[2])
    arrays, grids = zip(*(stations[k] for k in order), strict=True)
    titles = [names[k] for k in order]
    middle = grids[len(grids) // 2]
    axis = [name for name, _ in anatomical_axes(middle)].index("SI")
    for title, grid in zip(titles, grids, strict=True):
        angle = np.degrees(
            np.arccos(np.clip(np.abs(np.sum(np.multiply(grid.direction, middle.direction), axis=1)), 0, 1))
        )
        if angle.max() > ANGLE_DEG:
            raise DvtError(
                f"{title}: is turned by {angle.max():.0f} degrees against the others. Name stations of one plane."
            )
    whole = _covering(middle, grids)
    there = [_onto(array, grid, whole) for array, grid in zip(arrays, grids, strict=True)]
    seams, ratios = [], []
    for (a, in_a), (b, in_b), pair in zip(there, there[1:], pairwise(titles), strict=False):
        both = in_a & in_b
        if not both.any():
            raise DvtError(f"{pair[0]}, {pair[1]}: have no part in common. Name stations that overlap.")
        rows = np.flatnonzero(both.any(axis=tuple(k for k in range(3) if k != axis)))
        point = np.zeros(3)
        point[axis] = rows.mean()
        seams.append(float(whole.position_mm(point)[2]))
        ratios.append(_gain(a[both], b[both]))
    gains = np.cumprod([1.0, *ratios])
    gains /= gains[len(gains) // 2]
    total, weight = np.zeros(whole.shape, np.float32), np.zeros(whole.shape, np.float32)
    for (array, inside), gain in zip(there, gains, strict=True):
        share = _fade(inside, axis)
        total += share * array * np.float32(gain)
        weight += share
    image = np.divide(total, weight, out=total, where=weight > 0)
    return Stitched(
        image=image, grid=whole, order=tuple(order), seams_mm=tuple(seams), gains=tuple(float(g) for g in gains)
    )


def to_station(mask: np.ndarray, grid: Grid, station: Grid) -> np.ndarray:
    """A mask on the grid of a composed volume, on that of a station: each voxel takes the nearest value."""
    matrix, offset = _map(station, grid)
    return ndimage.affine_transform(mask, matrix, offset, station.shape, order=0, mode="constant", cval=0)


def _centre_mm(grid: Grid) -> np.ndarray:
    return grid.position_mm((np.array(grid.shape) - 1) / 2)


def _covering(middle: Grid, grids: Sequence[Grid]) -> Grid:
    """The grid of the middle station, extended by whole voxels until it covers all."""
    corners = np.concatenate([grid.corners_mm() for grid in grids])
    places = middle.index_of(corners)
    low, high = np.floor(places.min(axis=0) + 1e-3), np.ceil(places.max(axis=0) - 1e-3)
    return middle.window(low, tuple(int(n) for n in high - low + 1))


def _map(of: Grid, to: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset that take indices of one grid to indices of another."""
    offset = to.index_of(np.asarray(of.origin_mm))
    matrix = (of.steps_mm @ np.linalg.inv(to.steps_mm)).T
    # Voxels that coincide but for the last digits are not to be interpolated.
    rounded = np.round(offset)
    if np.allclose(matrix, np.round(matrix), atol=1e-6) and np.allclose(offset, rounded, atol=1e-3):
        return np.round(matrix), rounded
    return matrix, offset


def _onto(array: np.ndarray, grid: Grid, whole: Grid) -> tuple[np.ndarray, np.ndarray]:
    """A station on the grid of the whole, float32, and where it reaches."""
    matrix, offset = _map(whole, grid)
    image = ndimage.affine_transform(array.astype(np.float32), matrix, offset, whole.shape, order=1, mode="constant")
    inside = ndimage.affine_transform(
        np.ones(array.shape, np.uint8), matrix, offset, whole.shape, order=0, mode="constant", cval=0
    )
    return image, inside.astype(bool)


def _gain(a: np.ndarray, b: np.ndarray) -> float:
    """What the second has to be multiplied with to be as bright as the first, by what is signal in both."""
    signal = (a > SIGNAL * np.percentile(a, 99)) & (b > SIGNAL * np.percentile(b, 99))
    return float(np.median(a[signal] / b[signal])) if signal.any() else 1.0


def _fade(inside: np.ndarray, axis: int) -> np.ndarray:
    """Weights that fall linearly to a station's ends, in rows along an axis; 0 outside."""
    rows = np.flatnonzero(inside.any(axis=tuple(k for k in range(3) if k != axis)))
    index = np.arange(inside.shape[axis])
    ramp = np.minimum(index - rows[0] + 1, rows[-1] - index + 1).clip(0).astype(np.float32)
    return inside * ramp.reshape([-1 if k == axis else 1 for k in range(3)])
