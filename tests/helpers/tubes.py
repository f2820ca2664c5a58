"""A mask of tubes in both legs."""

from __future__ import annotations

import numpy as np

from dvtplan.anatomy.levels import Levels
from dvtplan.imaging.geometry import Grid

GRID = Grid(
    shape=(20, 120, 60),
    spacing_mm=(1.25, 1.5, 1.5),
    origin_mm=(-45.0, -10.0, 90.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""Coronal, 180 mm high; the middle is at x -0.75, and z 0 is row 60."""
LEVELS = Levels(left_mm=0.0, right_mm=15.0, midline_mm=0.0)


def tube(points_mm: list[tuple[float, float, float]], radius_mm: float, grid: Grid = GRID) -> np.ndarray:
    """Return the voxels near a polyline."""
    places = grid.position_mm(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))
    mask = np.zeros(grid.shape, bool)
    for a, b in zip(np.array(points_mm), np.array(points_mm)[1:], strict=False):
        along = np.clip((places - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        mask |= np.linalg.norm(places - a - along[..., None] * (b - a), axis=-1) <= radius_mm
    return mask
