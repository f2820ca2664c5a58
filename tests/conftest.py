"""Shared fixtures: small raw data sets, preprocessed and trained once per session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.datasets import write_raw

from dvtplan.core import console
from dvtplan.data.paths import Workspace
from dvtplan.planning import preprocess

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Set before anything loads torch, and inherited by every process that a test starts: networks of
four channels lose more by waiting for a second thread than they gain, and the sums of one thread
are the same on every machine."""


@pytest.fixture(autouse=True)
def own_messages() -> Iterator[None]:
    """Undo after each test how a command prints messages: other tests call the library from Python."""
    before = console.settings()
    yield
    console.restore(before)


@pytest.fixture(scope="session")
def prepare_toy() -> Callable[..., Workspace]:
    """Write and preprocess a toy data set under a root: two folds of two test cases."""

    def make(root: Path, **kinds: object) -> Workspace:
        workspace = write_raw(root, **kinds)  # type: ignore[arg-type]
        preprocess.plan_and_preprocess(root, options=preprocess.PreprocessOptions(folds=2, jobs=1))
        return workspace

    return make


@pytest.fixture(scope="session")
def toy_once(tmp_path_factory: pytest.TempPathFactory, prepare_toy: Callable[..., Workspace]) -> Workspace:
    """A preprocessed data set of four cases and one label. Read it; never write to it."""
    return prepare_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(toy_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of ``toy_once`` to write to."""
    shutil.copytree(toy_once.root, tmp_path / "toy")
    return Workspace(tmp_path / "toy", toy_once.dataset)


@pytest.fixture(scope="session")
def trained_once(toy_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The toy with both folds trained and their test cases predicted. Read it; never write to it."""
    from dvtplan.inference import predict
    from dvtplan.planning.recipe import Recipe
    from dvtplan.training import job, train

    root = tmp_path_factory.mktemp("trained") / "toy"
    shutil.copytree(toy_once.root, root)
    workspace = Workspace(root, toy_once.dataset)
    recipe = Recipe(epochs=8, width=4, norm_groups=2, learning_rate=3e-3)
    for fold in (0, 1):
        train.train_fold(workspace, fold, recipe=recipe, options=job.TrainingOptions(device="cpu", workers=0))
        predict.predict_fold(workspace, "gn_unet", fold)
    return workspace


@pytest.fixture
def trained(trained_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of ``trained_once`` to write to."""
    shutil.copytree(trained_once.root, tmp_path / "toy")
    return Workspace(tmp_path / "toy", trained_once.dataset)
