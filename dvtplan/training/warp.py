"""Rotate, scale, mirror and cut out slices: one batched affine warp on the device of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from dvtplan.planning.plan import Variant


@dataclass(frozen=True, slots=True)
class Warp:
    """What is done to each slice of a batch; arrays (B,)."""

    angle_deg: np.ndarray
    """Counter-clockwise as displayed."""
    scale: np.ndarray
    """Above 1 enlarges the image content."""
    mirror: np.ndarray
    """Whether columns are mirrored."""

    @classmethod
    def of(cls, variants: Sequence[Variant]) -> Warp:
        """Return the warp of variants of a plan."""
        return cls(
            np.array([v.angle_deg for v in variants]),
            np.array([v.scale for v in variants]),
            np.array([v.mirror for v in variants]),
        )


def matrices(variants: Sequence[Variant], shape: tuple[int, int]) -> torch.Tensor:
    """Return for each variant the map from output to input positions of a whole slice; as ``warp_matrices``."""
    centre = np.broadcast_to(np.array(shape) / 2, (len(variants), 2))
    return warp_matrices(Warp.of(variants), centre, shape, shape)


def warp_matrices(warp: Warp, centre_B2: np.ndarray, shape: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """Return for each slice the map from output to input positions, (B, 2, 3) float32.

    Positions are those of ``affine_grid``: -1 to 1 across the image, x first. Rotation and scale act about the centre
    in pixels, so the lengths of the axes enter; the mirror comes last.

    Args:
        warp: what is done to each slice.
        centre_B2: row and column of the input, in pixels, that become the centre of the output.
        shape: rows and columns of the input.
        size: rows and columns of the output.
    """
    (rows, columns), (height, width) = shape, size
    cos = np.cos(np.radians(warp.angle_deg)) / warp.scale
    sin = np.sin(np.radians(warp.angle_deg)) / warp.scale
    flip = np.where(warp.mirror, -1.0, 1.0)
    down, right = 2 * centre_B2[:, 0] / rows - 1, 2 * centre_B2[:, 1] / columns - 1
    x = [flip * cos * width / columns, -sin * height / columns, right]
    y = [flip * sin * width / rows, cos * height / rows, down]
    return torch.from_numpy(np.stack([np.stack(x, axis=1), np.stack(y, axis=1)], axis=1).astype(np.float32))


def apply(
    image_BCHW: torch.Tensor,
    label_BHW: torch.Tensor,
    matrix_B23: torch.Tensor,
    size: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Warp each slice of a batch by its own matrix.

    Images are interpolated linearly, labels take the nearest pixel. Pixels from outside the slice are zero.

    Args:
        image_BCHW: images, any float type.
        label_BHW: class numbers.
        matrix_B23: of each slice.
        size: rows and columns of the output; None: those of the input.

    Returns:
        float32 images and labels of their own type.
    """
    batch, _, height, width = image_BCHW.shape
    grid = functional.affine_grid(matrix_B23, [batch, 1, *(size or (height, width))], align_corners=False)
    image = functional.grid_sample(image_BCHW.float(), grid, mode="bilinear", align_corners=False)
    label = functional.grid_sample(label_BHW[:, None].float(), grid, mode="nearest", align_corners=False)
    return image, label[:, 0].to(label_BHW.dtype)
