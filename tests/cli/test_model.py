"""The command dvt_model: export a model and describe it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.data.prediction_records import PredictionRecord


def test_an_exported_model_predicts_the_same(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    results, archive = trained_once.results("gn_unet"), tmp_path / "toy.zip"
    assert call("model", "export", results, archive, "--folds", 1) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{archive} (") and ", folds 1, digest " in out
    assert "warning: no Table 1: " in err
    digest = out.rpartition(" ")[2].strip(")\n")
    assert call("model", "info", archive) == 0 and digest in (printed := capsys.readouterr().out)
    assert "gn_unet, width 4" in printed and "not a medical device" in printed
    image = next((trained_once.raw / "imagesTr").glob("*_0000.nii.gz"))
    for name, model in (("here", results), ("there", archive)):
        words = ["-i", image, "-o", tmp_path / f"{name}.nii.gz", "--model", model, "--folds", 1, "--device", "cpu"]
        assert call("predict", *words) == 0
    assert (tmp_path / "here.nii.gz").read_bytes() == (tmp_path / "there.nii.gz").read_bytes()
    found = json_records.load(PredictionRecord, tmp_path / "there_run.json", "")
    assert (found.model, found.model_digest, found.folds) == (str(archive), digest, (1,))
    assert call("model", "info", results) == 0 and f"model       {results}" in capsys.readouterr().out


def test_each_action_of_dvt_model_has_help_with_an_example(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for action in ("export", "info"):
        assert call("model", action, "--help") == 0
        assert f"example: dvt_model {action} " in capsys.readouterr().out
        assert call("model", action) == 2
        assert f"dvt_model {action}: error: the following arguments are required" in capsys.readouterr().err
