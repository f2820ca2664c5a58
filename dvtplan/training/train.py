"""Train one fold as the paper's section 2.4 does."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from dvtplan.core import files
from dvtplan.core.errors import DvtError
from dvtplan.core.process_group import under_torchrun
from dvtplan.core.text import plural
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import devices, epoch_log
from dvtplan.planning.recipe import Recipe
from dvtplan.training import data_loading, distributed
from dvtplan.training.job import (
    Options,
    TrainingRequest,
    copy_dataset_description,
    free_bytes,
    open_job,
    prepare_fold_folder,
    run_record,
    start_message,
)
from dvtplan.training.trainer import Trainer, fit
from dvtplan.training.tuning import compile_network, fastest_batch, with_batch_size, within_budget


def train_fold(
    workspace: Workspace,
    fold: int,
    *,
    network: str = "gn_unet",
    recipe: Recipe | None = None,
    epochs: int | None = None,
    options: Options | None = None,
) -> FoldFolder:
    """Train one fold. Every finished epoch is on disk, whole, and a resumed training equals one
    that never stopped.

    Args:
        workspace: a data set that has been prepared.
        fold: index in ``splits.json``.
        network: a key of ``NETWORKS``.
        recipe: what to do; none for the paper's, or on resume for the one that the run began with,
            which is the only one that a resumed run accepts.
        epochs: in place of the recipe's; on resume more may be added.
        options: how to run.

    Returns:
        The fold's folder.

    Raises:
        DvtError: for a fold that is not there, data that are not prepared by the present plan, a
            training that would be overwritten, nothing to resume, or a loss that is not finite.
    """
    options = options or Options()
    if options.processes > 1 and not under_torchrun():
        devices.one_per_process(options.device, options.processes)
    wish = TrainingRequest(fold=fold, network=network, recipe=recipe, epochs=epochs)
    distributed.launch(_train, options.processes, workspace, wish, options)
    return workspace.fold(network, fold)


def _train(workspace: Workspace, wish: TrainingRequest, options: Options) -> None:
    """What each process of a training does."""
    setup = devices.choose(
        distributed.local_device(options.device),
        training=True,
        precision=options.precision,
        channels_last=options.channels_last,
        compiled=options.compiled,
    )
    advice = "Use a smaller --batch-size, or --precision bf16, or share the batch with --gpus."
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(distributed.process_group(setup.device))
        stack.enter_context(devices.explain_out_of_memory(advice))
        job = open_job(workspace, wish, options, setup, group)
        trainee = Trainer(job.run, setup, group)
        done = trainee.restore(job.folder) if options.resume else 0
        if options.batch_size_auto and done == 0:
            job = with_batch_size(job, fastest_batch(job, trainee))
            trainee.recipe = job.run.recipe
        job = compile_network(job, trainee)
        if options.time_budget_s is not None and done == 0:
            job = replace(job, run=within_budget(job, trainee, options.time_budget_s))
        elif options.time_budget_s is not None:
            job.tell("--time-budget has no effect on a resumed training; --epochs adds epochs.", group)
        if done > job.run.recipe.epochs:
            raise DvtError(
                f"--epochs {job.run.recipe.epochs}: {job.folder.path} has {plural(done, 'epoch')} behind it already. "
                "Name more, or begin anew with --overwrite."
            )
        if done == job.run.recipe.epochs:
            if group.is_main and job.run.epochs_done < done:  # killed between checkpoint and record
                run_record(job, epoch_log.read_epochs(job.folder.epochs, before=done), done)
            job.tell(f"Fold {wish.fold} is trained: {plural(done, 'epoch')}. --resume --epochs N adds more.", group)
            return
        if group.is_main:
            stack.enter_context(files.exclusive_lock(job.folder.path))
            prepare_fold_folder(job, workspace.results_plan(wish.network), done)
            copy_dataset_description(workspace, wish.network)
            if workspace.metrics(wish.network).exists():
                job.tell(
                    f"{workspace.metrics(wish.network)} and the tables beside it are of earlier predictions.", group
                )
        # Last: each process tries and compiles alone, as often as it needs; from here on, all take the same steps.
        trainee.join_group()
        job.tell(start_message(job, setup, done), group)
        source = data_loading.open_loader(job.slices, job.schedule, setup.device, free_bytes(setup), options.workers)
        stack.callback(source.close)
        fit(job, trainee, source, done)
