"""Decide what depends on this machine: batch size, compilation, the epochs that fit a time budget."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from dvtplan.core import console, worker_pool
from dvtplan.core.errors import DvtError, cannot_write
from dvtplan.core.text import duration
from dvtplan.models import checkpoint
from dvtplan.models.devices import Forward
from dvtplan.planning.cost import training_bytes
from dvtplan.training.data_loading import Batch
from dvtplan.training.job import TrainingJob, TrainingOptions
from dvtplan.training.trainer import Trainer

BUDGET_SHARE = 0.9
"""Share of a time budget that the epochs may use."""
TRIAL_S = 4.0
"""Seconds for which steps are timed, if four steps take less."""
MIN_SPEEDUP = 1.05
"""Smallest gain in slices per second for which the batch size is doubled."""
BATCH_SIZES = tuple(2**k for k in range(11))
CHECKPOINT_PARTS = 3
"""Weights and Adam's two moments. The moments exist only after the first step."""


def tune(job: TrainingJob, trainer: Trainer, options: TrainingOptions, done: int) -> TrainingJob:
    """Return the job with everything decided that depends on this machine.

    The order matters: steps are timed for the epochs with the chosen batch size and the compiled network.
    A resumed training keeps its batch size and epochs.
    """
    if options.batch_size_auto and done == 0:
        job = _with_batch_size(job, _fastest_batch_size(job, trainer))
    job = _compile(job, trainer)
    if options.time_budget_s is None:
        return job
    if done > 0:
        job.log("`time_budget_s` has no effect on a resumed training; `epochs` adds epochs.", trainer.group)
        return job
    return _with_epochs(job, _epochs_within(job, trainer, options.time_budget_s))


def _step_seconds(job: TrainingJob, trainer: Trainer, slices: int, forward: Forward | None = None) -> float:
    """Time a forward and a backward pass of some slices. The network stays as it was."""
    rows, columns = job.plan.target_shape
    device = trainer.setup.device
    # Not zeros, which a GPU multiplies faster than images. The own generator leaves the global ones as they are.
    noise = torch.rand(1, job.run.channels, rows, columns, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        noise.expand(slices, -1, -1, -1).to(device, torch.float16),
        torch.zeros(slices, rows, columns, dtype=torch.uint8, device=device),
        torch.zeros(slices, dtype=torch.long, device=device),
    )
    seconds: list[float] = []
    # Batch normalization changes its running means in every forward pass.
    kept = {name: buffer.clone() for name, buffer in trainer.network.named_buffers()}
    try:
        # The fastest of several, and of more if they are quick: other programs may slow some of them.
        while len(seconds) < 4 or (len(seconds) < 20 and sum(seconds) < TRIAL_S):
            begin = time.perf_counter()
            trainer.optimizer.zero_grad(set_to_none=True)  # a CUDA graph reuses the memory of the last gradients
            loss = trainer.loss(batch, forward)
            loss.backward()
            float(loss.detach())
            seconds.append(time.perf_counter() - begin)
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
        for name, buffer in trainer.network.named_buffers():
            buffer.copy_(kept[name])
    return min(seconds[1:])


def _compile(job: TrainingJob, trainer: Trainer) -> TrainingJob:
    """Compile the network if that was chosen and works. Otherwise the job's record says why not."""
    share = job.sampler.batch_size // job.sampler.world
    failure = trainer.compile(lambda forward: _step_seconds(job, trainer, share, forward))
    if not failure:
        return job
    if trainer.group.is_main:
        console.info(failure)
    return replace(job, run=replace(job.run, setup=f"{job.run.setup} {failure}"))


def _fastest_batch_size(job: TrainingJob, trainer: Trainer) -> int:
    """Return the slices per step, over all processes, that give the most slices per second.

    The batch size is doubled as long as that pays and memory suffices. The first process tries for all, alone and
    with the network that is not compiled.
    """
    best, rate = BATCH_SIZES[0], 0.0
    world, free = job.sampler.world, None if trainer.setup.free_bytes() else worker_pool.free_memory_bytes()
    for slices in BATCH_SIZES if trainer.group.is_main else ():
        fits = free is None or training_bytes(job.plan, 2 * slices) < free
        if slices * world > len(job.slices) or not fits:
            break
        try:
            measured = slices / _step_seconds(job, trainer, slices, trainer.network)
        except torch.cuda.OutOfMemoryError:
            break
        if measured < MIN_SPEEDUP * rate:
            break
        best, rate = slices, measured
    chosen = int(trainer.group.broadcast(best)) * world
    if trainer.group.is_main:
        console.info(f"Batch size: {chosen} slices per step, about the fastest of the sizes that were tried.")
    return chosen


def _with_batch_size(job: TrainingJob, batch_size: int) -> TrainingJob:
    recipe = replace(job.run.recipe, batch_size=batch_size)
    return replace(job, run=replace(job.run, recipe=recipe), sampler=replace(job.sampler, batch_size=batch_size))


def _with_epochs(job: TrainingJob, epochs: int) -> TrainingJob:
    return replace(job, run=replace(job.run, recipe=replace(job.run.recipe, epochs=epochs)))


def _epochs_within(job: TrainingJob, trainer: Trainer, budget_s: float) -> int:
    """Return how many epochs fit a time budget, at most the recipe's, by timing steps and a checkpoint.

    Raises:
        DvtError: if not even one epoch fits.
    """
    step_s = _step_seconds(job, trainer, job.sampler.batch_size // job.sampler.world)
    checkpoint_s = _checkpoint_seconds(job, trainer) if trainer.group.is_main else 0.0
    epoch_s = trainer.group.broadcast(step_s * job.sampler.steps + checkpoint_s)
    fitting = int(budget_s * BUDGET_SHARE // epoch_s)
    if fitting < 1:
        raise DvtError(
            f"`time_budget_s`: one epoch takes about {duration(epoch_s)} here, more than "
            f"{BUDGET_SHARE:.0%} of {duration(budget_s)}. Allow more time, or use a GPU."
        )
    return min(fitting, job.run.recipe.epochs)


def _checkpoint_seconds(job: TrainingJob, trainer: Trainer) -> float:
    """Time the writing of a checkpoint to the disk of the results."""
    existing = next(parent for parent in job.folder.path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".trial_") as folder:
            begin = time.monotonic()
            checkpoint.save(Path(folder) / "checkpoint.pt", trainer.network, trainer.optimizer, 0)
            return CHECKPOINT_PARTS * (time.monotonic() - begin)
    except OSError as error:
        raise DvtError(cannot_write(existing, error)) from error
