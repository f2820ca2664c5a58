"""Preprocessing and evaluation against only reading the files, and against nnU-Net on the same files and cores."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import nnunet
from bench.clock import child, in_turn
from bench.inputs import Bench
from bench.rows import Row, absent
from dvtplan.core import worker_pool
from dvtplan.data.dataset import discover
from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io
from dvtplan.planning.preprocess import plan_and_preprocess

READING = 1.5
"""How much longer than reading a stage may take."""
COHORT = 24
"""Cases of these sections; with few, only the start of processes would be measured."""
NNUNET = 5.0
"""How many times longer nnU-Net may take, at least."""


def preprocess(bench: Bench) -> Iterator[Row]:
    """`dvt_plan_and_preprocess`: verify, measure, plan, prepare."""
    workspace = bench.cohort(bench.middle, 2 if bench.tiny else COHORT)
    dataset = discover(workspace.raw)
    files = [path for case in dataset.cases for path in (*case.images, case.label) if path is not None]

    def ours() -> float:
        shutil.rmtree(workspace.preprocessed, ignore_errors=True)
        return _command("plan_and_preprocess", "--root", workspace.root, "--folds", 2)

    things: dict[str, Callable[[], object]] = {"ours": ours, "reading": lambda: _read_all(files)}
    if bench.nnunet is not None:
        things["nnunet"] = nnunet.preprocess(bench, workspace)
    timing = in_turn(things, bench.rounds)
    note = f"{len(dataset.cases)} cases of {bench.middle}, {worker_pool.available_cores()} cores"
    detail: dict[str, object] = {"seconds": timing.rounds}
    yield Row(
        section="preprocess", what="ours over reading the files once", value=timing.ratio("ours", "reading"), unit="x",
        at_most=READING, note=note, detail=detail,
    )  # fmt: skip
    yield _against_nnunet(bench, "preprocess", timing.ratio("nnunet", "ours") if bench.nnunet else math.nan, detail)


def evaluate(bench: Bench) -> Iterator[Row]:
    """`dvt_evaluate` on labels and a second rater's masks: counts, regions, surfaces, lesions, tables."""
    workspace = bench.cohort(bench.middle, 2 if bench.tiny else COHORT)
    labels, masks = workspace.raw / "labelsTr", workspace.raw / "rater2"
    files = [*sorted(labels.glob("*.nii.gz")), *sorted(masks.glob("*.nii.gz"))]
    out = bench.scratch / "scores"

    def ours() -> float:
        where = ("--root", workspace.root, "--dataset", "Phantom", "--labels", labels, "--predictions", masks)
        return _command("evaluate", *where, "--out", out, "--predicted", "lesion")

    things: dict[str, Callable[[], object]] = {"ours": ours, "reading": lambda: _read_all(files)}
    if bench.nnunet is not None:
        things["nnunet"] = nnunet.evaluate(bench, labels, masks)
    timing = in_turn(things, bench.rounds)
    detail: dict[str, object] = {"seconds": timing.rounds}
    yield Row(
        section="evaluate", what="ours over reading the files once", value=timing.ratio("ours", "reading"), unit="x",
        at_most=READING, note=f"{len(files) // 2} pairs of {bench.middle}, every measure", detail=detail,
    )  # fmt: skip
    yield _against_nnunet(bench, "evaluate", timing.ratio("nnunet", "ours") if bench.nnunet else math.nan, detail)


def growth(bench: Bench) -> Iterator[Row]:
    """How the cost of preprocessing grows with the number of cases: the slope in logarithms, 1 for proportional."""
    counts = (2, 8) if bench.tiny else (8, 32)
    scale = "tiny" if bench.tiny else "small"

    def run(workspace: Workspace) -> None:
        shutil.rmtree(workspace.preprocessed, ignore_errors=True)
        plan_and_preprocess(workspace.root, "Phantom", n_folds=2, jobs=1)

    cohorts = {str(n): bench.cohort(scale, n) for n in counts}
    timing = in_turn({n: lambda w=w: run(w) for n, w in cohorts.items()}, bench.rounds)  # type: ignore[misc]
    few, many = map(str, counts)
    slope = math.log(timing.ratio(many, few)) / math.log(counts[1] / counts[0])
    yield Row(
        section="scale", what="slope of preprocessing time over cases", value=slope, unit="", at_most=1.05,
        note=f"{few} and {many} cases of {scale}, one process", detail={"seconds": timing.rounds},
    )  # fmt: skip


def _command(*words: object) -> float:
    """Seconds of one of our commands, its process from start to end."""
    return child([sys.executable, "-m", "dvtplan.cli", *map(str, words)])[0]


def _read_all(files: list[Path]) -> None:
    """Read every file once, decompressed, on every core. Threads: they start at once, and decompression lets
    others run beside it, so that no other way of reading these files here takes less time."""
    with ThreadPoolExecutor(worker_pool.available_cores()) as pool:
        for _ in pool.map(_read, files):
            pass


def _read(path: Path) -> int:
    return volume_io.read(path)[0].size


def _against_nnunet(bench: Bench, section: str, ratio: float, detail: dict[str, object]) -> Row:
    if bench.nnunet is None:
        return absent(section, "nnU-Net over ours", "--nnunet DIR makes an environment with it")
    return Row(
        section=section, what="nnU-Net over ours", value=ratio, unit="x", at_least=NNUNET,
        note=f"nnU-Net {nnunet.VERSION}; both as processes from start to end", detail=detail,
    )  # fmt: skip
