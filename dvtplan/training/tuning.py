"""Time a step; batch size and epochs that fit."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from dvtplan.core import console, files, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration
from dvtplan.models import checkpoint, devices
from dvtplan.models.devices import Forward
from dvtplan.models.training_run import Run
from dvtplan.planning.cost import training_bytes
from dvtplan.training import augmentation
from dvtplan.training.data_loading import Batch
from dvtplan.training.job import TrainingJob
from dvtplan.training.trainer import Trainer

BUDGET_SHARE = 0.9
"""Of a time budget, what the epochs may plan to take."""


TRIAL_S = 4.0
"""How long steps are tried, in seconds, where four take less."""


def _step_seconds(job: TrainingJob, trainee: Trainer, slices: int, forward: Forward | None = None) -> float:
    """What a forward and a backward pass of so many slices take here; they leave no trace in the network."""
    rows, columns = job.plan.target_shape
    device = trainee.setup.device
    # Not zeros, which a GPU multiplies faster than images; and global random generators keep their state.
    noise = torch.rand(1, job.run.channels, rows, columns, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        noise.expand(slices, -1, -1, -1).to(device, torch.float16),
        torch.zeros(slices, rows, columns, dtype=torch.uint8, device=device),
        torch.zeros(slices, dtype=torch.long, device=device),
    )
    matrices = augmentation.matrices(job.plan.variants, job.plan.target_shape).to(device)
    seconds: list[float] = []
    # Networks with batch normalization keep a running mean of what they see: these steps must leave no trace.
    kept = {name: buffer.clone() for name, buffer in trainee.network.named_buffers()}
    try:
        # The fastest of several, and of more where they are quick: others may be at work on the machine just now.
        while len(seconds) < 4 or (len(seconds) < 20 and sum(seconds) < TRIAL_S):
            begin = time.perf_counter()
            trainee.optimizer.zero_grad(set_to_none=True)  # a CUDA graph reuses the memory of the last gradients
            loss = trainee.loss(batch, matrices, forward)
            loss.backward()
            float(loss.detach())
            seconds.append(time.perf_counter() - begin)
    finally:
        trainee.optimizer.zero_grad(set_to_none=True)
        for name, buffer in trainee.network.named_buffers():
            buffer.copy_(kept[name])
    return min(seconds[1:])


def compile_network(job: TrainingJob, trainee: Trainer) -> TrainingJob:
    """Compile what is to be trained, where that was chosen and works; the run's record says which it was."""
    share = job.schedule.batch_size // job.schedule.world
    trainee.forward, failed = devices.try_compile(
        trainee.forward, trainee.setup, lambda forward: _step_seconds(job, trainee, share, forward)
    )
    if not failed:
        return job
    if trainee.group.is_main:
        console.info(failed)
    return replace(job, run=replace(job.run, setup=f"{job.run.setup} {failed}"))


MIN_SPEEDUP = 1.05
"""How many times faster twice the batch must be."""
BATCHES = tuple(2**k for k in range(11))


def fastest_batch(job: TrainingJob, trainee: Trainer) -> int:
    """Slices a step, over all processes, that get through most slices a second: doubled for as long as
    that pays and memory holds. The first process tries them, alone and uncompiled, for all."""
    best, rate = BATCHES[0], 0.0
    world, free = job.schedule.world, None if trainee.setup.free_bytes() else worker_pool.free_memory_bytes()
    for slices in BATCHES if trainee.group.is_main else ():
        fits = free is None or training_bytes(job.plan, 2 * slices) < free
        if slices * world > len(job.slices) or not fits:
            break
        try:
            found = slices / _step_seconds(job, trainee, slices, trainee.network)
        except torch.cuda.OutOfMemoryError:
            break
        if found < MIN_SPEEDUP * rate:
            break
        best, rate = slices, found
    chosen = int(trainee.group.broadcast(best)) * world
    if trainee.group.is_main:
        console.info(f"--batch-size auto: {chosen} slices a step; of those tried it is fastest or nearly so.")
    return chosen


def with_batch_size(job: TrainingJob, batch_size: int) -> TrainingJob:
    recipe = replace(job.run.recipe, batch_size=batch_size)
    return replace(job, run=replace(job.run, recipe=recipe), schedule=replace(job.schedule, batch_size=batch_size))


def within_budget(job: TrainingJob, trainee: Trainer, budget_s: float) -> Run:
    """The run with as many epochs as a time budget holds, by the time that steps and a checkpoint take here."""
    step = _step_seconds(job, trainee, job.schedule.batch_size // job.schedule.world)
    saving = _checkpoint_seconds(job, trainee) if trainee.group.is_main else 0.0
    per_epoch = trainee.group.broadcast(step * job.schedule.steps + saving)
    fitting = int(budget_s * BUDGET_SHARE // per_epoch)
    if fitting < 1:
        raise DvtError(
            f"--time-budget: one epoch takes about {duration(per_epoch)} here, more than "
            f"{BUDGET_SHARE:.0%} of {duration(budget_s)}. Give more time, or use a GPU."
        )
    return replace(job.run, recipe=replace(job.run.recipe, epochs=min(fitting, job.run.recipe.epochs)))


def _checkpoint_seconds(job: TrainingJob, trainee: Trainer) -> float:
    """What writing a checkpoint takes on the disk of the results."""
    there = next(parent for parent in job.folder.path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".trial_") as folder:
            begin = time.monotonic()
            checkpoint.save(Path(folder) / "checkpoint.pt", trainee.network, trainee.optimizer, 0)
            return CHECKPOINT_PARTS * (time.monotonic() - begin)
    except OSError as error:
        raise DvtError(files.cannot_write(there, error)) from error


CHECKPOINT_PARTS = 3
"""Weights and Adam's two moments, which come with the first step."""
