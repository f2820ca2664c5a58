"""Checks of images, masks and their grids; each fault is one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from dvtplan.core.text import shorten_list, show
from dvtplan.imaging import array_ops, nifti
from dvtplan.imaging.geometry import GRID_TOLERANCE_MM, Grid, distance_mm

MASK_VALUES = 4
"""A volume with more different values is not taken for a mask."""
SAMPLE = 4096
"""Voxels that are looked at first."""


def image_faults(path: Path, array: np.ndarray, *, may_be_mask: bool = False) -> Iterable[str]:
    """Yield the faults in the voxels of an image.

    Args:
        path: the file, for messages.
        array: its voxels.
        may_be_mask: accept a mask, which a data set may have as a further channel.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        yield nifti.not_finite(path, bad, array.size)
    elif array.min() == array.max():
        yield f"{path}: every voxel is {array.flat[0]:g}; expected an image. Export it again."
    elif not may_be_mask and (values := _mask_values(array)):
        yield (
            f"{path}: contains only the values {', '.join(f'{v:g}' for v in values)}, like a mask; expected an image. "
            "Give the scan itself."
        )


def _mask_values(array: np.ndarray) -> list[float]:
    """Return the values of an array that is certainly a mask: few small whole numbers, mostly 0. Empty for an image."""
    sample = np.unique(array.reshape(-1)[:: max(1, array.size // SAMPLE)])  # images have many values, so this is quick
    if len(sample) > MASK_VALUES:
        return []
    values: list[float] = array_ops.unique_values(array).tolist()
    is_mask = len(values) <= MASK_VALUES and all(0 <= value <= 254 and value == int(value) for value in values)
    return values if is_mask and 2 * np.count_nonzero(array) < array.size else []


def grid_faults(
    path: Path | None, grid: Grid, image_path: Path, image_grid: Grid, tolerance_mm: float = GRID_TOLERANCE_MM
) -> Iterable[str]:
    """Yield the difference between the grid of a file and that of its image."""
    if grid.shape != image_grid.shape:
        yield (
            f"{path}: shape {grid.shape[::-1]} differs from that of {image_path.name}, {image_grid.shape[::-1]}. "
            "Export it on the image's grid."
        )
    elif (apart := distance_mm(grid, image_grid)) > tolerance_mm:
        yield (
            f"{path}: lies up to {apart:.3g} mm away from {image_path.name} (tolerance {tolerance_mm:g} mm); "
            f"spacing x, y, z {show(grid.spacing_mm[::-1])} against {show(image_grid.spacing_mm[::-1])} mm, origin "
            f"{show(grid.origin_mm)} against {show(image_grid.origin_mm)} mm. Export it on the image's grid."
        )


IN_DATASET_JSON = ("dataset.json lists", "Fix the mask or the list.")
"""Where the labels of a data set are listed, and what to do about other values."""


def label_faults(
    path: Path | None, array: np.ndarray, labels: Mapping[str, int], listed: tuple[str, str] = IN_DATASET_JSON
) -> Iterable[str]:
    """Yield the values of a mask that are not labels of the data set, in one line.

    Args:
        path: the file, for messages.
        array: its voxels.
        labels: name -> value.
        listed: where the labels are listed, and what to do.
    """
    present = array_ops.unique_values(array)
    unknown = [v for v in present.tolist() if v not in (0, *labels.values())]
    if unknown:
        shown = ", ".join(f"{v:.9g}" for v in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        known = shorten_list([f"{value} {name}" for name, value in labels.items()])
        where, advice = listed
        yield f"{path}: contains the values {shown}; {where} 0 background, {known}. {advice}"
