"""Training a fold: the loss falls, seed and recipe decide the weights, everything is recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.trainings import CPU, TINY, Stop, load_run, rows, timeless

from dvtplan.core import json_records
from dvtplan.core.errors import InvalidValue
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.inference.predict import predict_fold
from dvtplan.models import checkpoint
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import RECIPES
from dvtplan.training.job import TrainingOptions
from dvtplan.training.train import train_fold

# --- what a training leaves -----------------------------------------------------------------------


def test_the_loss_falls_on_what_can_be_learnt(fresh: Workspace) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=8, learning_rate=3e-3), options=CPU)
    losses = [float(row["loss"]) for row in rows(folder)]
    # A bright disc in noise: about a tenth of the first epoch's loss is left; a third is asked for.
    assert losses[-1] < losses[0] / 3


def test_a_training_leaves_checkpoint_table_picture_log_and_record(straight: FoldFolder) -> None:
    names = {"checkpoint.pt", "epochs.csv", "progress.png", "log.txt", "run.json"}
    assert {p.name for p in straight.path.iterdir()} == names
    assert checkpoint.epochs_done(straight.checkpoint) == 4
    assert (straight.path.parent / "plan.json").exists()
    log = straight.log.read_text()
    assert "Trained 4 epochs" in log and "waiting for data" in log and "between epochs" in log


def test_the_record_says_what_was_done(straight: FoldFolder, toy_once: Workspace) -> None:
    run = load_run(straight)
    assert run.recipe == replace(TINY, target="lesion") and run.classes == {"thrombus": 1}
    assert (run.network, run.fold, run.epochs_done, run.channels, run.processes) == ("gn_unet", 0, 4, 1, 1)
    assert sorted((*run.train, *run.test)) == ["c0", "c1", "c2", "c3"] and len(run.train) == 2
    assert run.plan_digest == json_records.digest(json_records.load(Plan, toy_once.plan, "test"))
    assert run.seconds == pytest.approx(sum(float(r["seconds"]) for r in rows(straight)))
    assert 0 <= run.waiting_share < 1 and run.setup.startswith("Running on cpu")


def test_what_the_data_look_like_travels_with_the_model(toy: Workspace) -> None:
    train_fold(toy, 0, recipe=TINY, epochs=1, options=CPU)
    copy = toy.results_fingerprint("gn_unet").read_text()
    assert copy == toy.fingerprint.read_text() and '"shares_below": [' in copy
    described = toy.results_description("gn_unet").read_text()
    assert described == (toy.raw / "dataset.json").read_text()
    # A model of an older version gets it when its training is resumed.
    toy.results_fingerprint("gn_unet").unlink()
    train_fold(toy, 0, epochs=2, options=replace(CPU, resume=True))
    assert toy.results_fingerprint("gn_unet").read_text() == copy


def test_the_environment_is_left_as_it_was(fresh: Workspace) -> None:
    before = dict(os.environ)
    train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    assert dict(os.environ) == before


# --- recipe and options ---------------------------------------------------------------------------


def test_the_learning_rate_drops_at_the_recipes_shares(straight: FoldFolder) -> None:
    """60 % and 85 % of 4 epochs: from the third (index 2) and from the fourth on."""
    assert [row["learning_rate"] for row in rows(straight)] == ["0.001", "0.001", "0.0001", "1e-05"]


def test_the_learning_rate_is_what_the_optimizer_steps_by(fresh: Workspace, stop_after: Callable[[int], None]) -> None:
    """Dropped to next to nothing for the second of two epochs, it leaves the weights of the first."""
    recipe = replace(TINY, epochs=2, lr_drops=(0.5,), lr_factor=1e-30)
    stop_after(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=recipe, options=CPU)
    path = fresh.fold("gn_unet", 0).checkpoint
    first = torch.load(path, weights_only=True)["network"]
    train_fold(fresh, 0, options=replace(CPU, resume=True))
    second = torch.load(path, weights_only=True)["network"]
    assert checkpoint.epochs_done(path) == 2
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=1e-30)


def test_every_field_of_the_recipe_changes_what_is_learnt(fresh: Workspace) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"batch_size": 4},
        {"learning_rate": 2e-3},
        {"lr_drops": ()},
        {"lr_factor": 0.5},
        {"beta1": 0.5},
        {"focal_gamma": 1.0},
        {"focal_alpha": 0.7},
        {"oversampling": 0.9},
        {"norm_groups": 1},
        {"seed": 1},
    ]
    heads = []
    for change in changes:
        recipe = replace(TINY, **{"epochs": 2, "lr_drops": (0.5,), **change})  # type: ignore[arg-type]
        folder = train_fold(fresh, 0, recipe=recipe, options=replace(CPU, overwrite=True))
        heads.append(torch.load(folder.checkpoint, weights_only=True)["network"]["head.weight"])
    same = [(a, b) for a in range(len(heads)) for b in range(a) if torch.equal(heads[a], heads[b])]
    assert same == []


def test_an_overridden_recipe_lands_in_the_record(fresh: Workspace) -> None:
    wanted = replace(
        RECIPES["modern"],
        batch_size=4,
        learning_rate=2e-3,
        lr_drops=(),
        beta1=0.5,
        focal_gamma=1.0,
        focal_alpha=0.6,
        oversampling=0.25,
        norm_groups=1,
        width=4,
        seed=3,
    )
    folder = train_fold(fresh, 0, recipe=wanted, epochs=1, options=CPU)
    assert load_run(folder).recipe == replace(wanted, epochs=1, target="lesion", patch="whole")


def test_a_training_by_other_folds_leaves_no_predictions_of_the_earlier_one(
    prepare_toy: Callable[..., Workspace], tmp_path: Path
) -> None:
    """Otherwise evaluation finds predictions of what is now trained on, and refuses the new training."""
    workspace = prepare_toy(tmp_path, cases=2)
    once = replace(TINY, epochs=1)
    folder = train_fold(workspace, 0, recipe=once, options=CPU)
    before = [path.name for path in predict_fold(workspace, "gn_unet", 0).glob("*.nii.gz")]
    splits = json.loads(workspace.splits.read_text())
    for fold in splits["folds"]:
        fold["train"], fold["test"] = fold["test"], fold["train"]
    workspace.splits.write_text(json.dumps(splits))
    train_fold(workspace, 0, recipe=once, options=replace(CPU, overwrite=True))
    assert len(before) == 1 and not list(folder.predictions.glob("*.nii.gz"))


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    fresh: Workspace, straight: FoldFolder, tmp_path: Path
) -> None:
    again = train_fold(fresh, 0, recipe=TINY, options=CPU)
    assert again.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    assert timeless(again) == timeless(straight)
    other = train_fold(fresh, 0, recipe=replace(TINY, seed=1), options=replace(CPU, overwrite=True))
    assert other.checkpoint.read_bytes() != straight.checkpoint.read_bytes()


def test_streamed_slices_train_the_same_weights(fresh: Workspace, straight: FoldFolder) -> None:
    streamed = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, workers=2))
    assert streamed.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_bf16_learns_too(fresh: Workspace) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, learning_rate=3e-3), options=replace(CPU, precision="bf16"))
    losses = [float(row["loss"]) for row in rows(folder)]
    assert losses[-1] < losses[0] and "bf16" in load_run(folder).setup


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "target", "classes"),
    [
        (("anterior", "posterior"), "auto", {"anterior": 1, "posterior": 2}),
        (("anterior", "posterior"), "lesion", {"lesion": 1}),
        (("proximal", "distal"), "auto", {"lesion": 1}),
        (("proximal", "distal"), "labels", {"proximal": 1, "distal": 2}),
    ],
)
def test_named_labels_give_a_softmax_head_and_lesion_their_union(
    prepare_toy: Callable[..., Workspace],
    tmp_path: Path,
    labels: tuple[str, ...],
    target: str,
    classes: dict[str, int],
) -> None:
    workspace = prepare_toy(tmp_path, labels=labels, cases=2)
    recipe = replace(TINY, epochs=1, target=target)
    folder = train_fold(workspace, 0, recipe=recipe, options=CPU)
    run = load_run(folder)
    assert run.classes == classes
    assert run.recipe.target == ("lesion" if len(classes) == 1 else "labels")
    head = torch.load(folder.checkpoint, weights_only=True)["network"]["head.weight"]
    assert len(head) == (1 if len(classes) == 1 else 3)


def test_every_channel_goes_in(prepare_toy: Callable[..., Workspace], tmp_path: Path) -> None:
    folder = train_fold(prepare_toy(tmp_path, channels=2, cases=2), 0, recipe=replace(TINY, epochs=1), options=CPU)
    assert load_run(folder).channels == 2
    assert torch.load(folder.checkpoint, weights_only=True)["network"]["enter.0.weight"].shape[1] == 2


@pytest.mark.parametrize("epochs", [-1, "2", 1.5])
def test_a_number_of_epochs_that_cannot_be_is_refused(toy_once: Workspace, epochs: Any) -> None:
    with pytest.raises(InvalidValue, match="expected a whole number") as caught:
        train_fold(toy_once, 0, epochs=epochs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", [{"processes": 0}, {"workers": -1}, {"workers": "x"}, {"time_budget_s": 0}])
def test_training_options_that_cannot_be_are_refused(how: Any) -> None:
    with pytest.raises(InvalidValue, match=next(iter(how))):
        TrainingOptions(**how)
