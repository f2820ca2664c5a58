"""The levers: what is changed of the recipe `modern`, one thing at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dvtplan.planning import recipe as recipes
from dvtplan.planning.mirroring import mirrored_labels
from dvtplan.planning.patches import decide_patch
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import Recipe
from dvtplan.planning.recipe_text import has_effect
from dvtplan.planning.target import predicts_union

REFERENCE = "modern"
"""The lever, and the recipe, that all others are compared with."""
PAPER = "paper"
"""The lever that is another recipe."""

LEVERS: dict[str, dict[str, object]] = {
    REFERENCE: {},
    PAPER: {},
    "context_0": {"context": 0},
    "context_1": {"context": 1},
    "context_2": {"context": 2},
    "context_3": {"context": 3},
    "lesion_union": {"target": "lesion"},
    "loss_focal": {"loss": "focal", "focal_alpha": 0.75},
    "dice_ce": {"loss": "dice_ce"},
    "dice_topk": {"loss": "dice_topk"},
    "dice_focal": {"loss": "dice_focal"},
    "no_dice": {"dice_weight": 0.0},
    "dice_weight_0.5": {"dice_weight": 0.5},
    "dice_weight_2": {"dice_weight": 2.0},
    "patch_whole": {"patch": "whole"},
    "patch_160x128": {"patch": "160x128"},
    "patch_128x96": {"patch": "128x96"},
    "patch_96x64": {"patch": "96x64"},
    "patch_64x64": {"patch": "64x64"},
    "augmentation_variants": {"augmentation": "variants"},
    "oversampling_0": {"oversampling": 0.0},
    "oversampling_0.33": {"oversampling": 0.33},
    "oversampling_0.9": {"oversampling": 0.9},
    "weight_decay_0": {"weight_decay": 0.0},
    "weight_decay_0.1": {"weight_decay": 0.1},
    "schedule_drops": {"schedule": "drops", "lr_drops": (0.6, 0.85)},
    "no_warm_up": {"warm_up": 0},
    "no_clipping": {"clip_norm": None},
    "no_averaging": {"averaging": 0.0},
    "averaging_0.999": {"averaging": 0.999},
    "learning_rate_3e-4": {"learning_rate": 3e-4},
    "learning_rate_2e-3": {"learning_rate": 2e-3},
    "learning_rate_3e-3": {"learning_rate": 3e-3},
    "batch_6": {"batch_size": 6},
    "batch_24": {"batch_size": 24},
    "mirror": {"mirror": True},
    "no_mirror": {"mirror": False},
    "held_out_0.1": {"held_out": 0.1},
}
"""Name -> the fields of the recipe that it changes. A lever that changes nothing on a data set is skipped, so one
that equals today's recipe may stay."""


def recipe_of(lever: str, seed: int = 0) -> Recipe:
    """Return the recipe of a lever."""
    return recipes.override(_base(lever), **LEVERS[lever], seed=seed)


def words_of(lever: str) -> list[str]:
    """Return the options of dvt_train, without the seed."""
    words = ["--recipe", _base(lever)]
    for name, value in LEVERS[lever].items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", _word(value)]
    return words


def choose(wanted: Sequence[str], plan: Plan) -> tuple[list[str], dict[str, str]]:
    """Choose the levers that change something on a data set; the reference is always the first.

    Returns:
        The levers, and the reason for each one that is skipped.
    """
    chosen: dict[Recipe, str] = {}
    skipped = {}
    for lever in (REFERENCE, *(name for name in dict.fromkeys(wanted) if name != REFERENCE)):
        recipe = recipe_of(lever)
        found = effective(recipe, plan)
        if recipe.target == "lesion" and not predicts_union("auto", plan.labels):
            skipped[lever] = "the labels of this data set must be told apart"
        elif found in chosen:
            skipped[lever] = f"on this data set it is the same as {chosen[found]}"
        else:
            chosen[found] = lever
    return list(chosen.values()), skipped


def effective(recipe: Recipe, plan: Plan) -> Recipe:
    """Return a recipe in which fields that have no effect on a data set have their default value."""
    decided = decide_patch(recipe, plan)
    union = len(plan.labels) == 1 or predicts_union(recipe.target, plan.labels)
    idle = [name for name in recipes.settings() if not has_effect(decided, name)]
    idle += ["name", *(["mirror"] if mirrored_labels(plan) is None else [])]
    defaults = Recipe()
    changes = {name: getattr(defaults, name) for name in idle}
    return replace(decided, target="lesion" if union else "labels", **changes)


def _base(lever: str) -> str:
    return PAPER if lever == PAPER else REFERENCE


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
