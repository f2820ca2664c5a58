"""Measure preprocessing and evaluation against reading the files, and against nnU-Net on the same files and cores."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench import nnunet
from bench.inputs import Bench
from bench.results import Row, absent
from bench.timing import child, in_turn
from dvtplan.core import worker_pool
from dvtplan.data.dataset import discover
from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io
from dvtplan.planning.preprocess import PreprocessOptions, plan_and_preprocess

READING = 1.5
"""Largest ratio of a stage to reading its files."""
COHORT = 24
"""Number of cases; with few, the start of processes would dominate."""
PAIRS = 58
"""Number of pairs of masks, likewise: the paper's patients."""
NNUNET = 5.0
"""Goal for the ratio of nnU-Net to dvtplan."""


def preprocess(bench: Bench) -> Iterator[Row]:
    """`dvt_plan_and_preprocess`: verify, measure, plan, preprocess."""
    workspace = bench.cohort(bench.middle, 2 if bench.tiny else COHORT)
    dataset = discover(workspace.raw)
    files = [path for case in dataset.cases for path in (*case.images, case.label) if path is not None]

    def ours() -> float:
        shutil.rmtree(workspace.preprocessed, ignore_errors=True)
        return _command("plan_and_preprocess", "--root", workspace.root, "--folds", 2)

    tasks: dict[str, Callable[[], object]] = {"ours": ours, "reading": lambda: _read_all(files)}
    if bench.nnunet is not None:
        tasks["nnunet"] = nnunet.preprocess(bench, workspace)
    timing = in_turn(tasks, bench.rounds, bench.warm_up)
    note = f"{len(dataset.cases)} cases of {bench.middle}, {worker_pool.available_cores()} cores"
    detail: dict[str, object] = {"seconds": timing.rounds}
    yield Row(
        section="preprocess", what="ours over reading the files once", value=timing.ratio("ours", "reading"), unit="x",
        at_most=READING, note=note, detail=detail,
    )  # fmt: skip
    yield _against_nnunet(bench, "preprocess", timing.ratio("nnunet", "ours") if bench.nnunet else math.nan, detail)


def evaluate(bench: Bench) -> Iterator[Row]:
    """`dvt_evaluate` on labels and a second rater's masks: counts, regions, surfaces, lesions, tables."""
    workspace = bench.cohort(bench.middle, 2 if bench.tiny else PAIRS)
    labels, masks = workspace.raw / "labelsTr", workspace.raw / "rater2"
    files = [*sorted(labels.glob("*.nii.gz")), *sorted(masks.glob("*.nii.gz"))]
    out = bench.scratch / "scores"

    def ours() -> float:
        where = ("--root", workspace.root, "--dataset", "Phantom", "--reference", labels, "--predictions", masks)
        return _command("evaluate", *where, "--output", out, "--prediction-values", "lesion")

    tasks: dict[str, Callable[[], object]] = {"ours": ours, "reading": lambda: _read_all(files)}
    if bench.nnunet is not None:
        tasks["nnunet"] = nnunet.evaluate(bench, labels, masks)
    timing = in_turn(tasks, bench.rounds, bench.warm_up)
    detail: dict[str, object] = {"seconds": timing.rounds}
    yield Row(
        section="evaluate", what="ours over reading the files once", value=timing.ratio("ours", "reading"), unit="x",
        at_most=READING, note=f"{len(files) // 2} pairs of {bench.middle}, every measure", detail=detail,
    )  # fmt: skip
    yield _against_nnunet(bench, "evaluate", timing.ratio("nnunet", "ours") if bench.nnunet else math.nan, detail)


def growth(bench: Bench) -> Iterator[Row]:
    """Growth of preprocessing time with the number of cases: slope in logarithms, 1 if proportional."""
    counts = (2, 4) if bench.tiny else (8, 32)
    scale = "tiny" if bench.tiny else "small"

    def run(workspace: Workspace) -> None:
        shutil.rmtree(workspace.preprocessed, ignore_errors=True)
        plan_and_preprocess(workspace.root, "Phantom", options=PreprocessOptions(folds=2, jobs=1))

    cohorts = {str(n): bench.cohort(scale, n) for n in counts}
    timing = in_turn({n: partial(run, w) for n, w in cohorts.items()}, bench.rounds, bench.warm_up)
    few, many = map(str, counts)
    slope = math.log(timing.ratio(many, few)) / math.log(counts[1] / counts[0])
    yield Row(
        section="scale", what="slope of preprocessing time over cases", value=slope, unit="", at_most=1.05,
        note=f"{few} and {many} cases of {scale}, one process", detail={"seconds": timing.rounds},
    )  # fmt: skip


def _command(*words: object) -> float:
    """Run one of our commands; return the seconds of its process from start to end."""
    return child([sys.executable, "-m", "dvtplan.cli", *map(str, words)])[0]


def _read_all(files: list[Path]) -> None:
    """Read and decompress every file once on every core.

    This is the fastest way to read these files here: threads start at once, and decompression releases the lock.
    """
    with ThreadPoolExecutor(worker_pool.available_cores()) as pool:
        for _ in pool.map(_read, files):
            pass


def _read(path: Path) -> int:
    return volume_io.read(path)[0].size


def _against_nnunet(bench: Bench, section: str, ratio: float, detail: dict[str, object]) -> Row:
    if bench.nnunet is None:
        return absent(section, "nnU-Net over ours", "--nnunet DIR installs it")
    return Row(
        section=section, what="nnU-Net over ours", value=ratio, unit="x", at_least=NNUNET,
        note=f"nnU-Net {nnunet.VERSION}; both as processes from start to end", detail=detail,
    )  # fmt: skip
