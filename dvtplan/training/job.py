"""One fold's training: read and check everything it needs; write its records."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dvtplan import __version__
from dvtplan.core import console, files, json_records
from dvtplan.core.errors import DvtError, InvalidValue, require_whole
from dvtplan.core.text import duration, now, plural
from dvtplan.data import edited_masks, raw_files
from dvtplan.data.dataset import survey
from dvtplan.data.dataset_json import FILE_NAME as DESCRIPTION
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.data.planned_splits import current_patients, load_splits
from dvtplan.data.prediction_log import forget_masks
from dvtplan.models import checkpoint, epoch_log
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.networks.registry import require_divisible
from dvtplan.models.training_run import Run
from dvtplan.planning import preprocessed_cases
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.patches import decide_patch
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocessed_cases import STAGE
from dvtplan.planning.recipe import RECIPES, Recipe
from dvtplan.planning.target import predicts_union
from dvtplan.training.data_loading import SliceDataset
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.held_out import hold_out
from dvtplan.training.losses import loss_function
from dvtplan.training.open_sampler import open_sampler
from dvtplan.training.sampling import SliceSampler
from dvtplan.training.unused_choices import as_option, different_fields, unused_choices

LESION = "lesion"
"""Class of the union of all labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How a training runs. Nothing here changes what is learnt, except for rounding."""

    device: str = "auto"
    """'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'."""
    precision: str | None = None
    """'fp32' or 'bf16'; None: the device decides, on a CPU a trial."""
    channels_last: bool | None = None
    """Memory layout; None: the device decides, on a CPU a trial."""
    compiled: bool | None = None
    """Whether to use torch.compile; None: the device decides."""
    processes: int = 1
    """Data-parallel processes on this machine, one per GPU."""
    workers: int | None = None
    """Processes that read slices; 0 keeps all slices in memory; None: as the free memory allows."""
    resume: bool = False
    """Continue after the last checkpoint."""
    overwrite: bool = False
    """Replace an existing training."""
    batch_size_auto: bool = False
    """Replace the recipe's batch size by the one that gives the most slices per second here."""
    time_budget_s: float | None = None
    """Train as many steps as fit into this time, at most the recipe's epochs."""

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise InvalidValue("resume and overwrite exclude each other")
        require_whole("workers", self.workers, 0, optional=True)
        require_whole("processes", self.processes, 1)
        budget = self.time_budget_s
        if budget is not None and (not isinstance(budget, (int, float)) or not budget > 0):
            raise InvalidValue(f"`time_budget_s={budget!r}`: expected a number of seconds above 0, or None.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What to train."""

    fold: int
    network: str
    recipe: Recipe | None
    """None: the paper's, or that of the run to resume."""
    epochs: int | None
    """None: the recipe's."""

    def __post_init__(self) -> None:
        require_whole("epochs", self.epochs, 1, optional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One fold's training: what it reads, what it follows, where it writes."""

    run: Run
    """As ``run.json``; its recipe decides the training."""
    plan: Plan
    slices: SliceDataset
    sampler: SliceSampler
    folder: FoldFolder

    @property
    def seen_shape(self) -> tuple[int, int]:
        """Rows and columns of what a step sees of each slice: the slice, or a patch of it."""
        return self.run.recipe.patch_shape or self.plan.target_shape

    def log(self, text: str, group: TorchProcessGroup) -> None:
        """Print a line and append it to the fold's log, in the main process only."""
        if group.is_main:
            console.info(text, self.folder.log)


# --- results of a fold ----------------------------------------------------------------------------


def prepare_fold_folder(job: TrainingJob, results_plan: Path, done: int | None) -> None:
    """Prepare a fold's folder for the next epochs, and remove what belongs to an earlier training.

    A resumed training has ``done`` epochs. Until more are saved, its record says what the checkpoint contains.

    Raises:
        MaskEdited: if a predicted mask was edited; nothing was changed.
    """
    edited_masks.require_unedited(job.folder.predictions)
    job.folder.postprocessing.unlink(missing_ok=True)  # of other weights
    if done is None:  # by other folds the earlier training may have tested what this one trains on
        edited_masks.remove_predicted(job.folder.predictions)
        job.folder.checkpoint.unlink(missing_ok=True)
    forget_masks(job.folder.predictions)
    rows = epoch_log.read_epochs(job.folder.epochs, before=done or 0)
    json_records.save(job.plan, results_plan)
    schedule = None if done is None else checkpoint.schedule(job.folder.checkpoint)
    run = job.run if schedule is None else job.run.with_schedule(schedule)
    json_records.save(_with_progress(run, rows, done or 0), job.folder.run)


def copy_dataset_description(workspace: Workspace, network: str) -> None:
    """Copy the fingerprint and ``dataset.json`` next to the plan, since they travel with the model."""
    description = workspace.raw / "dataset.json"
    copies = {workspace.fingerprint: workspace.results_fingerprint(network)}
    if description.exists():  # preprocessed slices alone are enough to train on
        copies[description] = workspace.results_description(network)
    for path, copy in copies.items():
        files.write_text(copy, path.read_text(encoding="utf-8"))


def write_run(job: TrainingJob, rows: Sequence[dict[str, Any]], done: int, *, draw: bool = True) -> Run:
    """Write ``run.json`` for the finished epochs, and optionally draw their learning curve. Return the record."""
    run = _with_progress(job.run, rows, done)
    json_records.save(run, job.folder.run)
    if draw and rows:
        from dvtplan.rendering import charts  # slow to load, and only the main process draws

        charts.learning_curve(rows, job.folder.progress, f"{run.network}, fold {run.fold}")
    return run


def _with_progress(run: Run, rows: Sequence[dict[str, Any]], done: int) -> Run:
    seconds = sum(float(row["seconds"]) for row in rows)
    waited = sum(float(row["seconds"]) * float(row["waiting_share"]) for row in rows)
    return replace(run, epochs_done=done, seconds=seconds, waiting_share=waited / max(seconds, 1e-9))


def start_message(job: TrainingJob, setup: DeviceConfig, taken: int) -> str:
    """Describe device, network, recipe and size of a training that is about to start after some steps."""
    run, recipe, short = job.run, job.run.recipe, job.run.schedule
    epoch, rest = divmod(taken, job.sampler.steps)
    start = f"resumed after epoch {epoch}{f' and {rest} steps' if rest else ''}" if taken else "from the start"
    shared = f", shared by {run.processes} processes" if run.processes > 1 else ""
    length = f"{plural(recipe.epochs, 'epoch')} x {job.sampler.steps} steps"
    if short:
        length = f"{short.steps} steps ({run.length}, for a time budget of {duration(short.budget_s)})"
    rows, columns = job.seen_shape
    what = "slices" if recipe.patch_shape is None else "patches"
    held_out = f" {plural(len(run.held_out), 'case')} held out." if run.held_out else ""
    return (
        f"{setup.description_with_trial}\nFold {run.fold}: {run.network}, {run.parameters:,} parameters, "
        f"{', '.join(run.classes)}; recipe {recipe.name}, {length} of {recipe.batch_size} {what} of {rows}x{columns}"
        f"{shared}, {start}.{held_out}"
    )


# --- before the first step ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """What a fold's training reads, checked to fit together."""

    plan: Plan
    splits: Splits
    fold: Fold
    patient_of: dict[str, str]
    folder: FoldFolder


def open_job(
    workspace: Workspace,
    request: TrainingRequest,
    options: TrainingOptions,
    setup: DeviceConfig,
    group: TorchProcessGroup,
) -> TrainingJob:
    """Read and check everything that a training follows.

    Raises:
        DvtError: as ``train_fold``, before anything is written.
    """
    inputs = _read_inputs(workspace, request)
    if inputs.folder.checkpoint.exists() and not options.resume and not options.overwrite:
        raise DvtError(
            f"{inputs.folder.path}: already holds a training. Set `resume=True` to continue it, or `overwrite=True` "
            "to replace it."
        )
    previous = _read_previous(inputs, request, options) if options.resume else None
    recipe = _decided(_choose_recipe(request, options, previous, group.world), inputs.plan)
    if recipe.patch_shape is not None:
        require_divisible(request.network, recipe.patch_shape, "patch", f"`patch={recipe.patch}`")
    if request.recipe and group.is_main:
        for line in unused_choices(recipe, request.network, inputs.plan):
            console.warn(line)
    fold, held_out = hold_out(inputs.fold, inputs.patient_of, recipe, previous, inputs.folder.run)
    run = replace(_new_run(request.network, replace(inputs, fold=fold), recipe, setup, group.world), held_out=held_out)
    slices = SliceDataset([workspace.preprocessed_case(case) for case in run.train])
    if previous:
        run = replace(run, started=previous.started, epochs_done=previous.epochs_done, arithmetic=previous.arithmetic)
        adds_epochs = request.epochs is not None and options.time_budget_s is None
        run = replace(run, schedule=None if adds_epochs else previous.schedule)
    if recipe.batch_size > len(slices):
        raise DvtError(
            f"`batch_size={recipe.batch_size}`: fold {request.fold} has only {plural(len(slices), 'slice')}. "
            "Choose a smaller batch."
        )
    sampler = open_sampler(slices, inputs.plan, recipe, group)
    return TrainingJob(run=run, plan=inputs.plan, slices=slices, sampler=sampler, folder=inputs.folder)


def _read_inputs(workspace: Workspace, request: TrainingRequest) -> _Inputs:
    """Read plan, folds and preprocessed cases, and check that each follows from the other."""
    fingerprint = json_records.load(Fingerprint, workspace.fingerprint, STAGE)
    plan = json_records.load(Plan, workspace.plan, STAGE)
    planned = {case.id: case.patient for case in fingerprint.cases}
    load_splits(workspace, planned, workspace.fingerprint)
    patient_of = current_patients(workspace, planned)
    splits = load_splits(workspace, patient_of)
    if plan.fingerprint_digest != json_records.digest(fingerprint):
        raise DvtError(
            f"{workspace.plan}: was derived from other data than {workspace.fingerprint} describes. Run {STAGE} again."
        )
    fold = splits.fold(request.fold, workspace.splits)
    digests = {case.id: case.source_digest for case in fingerprint.cases}
    _require_unchanged_data(workspace, fold)
    for case in fold.train:
        preprocessed_cases.require_current(workspace.preprocessed_case(case), plan, workspace.plan, digests[case])
    require_divisible(request.network, plan.target_shape, "target_shape", str(workspace.plan))
    return _Inputs(
        plan=plan,
        splits=splits,
        fold=fold,
        patient_of=patient_of,
        folder=workspace.fold(request.network, request.fold),
    )


def _require_unchanged_data(workspace: Workspace, fold: Fold) -> None:
    """Refuse to train on slices of raw files that have changed since. Preprocessed slices alone are enough, too."""
    if not (workspace.raw / DESCRIPTION).exists() or not (workspace.raw / "imagesTr").is_dir():
        return
    dataset, problems = survey(workspace.raw)
    if dataset is None:
        raise DvtError("\n".join(problems))
    raw_files.require_unchanged(workspace, dataset, (*fold.train, *fold.test))


def _read_previous(inputs: _Inputs, request: TrainingRequest, options: TrainingOptions) -> Run:
    """Read the run to resume, which keeps its recipe."""
    folder = inputs.folder
    if not folder.checkpoint.exists():
        raise DvtError(
            f"{folder.path}: nothing to resume, no checkpoint is saved. Omit `resume` to train from the start."
        )
    run = json_records.load(Run, folder.run, "`train_fold`")
    schedule = checkpoint.schedule(folder.checkpoint)  # run.json is older if the training was killed between the two
    run = run.with_schedule(schedule) if schedule else replace(run, schedule=None)
    digests = json_records.digest(inputs.plan), json_records.digest(inputs.splits)
    if (run.plan_digest, run.splits_digest) != digests:
        raise DvtError(
            f"{folder.run}: was trained with another plan or other folds than plan.json and splits.json hold now. "
            "Restore these files, or set `overwrite=True` to train from the start."
        )
    if request.recipe is not None:
        _require_same_recipe(folder.run, run.recipe, request.recipe, options, inputs.plan)
    return run


def _require_same_recipe(file: Path, earlier: Recipe, requested: Recipe, options: TrainingOptions, plan: Plan) -> None:
    """Refuse to resume a training by another recipe, except for its name and epochs."""
    same = replace(requested, name=earlier.name, epochs=earlier.epochs)
    same = _decided(same, plan)
    if options.batch_size_auto:
        same = replace(same, batch_size=earlier.batch_size)
    if same == earlier:
        return
    changed = different_fields(same, earlier)
    values = "; ".join(f"`{f}` {as_option(same, f)} instead of {as_option(earlier, f)}" for f in changed)
    base = earlier.name.partition(" with ")[0]
    again = [f"`{f}={as_option(earlier, f)!r}`" for f in changed]
    if base in RECIPES:
        own = _decided(replace(RECIPES[base], name=earlier.name, epochs=earlier.epochs), plan)
        again = [f"`{f}={as_option(earlier, f)!r}`" for f in different_fields(own, earlier)]
        again.insert(0, f"`recipe={base!r}`")
    raise DvtError(
        f"{file}: a resumed training keeps its recipe ({earlier.name}), but that of this call ({requested.name}) has "
        f"{values}. Omit the recipe and its options, except `epochs`; or repeat {' '.join(again)}; or set "
        "`overwrite=True` to train from the start."
    )


def _choose_recipe(request: TrainingRequest, options: TrainingOptions, previous: Run | None, world: int) -> Recipe:
    """Return the recipe to follow: that of the previous run, the requested one, or the paper's."""
    recipe = previous.recipe if previous else request.recipe or RECIPES["paper"]
    recipe = recipe if request.epochs is None else replace(recipe, epochs=request.epochs)
    loss_function(recipe.loss)
    if options.batch_size_auto and not previous:
        return replace(recipe, batch_size=world)  # until it is chosen
    if recipe.batch_size % world:
        raise DvtError(
            f"`batch_size={recipe.batch_size}`: cannot be shared equally by {world} processes. Choose a multiple of "
            f"{world}."
        )
    return recipe


def _classes(recipe: Recipe, plan: Plan) -> dict[str, int]:
    """Return what the outputs mean: class name -> value in predicted masks."""
    if not predicts_union(recipe.target, plan.labels) and len(plan.labels) > 1:
        return plan.labels
    if len(plan.labels) > 1 and LESION in plan.labels:
        raise DvtError(
            f"`target=lesion`: would write all labels as {LESION}, which is the name of one of them. Rename this label "
            f"in dataset.json and run {STAGE} again, or set `target=labels`."
        )
    return {LESION: 1} if len(plan.labels) > 1 else plan.labels


def _decided(recipe: Recipe, plan: Plan) -> Recipe:
    """Return a recipe with what it leaves to the data; no field is 'auto'."""
    target = "lesion" if len(_classes(recipe, plan)) == 1 else "labels"
    return decide_patch(replace(recipe, target=target), plan)


def _new_run(network: str, inputs: _Inputs, recipe: Recipe, setup: DeviceConfig, world: int) -> Run:
    run = Run(
        network=network,
        fold=inputs.fold.index,
        recipe=recipe,
        classes=_classes(recipe, inputs.plan),
        channels=len(inputs.plan.channels),
        parameters=0,
        train=inputs.fold.train,
        test=inputs.fold.test,
        plan_digest=json_records.digest(inputs.plan),
        splits_digest=json_records.digest(inputs.splits),
        setup=setup.description,
        processes=world,
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
    return replace(run, parameters=checkpoint.count_parameters(run))
