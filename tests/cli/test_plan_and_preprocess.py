"""The command dvt_plan_and_preprocess."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from dvtplan.data.paths import Workspace


def test_verification_alone_writes_nothing(
    toy: Workspace, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(toy.preprocessed)
    words = ["--root", toy.root, "--folds", "2", "--jobs", "1"]
    assert call("plan_and_preprocess", *words, "--verify-only") == 0
    assert "nothing was written" in capsys.readouterr().out and not toy.preprocessed.exists()
    assert call("plan_and_preprocess", *words) == 0
    assert f"Preprocessed in {toy.preprocessed}" in capsys.readouterr().out and toy.plan.exists()


def test_folds_by_a_column_exclude_a_number_of_folds(
    toy: Workspace, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--root", toy.root, "--jobs", "1", "--folds-by", "centre"]
    assert call("plan_and_preprocess", *words, "--folds", "2") == 2
    assert "--folds-by cannot be used with --folds" in capsys.readouterr().err
    (toy.raw / "cases.csv").write_text("case_id,centre\n" + "".join(f"c{k},{'AB'[k % 2]}\n" for k in range(4)))
    assert call("plan_and_preprocess", *words) == 0
    assert "fold 1 (leaves out centre B)" in capsys.readouterr().out
