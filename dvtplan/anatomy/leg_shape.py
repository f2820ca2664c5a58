"""The shape of the legs in an image: a coarse upright copy, the silhouette, one or two legs, and their outline.

Coarse volumes have the axes (Z, Y, X): head to foot, front to back, right to left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dvtplan.imaging.geometry import Grid, anatomical_axes, to_slice_order

COARSE_MM = {"LR": 5.0, "AP": 5.0, "SI": 3.0}
"""Longest voxels of the coarse copy; an image with longer voxels keeps its own."""
OBLIQUE = 0.02
"""A grid is rotated in its coronal plane if its axes differ from the body's by at least this angle (radians)."""
OUTLINE_MM = 4.0
"""SD of the smoothing before the silhouette, so that noise makes no holes in it."""
JOINT_MM = 15.0
"""Half of the height up to which a dark part of the leg is a joint, and not a gap in the silhouette."""
TWO_LIMBS = 0.75
"""There are two limbs if the silhouette has a valley below this share of its lower side."""
MIN_VIEW_MM = 70.0
"""Length of the leg that must be in view above and below a joint."""
ABOVE_MM, BELOW_MM = 100.0, 60.0
"""Distances above and below a joint at which the width is compared with that at the joint."""
ABOVE, BELOW = (1.03, 1.8), (0.9, 1.25)
"""Allowed ratios of the width there to the width at the joint: a thigh above, no taper below."""
IN_VIEW = 0.6
"""Least ratio of the depths of a leg above, at and below a joint. With less, the leg leaves an oblique slab."""
LINES_MM = 40.0
"""Depth of a leg over which its width is averaged."""
BEND = 0.03
"""Least difference of the tapers above and below, as logarithms of widths per 100 mm; 0 in a cone."""
NARROWEST_MM, WIDEST_MM = 88.0, 200.0
"""Limits of a knee's width; an ankle is narrower, a trunk wider."""
MAX_VALLEY_DEPTH = 0.5
"""Legs are apart in rows where the valley is less deep than this share of the deepest column: knees may touch."""
APART_SHARE = 0.8
"""Least share of rows around a knee in which the legs are apart; less where the trunk begins."""
FOOT_MM = 150.0
"""A whole leg that ends this close below a joint ends in a foot, so the joint is an ankle."""


def coarse_copy(image: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Average blocks of voxels.

    Returns:
        float32 (Z, Y, X), and its grid, whose axes run along those of the body.
    """
    factors = [
        max(1, int(COARSE_MM[name] / spacing + 1e-6))
        for (name, _), spacing in zip(anatomical_axes(grid), grid.spacing_mm, strict=True)
    ]
    factors = [min(k, n) for k, n in zip(factors, image.shape, strict=True)]
    volume = image
    for axis, k in enumerate(factors):
        n = volume.shape[axis] // k * k
        parts = [volume[(slice(None),) * axis + (slice(i, n, k),)] for i in range(k)]
        total = parts[0].astype(np.float32)
        for part in parts[1:]:
            total += part
        volume = total / np.float32(k)
    volume = np.nan_to_num(volume, posinf=0, neginf=0)
    x, y, z = grid.position_mm((np.array(factors) - 1) / 2).tolist()
    a, b, c = (s * k for s, k in zip(grid.spacing_mm, factors, strict=True))
    shrunk = Grid(shape=volume.shape, spacing_mm=(a, b, c), origin_mm=(x, y, z), direction=grid.direction)
    order = to_slice_order(shrunk, "SI")
    upright = order.grid(shrunk)
    volume = np.ascontiguousarray(order.apply(volume))
    return _straighten(volume, upright)


def _straighten(volume: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Rotate a volume (Z, Y, X) within its coronal plane until X runs along LPS x.

    A coronal slab that is tilted towards the back stays tilted. It was tilted to follow the legs, and level rows
    through its faces would look like many plates.
    """
    axes = np.asarray(grid.direction)
    back = axes[1]
    left = np.array([1.0, 0.0, 0.0]) - back[0] * back
    left /= np.linalg.norm(left)
    if np.linalg.norm(left - axes[2]) < OBLIQUE:
        return volume, grid
    turned = np.stack([np.cross(back, left), back, left])
    reach = (grid.corners_mm() - np.asarray(grid.origin_mm)) @ turned.T
    start, end = reach.min(axis=0), reach.max(axis=0)
    height, depth, width = (int(n) for n in np.floor((end - start) / np.asarray(grid.spacing_mm) + 1e-6) + 1)
    x, y, z = (np.asarray(grid.origin_mm) + start @ turned).tolist()
    rows, depths, columns = (tuple(axis) for axis in turned.tolist())
    straight = Grid(
        shape=(height, depth, width),
        spacing_mm=grid.spacing_mm,
        origin_mm=(x, y, z),
        direction=(rows, depths, columns),
    )
    to_index = np.linalg.inv(grid.steps_mm)  # LPS minus origin -> index, as a right factor
    matrix = (straight.steps_mm @ to_index).T
    offset = start @ turned @ to_index
    dark = float(volume.min())
    return ndimage.affine_transform(volume, matrix, offset, straight.shape, order=1, cval=dark), straight


def silhouette(volume: np.ndarray, grid: Grid) -> np.ndarray:
    """Segment the body, without holes.

    Returns:
        bool (Z, Y, X).
    """
    volume = ndimage.gaussian_filter(volume, [OUTLINE_MM / size for size in grid.spacing_mm], truncate=2)
    low, high = np.percentile(volume, (1, 99))
    if not high > low:
        return np.zeros(volume.shape, bool)
    # Without the square root bright fat would raise the threshold above muscle.
    root = np.sqrt(np.clip((volume - low) / (high - low), 0, 1))
    body = root > _otsu(root)
    # A joint may be as dark as air and open to the front and back of a slab. The outline changes more slowly.
    pole = np.ones((1 + 2 * round(JOINT_MM / grid.spacing_mm[0]), 1, 1), bool)
    body = ndimage.binary_erosion(ndimage.binary_dilation(body, pole), pole, border_value=1)
    # Fill between front and back: bays of a section do not matter here, and thin skin then closes dark bone.
    body = np.maximum.accumulate(body, axis=1) & np.maximum.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    speck = np.ones((1, 3 if volume.shape[1] > 2 else 1, 3), bool)
    body = ndimage.binary_dilation(ndimage.binary_erosion(body, speck, border_value=1), speck)
    labels, n = ndimage.label(body)
    if n > 1:
        sizes = np.bincount(labels.reshape(-1))
        sizes[0] = 0
        body = (sizes >= 0.1 * sizes.max())[labels]
    return body


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that best separates values of 0 to 1 into two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 256, (0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    between = (mass[-1] * below - mass * below[-1]) ** 2 / np.maximum(below * above.astype(float), 1)
    return float(edges[1 + int(between.argmax())])


def find_valley(depth_mm: np.ndarray) -> int | None:
    """Return the column between two legs, or None for one leg.

    Args:
        depth_mm: depth of the silhouette, (Z, X).
    """
    whole = ndimage.gaussian_filter1d(depth_mm.sum(axis=0), 2.0)
    share = np.cumsum(whole) / whole.sum()
    inner = np.flatnonzero((share > 0.15) & (share < 0.85))
    if not len(inner):
        return None
    column = int(inner[whole[inner].argmin()])
    sides = min(whole[:column].max(initial=0), whole[column + 1 :].max(initial=0))
    return column if whole[column] < TWO_LIMBS * sides else None


def midline_between(body: np.ndarray, column: int, x_mm: np.ndarray) -> float:
    """Return LPS x in the middle of the gap between the legs: the median over the rows that have a gap.

    Args:
        body: where the silhouette has any depth, (Z, X).
        column: between the legs.
        x_mm: LPS x of each column, (X,).
    """
    middles = []
    for row in body:
        before, behind = np.flatnonzero(row[:column]), np.flatnonzero(row[column + 1 :])
        if not row[column] and len(before) and len(behind):
            middles.append((x_mm[before[-1]] + x_mm[column + 1 + behind[0]]) / 2)
    return float(np.median(middles)) if middles else float(x_mm[column])


def rows_with_two_legs(depth_mm: np.ndarray, column: int, grid: Grid) -> np.ndarray:
    """Return the rows in which, and around which, the legs are apart: bool (Z,)."""
    rows = depth_mm[:, column] < MAX_VALLEY_DEPTH * depth_mm.max(axis=1)
    near = 1 + 2 * round(BELOW_MM / grid.spacing_mm[0])
    return ndimage.uniform_filter1d(rows.astype(float), near, mode="nearest") > APART_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Width and depth of one leg from head to foot."""

    width_mm: np.ndarray
    """Smoothed width, (Z,)."""
    depth_mm: np.ndarray
    """Smoothed depth from front to back, as far as it is in view, (Z,)."""
    first: int
    last: int
    """First and last row of the leg."""
    step_mm: float
    """Distance of rows."""

    @classmethod
    def of(cls, limb: np.ndarray, grid: Grid) -> Outline:
        """Measure the silhouette of one leg (Z, Y, X)."""
        step, size_y, size_x = grid.spacing_mm
        # The mean of the widest lines, because a single line is only as precise as a voxel.
        widest = -np.sort(-limb.sum(axis=2), axis=1)[:, : max(1, round(LINES_MM / size_y))]
        width = widest.mean(axis=1) * size_x
        there = np.flatnonzero(width)
        depth = limb.sum(axis=1).max(axis=1) * size_y
        near = 1 + 2 * round(15 / step)
        return cls(
            width_mm=ndimage.uniform_filter1d(width, near, mode="nearest"),
            depth_mm=ndimage.uniform_filter1d(depth, near, mode="nearest"),
            first=int(there[0]) if len(there) else 0,
            last=int(there[-1]) if len(there) else 0,
            step_mm=step,
        )

    def is_knee(self, row: int) -> bool:
        """Return whether the leg has the shape of a thigh above a row and of a calf below."""
        above_mm, below_mm = (row - self.first) * self.step_mm, (self.last - row) * self.step_mm
        if min(above_mm, below_mm) < MIN_VIEW_MM or not NARROWEST_MM <= self.width_mm[row] <= WIDEST_MM:
            return False
        is_whole = self.last < len(self.width_mm) - 1 - round(20 / self.step_mm)
        if is_whole and below_mm < FOOT_MM:
            return False
        up_mm, down_mm = min(ABOVE_MM, above_mm - 10), min(BELOW_MM, below_mm - 10)
        up, down = row - round(up_mm / self.step_mm), row + round(down_mm / self.step_mm)
        depths = self.depth_mm[[up, row, down]]
        if depths.min() < IN_VIEW * depths.max():
            return False
        above, below = self.width_mm[[up, down]] / self.width_mm[row]
        bend = 100 * (np.log(above) / up_mm + np.log(below) / down_mm)
        return bool(bend >= BEND and BELOW[0] <= below <= BELOW[1] and ABOVE[0] <= above <= ABOVE[1])
