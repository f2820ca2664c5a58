"""Probabilities of a scan with lesions."""

from __future__ import annotations

import numpy as np

from dvtplan.anatomy.levels import Levels
from dvtplan.imaging.geometry import Grid

GRID = Grid(shape=(3, 6, 8), spacing_mm=(5.0, 2.0, 10.0), origin_mm=(-35.0, 0.0, 100.0),
            direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)))  # fmt: skip
"""Coronal, 0.1 mL per voxel: columns 0 to 3 are the right limb (x -35 to -5), rows fall from z 100 to 90."""
LEVELS = Levels(left_mm=95.0, right_mm=80.0)
"""Left between rows 2 and 3; the whole right limb is above its level."""


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A lesion of four voxels on the left, across the level, one on the right; probabilities; votes of two folds."""
    mask, chance = np.zeros(GRID.shape, np.uint8), np.full(GRID.shape, 0.1)
    votes = np.zeros(GRID.shape, np.uint8)
    for k, place in enumerate([(1, 1, 6), (1, 2, 6), (1, 3, 6), (2, 4, 6)]):
        mask[place], chance[place], votes[place] = 1, 0.6 + 0.1 * k, 0b11 if k else 0b01
    mask[0, 0, 1], chance[0, 0, 1], votes[0, 0, 1] = 1, 0.5, 0b10
    return mask, chance, votes
