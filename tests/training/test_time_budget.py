"""A training in a time budget: what it takes, records and resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.machines import Machine, always, changed
from helpers.refusals import refused
from helpers.trainings import CPU, TINY, Stop, link, load_run, rows, timeless

from dvtplan.core import json_records
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import checkpoint
from dvtplan.models.training_run import Schedule
from dvtplan.training.train import train_fold

LONG = replace(TINY, epochs=50)
STEADY = replace(LONG, lr_drops=())
AGAIN = replace(CPU, resume=True)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that takes a second for each step, of which an epoch has six."""
    machine = Machine(always(1.0))
    machine.run_trainings(monkeypatch)
    return machine


def within(seconds: float, **how: object) -> object:
    return replace(CPU, time_budget_s=seconds, **how)  # type: ignore[arg-type]


def learnt(folder: FoldFolder) -> list[torch.Tensor]:
    """Return weights and moments of a checkpoint."""
    state = torch.load(folder.checkpoint, weights_only=True)
    moments = [m for one in state["optimizer"]["state"].values() for m in one.values()]
    return [*state["network"].values(), *moments]


def assert_same(one: FoldFolder, other: FoldFolder) -> None:
    """Both learnt the same, to the bit."""
    assert all(torch.equal(a, b) for a, b in zip(learnt(one), learnt(other), strict=True))
    assert timeless(one) == timeless(other)


def test_a_time_budget_holds_as_many_steps_as_fit_and_records_them(fresh: Workspace, machine: Machine) -> None:
    """97 % of 27 s are 26 steps: four epochs and two steps of the fifth."""
    folder = train_fold(fresh, 0, recipe=LONG, options=within(27.0))
    run = load_run(folder)
    assert run.schedule == Schedule(
        budget_s=27.0, recipe_epochs=50, steps_per_epoch=6, planned=26, steps=26, taken=26, drops=(16, 22)
    )
    assert (run.recipe, run.epochs_done) == (replace(TINY, epochs=5, target="lesion"), 5)
    assert run.length == "4.3 epochs" and run.is_finished and machine.now == 26
    assert [row["learning_rate"] for row in rows(folder)] == ["0.001", "0.001", "0.0001", "1e-05", "1e-05"]
    assert checkpoint.epochs_done(folder.checkpoint) == 5
    assert torch.load(folder.checkpoint, weights_only=True)["optimizer"]["state"][0]["step"] == 26
    log = folder.log.read_text()
    assert "26 steps (4.3 epochs, for a time budget of 27 s)" in log and "96% of the time budget" in log


def test_a_time_budget_that_suffices_changes_nothing(fresh: Workspace, straight: FoldFolder, machine: Machine) -> None:
    folder = train_fold(fresh, 0, recipe=TINY, options=within(1e6))
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    assert load_run(folder).schedule is None and load_run(folder).recipe.epochs == 4


def test_less_than_an_epoch_is_trained_with_a_warning(
    fresh: Workspace, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train_fold(fresh, 0, recipe=TINY, options=within(4.5))
    run = load_run(folder)
    assert run.is_finished and run.length == "0.67 epochs" and len(rows(folder)) == 1
    assert "only 4 of 6 steps" in capsys.readouterr().err


def test_a_time_budget_of_hardly_a_step_is_refused(fresh: Workspace, machine: Machine) -> None:
    message = refused(lambda: train_fold(fresh, 0, recipe=TINY, options=within(4.0)))
    assert message.startswith("`time_budget_s`: ") and "1 s" in message and "fewer than 4 steps" in message
    assert not fresh.fold("gn_unet", 0).path.exists()


def test_a_machine_that_becomes_slower_ends_earlier_and_says_so(
    fresh: Workspace, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.step_s = changed(1.0, 20.0, 4.0)
    folder = train_fold(fresh, 0, recipe=LONG, options=within(60.0))
    run = load_run(folder)
    assert run.schedule is not None and run.schedule.planned == 58 and run.schedule.steps == run.schedule.taken < 32
    assert 54 <= machine.now <= 63 and run.is_finished and rows(folder)[-1]["learning_rate"] == "1e-05"
    assert f"{run.schedule.taken}/{run.schedule.taken} " in capsys.readouterr().err  # the progress bar


def test_a_time_budget_without_effect_is_said(
    fresh: Workspace, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    train_fold(fresh, 0, epochs=2, options=replace(AGAIN, time_budget_s=1.0))
    said = capsys.readouterr().err
    assert "has no effect on a resumed training" in said and "Without it" not in said
    assert load_run(fresh.fold("gn_unet", 0)).epochs_done == 2
    train_fold(fresh, 1, recipe=LONG, options=within(27.0))
    train_fold(fresh, 1, options=within(27.0, resume=True))
    assert "Without it, `epochs`" in capsys.readouterr().err


def test_measuring_leaves_no_trace_in_batch_statistics(fresh: Workspace, tmp_path: Path) -> None:
    """With real steps and a real checkpoint: the result is that of the recipe alone."""
    recipe = replace(TINY, epochs=1)
    (tmp_path / "whole").mkdir()
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, network="segnet", recipe=recipe, options=CPU)
    folder = train_fold(fresh, 0, network="segnet", recipe=recipe, options=within(1e6))
    assert folder.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    assert sorted(path.name for path in fresh.root.iterdir() if path.name.startswith(".")) == []


# --- resume ---------------------------------------------------------------------------------------


def test_a_killed_training_resumes_to_its_recorded_end(
    fresh: Workspace, tmp_path: Path, machine: Machine, stop_after: Callable[[int], None]
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, recipe=LONG, options=within(27.0))
    machine.now = 0.0
    stop_after(2)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=LONG, options=within(27.0))
    machine.step_s = always(9.0)
    folder = train_fold(fresh, 0, options=AGAIN)
    assert_same(folder, whole)
    assert load_run(folder).schedule == load_run(whole).schedule and load_run(folder).is_finished


def test_the_checkpoint_decides_where_its_record_fell_behind(fresh: Workspace, machine: Machine) -> None:
    """As after a kill between the last checkpoint and its record, which had another plan."""
    folder = train_fold(fresh, 0, recipe=LONG, options=within(27.0))
    run = load_run(folder)
    assert run.schedule is not None
    earlier = replace(run.schedule, steps=40, taken=24)
    json_records.save(replace(run, epochs_done=4, schedule=earlier, recipe=replace(run.recipe, epochs=7)), folder.run)
    before = folder.checkpoint.read_bytes()
    train_fold(fresh, 0, options=AGAIN)
    assert load_run(folder) == run and folder.checkpoint.read_bytes() == before


def test_added_epochs_first_complete_the_partial_one(fresh: Workspace, tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "whole").mkdir()
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, recipe=replace(STEADY, epochs=6), options=CPU)
    folder = train_fold(fresh, 0, recipe=STEADY, options=within(27.0))
    seconds = float(rows(folder)[4]["seconds"])
    train_fold(fresh, 0, epochs=6, options=AGAIN)
    assert_same(folder, whole)
    assert float(rows(folder)[4]["seconds"]) >= seconds
    run = load_run(folder)
    assert run.schedule is None and (run.recipe.epochs, run.epochs_done) == (6, 6)
    assert (
        torch.load(folder.checkpoint, weights_only=True).keys()
        == torch.load(whole.checkpoint, weights_only=True).keys()
    )


@pytest.mark.parametrize("epochs", [5, 6])
def test_epochs_whose_adding_is_interrupted_leave_a_true_record(
    fresh: Workspace, machine: Machine, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    """Before the first save, so the checkpoint still holds 4.3 epochs."""
    folder = train_fold(fresh, 0, recipe=STEADY, options=within(27.0))
    before = load_run(folder)

    def stop(*_: object, **__: object) -> None:
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr("dvtplan.training.train.fit", stop)
        train_fold(fresh, 0, epochs=epochs, options=AGAIN)
    assert load_run(folder) == before and before.length == "4.3 epochs"
    train_fold(fresh, 0, epochs=epochs, options=AGAIN)
    assert load_run(folder).schedule is None and load_run(folder).epochs_done == epochs


def test_added_epochs_that_are_killed_before_their_record_is_written_are_kept(
    fresh: Workspace, machine: Machine, stop_after: Callable[[int], None]
) -> None:
    """The checkpoint completes the partial epoch, and ``run.json`` still says 4.3 epochs."""
    folder = train_fold(fresh, 0, recipe=STEADY, options=within(27.0))
    stop_after(5)
    with pytest.raises(Stop):
        train_fold(fresh, 0, epochs=6, options=AGAIN)
    assert load_run(folder).length == "4.3 epochs"
    train_fold(fresh, 0, options=AGAIN)
    run = load_run(folder)
    assert run.schedule is None and (run.length, run.epochs_done) == ("5 epochs", 5)


@pytest.mark.parametrize("epochs", [5, 6])
def test_a_false_record_of_a_finished_training_is_corrected(fresh: Workspace, machine: Machine, epochs: int) -> None:
    folder = train_fold(fresh, 0, recipe=LONG, options=within(27.0))
    run = load_run(folder)
    json_records.save(replace(run, schedule=None, recipe=replace(run.recipe, epochs=epochs)), folder.run)
    train_fold(fresh, 0, options=AGAIN)
    assert load_run(folder) == run


def test_fewer_epochs_than_the_partial_one_are_refused(fresh: Workspace, machine: Machine) -> None:
    folder = train_fold(fresh, 0, recipe=LONG, options=within(27.0))
    before = folder.run.read_bytes()
    message = refused(lambda: train_fold(fresh, 0, epochs=4, options=AGAIN))
    assert "`epochs=4`" in message and "4 finished epochs and 2 steps" in message
    assert folder.run.read_bytes() == before


@pytest.mark.parametrize("epochs", [1, 2])
def test_part_of_an_epoch_is_completed(fresh: Workspace, tmp_path: Path, machine: Machine, epochs: int) -> None:
    """Nothing of a training of less than an epoch is thrown away."""
    (tmp_path / "whole").mkdir()
    recipe = replace(STEADY, epochs=epochs)
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, recipe=recipe, options=CPU)
    folder = train_fold(fresh, 0, recipe=recipe, options=within(4.5))
    assert load_run(folder).length == "0.67 epochs"
    train_fold(fresh, 0, epochs=epochs, options=within(4.5, resume=True))
    assert load_run(folder).length == "0.67 epochs"
    train_fold(fresh, 0, epochs=epochs, options=AGAIN)
    assert_same(folder, whole)
