"""Augmentation: the variants of a plan, as one batched affine warp on the device of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from dvtplan.planning.plan import Plan, Variant


class Augmentation:
    """Apply to each slice of a batch its variant of the plan."""

    def __init__(self, plan: Plan, device: str) -> None:
        self._matrix_V23 = matrices(plan.variants, plan.target_shape).to(device)

    def __call__(
        self, image_BCHW: torch.Tensor, label_BHW: torch.Tensor, variant_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch.

        Args:
            image_BCHW: images, any float type.
            label_BHW: class numbers.
            variant_B: index into the variants of the plan for each slice.

        Returns:
            float32 images and labels of their own type, same shapes.
        """
        return apply(image_BCHW, label_BHW, self._matrix_V23[variant_B])


def matrices(variants: Sequence[Variant], shape: tuple[int, int]) -> torch.Tensor:
    """Return for each variant the map from output to input positions, (V, 2, 3) float32.

    Positions are those of ``affine_grid``: -1 to 1 across the image, x first. Rotation and scale
    act about the centre in pixels, so the two axes' lengths enter; the mirror comes last.
    """
    height, width = shape
    rows = []
    for v in variants:
        cos = math.cos(math.radians(v.angle_deg)) / v.scale
        sin = math.sin(math.radians(v.angle_deg)) / v.scale
        flip = -1.0 if v.mirror else 1.0
        rows.append([[flip * cos, -sin * height / width, 0.0], [flip * sin * width / height, cos, 0.0]])
    return torch.tensor(rows, dtype=torch.float32)


def apply(
    image_BCHW: torch.Tensor, label_BHW: torch.Tensor, matrix_B23: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Warp each slice of a batch by its own matrix.

    Images are interpolated linearly, labels take the nearest pixel. Pixels from outside the slice are zero.

    Returns:
        float32 images and labels of their own type, same shapes.
    """
    batch, _, height, width = image_BCHW.shape
    grid = functional.affine_grid(matrix_B23, [batch, 1, height, width], align_corners=False)
    image = functional.grid_sample(image_BCHW.float(), grid, mode="bilinear", align_corners=False)
    label = functional.grid_sample(label_BHW[:, None].float(), grid, mode="nearest", align_corners=False)
    return image, label[:, 0].to(label_BHW.dtype)
