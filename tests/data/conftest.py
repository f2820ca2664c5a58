"""Fixtures of the tests of data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.datasets import tiny_dataset


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw data set of two cases."""
    return tiny_dataset(tmp_path / "DVT", ("a", "b"))
