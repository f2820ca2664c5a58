"""Apply a mask rule: the threshold block by block, the smallest component on the whole mask."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from scipy import ndimage

from dvtplan.imaging import array_ops
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.slice_buffer import SliceBuffer
from dvtplan.models.postprocessing import PLAIN_THRESHOLD, MaskRule

TOLERANCE = 1e-6
"""Relative rounding of a volume that is compared with the smallest one."""


def decide(probability_BKHW: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return the number of each voxel's class, from 1, or 0 for background, uint8 (B, H, W).

    Args:
        probability_BKHW: of the foreground classes.
        threshold: as ``MaskRule.threshold``.
    """
    classes = probability_BKHW.shape[1]
    if classes == 1:
        return (probability_BKHW[:, 0] >= (PLAIN_THRESHOLD if threshold is None else threshold)).astype(np.uint8)
    if threshold is not None:
        segmented = probability_BKHW.sum(axis=1) >= threshold
        return np.where(segmented, probability_BKHW.argmax(axis=1) + 1, 0).astype(np.uint8)
    background = 1.0 - probability_BKHW.sum(axis=1, keepdims=True)
    return np.concatenate([background, probability_BKHW], axis=1).argmax(axis=1).astype(np.uint8)


def smallest_voxels(smallest_mm3: float, grid: Grid) -> int:
    """Return the number of voxels of the smallest component that is kept, at least 1."""
    return max(1, int(np.ceil(smallest_mm3 / (1000 * grid.voxel_ml) * (1 - TOLERANCE))))


def without_small_components(mask_SHW: np.ndarray, smallest: int) -> np.ndarray:
    """Return a mask without its 26-connected components of fewer voxels than ``smallest``."""
    box = array_ops.bounding_box(mask_SHW)
    if box is None or smallest <= 1:
        return mask_SHW
    components, _ = ndimage.label(mask_SHW[box] != 0, array_ops.CONNECTIVITY_26)
    kept = np.bincount(components.reshape(-1)) >= smallest
    cleaned = mask_SHW.copy()
    cleaned[box][~kept[components]] = 0
    return cleaned


def apply_smallest(
    masks: SliceBuffer, grid: Grid, rule: MaskRule, scratch: Path, stack: contextlib.ExitStack
) -> SliceBuffer:
    """Return the slices of a mask without small components. The whole mask is in memory meanwhile.

    Args:
        masks: slices of the mask.
        grid: of the slices.
        rule: how small.
        scratch: folder of the new buffer.
        stack: closes it.
    """
    smallest = smallest_voxels(rule.smallest_component_mm3, grid)
    if smallest <= 1:
        return masks
    cleaned = stack.enter_context(SliceBuffer(scratch))
    cleaned.append(without_small_components(masks.read(), smallest))
    return cleaned
