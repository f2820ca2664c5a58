"""Choose precision and memory layout of a training on a CPU, and keep them when it is resumed."""

from __future__ import annotations

from dataclasses import replace

import torch

from dvtplan.core import console
from dvtplan.models import devices, speed_trial
from dvtplan.models.checkpoint import build_network
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.training_run import Arithmetic
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingJob, TrainingOptions


def choose_arithmetic(
    job: TrainingJob, setup: DeviceConfig, group: TorchProcessGroup, options: TrainingOptions
) -> tuple[TrainingJob, DeviceConfig]:
    """Return the job, and the setup or one of its alternatives by which it is trained.

    A new training takes the fastest in a trial on this machine. A resumed training keeps what it was started with,
    because its result must be bit-identical to an uninterrupted one; on another kind of processor, where it cannot be,
    it takes the fastest again. What the options name is always taken. The main process decides for all.
    """
    if setup.device != "cpu":
        return job, setup
    chosen = group.broadcast(_decide(job, setup, options) if group.is_main else None)
    arithmetic = Arithmetic(
        precision=chosen.precision,
        channels_last=chosen.channels_last,
        processor=devices.processor(),
        threads=torch.get_num_threads(),
        trial=chosen.trial,
    )
    return replace(job, run=replace(job.run, setup=chosen.description, arithmetic=arithmetic)), chosen


def _decide(job: TrainingJob, setup: DeviceConfig, options: TrainingOptions) -> DeviceConfig:
    earlier = job.run.arithmetic
    if options.resume and earlier is None:  # from a version without trials
        return replace(setup, alternatives=())
    if options.resume and earlier is not None and earlier.processor == devices.processor():
        return _kept(setup, earlier, options)
    slices = job.sampler.batch_size // job.sampler.world
    batch = (slices, job.run.channels_in, *job.seen_shape)
    return speed_trial.fastest_for_training(build_network(job.run), batch, setup)


def _kept(setup: DeviceConfig, earlier: Arithmetic, options: TrainingOptions) -> DeviceConfig:
    """Return the way that a run was started with, except for what the options name."""
    kept = replace(
        setup,
        precision=options.precision or earlier.precision,
        channels_last=earlier.channels_last if options.channels_last is None else options.channels_last,
        alternatives=(),
        trial=earlier.trial,
    )
    threads = torch.get_num_threads()
    values = {
        "precision": (earlier.precision, kept.precision),
        "channels last": (earlier.channels_last, kept.channels_last),
        "threads": (earlier.threads, threads),
    }
    changed = [f"{name} {then}, now {now}" for name, (then, now) in values.items() if then != now]
    if changed:
        console.warn(
            f"This training was started with {'; '.join(changed)}. Its result will not be bit-identical to an "
            "uninterrupted training."
        )
    return kept
