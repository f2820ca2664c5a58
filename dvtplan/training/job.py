"""Read and check everything a fold needs; start or resume."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dvtplan import __version__
from dvtplan.core import console, files, json_records, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.core.text import now, plural
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import epoch_log
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.networks.registry import build, outputs_of, parameter_count
from dvtplan.models.training_run import Run
from dvtplan.planning import preprocessed_cases
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import RECIPES, Recipe
from dvtplan.rendering import charts
from dvtplan.training.data_loading import SliceDataset, SliceSampler
from dvtplan.training.distributed import TorchProcessGroup

PREPARE = "dvt_plan_and_preprocess"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a training runs; nothing here changes what is learnt, but rounding."""

    device: str = "auto"
    """'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'."""
    precision: str | None = None
    """'fp32' or 'bf16'; none lets the device decide."""
    channels_last: bool | None = None
    """Memory layout; none lets the device decide."""
    compiled: bool | None = None
    """Whether to use torch.compile; none lets the device decide."""
    processes: int = 1
    """Data-parallel processes on this machine, one per GPU."""
    workers: int | None = None
    """Processes that read slices; 0 keeps all slices in memory, none lets memory decide."""
    resume: bool = False
    """Go on from the last finished epoch."""
    overwrite: bool = False
    """Begin anew where a training already is."""
    batch_size_auto: bool = False
    """Choose the batch size that gets through most slices a second here, in place of the recipe's."""
    time_budget_s: float | None = None
    """Choose as many epochs as fit into this time, at most the recipe's."""

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must not be negative, not {self.workers}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What was asked to be trained."""

    fold: int
    network: str
    recipe: Recipe | None
    epochs: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One fold's training: what it reads, what it follows, where it writes."""

    run: Run
    plan: Plan
    slices: SliceDataset
    schedule: SliceSampler
    folder: FoldFolder

    def tell(self, text: str, group: TorchProcessGroup) -> None:
        """Say something once, and keep it in the fold's log."""
        if group.is_main:
            console.info(text, self.folder.log)


def prepare_fold_folder(job: TrainingJob, results_plan: Path, done: int) -> None:
    """Ready a fold's folder for the epochs to come: nothing of an earlier training may pass for theirs."""
    job.folder.ledger.unlink(missing_ok=True)
    if done == 0:
        job.folder.checkpoint.unlink(missing_ok=True)
    rows = epoch_log.read_epochs(job.folder.epochs, before=done)
    json_records.save(job.plan, results_plan)
    json_records.save(_advance(job.run, rows, done), job.folder.run)


def copy_dataset_description(workspace: Workspace, network: str) -> None:
    """Put beside the plan what travels with the model: what its data look like, and what they say of themselves."""
    described = workspace.raw / "dataset.json"
    copies = {workspace.fingerprint: workspace.results_fingerprint(network)}
    if described.exists():  # prepared slices alone are enough to train on
        copies[described] = workspace.results_description(network)
    for path, copy in copies.items():
        files.write_text(copy, path.read_text(encoding="utf-8"))


def run_record(job: TrainingJob, rows: Sequence[dict[str, Any]], done: int, *, draw: bool = True) -> Run:
    """Write ``run.json`` for the epochs that are done, and perhaps draw them."""
    run = _advance(job.run, rows, done)
    json_records.save(run, job.folder.run)
    if draw and rows:
        charts.learning_curve(rows, job.folder.progress, f"{run.network}, fold {run.fold}")
    return run


def _advance(run: Run, rows: Sequence[dict[str, Any]], done: int) -> Run:
    seconds = sum(float(row["seconds"]) for row in rows)
    waited = sum(float(row["seconds"]) * float(row["waiting_share"]) for row in rows)
    return replace(run, epochs_done=done, seconds=seconds, waiting_share=waited / max(seconds, 1e-9))


# --- before the first step ------------------------------------------------------------------------


def open_job(
    workspace: Workspace, wish: TrainingRequest, options: Options, setup: DeviceConfig, group: TorchProcessGroup
) -> TrainingJob:
    """Read and check everything that a training follows."""
    fingerprint = json_records.load(Fingerprint, workspace.fingerprint, PREPARE)
    plan = json_records.load(Plan, workspace.plan, PREPARE)
    splits = json_records.load(Splits, workspace.splits, PREPARE)
    if plan.fingerprint_digest != json_records.digest(fingerprint):
        raise DvtError(
            f"{workspace.plan}: was derived from other data than {workspace.fingerprint} describes. Run {PREPARE} "
            "again."
        )
    if not 0 <= wish.fold < len(splits.folds):
        last = len(splits.folds) - 1
        raise DvtError(f"fold {wish.fold}: {workspace.splits} holds the folds 0 to {last}. Choose one of them.")
    fold, folder = splits.folds[wish.fold], workspace.fold(wish.network, wish.fold)
    digests = {case.id: case.source_digest for case in fingerprint.cases}
    unknown = sorted({*fold.train, *fold.test} - set(digests))
    if unknown:
        raise DvtError(
            f"{workspace.splits}: fold {wish.fold} names cases that {workspace.fingerprint} does not hold: "
            f"{', '.join(unknown)}. Run {PREPARE} again."
        )
    for case in fold.train:
        preprocessed_cases.require_current(workspace.preprocessed_case(case), plan, workspace.plan, digests[case])
    if folder.checkpoint.exists() and not options.resume and not options.overwrite:
        raise DvtError(f"{folder.path}: already holds a training. Go on with --resume, or begin anew with --overwrite.")
    held = _resumable(folder, plan, splits, wish, options) if options.resume else None
    recipe = held.recipe if held else wish.recipe or RECIPES["paper"]
    recipe = recipe if wish.epochs is None else replace(recipe, epochs=wish.epochs)
    if options.batch_size_auto and not held:
        recipe = replace(recipe, batch_size=group.world)  # until it is chosen
    if recipe.batch_size % group.world:
        raise DvtError(
            f"batch_size {recipe.batch_size} cannot be shared evenly by {group.world} processes. Change one."
        )
    classes = _classes(recipe, plan)
    recipe = replace(recipe, target="lesion" if len(classes) == 1 else "labels")
    slices = SliceDataset([workspace.preprocessed_case(case) for case in fold.train])
    run = _new_run(wish.network, fold, recipe, classes, plan, splits, setup, group)
    if held:
        run = replace(run, started=held.started, epochs_done=held.epochs_done)
    schedule = SliceSampler(
        slices=len(slices),
        variants=len(plan.variants),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        lesions=slices.lesions(),
        oversampling=recipe.oversampling,
        rank=group.rank,
        world=group.world,
    )
    return TrainingJob(run=run, plan=plan, slices=slices, schedule=schedule, folder=folder)


def _resumable(folder: FoldFolder, plan: Plan, splits: Splits, wish: TrainingRequest, options: Options) -> Run:
    """The run that is to go on; it keeps the recipe that it began with."""
    if not folder.checkpoint.exists():
        raise DvtError(f"{folder.path}: nothing to resume, no epoch is finished there. Train without --resume.")
    run = json_records.load(Run, folder.run, "dvt_train")
    if run.plan_digest != json_records.digest(plan) or run.splits_digest != json_records.digest(splits):
        raise DvtError(
            f"{folder.run}: was trained by another plan or other folds than plan.json and splits.json hold now. "
            "Restore those files, or begin anew with --overwrite."
        )
    if wish.recipe is not None:
        wanted = replace(wish.recipe, name=run.recipe.name, epochs=run.recipe.epochs)
        if wanted.target == "auto":
            wanted = replace(wanted, target=run.recipe.target)
        if options.batch_size_auto:
            wanted = replace(wanted, batch_size=run.recipe.batch_size)
        if wanted != run.recipe:
            raise DvtError(
                f"{folder.run}: a resumed training keeps its recipe; only --epochs may change. Leave the other "
                "options away, or begin anew with --overwrite."
            )
    return run


def _classes(recipe: Recipe, plan: Plan) -> dict[str, int]:
    """What the outputs mean, name -> value in predicted masks."""
    target = recipe.target
    if target == "auto":
        joined = len(plan.labels) == 1 or set(plan.labels) == {"proximal", "distal"}
        target = "lesion" if joined else "labels"
    if target == "labels" and len(plan.labels) > 1:
        return plan.labels
    return {"lesion": 1} if len(plan.labels) > 1 else plan.labels


def _new_run(
    network: str,
    fold: Fold,
    recipe: Recipe,
    classes: dict[str, int],
    plan: Plan,
    splits: Splits,
    setup: DeviceConfig,
    group: TorchProcessGroup,
) -> Run:
    outputs = outputs_of(len(classes))
    with torch.device("meta"):
        blank = build(network, len(plan.channels), outputs, width=recipe.width, norm_groups=recipe.norm_groups)
    return Run(
        network=network,
        fold=fold.index,
        recipe=recipe,
        classes=classes,
        channels=len(plan.channels),
        parameters=parameter_count(blank),
        train=fold.train,
        test=fold.test,
        plan_digest=json_records.digest(plan),
        splits_digest=json_records.digest(splits),
        setup=setup.description,
        processes=group.world,
        versions={
            "dvtplan": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        started=now(),
        epochs_done=0,
        seconds=0.0,
        waiting_share=0.0,
    )


def start_message(job: TrainingJob, setup: DeviceConfig, done: int) -> str:
    run, recipe = job.run, job.run.recipe
    begun = f"going on after epoch {done}" if done else "from the start"
    shared = f", shared by {run.processes} processes" if run.processes > 1 else ""
    return (
        f"{setup.description}\n"
        f"Fold {run.fold}: {run.network}, {run.parameters:,} parameters, {', '.join(run.classes)}; recipe "
        f"{recipe.name}, {plural(recipe.epochs, 'epoch')} x {job.schedule.steps} steps of {recipe.batch_size} slices "
        f"at {job.plan.target_shape[0]}x{job.plan.target_shape[1]}{shared}, {begun}."
    )


def free_bytes(setup: DeviceConfig) -> int | None:
    """Memory for slices: the accelerator's, or the machine's."""
    free = setup.free_bytes()
    return worker_pool.free_memory_bytes() if free is None else free
