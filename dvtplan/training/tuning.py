"""Decide what depends on this machine: batch size, compilation, the steps that fit a time budget."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from dvtplan.core import console, worker_pool
from dvtplan.core.errors import DvtError, cannot_write
from dvtplan.core.text import duration, plural
from dvtplan.models import checkpoint
from dvtplan.models.devices import Forward
from dvtplan.models.training_run import Schedule
from dvtplan.planning.cost import training_bytes
from dvtplan.training import distributed
from dvtplan.training.data_loading import Batch
from dvtplan.training.job import TrainingJob, TrainingOptions
from dvtplan.training.pace import Budget, Forecast, Pace
from dvtplan.training.trainer import Trainer

LEAST_STEPS = 4
"""A time budget that holds fewer steps is refused."""
TRIAL_S = 4.0
"""Seconds for which steps are timed, if four steps take less."""
MIN_SPEEDUP = 1.05
"""Smallest gain in slices per second for which the batch size is doubled."""
BATCH_SIZES = tuple(2**k for k in range(11))
CHECKPOINT_PARTS = 3
"""Weights and Adam's two moments, which exist only after the first step. An average of the weights is one more."""


def tune(job: TrainingJob, trainer: Trainer, options: TrainingOptions) -> TrainingJob:
    """Return the job with everything decided that depends on this machine, except for the steps of a time budget.

    The order matters: the network is compiled for the chosen batch size. A resumed training keeps its batch size.
    """
    if options.batch_size_auto and not options.resume:
        job = _with_batch_size(job, _fastest_batch_size(job, trainer))
    return _compile(job, trainer)


def set_pace(job: TrainingJob, trainer: Trainer, budget: Budget | None, done: int | None) -> Pace:
    """Return the pace of a job: how many steps it takes, at which learning rate.

    A time budget holds as many steps as fit, by timing some steps and a checkpoint. A resumed training, which has
    ``done`` epochs, keeps its steps.

    Raises:
        DvtError: if not even a few steps fit.
    """
    run, group, steps = job.run, trainer.group, job.sampler.steps
    if done is not None:
        if budget is not None:
            advice = " Without it, `epochs` adds epochs." if run.schedule is not None else ""
            job.log(f"`time_budget_s` has no effect on a resumed training.{advice}", group)
        taken = checkpoint.steps_taken(job.folder.checkpoint, steps)
        return Pace(run.recipe, steps, group, taken=taken, schedule=run.schedule)
    if budget is None:
        return Pace(run.recipe, steps, group)
    step_s = _step_seconds(job, trainer, job.sampler.batch_size // job.sampler.world)
    save_s = _save_seconds(job, trainer) if group.is_main else 0.0
    forecast = Forecast(budget, step_s=step_s, save_s=save_s, steps_per_epoch=steps)
    fitting, elapsed = group.broadcast((forecast.fitting(0, run.recipe.epochs * steps), budget.elapsed()))
    if fitting < min(LEAST_STEPS, run.recipe.epochs * steps):
        raise DvtError(
            f"`time_budget_s`: of {duration(budget.seconds)}, {duration(elapsed)} passed before the first step. A step "
            f"takes about {step_s:.2g} s here, and saving {save_s:.2g} s, so fewer than {LEAST_STEPS} steps fit. Allow "
            "more time, or use a GPU."
        )
    if fitting < steps and group.is_main:
        console.warn(
            f"`time_budget_s`: only {fitting} of {plural(steps, 'step')} of an epoch fit, so the training sees "
            f"{fitting / steps:.0%} of the slices."
        )
    schedule = Schedule(
        budget_s=budget.seconds,
        recipe_epochs=run.recipe.epochs,
        steps_per_epoch=steps,
        planned=fitting,
        steps=fitting,
        taken=0,
        drops=run.recipe.drop_steps(fitting, steps),
    )
    return Pace(run.recipe, steps, group, schedule=schedule, forecast=forecast)


def _step_seconds(job: TrainingJob, trainer: Trainer, slices: int, forward: Forward | None = None) -> float:
    """Time a forward and a backward pass of some slices. The network stays as it was."""
    batch = _noise(job, trainer.setup.device, slices)
    seconds: list[float] = []
    # Batch normalization changes its running means in every forward pass.
    kept = {name: buffer.clone() for name, buffer in trainer.network.named_buffers()}
    try:
        # The fastest of several, and of more if they are quick: other programs may slow some of them.
        while len(seconds) < 4 or (len(seconds) < 20 and sum(seconds) < TRIAL_S):
            begin = time.perf_counter()
            trainer.optimizer.zero_grad(set_to_none=True)  # a CUDA graph reuses the memory of the last gradients
            with distributed.alone():
                loss = trainer.loss(batch, forward)
            loss.backward()
            float(loss.detach())
            seconds.append(time.perf_counter() - begin)
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
        for name, buffer in trainer.network.named_buffers():
            buffer.copy_(kept[name])
    return min(seconds[1:])


def _noise(job: TrainingJob, device: str, slices: int) -> Batch:
    """Return a batch of a number of slices.

    Not zeros, which a GPU multiplies faster than images. The own generator leaves the global ones as they are.
    """
    generator, patches = torch.Generator().manual_seed(0), job.sampler.patches
    rows, columns = patches.window if patches else job.plan.target_shape
    image = torch.rand(1, job.run.channels_in, rows, columns, generator=generator)
    return Batch(
        image.expand(slices, -1, -1, -1).to(device, torch.float16),
        torch.zeros(slices, rows, columns, dtype=torch.uint8, device=device),
        torch.zeros(slices, dtype=torch.long, device=device),
        torch.tensor([rows / 2, columns / 2]).expand(slices, 2),
        torch.rand(slices, job.sampler.numbers, generator=generator),
        torch.arange(slices),
    )


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
        fits = free is None or training_bytes(job.seen_shape, 2 * slices) < free
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


def _save_seconds(job: TrainingJob, trainer: Trainer) -> float:
    """Time the writing of a checkpoint and a learning curve to the disk of the results."""
    from dvtplan.rendering import charts  # slow to load, and not every process draws

    existing = next(parent for parent in job.folder.path.absolute().parents if parent.exists())
    row = {"epoch": 0, "loss": 1.0, "learning_rate": job.run.recipe.learning_rate}
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".trial_") as folder:
            begin = time.monotonic()
            checkpoint.save(Path(folder) / "checkpoint.pt", trainer.network, trainer.optimizer, 0)
            drawn = time.monotonic()
            charts.learning_curve([row], Path(folder) / job.folder.progress.name, "")
            return (CHECKPOINT_PARTS + (trainer.average is not None)) * (drawn - begin) + time.monotonic() - drawn
    except OSError as error:
        raise DvtError(cannot_write(existing, error)) from error
