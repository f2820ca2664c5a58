"""Fixtures of the tests of the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.commands import COMMANDS

from dvtplan.data.paths import FoldFolder, Workspace


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | str | None]:
    """Run a command in this process; return its exit status, or its error message."""

    def run(command: str, *words: object) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [f"dvt_{command}", *map(str, words)])
        try:
            COMMANDS[command]()
        except SystemExit as done:
            return done.code
        return 0

    return run


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Record what would be trained and predicted, in order."""
    seen: list[SimpleNamespace] = []

    def train(workspace: Workspace, fold: int, **how: Any) -> FoldFolder:
        seen.append(SimpleNamespace(fold=fold, setup=None, **how))
        return workspace.fold(how["network"], fold)

    def predict(workspace: Workspace, network: str, fold: int, *, setup: Any) -> None:
        assert (seen[-1].fold, seen[-1].network) == (fold, network)
        seen[-1].setup = setup

    monkeypatch.setattr("dvtplan.training.train.train_fold", train)
    monkeypatch.setattr("dvtplan.inference.predict.predict_fold", predict)
    return seen
