"""Train one fold as section 2.4 of the paper describes."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path

from dvtplan.core import allocator, files, json_records, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.core.process_group import under_torchrun
from dvtplan.core.text import plural
from dvtplan.data.edited_masks import require_unedited
from dvtplan.data.paths import FoldFolder, Workspace, as_workspace
from dvtplan.models import devices, epoch_log
from dvtplan.models.training_run import Run
from dvtplan.planning.recipe import Recipe
from dvtplan.training import data_loading, distributed
from dvtplan.training.arithmetic import choose_arithmetic
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import (
    TrainingJob,
    TrainingOptions,
    TrainingRequest,
    copy_dataset_description,
    open_job,
    prepare_fold_folder,
    start_message,
    write_run,
)
from dvtplan.training.pace import Budget, Pace
from dvtplan.training.trainer import Trainer, fit
from dvtplan.training.tuning import set_pace, tune

OUT_OF_MEMORY_ADVICE = "Use a smaller `batch_size`, or `precision='bf16'`, or share the batch with `processes`."


def train_fold(
    workspace: Workspace | Path | str,
    fold: int,
    *,
    network: str = "gn_unet",
    recipe: Recipe | None = None,
    epochs: int | None = None,
    options: TrainingOptions | None = None,
) -> FoldFolder:
    """Train one fold.

    Each epoch is saved, short ones several at a time, and a longer one every ten minutes. A resumed training equals an
    uninterrupted one.

    Args:
        workspace: a preprocessed data set, or the folder that holds ``datasets_raw`` with this data set only.
        fold: index in ``splits.json``.
        network: a key of ``NETWORKS``.
        recipe: how to train; None: the paper's recipe, or on resume the recipe of the run, which is the only one
            that a resumed run accepts.
        epochs: replaces the recipe's epochs; on resume it may add epochs.
        options: how to run.

    Returns:
        The fold's folder.

    Raises:
        DvtError: if the fold does not exist, the data are not preprocessed by the present plan, a training would be
            overwritten, there is nothing to resume, or a loss is not finite.
    """
    workspace = as_workspace(workspace)
    options = options or TrainingOptions()
    budget = None if options.time_budget_s is None else Budget(seconds=options.time_budget_s)
    request = TrainingRequest(fold=fold, network=network, recipe=recipe, epochs=epochs)
    if options.processes > 1 and not under_torchrun():
        devices.one_per_process(options.device, options.processes)
    distributed.launch(_train, options.processes, workspace, request, options, budget)
    return workspace.fold(network, fold)


def _train(
    workspace: Workspace, request: TrainingRequest, options: TrainingOptions, budget: Budget | None = None
) -> None:
    """Do the work of one process of a training.

    The job is opened, restored and tuned by each process alone. Then all processes take the same steps.
    """
    setup = devices.choose(
        distributed.local_device(options.device),
        training=True,
        precision=options.precision,
        channels_last=options.channels_last,
        compiled=options.compiled,
    )
    with distributed.process_group(setup.device) as group, devices.explain_out_of_memory(OUT_OF_MEMORY_ADVICE):
        host_bytes = worker_pool.free_memory_bytes()  # before trials, whose memory this process keeps
        job = open_job(workspace, request, options, setup, group)
        job, setup = choose_arithmetic(job, setup, group, options)
        if setup.device == "cpu":
            allocator.keep_freed_memory()
        trainer = Trainer(job, setup, group)
        done = trainer.restore(job.folder) if options.resume else None
        job = tune(job, trainer, options)
        pace = set_pace(job, trainer, budget, done)
        job = replace(job, run=pace.recorded(job.run))
        if done is not None and _is_finished(job, pace, group, done):
            return
        with files.exclusive_lock(job.folder.path) if group.is_main else contextlib.nullcontext():
            prepare = functools.partial(_prepare_results, job, workspace, group, done)
            replaces = done is None and job.folder.checkpoint.exists()
            if group.is_main and replaces:
                require_unedited(job.folder.predictions)
                job.log(
                    f"{job.folder.path}: the earlier training is kept until the new one is saved.",
                    group,
                )
            elif group.is_main:
                prepare()
            trainer.join_group()
            job.log(start_message(job, setup, pace.taken), group)
            device_bytes = setup.free_bytes()
            free = host_bytes if device_bytes is None else device_bytes
            loader = data_loading.open_loader(job.slices, job.sampler, setup.device, free, options.workers)
            with contextlib.closing(loader):
                fit(job, trainer, loader, pace, before_first=prepare if replaces else None)


def _is_finished(job: TrainingJob, pace: Pace, group: TorchProcessGroup, done: int) -> bool:
    """Return whether no step remains. Then correct the record of a training that was killed before it was written.

    Raises:
        DvtError: if more steps are taken than requested.
    """
    epochs = job.run.recipe.epochs
    if pace.taken > epochs * pace.steps_per_epoch:
        whole, rest = divmod(pace.taken, pace.steps_per_epoch)
        more = f" and {plural(rest, 'step')} of the next" if rest else ""
        raise DvtError(
            f"`epochs={epochs}`: {job.folder.path} already has {plural(whole, 'finished epoch')}{more}. "
            "Request more epochs, or set `overwrite=True` to train from the start."
        )
    if not pace.is_finished:
        return False
    if group.is_main:
        known = json_records.load(Run, job.folder.run, "`train_fold`")
        run = replace(known, recipe=job.run.recipe, schedule=job.run.schedule, epochs_done=done)
        if run != known:
            write_run(replace(job, run=run), epoch_log.read_epochs(job.folder.epochs, before=done), done)
    job.log(
        f"Fold {job.run.fold} is trained: {job.run.length}. To add epochs, set `resume=True` and a larger `epochs`.",
        group,
    )
    return True


def _prepare_results(job: TrainingJob, workspace: Workspace, group: TorchProcessGroup, done: int | None) -> None:
    network = job.run.network
    prepare_fold_folder(job, workspace.results_plan(network), done)
    copy_dataset_description(workspace, network)
    scores = workspace.metrics(network)
    if scores.exists():
        job.log(f"{scores} and the tables next to it are from earlier predictions. Run `evaluate` again.", group)
