"""What is compared, and the check that earlier results in the folder belong to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from dvtplan.core import digests, json_records, threads, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.data.folds import Fold
from dvtplan.data.paths import Workspace

MADE_BY = "compare_nnunet.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The conditions that all runs share: ``settings.json``."""

    dataset: str
    fold: int
    budget_s: float
    """Training time of each method in seconds."""
    threads: int
    """Threads of each method, pinned to as many cores."""
    splits_digest: str
    """SHA-256 of splits.json."""
    processor: str
    precision: str
    """Number format of dvtplan's trainings and predictions: 'fp32' or 'bf16'; 'auto': each tries which is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything that a method needs to run."""

    workspace: Workspace
    out: Path
    conditions: Conditions
    fold: Fold

    def folder(self, method: str) -> Path:
        """Return the folder of a method."""
        return self.out / method

    def predictions(self, method: str) -> Path:
        """Return the folder of a method's masks of the test patients."""
        return self.folder(method) / "predictions"

    @property
    def test_images(self) -> Path:
        """Folder with the images of the test patients, as links."""
        return self.out / "test_images"

    @property
    def test_labels(self) -> Path:
        """Folder with their true masks, as links."""
        return self.out / "test_labels"

    @property
    def thread_variables(self) -> dict[str, str]:
        """Environment variables that limit the threads of a process, and let them wait as those of dvtplan."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return {**threads.settings(os.environ), **dict.fromkeys(names, str(self.conditions.threads))}


def splits_digest(workspace: Workspace) -> str:
    """Return the digest of the splits of a planned data set."""
    return digests.sha256(workspace.splits)


def require_the_same(out: Path, conditions: Conditions, *, save: bool = True) -> None:
    """Save the conditions, or check that they are those of the earlier results in the folder.

    Args:
        out: the folder.
        conditions: of this command.
        save: write the conditions of a new folder.

    Raises:
        DvtError: if they differ; names the first difference.
    """
    path = out / "settings.json"
    if not path.exists():
        if save:
            json_records.save(conditions, path)
        return
    earlier = json_records.load(type(conditions), path, MADE_BY, "Use a new folder as --out.")
    for one in fields(conditions):
        before, now = getattr(earlier, one.name), getattr(conditions, one.name)
        if before != now:
            raise DvtError(
                f"{path}: the results in this folder have {one.name} {before}, not {now}. Use a new folder as --out."
            )


@contextlib.contextmanager
def pinned(count: int) -> Iterator[None]:
    """Limit this process, and processes started inside, to a number of cores.

    Raises:
        DvtError: if there are fewer cores.
    """
    with on_cores(first_cores(count, "--threads")):
        yield


def first_cores(count: int, option: str) -> list[int]:
    """Return the numbers of the first cores that this process may use.

    Raises:
        DvtError: if there are fewer cores; names the option.
    """
    cores = worker_pool.available_cores()
    if count > cores:
        raise DvtError(f"{option} {count}: this process may use {cores} cores. Choose at most {cores}.")
    return sorted(os.sched_getaffinity(0))[:count] if hasattr(os, "sched_getaffinity") else list(range(count))


@contextlib.contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Limit this process, and processes started inside, to some cores. macOS cannot do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
