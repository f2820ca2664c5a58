"""Held-out patients: chosen by the seed, whole patients, never trained on, and kept by a resumed training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.refusals import refused
from helpers.trainings import CPU, TINY, load_run

from dvtplan.data.folds import Fold
from dvtplan.data.paths import Workspace
from dvtplan.models import devices
from dvtplan.planning.recipe import Recipe
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.held_out import hold_out
from dvtplan.training.job import TrainingRequest, open_job
from dvtplan.training.train import train_fold

PATIENT_OF = {f"{patient}{k}": patient for patient in "abcdefghij" for k in (1, 2)}
FOLD = Fold(index=3, train=tuple(PATIENT_OF), test=("z",))
HALF = replace(TINY, epochs=1, batch_size=1, held_out=0.5)


def held(recipe: Recipe, fold: Fold = FOLD) -> tuple[str, ...]:
    return hold_out(fold, PATIENT_OF, recipe, None, Path("run.json"))[1]


@pytest.mark.parametrize(("share", "patients"), [(0.0, 0), (0.01, 1), (0.3, 3), (0.99, 9)])
def test_whole_patients_are_held_out_and_somebody_is_trained_on(share: float, patients: int) -> None:
    fold, out = hold_out(FOLD, PATIENT_OF, Recipe(held_out=share), None, Path("run.json"))
    assert len({PATIENT_OF[case] for case in out}) == patients and len(out) == 2 * patients
    assert sorted((*fold.train, *out)) == sorted(FOLD.train) and fold.test == FOLD.test
    assert fold.train and not {PATIENT_OF[case] for case in fold.train} & {PATIENT_OF[case] for case in out}


def test_the_seed_alone_decides_who_is_held_out() -> None:
    chosen = {held(Recipe(held_out=0.3, seed=seed)) for seed in range(20)}
    assert len(chosen) > 5
    turned = held(Recipe(held_out=0.3), replace(FOLD, train=FOLD.train[::-1]))
    assert sorted(turned) == sorted(held(Recipe(held_out=0.3, epochs=7)))


def test_a_fold_of_one_patient_can_hold_out_nobody() -> None:
    message = refused(lambda: held(Recipe(held_out=0.3), replace(FOLD, train=("a1", "a2"))))
    assert "`held_out=0.3`" in message and "fold 3" in message


def test_nothing_of_a_held_out_patient_is_trained_on(toy: Workspace) -> None:
    """Its image and its label do not change the weights, nor the lesions around which patches are drawn."""
    recipe = replace(HALF, patch="16x16", oversampling=0.5)
    folder = train_fold(toy, 0, recipe=recipe, options=CPU)
    run, weights = load_run(folder), folder.checkpoint.read_bytes()
    assert len(run.train) == len(run.held_out) == 1 and run.used == (*run.train, *run.held_out)
    held_out = toy.preprocessed_case(run.held_out[0])
    for name, change in (("image.npy", 0.3), ("label.npy", 1)):
        array = np.load(held_out / name)
        np.save(held_out / name, array + np.asarray(change, array.dtype))
    train_fold(toy, 0, recipe=recipe, options=replace(CPU, overwrite=True))
    assert folder.checkpoint.read_bytes() == weights
    trained = toy.preprocessed_case(run.train[0]) / "image.npy"
    np.save(trained, np.load(trained) * np.float16(0.5))
    train_fold(toy, 0, recipe=recipe, options=replace(CPU, overwrite=True))
    assert folder.checkpoint.read_bytes() != weights


def test_the_start_of_a_training_says_that_cases_are_held_out(
    fresh: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    train_fold(fresh, 0, recipe=HALF, options=CPU)
    assert "1 case held out" in capsys.readouterr().err


def test_a_resumed_training_holds_out_the_same_and_no_other_share(fresh: Workspace) -> None:
    folder = train_fold(fresh, 0, recipe=HALF, options=CPU)
    before = load_run(folder)
    train_fold(fresh, 0, epochs=2, options=replace(CPU, resume=True))
    after = load_run(folder)
    assert after.epochs_done == 2 and (after.train, after.held_out) == (before.train, before.held_out)
    other = replace(HALF, held_out=0.0)
    assert "`held_out`" in refused(lambda: train_fold(fresh, 0, recipe=other, options=replace(CPU, resume=True)))


def test_other_patients_held_out_are_refused_on_resume(toy: Workspace) -> None:
    """As after an edit of cases.csv."""
    folder = train_fold(toy, 0, recipe=HALF, options=CPU)
    body = json.loads(folder.run.read_text())
    body["train"], body["held_out"] = body["held_out"], body["train"]
    folder.run.write_text(json.dumps(body))
    message = refused(lambda: train_fold(toy, 0, epochs=2, options=replace(CPU, resume=True)))
    assert str(folder.run) in message and "cases.csv" in message


def test_without_a_share_all_training_cases_are_trained_on(fresh: Workspace) -> None:
    request = TrainingRequest(fold=0, network="gn_unet", recipe=TINY, epochs=None)
    job = open_job(fresh, request, CPU, devices.choose("cpu"), TorchProcessGroup())
    assert len(job.run.train) == 2 and job.run.held_out == () and len(job.slices) == 12
