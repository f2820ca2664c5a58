"""Options of dvt_train for the recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dvtplan.cli.recipe_arguments import add_recipe
from dvtplan.data.paths import Workspace
from dvtplan.planning.recipe import Recipe


def test_every_recipe_field_can_be_overridden(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    words = (
        "--recipe modern --epochs 3 --batch-size 4 --learning-rate 2e-3 --lr-drops 0.5,0.9 --lr-factor 0.2 "
        "--beta1 0.8 --loss focal --focal-gamma 1.5 --focal-alpha 0.6 --oversampling 0.3 --norm-groups 2 --width 4 "
        "--target lesion --seed 5 --schedule drops --warm-up 7 --weight-decay 0.1 --clip-norm none --averaging 0.9 "
        "--dice-weight 0.5 --patch 32x48 --context 1 --augmentation variants --no-mirror --held-out 0.2 "
        "--topk-share 0.2"
    )
    assert call("train", "0", "--root", toy_once.root, *words.split()) == 0
    assert trainings[0].epochs == 3
    named = {k: getattr(trainings[0].recipe, k) for k in ("name", "epochs")}
    assert trainings[0].recipe == Recipe(
        **named,
        batch_size=4,
        learning_rate=2e-3,
        lr_drops=(0.5, 0.9),
        lr_factor=0.2,
        beta1=0.8,
        loss="focal",
        focal_gamma=1.5,
        focal_alpha=0.6,
        oversampling=0.3,
        norm_groups=2,
        width=4,
        target="lesion",
        seed=5,
        schedule="drops",
        warm_up=7,
        weight_decay=0.1,
        clip_norm=None,
        averaging=0.9,
        dice_weight=0.5,
        topk_share=0.2,
        patch="32x48",
        context=1,
        augmentation="variants",
        held_out=0.2,
    )
    assert named["name"].startswith("modern with ") and "focal_alpha" in named["name"]


def test_the_batch_size_can_be_chosen_automatically(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    assert call("train", "0", "--root", toy_once.root, "--batch-size", "auto") == 0
    assert call("train", "0", "--root", toy_once.root, "--batch-size", "2") == 0
    assert [one.options.batch_size_auto for one in trainings] == [True, False]
    assert trainings[0].recipe.name == "paper with batch_size"


def test_the_command_line_has_an_option_for_every_field_of_the_recipe_but_its_name() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_recipe(parser)
    options = {action.dest for action in parser._actions}
    assert options == {*Recipe.__dataclass_fields__, "recipe"} - {"name"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rate", "-1"], "--learning-rate must be positive, not -1.0"),
        (["--width", "30", "--norm-groups", "4"], "--norm-groups 4 must divide --width 30"),
        (["--lr-drops", "0.9,0.5"], "--lr-drops must be increasing numbers between 0 and 1, not 0.9,0.5"),
        (["--focal-alpha", "1"], "--focal-alpha must be above 0"),
        (["--patch", "96"], "--patch must be whole, auto or rows x columns"),
        (["--patch", "100x64"], "--patch must have sides that are multiples of 16"),
        (["--context", "9"], "--context must be from 0 to 8"),
        (["--averaging", "1"], "--averaging must be 0 or more and below 1"),
        (["--clip-norm", "0"], "--clip-norm must be above 0, or none"),
        (["--weight-decay", "nan"], "--weight-decay must be finite"),
        (["--held-out", "1"], "--held-out must be 0 or more and below 1"),
        (["--focal-alpha", "1.5"], "--focal-alpha must be above 0 and below 1, or none"),
    ],
)
def test_an_invalid_recipe_is_reported_in_one_line(
    toy_once: Workspace, call: Callable[..., Any], words: list[str], message: str
) -> None:
    assert message in call("train", "0", "--root", toy_once.root, *words)


def test_an_optional_number_can_be_switched_off(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    assert call("train", "0", "--root", toy_once.root, "--recipe", "modern", "--clip-norm", "none") == 0
    assert trainings[0].recipe.clip_norm is None
