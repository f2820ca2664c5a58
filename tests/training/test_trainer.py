"""Losses and weights that are not finite end a training, and the last good checkpoint is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from helpers.machines import Machine, always
from helpers.refusals import refused
from helpers.trainings import CPU, TINY, Stop, load_run

from dvtplan.core import json_records
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace
from dvtplan.models import checkpoint
from dvtplan.training import sampling
from dvtplan.training.train import train_fold


def poison(workspace: Workspace, case: str, slice_index: int) -> None:
    path = workspace.preprocessed_case(case) / "image.npy"
    image = np.load(path)
    image[slice_index] = np.inf
    np.save(path, image)


def test_a_loss_that_is_not_finite_names_epoch_batch_and_slices_and_keeps_the_checkpoint(
    toy: Workspace, stop_after: Callable[[int], None]
) -> None:
    stop_after(2)
    with pytest.raises(Stop):
        train_fold(toy, 0, recipe=TINY, options=CPU)
    folder = toy.fold("gn_unet", 0)
    before = folder.checkpoint.read_bytes()
    run = load_run(folder)
    poison(toy, run.train[1], 3)
    message = refused(lambda: train_fold(toy, 0, options=replace(CPU, resume=True)))
    assert f"{run.train[1]}, slice 3" in message and "epoch 3, batch " in message
    assert "checkpoint is kept" in message and "`learning_rate`" in message
    numbers = sampling.SliceSampler(slices=12, variants=12, batch_size=2, seed=0).order(2)[0]
    batch = int(np.argwhere(numbers == 9)[0][0])
    assert f"batch {batch + 1} (" in message
    assert folder.checkpoint.read_bytes() == before and load_run(folder).epochs_done == 2


def test_in_the_first_epoch_no_checkpoint_is_promised(toy: Workspace) -> None:
    for case in ("c0", "c1", "c2", "c3"):
        poison(toy, case, 0)
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert "epoch 1, batch " in message and "no checkpoint" in message
    assert not toy.fold("gn_unet", 0).checkpoint.exists()


def test_a_checkpoint_within_the_first_epoch_is_kept(toy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that saves after four of six steps."""
    Machine(always(150.0)).run_trainings(monkeypatch)
    numbers = sampling.SliceSampler(slices=12, variants=12, batch_size=2, seed=0).order(0)[0]
    case, index = divmod(int(numbers[5][0]), 6)
    folds = json_records.load(Splits, toy.splits, "test").folds
    poison(toy, folds[0].train[case], index)
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert "epoch 1, batch 6 (" in message and "checkpoint is kept" in message
    assert checkpoint.steps_taken(toy.fold("gn_unet", 0).checkpoint, 6) == 4


def test_weights_that_are_not_finite_are_not_saved(fresh: Workspace) -> None:
    """One step of the whole epoch, larger than float32 holds: its loss is finite, its weights are not."""
    recipe = replace(TINY, batch_size=12, learning_rate=1e39)
    message = refused(lambda: train_fold(fresh, 0, recipe=recipe, options=CPU))
    assert "a weight is not finite in epoch 1, batch 1 (" in message
    assert not fresh.fold("gn_unet", 0).checkpoint.exists()
