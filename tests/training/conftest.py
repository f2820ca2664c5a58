"""Fixtures of the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.trainings import CPU, TINY, Stop, link

from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import checkpoint
from dvtplan.rendering import charts
from dvtplan.training.train import train_fold


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """End trainings once the checkpoint of a number of epochs is written."""
    save = checkpoint.save

    def arrange(epochs: int) -> None:
        def saved(path: Path, network: object, optimizer: object, done: int, **more: object) -> None:
            save(path, network, optimizer, done, **more)  # type: ignore[arg-type]
            if done == epochs:
                raise Stop

        monkeypatch.setattr(checkpoint, "save", saved)

    return arrange


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here; ``straight`` and the commands draw in earnest."""
    monkeypatch.setattr(charts, "learning_curve", lambda rows, path, title: path.write_text(title))


@pytest.fixture(scope="session")
def straight(toy_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> FoldFolder:
    """Fold 0 trained by TINY without a stop. Read it; never write to it."""
    return train_fold(link(toy_once, tmp_path_factory.mktemp("straight")), 0, recipe=TINY, options=CPU)


@pytest.fixture
def fresh(toy_once: Workspace, tmp_path: Path) -> Workspace:
    """The toy with results of its own; its data must not be written to."""
    return link(toy_once, tmp_path)
