"""Choose precision and memory layout of a training on a CPU, and keep them when it is resumed."""

from __future__ import annotations

from dataclasses import replace

from dvtplan.models import devices, speed_trial
from dvtplan.models.checkpoint import build_network
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.training_run import Arithmetic
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingJob


def choose_arithmetic(
    job: TrainingJob, setup: DeviceConfig, group: TorchProcessGroup, *, resume: bool
) -> tuple[TrainingJob, DeviceConfig]:
    """Return the job, and the setup or one of its alternatives by which it is trained.

    A new training takes the fastest in a trial on this machine. A resumed training keeps what it was started with,
    because its result must be bit-identical to an uninterrupted one; on another kind of processor, where it cannot be,
    it takes the fastest again. What the user chose is in all alternatives, so it is always kept.
    """
    if setup.device != "cpu":
        return job, setup
    earlier = job.run.arithmetic
    if not resume or (earlier is not None and earlier.processor != devices.processor()):
        chosen = group.broadcast(_fastest(job, setup) if group.is_main else None)
    else:
        chosen = _kept(setup, earlier)
    arithmetic = Arithmetic(
        precision=chosen.precision,
        channels_last=chosen.channels_last,
        processor=devices.processor(),
        trial=chosen.trial,
    )
    return replace(job, run=replace(job.run, setup=chosen.description, arithmetic=arithmetic)), chosen


def _fastest(job: TrainingJob, setup: DeviceConfig) -> DeviceConfig:
    """Return the fastest way to train a batch of one process."""
    slices = job.sampler.batch_size // job.sampler.world
    batch = (slices, job.run.channels, *job.plan.target_shape)
    return speed_trial.fastest_for_training(build_network(job.run), batch, setup)


def _kept(setup: DeviceConfig, earlier: Arithmetic | None) -> DeviceConfig:
    """Return the way that a run was started with, or the default if that is unknown or the user now excludes it."""
    for way in (setup, *setup.alternatives):
        if earlier and (way.precision, way.channels_last) == (earlier.precision, earlier.channels_last):
            return replace(way, alternatives=(), trial=earlier.trial)
    return replace(setup, alternatives=())
