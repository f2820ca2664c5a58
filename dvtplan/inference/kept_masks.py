"""Check masks that a prediction keeps and that others may have edited, before they are measured or converted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, reorientation_between
from dvtplan.imaging.volume_checks import grid_faults, label_faults

EDITED_TOLERANCE_MM = 0.1
"""Largest distance of an edited mask from its scan: other programs round headers, to four decimals for example."""
IN_MODEL = ("the model lists", "Fix the mask.")
"""Where the values are listed, and what to do about other values."""


class UnusableMask(DvtError):
    """A kept mask that cannot be read, or that does not fit its scan or the model."""


def require_usable(
    mask: Path, scan: str, grid: Grid, classes: Mapping[str, int], *, any_orientation: bool = False
) -> None:
    """Check that a mask can be read, lies on the grid of its scan, and has no other values than the model's.

    Args:
        mask: exists.
        scan: display name of the scan.
        grid: of the scan.
        classes: of the model, name -> value.
        any_orientation: accept the voxels of the scan in another order of the axes, as other programs save them.

    Raises:
        UnusableMask: names the first fault in one line.
    """
    try:
        array, own_grid = volume_io.read(mask)
    except DvtError as error:
        fault: str | None = str(error)
    else:
        turned = any_orientation and reorientation_between(own_grid, grid, EDITED_TOLERANCE_MM) is not None
        misplaced = () if turned else grid_faults(mask, own_grid, Path(scan), grid, EDITED_TOLERANCE_MM)
        fault = next(itertools.chain(misplaced, label_faults(mask, array, classes, IN_MODEL)), None)
    if fault is not None:
        raise UnusableMask(f"{fault} The edited mask is kept; set `overwrite=True` to predict it again.")
