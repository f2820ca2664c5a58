"""What tests share: small raw data sets written to disk, prepared and trained once a session."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dvtplan import preprocess, volumes
from dvtplan.geometry import Grid
from dvtplan.workspace import Workspace

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Set before anything loads torch, and inherited by every process that a test starts: networks of
four channels lose more by waiting for a second thread than they gain, and the sums of one thread
are the same on every machine."""

TOY_GRID = Grid(
    shape=(6, 34, 33),
    spacing_mm=(5.0, 2.0, 2.0),
    origin_mm=(-32.0, -10.0, 66.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""Coronal, head up; 34x33 is prepared as 32x32."""


def toy_case(number: int, classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image, and the label of a bright disc that drifts from slice to slice.

    With two classes the disc's upper half is 1 and its lower half 2; the first and last slice are
    empty.
    """
    rows, columns = np.mgrid[: TOY_GRID.shape[1], : TOY_GRID.shape[2]]
    label = np.zeros(TOY_GRID.shape, np.uint8)
    for s in range(1, TOY_GRID.shape[0] - 1):
        top, left = 10 + 3 * (number % 4), 8 + 4 * s
        disc = (rows - top) ** 2 + (columns - left) ** 2 < 30
        label[s][disc] = np.where(rows < top, 1, classes)[disc]
    noise = np.random.default_rng(number).normal(300.0, 40.0, label.shape)
    return np.float32(noise + 500.0 * (label > 0) + 150.0 * (label == 2)).clip(1), label


def write_raw(
    root: Path, *, labels: tuple[str, ...] = ("thrombus",), channels: int = 1, cases: int = 4
) -> Workspace:
    """A raw data set ``Toy`` with the cases c0, c1, ...; a second channel is the first one's negative."""
    workspace = Workspace(root, "Toy")
    for case in range(cases):
        image, label = toy_case(case, len(labels))
        for channel in range(channels):
            path = workspace.raw / "imagesTr" / f"c{case}_{channel:04d}.nii.gz"
            volumes.write_probabilities(path, image if channel == 0 else 2000.0 - image, TOY_GRID)
        volumes.write_mask(workspace.raw / "labelsTr" / f"c{case}.nii.gz", label, TOY_GRID)
    body = {
        "channel_names": {str(i): f"MR{i}" for i in range(channels)},
        "labels": {"background": 0, **{name: i for i, name in enumerate(labels, start=1)}},
        "file_ending": ".nii.gz",
    }
    (workspace.raw / "dataset.json").write_text(json.dumps(body))
    return workspace


@pytest.fixture(scope="session")
def prepare_toy() -> Callable[..., Workspace]:
    """Write and prepare a toy data set under a root: two folds of two test cases."""

    def make(root: Path, **kinds: object) -> Workspace:
        workspace = write_raw(root, **kinds)  # type: ignore[arg-type]
        preprocess.plan_and_preprocess(root, n_folds=2, jobs=1)
        return workspace

    return make


@pytest.fixture(scope="session")
def toy_once(tmp_path_factory: pytest.TempPathFactory, prepare_toy: Callable[..., Workspace]) -> Workspace:
    """A prepared data set of four cases and one label. Read it; never write to it."""
    return prepare_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(toy_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of ``toy_once`` to write to."""
    shutil.copytree(toy_once.root, tmp_path / "toy")
    return Workspace(tmp_path / "toy", toy_once.dataset)


@pytest.fixture(scope="session")
def trained_once(toy_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The toy with both folds trained and their test cases predicted. Read it; never write to it."""
    from dvtplan import predict, train
    from dvtplan.records import Recipe

    root = tmp_path_factory.mktemp("trained") / "toy"
    shutil.copytree(toy_once.root, root)
    workspace = Workspace(root, toy_once.dataset)
    recipe = Recipe(epochs=8, width=4, norm_groups=2, learning_rate=3e-3)
    for fold in (0, 1):
        train.train_fold(workspace, fold, recipe=recipe, options=train.Options(device="cpu", workers=0))
        predict.predict_fold(workspace, "gn_unet", fold)
    return workspace


@pytest.fixture
def trained(trained_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of ``trained_once`` to write to."""
    shutil.copytree(trained_once.root, tmp_path / "toy")
    return Workspace(tmp_path / "toy", trained_once.dataset)
