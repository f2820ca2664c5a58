"""A recipe in words, for readers who do not know its fields."""

from __future__ import annotations

from dvtplan.core.text import plural
from dvtplan.planning.recipe import Recipe


def has_effect(recipe: Recipe, name: str) -> bool:
    """Return whether a field changes a training, given the other fields."""
    if name in ("lr_drops", "lr_factor"):
        return recipe.schedule == "drops"
    first = name.partition("_")[0]
    return first not in ("focal", "dice", "topk") or first in recipe.loss.split("_")


def describe_optimizer(recipe: Recipe) -> str:
    """Return the optimizer, the course of the learning rate, and which weights predict."""
    parts = [f"AdamW, weight decay {recipe.weight_decay:g}" if recipe.weight_decay else "Adam"]
    rate = f"learning rate {recipe.learning_rate:g}"
    if recipe.schedule == "cosine":
        rate += " that falls along a cosine to 0"
    elif recipe.lr_drops:
        shares = ", ".join(f"{share:g}" for share in recipe.lr_drops)
        rate += f", times {recipe.lr_factor:g} at {shares} of the training"
    parts.append(rate)
    if recipe.warm_up:
        parts.append(f"warm-up of {plural(recipe.warm_up, 'step')} at most")
    if recipe.clip_norm is not None:
        parts.append(f"gradients of at most norm {recipe.clip_norm:g}")
    parts.append(
        f"averaged weights predict, decay {recipe.averaging:g}" if recipe.averaging else "last weights predict"
    )
    return "; ".join(parts)


def describe_input(recipe: Recipe) -> str:
    """Return what a step sees: whole slices or patches, with how many neighbours, changed in which way."""
    if recipe.patch == "whole":
        parts, drawn = [f"batches of {plural(recipe.batch_size, 'whole slice')}"], "slices are drawn with"
    else:
        count = plural(recipe.batch_size, "patch", "patches")
        parts = [f"batches of {count} of {recipe.patch}, predicted in tiles of this size"]
        drawn = "patches are drawn around"
    if recipe.context:
        parts.append(f"with {plural(recipe.context, 'neighbouring slice')} on each side")
    if recipe.oversampling:
        parts.append(f"{recipe.oversampling:g} of the {drawn} lesions")
    wide = recipe.augmentation == "wide"
    if recipe.held_out:
        parts.append(f"{recipe.held_out:g} of the training patients held out")
    parts.append("wide augmentation, not the plan's variants" if wide else "augmented by the plan's variants")
    return "; ".join(parts)
