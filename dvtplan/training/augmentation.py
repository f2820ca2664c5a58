"""Augmentation: what a training step sees of each slice."""

from __future__ import annotations

import numpy as np
import torch

from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import Recipe
from dvtplan.training.data_loading import Batch
from dvtplan.training.warp import Warp, apply, matrices, warp_matrices
from dvtplan.training.wide_augmentation import WideAugmentation


class Augmentation:
    """Cut the patch of each slice of a batch, in a variant of the plan or changed by ``wide_augmentation``."""

    def __init__(self, plan: Plan, recipe: Recipe, device: str) -> None:
        self._matrix_V23 = matrices(plan.variants, plan.target_shape).to(device)
        self._variants, self._patch, self._device = plan.variants, recipe.patch_shape, device
        self._wide = WideAugmentation.of(plan) if recipe.augmentation == "wide" else None

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 images (B, C, H, W) and labels (B, H, W) of a batch, of patches if the recipe has patches."""
        if self._wide is not None:
            warp = self._wide.warp(batch.numbers_BP.numpy())
            image, label = apply(batch.image_BCHW, batch.label_BHW, *self._matrix_and_size(batch, warp))
            return self._wide.finish(image, label, warp.mirror, batch)
        image, label = apply(batch.image_BCHW, batch.label_BHW, *self._variant_matrix_and_size(batch))
        return image, label

    def _variant_matrix_and_size(self, batch: Batch) -> tuple[torch.Tensor, tuple[int, int] | None]:
        if self._patch is None:
            return self._matrix_V23[batch.variant_B], None
        return self._matrix_and_size(batch, Warp.of([self._variants[k] for k in batch.variant_B.tolist()]))

    def _matrix_and_size(self, batch: Batch, warp: Warp) -> tuple[torch.Tensor, tuple[int, int]]:
        rows, columns = batch.label_BHW.shape[1:]
        size = self._patch or (rows, columns)
        middle = np.broadcast_to([rows / 2, columns / 2], (len(warp.mirror), 2))
        centre_B2 = batch.centre_B2.numpy() if self._patch else middle
        return warp_matrices(warp, centre_B2, (rows, columns), size).to(self._device, non_blocking=True), size
