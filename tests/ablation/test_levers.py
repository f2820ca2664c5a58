"""The levers: their options, and which of them change something."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from ablation_study.levers import LEVERS, choose, effective, recipe_of, words_of

from dvtplan.cli import recipe_arguments
from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.planning.plan import Plan


@pytest.fixture
def plan(toy_once: Workspace) -> Plan:
    """A plan of one label and slices of 32x32."""
    return json_records.load(Plan, toy_once.plan, "dvt_plan_and_preprocess")


@pytest.mark.parametrize("lever", LEVERS)
def test_the_options_of_a_lever_give_its_recipe(lever: str) -> None:
    parser = argparse.ArgumentParser()
    recipe_arguments.add_recipe(parser)
    found = recipe_arguments.recipe_of(parser.parse_args([*words_of(lever), "--seed", "3"]))
    assert found is not None and replace(found, name="") == replace(recipe_of(lever, 3), name="")


def test_the_reference_is_the_first_and_each_lever_comes_once(plan: Plan) -> None:
    chosen, skipped = choose(["context_0", "paper", "context_0", "modern"], plan)
    assert chosen == ["modern", "context_0", "paper"] and skipped == {}


def test_a_lever_that_changes_nothing_is_skipped_with_a_reason(plan: Plan) -> None:
    chosen, skipped = choose(list(LEVERS), plan)
    assert "the same as modern" in skipped["lesion_union"]  # one label
    assert "the same as modern" in skipped["patch_whole"]  # slices are smaller than patches
    assert {*chosen, *skipped} == set(LEVERS) and {"context_0", "no_dice", "paper"} <= set(chosen)


def test_a_lever_that_equals_another_one_is_skipped(plan: Plan) -> None:
    large = replace(plan, target_shape=(128, 96), labels={"proximal": 1, "distal": 2})
    chosen, skipped = choose(["patch_whole", "patch_128x96", "lesion_union"], large)
    assert chosen == ["modern", "patch_whole", "lesion_union"] and "patch_whole" in skipped["patch_128x96"]


def test_labels_that_must_be_told_apart_are_not_joined(plan: Plan) -> None:
    _, skipped = choose(["lesion_union"], replace(plan, labels={"anterior": 1, "posterior": 2}))
    assert "labels" in skipped["lesion_union"]


@pytest.mark.parametrize(
    ("lever", "changes"),
    [("modern", {"focal_alpha": 0.75}), ("loss_focal", {"dice_weight": 2.0}), ("modern", {"lr_drops": (0.5,)})],
)
def test_a_field_without_effect_does_not_make_another_training(
    plan: Plan, lever: str, changes: dict[str, object]
) -> None:
    changed = replace(recipe_of(lever), **changes)
    assert changed != recipe_of(lever) and effective(changed, plan) == effective(recipe_of(lever), plan)
