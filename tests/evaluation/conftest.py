"""Fixtures of the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.films import PREDICTIONS, make, put

from dvtplan.data.paths import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Four cases with two labels in two folds, predicted as lesions."""
    return make(tmp_path)


@pytest.fixture
def folders(workspace: Workspace, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Labels, external predictions without a description, and a folder for the results."""
    for case_id, rows in PREDICTIONS.items():
        put(tmp_path / "theirs" / f"{case_id}.nii.gz", rows)
    return workspace.raw / "labelsTr", tmp_path / "theirs", tmp_path / "out"
