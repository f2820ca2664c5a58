"""Computed legs with knees."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from dvtplan.imaging.geometry import Grid

UPRIGHT = Grid(
    shape=(200, 30, 80),
    spacing_mm=(4.0, 5.0, 5.0),
    origin_mm=(-197.5, -72.5, 350.0),
    direction=((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)
"""Axial, head first, z 350 to -446: from the groin to the ankle."""

WIDTH = ((-446, -300, -190, -130, -40, 0, 100, 340), (35, 38, 55, 59, 55, 58, 68, 89))
"""Half of a leg's width by its height over the joint line, mm."""

AIR, FAT, MUSCLE, MARROW, CARTILAGE = 0.0, 0.8, 0.35, 0.6, 0.15
SIDES = {"left": 95.0, "right": -95.0}


def legs(
    grid: Grid = UPRIGHT,
    left_mm: float | None = 12.0,
    right_mm: float | None = -10.0,
    *,
    width: tuple[tuple[float, ...], tuple[float, ...]] = WIDTH,
    joints: bool = True,
) -> np.ndarray:
    """Two legs with knee joint lines at these heights, or one; femur and tibia widen to a gap of 8 mm, or a single
    bone runs through."""
    x, y, z = np.moveaxis(
        grid.position_mm(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)), -1, 0
    )
    rng = np.random.default_rng(0)
    image = rng.normal(AIR, 0.02, grid.shape)
    texture = 1 + 0.5 * ndimage.gaussian_filter(rng.normal(size=grid.shape), 1.0)  # of a tenth
    for centre, knee in zip(SIDES.values(), (left_mm, right_mm), strict=True):
        if knee is None:
            continue
        over = z - knee
        share = np.hypot(x - centre, y) / np.interp(over, *width)
        bone = np.interp(np.abs(over), (0, 30, 90, 400), (40, 38, 15, 13)) if joints else np.full(grid.shape, 15)
        image += np.select([share < 0.85, share < 1], [MUSCLE, FAT]) * texture
        inside = np.hypot(x - centre, y + 10) < bone
        image[inside] = np.where((np.abs(over) < 4) & joints, CARTILAGE, MARROW)[inside]
    return np.abs(image)
