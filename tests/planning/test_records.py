"""The vocabulary refuses what cannot be meant, naming the field."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import pytest
from helpers.records import PLAN, STILL
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import InvalidValue
from dvtplan.core.json_records import digest, from_json, to_json
from dvtplan.imaging.normalize import Normalization
from dvtplan.models.training_run import Run, training_differences
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
    rates = [recipe.learning_rate_at(epoch) for epoch in (0, 149, 150, 211, 212, 249)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


@given(st.integers(1, 400), st.lists(st.floats(0.01, 0.99), max_size=4).map(sorted))
def test_the_learning_rate_never_rises_and_ends_after_every_drop(epochs: int, drops: list[float]) -> None:
    recipe = Recipe(epochs=epochs, lr_drops=tuple(drops))
    rates = [recipe.learning_rate_at(epoch) for epoch in range(epochs + 1)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(recipe.learning_rate * recipe.lr_factor ** len(drops))


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
    assert line == "These folds were trained by different recipes (fold 0: paper, 250 epochs; fold 1: paper, 2 epochs)."
    (line,) = training_differences([run, replace(run, plan_digest="q")])
    assert line.startswith("These folds were trained by different recipes or plans (")


def test_networks_that_were_not_trained_alike_are_named_with_their_folds() -> None:
    other = replace(RUN, network="unet", recipe=replace(RUN.recipe, epochs=1, name="quick"))
    (line,) = training_differences([RUN, replace(RUN, fold=1), other])
    differences = "gn_unet fold 0, 1: paper, 250 epochs; unet fold 0: quick, 1 epoch"
    assert line == f"These networks were trained by different recipes ({differences})."


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
    assert RECIPES["quick"].describe_loss() == "focal (gamma 2.0, alpha 0.75)"
    assert Recipe(loss="other").describe_loss() == "other"
