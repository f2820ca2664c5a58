"""Names and sides of the three views, and level lines in a slice."""

from __future__ import annotations

import numpy as np

from dvtplan.anatomy.levels import Levels
from dvtplan.anatomy.regions import midline_of
from dvtplan.imaging.geometry import Grid
from dvtplan.rendering.slices import Line

VIEWS = {
    "AP": ("coronal", "from the front"),
    "SI": ("axial", "from the head"),
    "LR": ("sagittal", "from the patient's right"),
}
"""Slice axis -> name of such slices, and where their numbers begin."""

SIDES = {"AP": ("R", "L"), "SI": ("R", "L"), "LR": ("A", "P")}
"""Slice axis -> letters at the left and the right edge (geometry.SLICE_ORDER)."""

STEEP = 0.5
"""A level is drawn if z changes by at least this share of the distance down the slice."""


def level_lines(grid: Grid, levels: Levels | None, s: int) -> list[Line]:
    """Return the level of each limb in a slice, as a line from the midline outwards.

    Args:
        grid: in slice order (S, H, W).
        levels: as in ``regions.by_level``; None for no lines.
        s: index of the slice.

    Returns:
        A line per limb in the slice; empty for slices along the level, such as axial ones.
    """
    origin = grid.position_mm(np.array([s, 0, 0]))
    down, across = (np.asarray(grid.direction[a]) * grid.spacing_mm[a] for a in (1, 2))
    if levels is None or abs(down[2]) < STEEP * grid.spacing_mm[1]:
        return []
    midline_mm = midline_of(grid, levels)
    left_mm, right_mm = levels.both_mm
    columns = np.linspace(-0.5, grid.shape[2] - 0.5, 4 * grid.shape[2] + 1)
    lines = []
    for name, is_left, level_mm in (("level L", True, left_mm), ("level R", False, right_mm)):
        rows = (level_mm - origin[2] - columns * across[2]) / down[2]
        x_mm = origin[0] + rows * down[0] + columns * across[0]
        shown = ((x_mm >= midline_mm) == is_left) & (rows >= -0.5) & (rows <= grid.shape[1] - 0.5)
        if shown.any():
            lines.append(Line(name=name, columns=np.where(shown, columns, np.nan), rows=np.where(shown, rows, np.nan)))
    return lines
