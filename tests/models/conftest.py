"""Fixtures of the tests of models: archives of a trained model."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.model_archives import members_of

from dvtplan.data.paths import Workspace
from dvtplan.reporting import model_export


@pytest.fixture(scope="session")
def good(trained_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of both folds. Read it; never write to it."""
    target = tmp_path_factory.mktemp("good") / "toy.zip"
    model_export.export_model(trained_once.results("gn_unet"), target)
    return target


@pytest.fixture(scope="session")
def members(good: Path) -> dict[str, bytes]:
    """What is in it, but the manifest."""
    return members_of(good)


@pytest.fixture(scope="session")
def half_members(trained_once: Workspace, good: Path) -> dict[str, bytes]:
    """The same of an archive with float16 weights."""
    target = good.with_name("half.zip")
    return members_of(model_export.export_model(trained_once.results("gn_unet"), target, weights="float16").path)
