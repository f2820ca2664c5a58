"""Fixtures of the tests of the checks of the phantom."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.cohort_checks import CASES
from phantom import probes
from phantom.cohort import Design, make_cohort

LeakAuc = Callable[[np.ndarray, np.ndarray], probes.Leak]


@pytest.fixture(scope="session")
def quick_leak() -> LeakAuc:
    """Return ``probes.leak_auc`` with fewer permutations, computed once for equal cohorts.

    Tests of the probes cover the interval.
    """
    leak_auc, known = probes.leak_auc, dict[tuple[bytes, bytes], probes.Leak]()

    def quick(features: np.ndarray, has_region: np.ndarray) -> probes.Leak:
        key = features.tobytes(), has_region.tobytes()
        if key not in known:
            known[key] = leak_auc(features, has_region, repeats=2, permutations=10)
        return known[key]

    return quick


@pytest.fixture(scope="module", autouse=True)
def use_quick_leak(quick_leak: LeakAuc) -> Iterator[None]:
    """Replace ``probes.leak_auc`` during the modules of this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "leak_auc", quick_leak)
        yield


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cohort with every pattern. Read it; never write to it."""
    folder = tmp_path_factory.mktemp("check")
    make_cohort(folder, Design(cases=CASES, seed=3))
    return folder


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the cohort to spoil; the folder of its dataset."""
    return shutil.copytree(root, tmp_path / "copy") / "datasets_raw" / "Phantom"
