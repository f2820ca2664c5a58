"""Run a whole study on a phantom cohort with the user's commands: plan, train, predict, evaluate, export."""

from __future__ import annotations

import csv
import gzip
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.results import Row
from phantom.cohort import Design, make_cohort

from dvtplan.core import json_records
from dvtplan.data.folds import Splits
from dvtplan.models import epoch_log
from dvtplan.models.training_run import Run
from dvtplan.planning.plan import Plan
from gpucheck.checks import Check, OutOfTime
from gpucheck.settings import COHORTS, LOG, SEED, Settings

NETWORK = "gn_unet"
LARGEST_FILE = 15e6
"""Largest size of a result file in bytes."""
PICTURES = 3
BUDGET_SHARE = 0.85
"""Time budget as a share of the time left for training, because a busy machine may become slower."""
LEAST_TRAINING_S = 8.0
"""Shortest training that is started."""
START_S = {"cuda": 50.0, "cpu": 12.0}
"""Device type -> time of `dvt_train` outside its epochs: start, compilation, timed steps."""
PER_PATIENT_S = {"tiny": 1.0, "small": 2.0, "half": 3.0, "paper": 5.0}
"""Scale -> time to predict and score a test patient on a GPU; a CPU takes longer at the larger scales."""
EVALUATION_S = 12.0
"""Time for scoring, pictures and export."""


def make_phantoms(settings: Settings) -> Iterator[Row]:
    """Make phantom patients on several cores."""
    cases, _ = COHORTS[settings.scale]
    root = settings.study.root
    shutil.rmtree(root, ignore_errors=True)
    begin = time.monotonic()
    design = Design(scale=settings.scale, cases=cases, seed=SEED)
    make_cohort(root, design, settings.study.dataset, jobs=settings.jobs)
    seconds = time.monotonic() - begin
    yield Row(
        section="cohort", what="phantom patients made", value=cases / seconds, unit="patients/s",
        note=f"{cases} of scale {settings.scale}, {settings.jobs} at a time, in {seconds:.0f} s",
    )  # fmt: skip


def plan_and_preprocess(settings: Settings) -> Iterator[Row]:
    """Run `dvt_plan_and_preprocess` on all cores."""
    cases, folds = COHORTS[settings.scale]
    seconds = dvt(settings, "plan_and_preprocess", "--folds", folds)
    settings.ready_mark.touch()
    plan = json_records.load(Plan, settings.study.plan, "dvt_plan_and_preprocess")
    yield Row(
        section="cohort", what="patients planned and preprocessed", value=cases / seconds, unit="patients/s",
        note=f"{cases} in {seconds:.0f} s, slices of {plan.target_shape[0]}x{plan.target_shape[1]}",
    )  # fmt: skip


def train(settings: Settings) -> Iterator[Row]:
    """Run `dvt_train 0` with the paper's recipe in the remaining time, with prediction of the test patients."""
    workspace = settings.study
    if not settings.study_is_ready:
        raise OutOfTime("the phantom cohort was not ready")
    shutil.rmtree(workspace.all_results, ignore_errors=True)  # results of the previous part
    tested = json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess").folds[0].test
    rest = START_S[settings.device.partition(":")[0]] + EVALUATION_S + PER_PATIENT_S[settings.scale] * len(tested)
    budget = BUDGET_SHARE * (settings.remaining_s - rest)
    if budget < LEAST_TRAINING_S:
        raise OutOfTime(f"{settings.remaining_s:.0f} s are left, and all except training needs {rest:.0f} s")
    options = ("--time-budget", f"{budget:.0f}s", "--device", settings.device)
    seconds = dvt(settings, "train", 0, *options, keep_s=EVALUATION_S)
    folder = workspace.fold(NETWORK, 0)
    run = json_records.load(Run, folder.run, "dvt_train")
    rows = epoch_log.read_epochs(folder.epochs, before=run.epochs_done)
    shutil.copyfile(folder.progress, settings.out / "learning_curve.png")
    yield Row(
        section="study", what="epochs of the paper's recipe", value=float(run.done), unit="",
        note=f"{len(run.train)} patients, batch {run.recipe.batch_size}, {run.seconds:.0f} s of training, "
        f"{seconds:.0f} s with start and prediction; loss {rows[0]['loss']} to {rows[-1]['loss']}",
        detail={"budget_s": budget, "setup": run.setup, "epochs": rows},
    )  # fmt: skip
    yield Row(
        section="study", what="training rate, median of the epochs", unit="slices/s",
        value=sorted(float(row["slices_per_s"]) for row in rows)[len(rows) // 2], note=run.setup,
    )  # fmt: skip
    if settings.on_gpu and "does not work" in run.setup:
        raise RuntimeError(run.setup)


def evaluate(settings: Settings) -> Iterator[Row]:
    """`dvt_evaluate --split proximal/distal --overlays`: Table 1 and three pictures."""
    workspace = settings.study
    if not workspace.fold(NETWORK, 0).prediction_index.exists():
        raise OutOfTime("no test patient was predicted")
    dvt(settings, "evaluate", "--split", "proximal/distal", "--overlays")
    for picture in sorted((workspace.results(NETWORK) / "overlays").glob("*.png"))[:PICTURES]:
        shutil.copyfile(picture, settings.out / f"patient_{picture.name}")
    with workspace.table(NETWORK).open(newline="", encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    for region in dict.fromkeys(row["region"] for row in scores):
        yield _table_row(region, {row["score"]: row for row in scores if row["region"] == region})


def _table_row(region: str, scores: dict[str, dict[str, str]]) -> Row:
    """Return a row of Table 1; its DSC is of phantoms."""
    words = [f"{name} {_number(row['mean'])} +- {_number(row['sd'])}" for name, row in scores.items()]
    dsc = next(row for name, row in scores.items() if name.lower() == "dsc")
    return Row(
        section="study", what=f"phantom DSC, {region}", value=float(dsc["mean"] or "nan"), unit="",
        note=f"n {dsc['n']}; {', '.join(words)}", detail={"table_1": scores},
    )  # fmt: skip


def _number(text: str) -> str:
    return f"{float(text):.2f}" if text else "-"


def export(settings: Settings) -> Iterator[Row]:
    """Run `dvt_model export` with float16 weights and compress the archive; omit it if it is too large."""
    workspace = settings.study
    archive = settings.scratch / f"{NETWORK}.zip"
    if not workspace.fold(NETWORK, 0).checkpoint.exists():
        raise OutOfTime("no epoch was finished")
    words = ["export", str(workspace.results(NETWORK)), str(archive), "--weights", "float16", "--overwrite"]
    run_command(settings, "model", words, settings.remaining_s)
    packed = gzip.compress(archive.read_bytes(), compresslevel=1)
    target = settings.out / f"{archive.name}.gz"
    fits = len(packed) < LARGEST_FILE
    if fits:
        target.write_bytes(packed)
    yield Row(
        section="study", what="exported model", value=len(packed) / 1e6, unit="MB",
        note=f"{target.name}, unpack with gunzip" if fits else f"omitted: more than {LARGEST_FILE / 1e6:.0f} MB",
    )  # fmt: skip


def dvt(settings: Settings, command: str, *words: object, keep_s: float = 0.0) -> float:
    """Run a command on the study's cohort; return its duration in seconds.

    Args:
        settings: settings of this part.
        command: name without 'dvt_', such as 'train'.
        words: its arguments.
        keep_s: part of the remaining time that the command must not use.
    """
    where = ["--root", str(settings.study.root), "--dataset", settings.study.dataset]
    begin = time.monotonic()
    run_command(settings, command, [*map(str, words), *where], settings.remaining_s - keep_s)
    return time.monotonic() - begin


def run_command(settings: Settings, command: str, words: list[str], seconds: float) -> None:
    """Run a command; its output goes to the log.

    Raises:
        OutOfTime: if it takes longer than ``seconds``, or its time budget is too short.
        RuntimeError: if it fails.
    """
    arguments = [sys.executable, "-m", "dvtplan.cli", command, *words]
    try:
        done = subprocess.run(arguments, stdout=sys.stderr, timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        raise OutOfTime(f"dvt_{command} was still running after {seconds:.0f} s") from None
    if done.returncode:
        log = settings.out / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        last = next((line for line in reversed(lines) if line.strip()), "no message")
        if "--time-budget: " in last:
            raise OutOfTime(last)
        raise RuntimeError(f"dvt_{command} {' '.join(words)}: ended with status {done.returncode}: {last}")


def cohort_checks() -> tuple[Check, ...]:
    """Return the checks that make the data, in parallel with other parts."""
    return (
        Check(name="phantoms", measure=make_phantoms),
        Check(name="plan and preprocess", measure=plan_and_preprocess),
    )


def checks() -> tuple[Check, ...]:
    """Return the checks from training to export."""
    return (
        Check(name="train and predict", measure=train),
        Check(name="evaluate", measure=evaluate),
        Check(name="export", measure=export),
    )


def result_files(out: Path) -> list[Path]:
    """Return all files that this part may write into the results."""
    return [out / "learning_curve.png", *out.glob("patient_*.png"), out / f"{NETWORK}.zip.gz"]
