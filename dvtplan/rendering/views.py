"""Names and sides of views; level lines."""

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
"""Axis that counts slices -> what such slices are called, and where their numbers begin."""

SIDES = {"AP": ("R", "L"), "SI": ("R", "L"), "LR": ("A", "P")}
"""Axis that counts slices -> what lies at the left and the right edge (geometry.SLICE_ORDER)."""

STEEP = 0.5
"""A level is drawn as a line where z changes by at least this share of the distance down the picture."""


def level_lines(grid: Grid, levels: Levels | None, s: int) -> list[Line]:
    """The level of each limb in a slice, as a line from the midline outwards.

    Args:
        grid: in slice order (S, H, W).
        levels: none for no lines; limbs, one known level, and the midline as in ``regions.by_level``.
        s: which slice.

    Returns:
        A line per limb that the slice shows; none in slices along the level, such as axial ones.
    """
    origin = grid.position_mm(np.array([s, 0, 0]))
    down, across = (np.asarray(grid.direction[a]) * grid.spacing_mm[a] for a in (1, 2))
    if levels is None or abs(down[2]) < STEEP * grid.spacing_mm[1]:
        return []
    midline_mm = midline_of(grid, levels)
    known = [level for level in (levels.left_mm, levels.right_mm) if level is not None]
    columns = np.linspace(-0.5, grid.shape[2] - 0.5, 4 * grid.shape[2] + 1)
    lines = []
    for name, is_left, level_mm in (("level L", True, known[0]), ("level R", False, known[-1])):
        rows = (level_mm - origin[2] - columns * across[2]) / down[2]
        x_mm = origin[0] + rows * down[0] + columns * across[0]
        shown = ((x_mm >= midline_mm) == is_left) & (rows >= -0.5) & (rows <= grid.shape[1] - 0.5)
        if shown.any():
            lines.append(Line(name=name, columns=np.where(shown, columns, np.nan), rows=np.where(shown, rows, np.nan)))
    return lines
