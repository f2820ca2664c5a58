"""The vocabulary refuses what cannot be meant, naming the field."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import pytest
from helpers.records import PLAN, STILL
from hypothesis import example, given
from hypothesis import strategies as st

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import InvalidValue
from dvtplan.core.json_records import digest, from_json, to_json
from dvtplan.imaging.normalize import Normalization
from dvtplan.models.training_run import Run, Schedule, training_differences
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.recipe import RECIPES, Recipe, settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slice_axis", "x"),
        ("target_shape", (961, 320)),
        ("target_shape", (960, 0)),
        ("target_shape", (960, 8208)),
        ("variants", ()),
        ("labels", {"distal": 2, "proximal": 1}),
        ("labels", {"proximal": 1, "distal": 1}),
        ("labels", {"background": 0, "thrombus": 1}),
        ("labels", {"thrombus": 255}),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must "):
        replace(PLAN, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("angle_deg", 181.0),
        ("angle_deg", math.nan),
        ("scale", 0.0),
        ("scale", -1.0),
        ("scale", 11.0),
        ("scale", math.nan),
    ],
)
def test_a_variant_that_would_show_nothing_is_refused_by_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} must lie in"):
        replace(STILL, **{field: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scope": "cohort"}, "scope must be 'slice' or 'volume', not 'cohort'"),
        ({"clip_percentiles": (99.5, 0.5)}, "clip_percentiles must rise within 0..100"),
        ({"clip_percentiles": (-1.0, 99.5)}, "clip_percentiles must rise within 0..100"),
        ({"clip_percentiles": (50.0, 50.0)}, "clip_percentiles must rise within 0..100"),
        ({"clip_percentiles": (math.nan, 99.0)}, "clip_percentiles must rise within 0..100"),
    ],
)
def test_a_normalization_without_a_range_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Normalization(scope="slice"), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("lr_drops", (0.85, 0.6)),
        ("lr_drops", (0.6, 1.0)),
        ("lr_drops", (0.0, 0.6)),
        ("lr_factor", 0.0),
        ("lr_factor", math.inf),
        ("beta1", 1.0),
        ("beta1", -0.1),
        ("focal_gamma", -1.0),
        ("focal_gamma", math.inf),
        ("focal_alpha", 0.0),
        ("focal_alpha", 1.0),
        ("oversampling", -0.1),
        ("oversampling", 1.1),
        ("oversampling", math.nan),
        ("norm_groups", 0),
        ("norm_groups", 5),
        ("width", 0),
        ("target", "clot"),
        ("seed", -1),
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", "3"),
        ("learning_rate", None),
        ("focal_alpha", "0.5"),
    ],
)
def test_a_recipe_that_cannot_train_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(InvalidValue, match=rf"\b{field}\b.*must"):
        Recipe(**{field: value})  # type: ignore[arg-type]


def test_the_recipe_without_changes_is_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.beta1) == (250, 2, 1e-3, 0.9)


def test_the_learning_rate_falls_tenfold_at_epochs_150_and_212_of_250() -> None:
    recipe = Recipe()  # 0.6 x 250 = 150; 0.85 x 250 = 212.5, which rounds to the even 212
    drops = recipe.drop_steps(250 * 9, 9)
    rates = [recipe.learning_rate_at(9 * epoch, 250 * 9, drops) for epoch in (0, 149, 150, 211, 212, 249)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


@given(st.integers(1, 300), st.lists(st.floats(0.01, 0.99), max_size=4).map(sorted), st.integers(1, 3))
@example(250, [0.6, 0.85], 9)
@example(60, [0.75, 0.92], 9)
def test_all_epochs_have_the_learning_rates_of_the_rule_by_epochs(
    epochs: int, shares: list[float], per_epoch: int
) -> None:
    """As they were when the epoch was the unit: to the bit."""
    recipe = Recipe(epochs=epochs, lr_drops=tuple(shares))
    drops = recipe.drop_steps(epochs * per_epoch, per_epoch)
    for step in range(epochs * per_epoch):
        passed = sum(step // per_epoch >= round(f * epochs) for f in shares)
        assert (
            recipe.learning_rate_at(step, epochs * per_epoch, drops) == recipe.learning_rate * recipe.lr_factor**passed
        )


@given(st.integers(2, 2000), st.lists(st.floats(0.01, 0.99), max_size=4).map(sorted))
def test_a_shorter_training_has_every_drop_before_its_last_step(steps: int, shares: list[float]) -> None:
    recipe = Recipe(lr_drops=tuple(shares))
    drops = recipe.drop_steps(steps, 9)
    rates = [recipe.learning_rate_at(step, steps, drops) for step in range(steps)]
    assert rates == sorted(rates, reverse=True) and rates[0] == recipe.learning_rate
    assert rates[-1] == pytest.approx(recipe.learning_rate * recipe.lr_factor ** len(shares))
    assert all(abs(drop - share * steps) <= 1 for drop, share in zip(drops, shares, strict=True))


def test_a_cosine_rises_over_the_warm_up_and_falls_to_almost_nothing() -> None:
    recipe = Recipe(schedule="cosine", warm_up=50, lr_drops=())
    rates = [recipe.learning_rate_at(step, 1000, ()) for step in range(1000)]
    assert rates[:50] == sorted(rates[:50]) and rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[0] == pytest.approx(2e-5) and max(rates) == pytest.approx(1e-3, rel=0.01)
    assert rates[500] == pytest.approx(0.5e-3) and rates[-1] < 1e-8
    assert recipe.learning_rate_at(3, 30, ()) > 0.9e-3  # a short training warms up over a tenth of its steps


def test_levels_need_a_limb() -> None:
    assert Levels(right_mm=3.0).left_mm is None
    with pytest.raises(ValueError, match="without any limb"):
        Levels(midline_mm=0.0)


def test_a_fingerprint_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one case"):
        Fingerprint(dataset="DVT", channels=("MR",), labels={"thrombus": 1}, cases=())


def test_records_do_not_change_and_have_no_other_fields() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAN.preset = "paper"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Recipe("paper")  # type: ignore[misc]
    assert not hasattr(PLAN, "__dict__")


RUN = Run(
    network="gn_unet",
    fold=0,
    recipe=Recipe(),
    classes={"thrombus": 1},
    channels=1,
    parameters=7,
    train=("a",),
    test=("b",),
    plan_digest="p",
    splits_digest="s",
    setup="",
    processes=1,
    versions={},
    started="",
    epochs_done=1,
    seconds=0.0,
    waiting_share=0.0,
)


def test_folds_that_were_not_trained_alike_are_named() -> None:
    run = RUN
    named = replace(run, fold=1, recipe=replace(run.recipe, name="another name"))
    assert training_differences([]) == training_differences([run]) == training_differences([run, named]) == []
    (line,) = training_differences([run, replace(run, fold=1, recipe=replace(run.recipe, epochs=2))])
    differences = "fold 0: paper, 250 epochs; fold 1: paper, 2 epochs"
    assert line == f"These folds were trained with different lengths ({differences})."
    (line,) = training_differences([run, replace(run, plan_digest="q")])
    assert line.startswith("These folds were trained with different plans (")
    (line,) = training_differences([run, replace(run, fold=1, recipe=replace(run.recipe, seed=5))])
    assert line.startswith("These folds were trained with different recipes (")


SHORT = replace(
    RUN,
    recipe=replace(RUN.recipe, epochs=4),
    epochs_done=4,
    schedule=Schedule(
        budget_s=9.0, recipe_epochs=250, steps_per_epoch=100, planned=345, steps=340, taken=340, drops=(204, 289)
    ),
)
"""A training that a time budget ended within its fourth epoch."""


def test_a_training_that_a_time_budget_ended_says_how_long_it_was() -> None:
    assert (SHORT.length, SHORT.done, SHORT.is_finished) == ("3.4 epochs", "3.4", True)
    assert SHORT.schedule is not None
    half = replace(SHORT, epochs_done=2, schedule=replace(SHORT.schedule, taken=200))
    assert (half.length, half.done, half.is_finished) == ("3.4 epochs", "2", False)
    tiny = replace(SHORT.schedule, steps=9, taken=9)
    assert (replace(SHORT, schedule=tiny).length, tiny.epochs) == ("0.09 epochs", 1)
    assert (RUN.length, RUN.done, replace(RUN, recipe=Recipe(epochs=1)).length) == ("250 epochs", "1", "1 epoch")


def test_folds_of_a_time_budget_differ_if_their_length_does() -> None:
    assert SHORT.schedule is not None
    alike = replace(SHORT, fold=1, schedule=replace(SHORT.schedule, steps=341, taken=341))
    assert training_differences([SHORT, alike]) == []
    other = replace(SHORT, fold=1, schedule=replace(SHORT.schedule, steps=390, taken=390))
    (line,) = training_differences([SHORT, other])
    assert line.endswith("with different lengths (fold 0: paper, 3.4 epochs; fold 1: paper, 3.9 epochs).")
    other = replace(other, recipe=replace(other.recipe, seed=5))
    assert "with different recipes and lengths (" in training_differences([SHORT, other])[0]


def test_records_of_trainings_from_before_the_schedule_are_read_and_keep_their_digest() -> None:
    old = {name: value for name, value in to_json(RUN).items() if name != "schedule"}
    assert from_json(Run, old, "") == RUN and "schedule" not in to_json(RUN, for_digest=True)
    assert from_json(Run, to_json(SHORT), "") == SHORT and digest(SHORT) != digest(replace(SHORT, schedule=None))


@pytest.mark.parametrize("change", [{"steps_per_epoch": 0}, {"taken": 341}, {"taken": -1}, {"planned": 0}])
def test_a_schedule_that_cannot_be_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        from_json(Run, {**to_json(SHORT), "schedule": {**to_json(SHORT.schedule), **change}}, "")


def test_networks_that_were_not_trained_alike_are_named_with_their_folds() -> None:
    other = replace(RUN, network="unet", recipe=replace(RUN.recipe, epochs=1, name="quick", seed=5))
    (line,) = training_differences([RUN, replace(RUN, fold=1), other])
    differences = "gn_unet fold 0, 1: paper, 250 epochs; unet fold 0: quick, 1 epoch"
    assert line == f"These networks were trained with different recipes and lengths ({differences})."


def test_every_field_of_a_recipe_is_described_to_users() -> None:
    described = settings()
    assert list(described) == list(Recipe.__dataclass_fields__)
    assert all(setting.label for setting in described.values())
    assert [name for name, setting in described.items() if not setting.help] == ["name"]
    assert described["batch_size"].title == "batch size (slices per step)" and described["seed"].title == "seed"


def test_the_loss_was_added_without_a_change_of_digests() -> None:
    before = to_json(Recipe(), for_digest=True)
    assert "loss" not in before and "focal_gamma" in before and digest(Recipe(loss="other")) != digest(Recipe())
    assert to_json(Recipe())["loss"] == "focal"
    old = {name: value for name, value in to_json(Recipe()).items() if name != "loss"}
    assert from_json(Recipe, old, "") == Recipe()


def test_a_loss_is_described_with_its_options() -> None:
    assert Recipe(focal_alpha=0.75).describe_loss() == "focal (gamma 2.0, alpha 0.75)"
    assert RECIPES["modern"].describe_loss() == "dice_topk (weight 1.0, share 0.1)"
    assert Recipe(loss="dice_focal").describe_loss() == "dice_focal (gamma 2.0, alpha None, weight 1.0)"
    assert Recipe(loss="other").describe_loss() == "other"
