"""The command dvt_train: options that reach training and prediction, and the order of the folds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.models.training_run import Run, Schedule


def test_a_fold_is_trained_with_the_paper_recipe_by_default_and_then_predicted(
    toy_once: Workspace,
    call: Callable[..., Any],
    trainings: list[SimpleNamespace],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("train", "1", "--root", toy_once.root) == 0
    (one,) = trainings
    assert (one.fold, one.network, one.recipe, one.epochs) == (1, "gn_unet", None, None)
    assert one.options.processes == 1 and not one.options.resume and not one.options.overwrite
    assert one.setup is not None and not one.setup.compiled
    assert capsys.readouterr().out == f"{toy_once.fold('gn_unet', 1).path}\n"


def test_device_options_reach_training_and_prediction(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    words = "--device cpu --precision bf16 --no-compile --no-channels-last --workers 0 --gpus 2 --overwrite"
    assert call("train", "0", "--root", toy_once.root, *words.split()) == 0
    options, setup = trainings[0].options, trainings[0].setup
    assert (options.device, options.precision, options.compiled, options.channels_last) == (
        "cpu",
        "bf16",
        False,
        False,
    )
    assert (options.workers, options.processes, options.overwrite) == (0, 2, True)
    assert (setup.device, setup.precision, setup.channels_last) == ("cpu", "bf16", False)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("8h", 28800), ("1.5h", 5400)])
def test_a_time_budget_is_read_in_seconds_minutes_or_hours(
    toy_once: Workspace,
    call: Callable[..., Any],
    trainings: list[SimpleNamespace],
    text: str,
    seconds: float,
) -> None:
    assert call("train", "0", "--root", toy_once.root, "--time-budget", text) == 0
    assert trainings[0].options.time_budget_s == seconds


@pytest.mark.parametrize("text", ["", "0", "90", "0m", "-5m", "20 m", "1d", "h", "20m30s"])
def test_an_invalid_time_is_refused(
    toy_once: Workspace, call: Callable[..., Any], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert call("train", "0", "--root", toy_once.root, f"--time-budget={text}") == 2
    assert "write 90s, 20m or 8h" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "folds"), [(["0"], [0]), (["1", "0"], [1, 0]), (["all"], [0, 1]), (["1", "1"], [1])])
def test_folds_are_trained_in_the_order_given(
    toy_once: Workspace,
    call: Callable[..., Any],
    trainings: list[SimpleNamespace],
    words: list[str],
    folds: list[int],
) -> None:
    assert call("train", *words, "--root", toy_once.root) == 0
    assert [one.fold for one in trainings] == folds


@pytest.mark.parametrize("words", [["2"], ["0", "9"], ["-1"], ["first"], ["1.0"]])
def test_a_missing_fold_is_refused_before_any_is_trained(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace], words: list[str]
) -> None:
    line = call("train", *words, "--root", toy_once.root)
    assert "the folds 0 to 1" in line
    assert trainings == []


@pytest.mark.parametrize("words", [["all", "0"], ["1", "all"]])
def test_all_folds_and_some_are_refused(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace], words: list[str]
) -> None:
    assert "all alone" in call("train", *words, "--root", toy_once.root) and trainings == []


def test_resuming_several_folds_starts_those_that_were_not_started(
    trained: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    trained.fold("gn_unet", 1).checkpoint.unlink()
    assert call("train", "all", "--resume", "--root", trained.root) == 0
    assert [(one.fold, one.options.resume) for one in trainings] == [(0, True), (1, False)]
    begun = json_records.load(Run, trained.fold("gn_unet", 0).run, "test").recipe
    assert [one.recipe for one in trainings] == [None, begun]  # which is not the paper's
    assert begun.width == 4


def test_folds_not_yet_started_follow_the_recipe_that_a_time_budget_shortened(
    trained: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    """Each fold has the whole time budget, so it may be longer than the first."""
    folder = trained.fold("gn_unet", 0)
    run = json_records.load(Run, folder.run, "test")
    schedule = Schedule(budget_s=9.0, recipe_epochs=50, steps_per_epoch=6, planned=8, steps=8, taken=8, drops=(5, 7))
    json_records.save(replace(run, schedule=schedule, recipe=replace(run.recipe, epochs=schedule.epochs)), folder.run)
    trained.fold("gn_unet", 1).checkpoint.unlink()
    assert call("train", "all", "--resume", "--time-budget", "9s", "--root", trained.root) == 0
    assert trainings[1].recipe == replace(run.recipe, epochs=50)


def test_resuming_without_a_started_training_is_an_error(toy_once: Workspace, call: Callable[..., Any]) -> None:
    for words in (["0"], ["all"]):
        line = call("train", *words, "--resume", "--root", toy_once.root)
        assert isinstance(line, str) and "nothing to resume" in line


def test_several_folds_on_several_gpus_run_side_by_side(
    toy_once: Workspace, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def run_queue(commands: list[list[str]], slots: list[list[str]]) -> list[int]:
        seen.update(commands=commands, slots=slots)
        return [0, 1]

    monkeypatch.setattr("dvtplan.training.distributed.run_commands", run_queue)
    line = call("train", "all", "--gpus", 2, "--device=cpu", "--epochs", 3, "--root", toy_once.root)
    assert isinstance(line, str) and "fold 1: failed" in line and "--resume" in line
    assert seen["slots"] == [["--device", "cpu"], ["--device", "cpu"]]
    alone = ["--gpus", "1", "--parent", str(os.getpid()), "--only"]
    for fold, command in enumerate(seen["commands"]):
        assert command[:4] == [sys.executable, "-m", "dvtplan.cli", "train"]
        assert command[-6:] == [*alone, str(fold)] and "--epochs" in command


def test_a_process_of_the_queue_trains_only_its_fold(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    words = ["all", "--gpus", "2", "--gpus", "1", "--only", "1", "--device", "cpu"]
    assert call("train", *words, "--root", toy_once.root) == 0
    assert [(one.fold, one.options.processes) for one in trainings] == [(1, 1)]
