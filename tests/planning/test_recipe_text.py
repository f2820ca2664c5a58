"""Recipes in words."""

from __future__ import annotations

from dataclasses import replace

from dvtplan.planning.recipe import RECIPES
from dvtplan.planning.recipe_text import describe_input, describe_optimizer, has_effect

PAPER, MODERN = RECIPES["paper"], replace(RECIPES["modern"], patch="96x64", context=2, oversampling=0.7)


def test_the_papers_recipe_in_words() -> None:
    assert describe_input(PAPER) == "batches of 2 whole slices; augmented by the plan's variants"
    assert describe_optimizer(PAPER) == (
        "Adam; learning rate 0.001, times 0.1 at 0.6, 0.85 of the training; last weights predict"
    )


def test_the_modern_recipe_in_words() -> None:
    for words in ("patches of 96x64, predicted in tiles", "with 2 neighbouring slices", "0.7 of the patches", "wide"):
        assert words in describe_input(MODERN)
    for words in ("AdamW, weight decay", "cosine", "warm-up", "norm 1", "averaged weights"):
        assert words in describe_optimizer(MODERN)
    assert "0.5 of the slices are drawn with lesions" in describe_input(replace(PAPER, oversampling=0.5))


def test_a_field_without_effect_is_known() -> None:
    for name in ("lr_drops", "lr_factor", "focal_gamma", "focal_alpha"):
        assert has_effect(PAPER, name) and not has_effect(MODERN, name)
    assert has_effect(MODERN, "dice_weight") and not has_effect(PAPER, "dice_weight")
    assert has_effect(replace(MODERN, loss="dice_focal"), "focal_gamma") and has_effect(MODERN, "warm_up")
