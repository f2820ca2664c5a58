"""A training is refused where plan, folds, slices, network and options do not fit together."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.refusals import refused
from helpers.trainings import CPU, TINY

from dvtplan.data.paths import Workspace
from dvtplan.models import devices
from dvtplan.planning.preprocess import PreprocessOptions, plan_and_preprocess
from dvtplan.training import distributed
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingOptions, TrainingRequest, open_job
from dvtplan.training.train import train_fold


def rewrite(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_an_unknown_loss_is_refused_and_nothing_is_written(fresh: Workspace) -> None:
    message = refused(lambda: train_fold(fresh, 0, recipe=replace(TINY, loss="mse"), options=CPU))
    assert "`loss=mse`" in message and not fresh.results("gn_unet").exists()


def test_a_shape_that_the_network_cannot_process_is_refused_naming_the_plan(
    prepare_toy: Callable[..., Workspace], tmp_path: Path
) -> None:
    workspace = prepare_toy(tmp_path, cases=2)
    rewrite(workspace.plan, target_shape=[48, 32])
    plan_and_preprocess(str(tmp_path), options=PreprocessOptions(folds=2, jobs=1))
    message = refused(lambda: train_fold(workspace, 0, network="segnet", recipe=TINY, options=CPU))
    assert str(workspace.plan) in message and "48x32" in message and "multiples of 32" in message
    train_fold(str(tmp_path), 0, recipe=TINY, epochs=1, options=CPU)  # its divisor is 16


def test_a_patch_that_the_network_cannot_process_is_refused(fresh: Workspace) -> None:
    recipe = replace(TINY, patch="16x32")
    message = refused(lambda: train_fold(fresh, 0, network="segnet", recipe=recipe, options=CPU))
    assert "`patch=16x32`" in message and "multiples of 32" in message


def test_slices_of_another_plan_are_refused_naming_both(toy: Workspace) -> None:
    rewrite(toy.plan, target_shape=[48, 32])
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert str(toy.preprocessed) in message and str(toy.plan) in message
    assert "`plan_and_preprocess` again" in message


def test_a_plan_of_other_data_is_refused_naming_both(toy: Workspace) -> None:
    rewrite(toy.fingerprint, dataset="Other")
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert str(toy.fingerprint) in message and str(toy.plan) in message


def test_folds_of_other_cases_are_refused(toy: Workspace) -> None:
    toy.splits.write_text(toy.splits.read_text().replace("c3", "c7"))
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert str(toy.splits) in message and "c7" in message


@pytest.mark.parametrize("which", ["plan", "splits", "fingerprint"])
def test_data_that_are_not_preprocessed_are_refused_with_the_command(toy: Workspace, which: str) -> None:
    path: Path = getattr(toy, which)
    path.unlink()
    assert refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU)) == (
        f"{path}: not found. Run `plan_and_preprocess` first."
    )


def test_missing_slices_are_refused_with_the_command(toy: Workspace) -> None:
    (toy.preprocessed_case("c1") / "case.json").unlink()
    (toy.preprocessed_case("c0") / "case.json").unlink()
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert "case.json: not found. Run `plan_and_preprocess` first" in message


@pytest.mark.parametrize("fold", [-1, 2, "a", "0", 0.5, None, True])
def test_a_fold_that_is_not_there_is_refused(fresh: Workspace, fold: Any) -> None:
    message = refused(lambda: train_fold(fresh, fold, recipe=TINY, options=CPU))
    assert message.startswith(f"fold {fold}: ") and "the folds 0 to 1" in message


def test_resuming_by_another_plan_or_other_folds_is_refused(toy: Workspace) -> None:
    train_fold(toy, 0, recipe=replace(TINY, epochs=1), options=CPU)
    plan = toy.plan.read_text()
    rewrite(toy.plan, variants=[{"angle_deg": 0, "scale": 1, "mirror": False}])
    again = replace(CPU, resume=True)
    assert "another plan or other folds" in refused(lambda: train_fold(toy, 0, epochs=2, options=again))
    toy.plan.write_text(plan)
    rewrite(toy.splits, source="another")
    assert "another plan or other folds" in refused(lambda: train_fold(toy, 0, epochs=2, options=again))


def test_resume_and_overwrite_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        TrainingOptions(resume=True, overwrite=True)


def test_a_batch_that_processes_cannot_share_is_refused(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = contextlib.nullcontext(TorchProcessGroup(rank=0, world=2))
    monkeypatch.setattr(distributed, "process_group", lambda device: pair)
    message = refused(lambda: train_fold(fresh, 0, recipe=replace(TINY, batch_size=3), options=CPU))
    assert "`batch_size=3`" in message and "2 processes" in message


def test_a_batch_larger_than_the_data_is_refused(fresh: Workspace) -> None:
    assert "has only" in refused(lambda: train_fold(fresh, 0, recipe=replace(TINY, batch_size=1000), options=CPU))
    assert not fresh.fold("gn_unet", 0).path.exists()


def test_a_case_in_training_and_test_is_refused(toy: Workspace) -> None:
    body = json.loads(toy.splits.read_text())
    body["folds"][0]["train"].append(body["folds"][0]["test"][0])
    toy.splits.write_text(json.dumps(body))
    assert "in training or test" in refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))


def test_the_union_is_not_trained_under_the_name_of_one_label(
    prepare_toy: Callable[..., Workspace], tmp_path: Path
) -> None:
    """Its masks would be read as that label."""
    workspace = prepare_toy(tmp_path, cases=2, labels=("lesion", "vein"))
    message = refused(lambda: train_fold(workspace, 0, recipe=replace(TINY, target="lesion"), options=CPU))
    assert "`target=lesion`" in message and "`target=labels`" in message


def test_no_epoch_is_refused_in_one_line(toy: Workspace) -> None:
    assert "`epochs=0`" in refused(lambda: train_fold(toy, 0, epochs=0, options=CPU))


@pytest.mark.parametrize(("network", "groups", "told"), [("unet", 2, True), ("gn_unet", 2, False), ("unet", 32, False)])
def test_groups_without_an_effect_are_told(
    fresh: Workspace, capsys: pytest.CaptureFixture[str], network: str, groups: int, told: bool
) -> None:
    recipe = replace(TINY, width=32, norm_groups=groups)
    request = TrainingRequest(fold=0, network=network, recipe=recipe, epochs=None)
    open_job(fresh, request, CPU, devices.choose("cpu"), TorchProcessGroup())
    assert ("`norm_groups=2` has no effect: unet" in capsys.readouterr().err) is told
