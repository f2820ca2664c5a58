"""Normalize and resize one slice or case."""

from __future__ import annotations

import numpy as np

from dvtplan.imaging.normalize import limits, scale
from dvtplan.imaging.resize import imresize, nearest
from dvtplan.planning.plan import Plan


def preprocess_slices(image_CSHW: list[np.ndarray], label_SHW: np.ndarray, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Normalize and resize one case (section 2.2: eq. 1, then imresize; nearest pixel for labels).

    Args:
        image_CSHW: one array (slice order) per channel, scanner units.
        label_SHW: label values of the files (slice order).
        plan: how to preprocess.

    Returns:
        float16 image (S, C, H, W) in [0, 1] and uint8 label (S, H, W) with class numbers: 0
        background, then 1, 2, ... in the plan's order of labels.
    """
    slices, shape = label_SHW.shape[0], plan.target_shape
    image = np.empty((slices, len(image_CSHW), *shape), np.float16)
    for channel, volume in enumerate(image_CSHW):
        bounds = limits(volume, plan.normalization)
        for s in range(slices):
            image[s, channel] = preprocess_slice(volume[s], bounds[s], shape)
    classes = np.zeros(256, np.uint8)
    for number, value in enumerate(plan.labels.values(), start=1):
        classes[value] = number
    label = np.zeros((slices, *shape), np.uint8)
    for s in range(slices):
        near = nearest(label_SHW[s], shape)
        if near.any():
            label[s] = classes[near.astype(np.uint8)]
    return image, label


def preprocess_slice(image_HW: np.ndarray, limits_2: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Normalize one slice to its limits and resize it. Return float32 in [0, 1]."""
    scaled = scale(image_HW[None], limits_2[None])[0]
    # Bicubic interpolation overshoots next to edges.
    return np.clip(imresize(scaled, shape), 0.0, 1.0)
