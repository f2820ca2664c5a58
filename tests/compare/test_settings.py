"""The conditions that all methods share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from compare.settings import pinned, require_the_same
from helpers.comparisons import setup_of

from dvtplan.core import threads
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace


def test_results_of_other_conditions_are_refused(toy_once: Workspace, tmp_path: Path) -> None:
    require_the_same(tmp_path, setup_of(toy_once, tmp_path).conditions)
    require_the_same(tmp_path, setup_of(toy_once, tmp_path).conditions)
    with pytest.raises(DvtError, match=r"settings\.json.*budget_s 60.*90.*--out"):
        require_the_same(tmp_path, setup_of(toy_once, tmp_path, budget_s=90.0).conditions)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not pin processes")
def test_processes_are_pinned_to_as_many_cores() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(DvtError, match="--threads 1000"), pinned(1000):
        pass


def test_all_methods_have_the_same_threads_which_wait_alike(
    toy_once: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in threads.WAITING:
        monkeypatch.delenv(name, raising=False)
    found = setup_of(toy_once, tmp_path, threads=3).thread_variables
    assert (found["OMP_NUM_THREADS"], found["GOMP_SPINCOUNT"]) == ("3", str(threads.SPINS))
