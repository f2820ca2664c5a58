"""A resumed training equals one that never stopped, and keeps its recipe."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.machines import Machine, always
from helpers.refusals import refused
from helpers.trainings import CPU, TINY, Stop, link, load_run, rows, timeless

from dvtplan.cli.runner import for_command_line
from dvtplan.core import json_records
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import checkpoint
from dvtplan.models.networks.registry import NETWORKS
from dvtplan.planning.recipe import RECIPES, override
from dvtplan.training import tuning
from dvtplan.training.train import train_fold


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_resumed_training_equals_one_that_never_stopped(
    fresh: Workspace, straight: FoldFolder, stop_after: Callable[[int], None], done: int
) -> None:
    stop_after(done)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=CPU)
    torch.rand(5)
    folder = train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    assert timeless(folder) == timeless(straight)
    assert load_run(folder).epochs_done == 4


def test_a_record_that_fell_behind_is_mended_by_resume(fresh: Workspace, straight: FoldFolder) -> None:
    """As after a kill between the last checkpoint and its record."""
    folder = train_fold(fresh, 0, recipe=TINY, options=CPU)
    before = load_run(folder)
    json_records.save(replace(before, epochs_done=3, seconds=1.0), folder.run)
    folder.progress.unlink()
    train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert load_run(folder).epochs_done == 4 and folder.progress.exists()
    assert (load_run(folder).started, load_run(folder).seconds) == (before.started, before.seconds)
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_resuming_what_is_trained_changes_nothing(fresh: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    before = {p: p.read_bytes() for p in folder.path.iterdir() if p != folder.log}
    for epochs in (None, 1):
        train_fold(fresh, 0, epochs=epochs, options=replace(CPU, resume=True))
    assert {p: p.read_bytes() for p in folder.path.iterdir() if p != folder.log} == before
    assert "Fold 0 is trained: 1 epoch." in capsys.readouterr().err


def test_more_epochs_may_be_added(fresh: Workspace) -> None:
    """Without drops of the learning rate, which lie at shares of all epochs, 2 + 2 epochs are 4."""
    steady = replace(TINY, lr_drops=())
    train_fold(fresh, 0, recipe=replace(steady, epochs=2), options=CPU)
    folder = train_fold(fresh, 0, epochs=4, options=replace(CPU, resume=True))
    assert load_run(folder).recipe.epochs == 4 and len(rows(folder)) == 4
    once = train_fold(fresh, 1, recipe=steady, options=CPU)
    assert len(rows(once)) == 4
    bytes_added = folder.checkpoint.read_bytes()
    at_once = train_fold(fresh, 0, recipe=steady, options=replace(CPU, overwrite=True))
    assert at_once.checkpoint.read_bytes() == bytes_added


def test_resume_with_nothing_there_is_an_error(fresh: Workspace) -> None:
    message = refused(lambda: train_fold(fresh, 0, recipe=TINY, options=replace(CPU, resume=True)))
    assert "nothing to resume" in message and "checkpoint" in message and "`resume`" in message
    assert not fresh.results("gn_unet").exists()


def test_a_training_is_not_begun_over_a_finished_one(fresh: Workspace) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    before = folder.checkpoint.read_bytes()
    message = refused(lambda: train_fold(fresh, 0, recipe=TINY, options=CPU))
    assert "already holds a training" in message and "`resume=True`" in message and "`overwrite=True`" in message
    assert folder.checkpoint.read_bytes() == before


def test_an_earlier_training_is_kept_until_the_first_checkpoint_of_the_new_one(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt, or a disk that is full, in the first epoch loses nothing; the old training goes on as it was."""
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    before = {path: path.read_bytes() for path in fresh.results("gn_unet").rglob("*.*") if path.name != "log.txt"}
    anew = replace(CPU, overwrite=True)
    other = replace(TINY, focal_gamma=1.0, epochs=2, target="lesion")

    def stop(*_: object, **__: object) -> None:
        raise Stop

    for place in ("dvtplan.training.train.fit", "dvtplan.models.checkpoint.os.fsync"):
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(place, stop)
            train_fold(fresh, 0, recipe=other, options=anew)
        assert {path: path.read_bytes() for path in before} == before
        assert not list(folder.path.glob(".*"))
    train_fold(fresh, 0, epochs=2, options=replace(CPU, resume=True))
    assert load_run(folder).recipe == replace(TINY, epochs=2, target="lesion")
    train_fold(fresh, 0, recipe=other, options=anew)
    assert load_run(folder).recipe == other and len(rows(folder)) == 2


@pytest.mark.parametrize("change", [{"learning_rate": 5e-3}, {"seed": 9}, {"context": 1}, {"batch_size": 4}])
def test_a_resumed_training_keeps_its_recipe(fresh: Workspace, change: dict[str, object]) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    before = folder.run.read_bytes()
    other = replace(TINY, **change)  # type: ignore[arg-type]
    message = refused(lambda: train_fold(fresh, 0, recipe=other, epochs=2, options=replace(CPU, resume=True)))
    assert str(folder.run) in message and "keeps its recipe" in message
    assert all(f"`{name}`" in message for name in change)
    assert folder.run.read_bytes() == before
    train_fold(fresh, 0, recipe=TINY, epochs=2, options=replace(CPU, resume=True))
    assert load_run(folder).epochs_done == 2


def test_a_recipe_that_does_not_fit_is_named_with_the_options_to_repeat(fresh: Workspace) -> None:
    """Not the options that the user did not give."""
    given = {"width": 4, "norm_groups": 2, "lr_drops": (0.5, 0.8)}
    train_fold(fresh, 0, recipe=override("modern", **given), epochs=1, options=CPU)
    again = replace(CPU, resume=True)
    message = refused(lambda: train_fold(fresh, 0, recipe=RECIPES["modern"], epochs=2, options=again))
    assert "this call (modern) has" in message and "`width` 32 instead of 4" in message
    assert "repeat `recipe='modern'` `lr_drops='0.5,0.8'` `norm_groups=2` `width=4`;" in message
    assert "repeat --recipe modern --lr-drops 0.5,0.8 --norm-groups 2 --width 4;" in for_command_line(message)


@pytest.mark.parametrize("network", sorted(set(NETWORKS) - {"gn_unet"}))
def test_every_network_trains_and_resumes_to_the_bit(
    fresh: Workspace, tmp_path: Path, stop_after: Callable[[int], None], network: str
) -> None:
    """Batch statistics are part of the checkpoint, so they must resume too."""
    recipe = replace(TINY, epochs=2)
    (tmp_path / "whole").mkdir()
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, network=network, recipe=recipe, options=CPU)
    stop_after(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, network=network, recipe=recipe, options=CPU)
    stop_after(0)
    resumed = train_fold(fresh, 0, network=network, options=replace(CPU, resume=True))
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


LEVERS = replace(
    RECIPES["modern"], name="levers", epochs=3, batch_size=2, patch="16x32", warm_up=2, width=4, norm_groups=2
)
"""All that the recipe `modern` adds, for slices of 32x32."""


def test_patches_and_averaged_weights_resume_to_the_bit_and_do_not_depend_on_the_loader(
    fresh: Workspace, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    for name in ("whole", "streamed"):
        (tmp_path / name).mkdir()
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, recipe=LEVERS, options=CPU)
    streaming = replace(CPU, workers=2)
    streamed = train_fold(link(fresh, tmp_path / "streamed"), 0, recipe=LEVERS, options=streaming)
    assert streamed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    stop_after(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=LEVERS, options=CPU)
    stop_after(0)
    resumed = train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    last, predicting = torch.load(whole.checkpoint, weights_only=True)["network"], checkpoint.weights(whole.checkpoint)
    assert last["enter.0.weight"].shape[1] == 5 == load_run(whole).channels_in
    assert not np.array_equal(last["head.weight"].numpy(), predicting["head.weight"])


# --- within an epoch ------------------------------------------------------------------------------


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes 15 minutes for the six steps of an epoch."""
    Machine(always(150.0)).run_trainings(monkeypatch)


@pytest.fixture
def stop_at_save(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """End the next training once it has written a number of checkpoints."""
    save = checkpoint.save

    def arrange(number: int) -> None:
        count = itertools.count(1)

        def saved(*what: Any, **how: Any) -> None:
            save(*what, **how)
            if next(count) == number:
                raise Stop

        monkeypatch.setattr(checkpoint, "save", saved)

    return arrange


@pytest.mark.usefixtures("slow_machine")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_killed_within_a_long_epoch_loses_ten_minutes_at_most(
    fresh: Workspace, straight: FoldFolder, stop_at_save: Callable[[int], None], workers: int
) -> None:
    """Stopped in the first epoch, then in the second."""
    options = replace(CPU, workers=workers)
    stop_at_save(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=options)
    folder = fresh.fold("gn_unet", 0)
    assert checkpoint.steps_taken(folder.checkpoint, 6) == 4 and checkpoint.epochs_done(folder.checkpoint) == 0
    assert load_run(folder).epochs_done == 0 and not folder.epochs.exists()
    stop_at_save(2)
    with pytest.raises(Stop):
        train_fold(fresh, 0, options=replace(options, resume=True))
    assert checkpoint.steps_taken(folder.checkpoint, 6) == 10 and len(rows(folder)) == 1
    stop_at_save(0)
    train_fold(fresh, 0, options=replace(options, resume=True))
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    assert timeless(folder) == timeless(straight)
    assert "resumed after epoch 1 and 4 steps" in folder.log.read_text()


@pytest.mark.usefixtures("slow_machine")
def test_fewer_epochs_than_a_checkpoint_within_an_epoch_has_are_refused(
    fresh: Workspace, stop_at_save: Callable[[int], None]
) -> None:
    stop_at_save(3)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=CPU)
    folder = fresh.fold("gn_unet", 0)
    assert checkpoint.steps_taken(folder.checkpoint, 6) == 10
    before = folder.run.read_bytes()
    message = refused(lambda: train_fold(fresh, 0, epochs=1, options=replace(CPU, resume=True)))
    assert "`epochs=1`" in message and "1 finished epoch and 4 steps" in message
    assert folder.run.read_bytes() == before


@pytest.mark.usefixtures("slow_machine")
def test_the_first_checkpoint_within_an_epoch_replaces_an_earlier_training(
    fresh: Workspace, straight: FoldFolder, stop_at_save: Callable[[int], None]
) -> None:
    """A kill in the moment between the two files would otherwise leave rows of another training."""
    train_fold(fresh, 0, recipe=replace(TINY, seed=3), options=CPU)
    stop_at_save(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=replace(CPU, overwrite=True))
    folder = fresh.fold("gn_unet", 0)
    assert load_run(folder).recipe.seed == 0 and not folder.epochs.exists()
    stop_at_save(0)
    train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


@pytest.mark.usefixtures("slow_machine")
def test_a_batch_size_that_was_chosen_is_kept_within_the_first_epoch(
    fresh: Workspace, stop_at_save: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = replace(CPU, batch_size_auto=True)
    monkeypatch.setattr(tuning, "_step_seconds", lambda job, trainer, slices, *_: {1: 1.0, 2: 1.0, 4: 4.0}[slices])
    stop_at_save(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=replace(TINY, epochs=1, batch_size=4), options=auto)
    folder = fresh.fold("gn_unet", 0)
    assert load_run(folder).recipe.batch_size == 2 and load_run(folder).epochs_done == 0
    stop_at_save(0)
    monkeypatch.setattr(tuning, "_step_seconds", lambda *what: pytest.fail("tried again"))
    train_fold(fresh, 0, options=replace(auto, resume=True))
    assert load_run(folder).recipe.batch_size == 2 and load_run(folder).epochs_done == 1
