"""Fixtures of the tests of the phantom."""

from __future__ import annotations

from pathlib import Path

import pytest
from phantom.cohort import Design, make_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cohort of the default 8 cases. Read it; never write to it."""
    return make_cohort(tmp_path_factory.mktemp("cohort"), Design(seed=3))
