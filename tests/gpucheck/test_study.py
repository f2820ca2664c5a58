"""The study on a GPU: phantoms, plan, training, scores and export."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from gpucheck import study
from gpucheck.checks import OutOfTime
from gpucheck.settings import LOG, Settings
from helpers.gpu_checks import settings_of

from dvtplan.data.paths import Workspace


def test_a_study_trains_evaluates_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training is short, whatever the speed of the machine: one epoch of a narrow network."""
    run_command, budgets = study.run_command, list[str]()

    def run_small(settings: Settings, name: str, words: list[str], seconds: float) -> None:
        if name == "train":
            at = words.index("--time-budget")
            budgets.append(words[at + 1])
            words = [*words[:at], "--epochs", "1", "--width", "4", "--norm-groups", "4", *words[at + 2 :]]
        run_command(settings, name, words, seconds)

    monkeypatch.setattr(study, "run_command", run_small)
    monkeypatch.setattr(study, "COHORTS", {"tiny": (4, 2)})
    settings = settings_of(tmp_path)
    found = [
        {row.what: row for row in step(settings)}
        for step in (study.make_phantoms, study.plan_and_preprocess, study.train, study.evaluate, study.export)
    ]
    phantoms, planned, trained, evaluated, exported = found
    assert "4 of scale tiny" in phantoms["phantom patients made"].note
    assert planned["patients planned and preprocessed"].value > 0
    assert 300 < float(budgets[0].removesuffix("s")) < 600  # of ten minutes
    assert trained["epochs of the paper's recipe"].value == 1
    assert any(what.startswith("phantom DSC, ") for what in evaluated)
    assert exported["exported model"].value > 0 and "gunzip" in exported["exported model"].note
    results = {path.name for path in study.result_files(tmp_path) if path.exists()}
    assert results >= {"learning_curve.png", "gn_unet.zip.gz"} and any(name.startswith("patient_") for name in results)


def test_a_training_with_too_little_time_is_not_started(
    tmp_path: Path, toy_once: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "study", property(lambda self: replace(toy_once, root=tmp_path)))
    with pytest.raises(OutOfTime, match="cohort"):
        next(study.train(settings_of(tmp_path)))
    monkeypatch.setattr(Settings, "study", property(lambda self: toy_once))
    monkeypatch.setattr(Settings, "study_is_ready", True)
    monkeypatch.setattr(study.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(OutOfTime, match="are left"):
        next(study.train(settings_of(tmp_path, seconds=20.0)))


def test_a_failed_command_and_a_slow_command_give_different_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"dvt_train .*status 1"):
        study.run_command(settings_of(tmp_path), "train", ["0", "--root", "nowhere"], 60.0)
    (tmp_path / LOG).write_text("bar\ndvt_train: --time-budget: one epoch takes 9 s\n\n")
    with pytest.raises(OutOfTime, match="one epoch takes 9 s"):
        study.run_command(settings_of(tmp_path), "train", ["0", "--root", "nowhere"], 60.0)

    def too_long(arguments: object, **options: float) -> None:
        raise subprocess.TimeoutExpired(str(arguments), options["timeout"])

    monkeypatch.setattr(study.subprocess, "run", too_long)
    with pytest.raises(OutOfTime, match="60 s"):
        study.run_command(settings_of(tmp_path), "train", ["0"], 60.0)
