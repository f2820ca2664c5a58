"""The size of the patches that a network is trained on, if the recipe leaves it to the data."""

from __future__ import annotations

from dataclasses import replace

from dvtplan.planning.plan import Plan
from dvtplan.planning.plan_rules import STEP
from dvtplan.planning.recipe import Recipe

SHARES = 0.3, 0.5
"""Rows and columns of a patch, as shares of those of the slice. They are rounded to a multiple of ``STEP``, which every
network can process."""
LEAST = 96, 64
"""Fewest rows and columns of a patch. Slices that are not larger are not cut."""


def decide_patch(recipe: Recipe, plan: Plan) -> Recipe:
    """Return the recipe with the size of its patches for the slices of a plan: a size or 'whole', never 'auto'."""
    shape = plan.target_shape
    if recipe.patch == "auto":
        rows, columns = (
            min(whole, max(least, STEP * round(share * whole / STEP)))
            for whole, least, share in zip(shape, LEAST, SHARES, strict=True)
        )
    else:
        if recipe.patch_shape is None:
            return recipe
        rows, columns = (min(side, whole) for side, whole in zip(recipe.patch_shape, shape, strict=True))
    return replace(recipe, patch="whole" if (rows, columns) == shape else f"{rows}x{columns}")
