"""Measure speed: the benchmark's measurements of the device, on the study's cohort."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench import limits, prediction, steps, training
from bench.inputs import Bench
from bench.results import Row

from gpucheck.checks import Check, OutOfTime
from gpucheck.processes import prepare
from gpucheck.settings import Settings

Measurement = Callable[[Bench], Iterator[Row]]

MEASUREMENTS: dict[str, tuple[Measurement, bool]] = {
    "steps": (steps.steps, False),
    "train": (training.train, True),
    "modern": (training.modern, True),
    "forward": (prediction.forward_rate, False),
    "predict": (prediction.predict, True),
    "predict, tiles": (prediction.predict_tiles, True),
    "synchronisations": (training.synchronisations, False),
    "auto": (training.auto, True),
    "forward, masks": (prediction.forward, True),
    "eager": (training.eager, True),
    "other ways": (steps.other_ways, False),
}
"""Name -> measurement and whether it needs the cohort; the most important first."""
GPU_ONLY = ("auto", "synchronisations", "eager", "other ways")


def _measure(measurement: Measurement, needs_cohort: bool) -> Callable[[Settings], Iterator[Row]]:
    def measure(settings: Settings) -> Iterator[Row]:
        if settings.tiny:
            prepare(settings)
        elif needs_cohort and not settings.study_is_ready:
            raise OutOfTime("the phantom cohort was not ready")
        yield from measurement(settings.bench())

    return measure


def checks() -> tuple[Check, ...]:
    """Return a check for each measurement."""
    return tuple(
        Check(name=name, measure=_measure(measurement, needs_cohort), needs_gpu=name in GPU_ONLY)
        for name, (measurement, needs_cohort) in MEASUREMENTS.items()
    )


def limit_checks() -> tuple[Check, ...]:
    """Return the check of the limits of the machine."""
    return (Check(name="limits", measure=lambda settings: limits.limits(settings.bench())),)
