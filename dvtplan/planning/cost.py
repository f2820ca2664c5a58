"""Floating-point operations, memory and disk space that a plan needs."""

from __future__ import annotations

import math

from dvtplan.core import text
from dvtplan.data.folds import Splits
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import Recipe

FORWARD_FLOP_PER_PIXEL = 131e9 / (960 * 320)
"""GN-U-Net, width 32: a forward pass at 960x320 takes 131 GFLOP; a training step takes three times as many."""
TRAINING_BYTES_PER_PIXEL = 3700
"""Activations kept for the backward pass, float32, per pixel of a slice of the batch."""


def training_flop(plan: Plan, slices: int, epochs: int) -> float:
    """Return the floating-point operations of training a GN-U-Net: three forward passes per slice and epoch."""
    rows, columns = plan.target_shape
    return 3.0 * FORWARD_FLOP_PER_PIXEL * rows * columns * slices * epochs


def training_bytes(shape: tuple[int, int], batch_size: int) -> int:
    """Return the memory in bytes that the activations of one training step take, float32.

    ``shape`` has the rows and columns of what a step sees of each slice.
    """
    rows, columns = shape
    return TRAINING_BYTES_PER_PIXEL * rows * columns * batch_size


def describe_cost(plan: Plan, splits: Splits, fingerprint: Fingerprint) -> str:
    """Describe the time and memory that training one fold will take."""
    recipe = Recipe()
    slices_of = {c.id: c.shape[plan.slice_axis] for c in fingerprint.cases}
    trained = max(sum(slices_of[c] for c in fold.train) for fold in splits.folds)
    flop = training_flop(plan, trained, recipe.epochs)
    disk = sum(slices_of.values()) * math.prod(plan.target_shape) * (2 * len(plan.channels) + 1)
    memory = training_bytes(plan.target_shape, recipe.batch_size)
    return (
        f"Cost    preprocessed slices {text.size(disk)} on disk; training a fold with the paper's recipe: "
        f"{recipe.epochs} epochs x {math.ceil(trained / recipe.batch_size)} steps of {recipe.batch_size}, "
        f"{flop / 1e15:.3g} PFLOP and {text.size(memory)} of activations.\n"
        f"        That is {text.duration(flop / 1e14)} at 100 TFLOP/s (a current GPU), "
        f"{text.duration(flop / 1e11)} at 0.1 TFLOP/s (two CPU cores). `train_fold` shows the time left."
    )
