"""A machine on which time passes only by the steps and the saved epochs of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from dvtplan.training import pace, trainer, tuning
from dvtplan.training.trainer import Trainer

Seconds = Callable[[float], float]
"""Duration of something that begins at a time."""


def always(seconds: float) -> Seconds:
    """Return a duration that does not change."""
    return lambda now: seconds


def changed(before: float, at: float, after: float) -> Seconds:
    """Return a duration that changes at a time."""
    return lambda now: before if now < at else after


@dataclass
class Machine:
    """A clock, and how long a step and saving an epoch take."""

    step_s: Seconds
    save_s: Seconds = lambda now: 0.0
    now: float = 0.0

    def step(self) -> None:
        """Let the time of a step pass."""
        self.now += self.step_s(self.now)

    def save(self) -> None:
        """Let the time of saving an epoch pass."""
        self.now += self.save_s(self.now)

    def keep_time(self, patch: pytest.MonkeyPatch) -> None:
        """Be the clock of every pace."""
        patch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: self.now))

    def run_trainings(self, patch: pytest.MonkeyPatch) -> None:
        """Be the machine of every training. Its trials take no time, and find a step and an epoch as at the start."""
        take, write = Trainer.step, trainer.write_run

        def step(its_trainer: Trainer, batch: Any) -> Any:
            self.step()
            return take(its_trainer, batch)

        def written(*what: Any, **how: Any) -> Any:
            self.save()
            return write(*what, **how)

        self.keep_time(patch)
        patch.setattr(Trainer, "step", step)
        patch.setattr(trainer, "write_run", written)
        patch.setattr(tuning, "_step_seconds", lambda *what: self.step_s(0.0))
        patch.setattr(tuning, "_save_seconds", lambda *what: self.save_s(0.0))
