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
