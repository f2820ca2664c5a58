"""Divide a mask into regions such as proximal and distal: by a level per limb, or by the truth's labels.

A *region map* is a uint8 array on the mask's grid: 0 is background, k is region k of a tuple of
region names (counted from 1), and ``UNASSIGNED`` is a voxel of the mask that has no region.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dvtplan.anatomy.levels import UNASSIGNED, Levels
from dvtplan.imaging import array_ops
from dvtplan.imaging.geometry import GRID_TOLERANCE_MM, Grid

NEAR_MM = 10.0
"""Largest distance of a predicted voxel from the truth whose region it takes (our choice)."""

BLOCK = 1_000_000
"""Voxels at a time, to limit the memory for a prediction that fills the volume."""


def by_level(mask: np.ndarray, grid: Grid, levels: Levels) -> np.ndarray:
    """Divide a mask into proximal (1) and distal (2) at the level of each limb.

    The network has one class and false positives occur anywhere. So truth and prediction must be divided by the same
    planes (Huang 2019, Table 1, reports precision per region but no rule). The level is compared with the LPS z of each
    voxel, not with its row, because the file may be oblique or flipped. A voxel on a level, or within
    ``GRID_TOLERANCE_MM`` below it, is proximal. A voxel on the midline is left.

    Args:
        mask: any array order, shape ``grid.shape``; every non-zero value is thrombus.
        grid: the mask's grid.
        levels: one known level holds for both limbs. Without a midline, the middle of the grid's extent along LPS x
            separates the limbs.

    Returns:
        The region map.

    Raises:
        ValueError: if mask and grid differ in shape.
    """
    _require_shape(mask, grid)
    regions = np.zeros(grid.shape, np.uint8)
    for block, positions_mm in _blocks(array_ops.nonzero_indices(mask), grid):
        regions.reshape(-1)[block] = _side_of_level(positions_mm, in_left_limb(positions_mm, grid, levels), levels)
    return regions


def by_label(truth_map: np.ndarray, predicted_mask: np.ndarray, grid: Grid, levels: Levels | None) -> np.ndarray:
    """Give each predicted voxel the region of the nearest truth voxel.

    Thrombus in the popliteal vein extends well below the knee, so the truth's labels divide it better than a plane.
    Only predicted voxels outside the truth need a rule. Distances are in mm. If two regions are equally near, the lower
    number is used, so that the result does not depend on the order of the axes.

    Args:
        truth_map: region map of the truth, shape ``grid.shape``.
        predicted_mask: same shape; every non-zero value is thrombus.
        grid: the grid of both.
        levels: only if region 1 is proximal and region 2 distal. A predicted voxel then takes a truth region only from
            its own limb and within ``NEAR_MM``, otherwise the side of its limb's level. None for the nearest truth
            voxel at any distance.

    Returns:
        The region map of the prediction. Without truth and levels every predicted voxel is ``UNASSIGNED``.

    Raises:
        ValueError: if a shape differs from the grid's.
    """
    _require_shape(truth_map, grid)
    _require_shape(predicted_mask, grid)
    flat_truth = truth_map.reshape(-1)
    predicted = array_ops.nonzero_indices(predicted_mask)
    regions = np.zeros(grid.shape, np.uint8)
    flat = regions.reshape(-1)
    flat[predicted] = flat_truth[predicted]

    truth = array_ops.nonzero_indices(flat_truth)
    truth_mm = _positions_mm(truth, grid)
    for block, positions_mm in _blocks(predicted[flat_truth[predicted] == 0], grid):
        if levels is None:
            flat[block] = _nearest(positions_mm, truth_mm, flat_truth[truth], np.inf)
            continue
        truth_left, left = (in_left_limb(mm, grid, levels) for mm in (truth_mm, positions_mm))
        near = np.full(len(block), UNASSIGNED, np.uint8)
        for limb in (False, True):
            within = truth_left == limb
            near[left == limb] = _nearest(
                positions_mm[left == limb], truth_mm[within], flat_truth[truth[within]], NEAR_MM
            )
        flat[block] = np.where(near == UNASSIGNED, _side_of_level(positions_mm, left, levels), near)
    return regions


def midline_of(grid: Grid, levels: Levels | None) -> float:
    """Return LPS x between the limbs in mm: the known midline, otherwise the middle of the grid's extent."""
    if levels is not None and levels.midline_mm is not None:
        return levels.midline_mm
    ends_mm = grid.corners_mm()[:, 0]
    return float((ends_mm.min() + ends_mm.max()) / 2)


def _nearest(positions_mm: np.ndarray, truth_mm: np.ndarray, truth_regions: np.ndarray, limit_mm: float) -> np.ndarray:
    """Return the region of the nearest truth voxel, ``UNASSIGNED`` if none is within the limit."""
    from scipy.spatial import cKDTree  # slow to load; a mask without thrombus does not need it

    nearest_mm = np.full(len(positions_mm), np.inf)
    regions = np.full(len(positions_mm), UNASSIGNED, np.uint8)
    for region in np.unique(truth_regions):
        tree = cKDTree(truth_mm[truth_regions == region])
        found_mm = np.asarray(tree.query(positions_mm, distance_upper_bound=limit_mm + GRID_TOLERANCE_MM)[0])
        nearer = found_mm < nearest_mm - GRID_TOLERANCE_MM
        regions[nearer], nearest_mm[nearer] = region, found_mm[nearer]
    return regions


def _side_of_level(positions_mm: np.ndarray, left: np.ndarray, levels: Levels) -> np.ndarray:
    """Return 1 on or above the level of the voxel's limb, and 2 below."""
    level_mm = np.where(left, *levels.both_mm)
    return np.where(positions_mm[:, 2] >= level_mm - GRID_TOLERANCE_MM, 1, 2)


def in_left_limb(positions_mm: np.ndarray, grid: Grid, levels: Levels | None) -> np.ndarray:
    """Return whether each position (n, 3) is to the patient's left of the midline, or on it."""
    return positions_mm[:, 0] >= midline_of(grid, levels) - GRID_TOLERANCE_MM


def _blocks(indices: np.ndarray, grid: Grid) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of flat indices with their LPS positions (n, 3)."""
    for start in range(0, len(indices), BLOCK):
        block = indices[start : start + BLOCK]
        yield block, _positions_mm(block, grid)


def _positions_mm(indices: np.ndarray, grid: Grid) -> np.ndarray:
    return grid.position_mm(np.stack(np.unravel_index(indices, grid.shape), axis=-1))


def _require_shape(array: np.ndarray, grid: Grid) -> None:
    if array.shape != grid.shape:
        raise ValueError(f"array {array.shape} does not fit its grid {grid.shape}")
