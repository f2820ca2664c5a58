"""Fields of a recipe that somebody chose, and that change nothing in this training."""

from __future__ import annotations

from dataclasses import fields

from dvtplan.models.networks.registry import uses_norm_groups
from dvtplan.planning.mirroring import mirrored_labels
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import RECIPES, Recipe
from dvtplan.planning.recipe_text import has_effect


def unused_choices(recipe: Recipe, network: str, plan: Plan) -> tuple[str, ...]:
    """Return a warning for each field that differs from the named recipe without an effect, one line each.

    A mirror that the name of the recipe lists was asked for, also if the named recipe has it.

    Raises:
        DvtError: if there is no such network.
    """
    name, _, listed = recipe.name.partition(" with ")
    chosen = different_fields(recipe, RECIPES.get(name, Recipe()))
    if "mirror" in listed.split(", ") and "mirror" not in chosen:
        chosen.append("mirror")
    reasons = {field: _reason(recipe, field, network, plan) for field in chosen}
    return tuple(
        f"`{field}={as_option(recipe, field)!r}` has no effect: {reason}."
        for field, reason in reasons.items()
        if reason
    )


def _reason(recipe: Recipe, field: str, network: str, plan: Plan) -> str:
    """Return why a field has no effect; empty if it has one."""
    if field == "norm_groups" and not uses_norm_groups(network):
        return f"{network} has no group normalization"
    if field == "mirror" and recipe.mirror and mirrored_labels(plan) is None:
        return "a mirrored slice of this plan would be no image of a patient"
    if field == "lr_factor" and recipe.schedule == "drops" and not recipe.lr_drops:
        return "`lr_drops` names no drop"
    if has_effect(recipe, field):
        return ""
    setting = "schedule" if field.startswith("lr_") else "loss"
    return f"`{setting}={getattr(recipe, setting)!r}` does not use it"


def different_fields(one: Recipe, other: Recipe) -> list[str]:
    """Return the names of the fields in which two recipes differ."""
    return [field.name for field in fields(Recipe) if getattr(one, field.name) != getattr(other, field.name)]


def as_option(recipe: Recipe, name: str) -> int | float | str:
    """Return the value of a field as its command-line option takes it."""
    value = getattr(recipe, name)
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return value if isinstance(value, (int, float, str)) else "none"
