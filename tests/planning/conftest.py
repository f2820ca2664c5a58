"""Fixtures of the tests of planning."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.preparation import tiny_workspace

from dvtplan.data.paths import Workspace


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A raw data set of four cases."""
    return tiny_workspace(tmp_path)
