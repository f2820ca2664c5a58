"""The steps of a training: how many, at which learning rate, and how many of them fit a time budget."""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from dvtplan.core.process_group import ProcessGroup
from dvtplan.core.text import duration, plural
from dvtplan.models.training_run import Run, Schedule
from dvtplan.planning.recipe import Recipe

EARLIEST, TARGET, LATEST = 0.94, 0.97, 0.99
"""Shares of a time budget. A training that would end before the first or after the last is planned again, to end at the
second."""
WINDOW = 0.1
"""Share of a time budget over which the time of a step is averaged. A short disturbance must not lower the learning
rate too early."""
SHORTEST = 0.02
"""Share of a time budget that must be measured before the time of a step replaces that of the trial."""
CHECKS = 100
"""The time is checked after this part of the remaining steps, so more and more often. A machine that becomes slower by
this factor still ends in time."""
SAVE_AFTER_S = 600.0
"""Seconds after which an epoch that is longer is saved before its end."""
SAVING_SHARE = 0.02
"""Share of the time that saving may take. After short epochs, those in between are not saved."""
QUICK_S = 0.1
"""A checkpoint that takes less than this is saved after each epoch."""
CLOCK_S = 30.0
"""Without a time budget, the clock is read about this often, and not more than twice as often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A time budget, and when it began."""

    seconds: float
    began: float = field(default_factory=lambda: time.monotonic())

    def elapsed(self) -> float:
        """Return the seconds since its start."""
        return time.monotonic() - self.began


class Forecast:
    """Estimate how many steps fit a time budget, from the steps and the saved epochs so far."""

    def __init__(self, budget: Budget, *, step_s: float, save_s: float, steps_per_epoch: int) -> None:
        self.budget, self.step_s, self.save_s = budget, step_s, save_s
        self._steps_per_epoch = steps_per_epoch
        self._saving, self._saved = 0.0, 0
        self._marks: deque[tuple[float, int]] = deque()

    def seconds(self, taken: int, steps: int) -> float:
        """Return the seconds from a number of taken steps to the end of ``steps``, with saving."""
        unsaved = -(-steps // self._steps_per_epoch) - self._saved
        left, saving = (steps - taken) * self.step_s, unsaved * self.save_s
        return left + (saving if self.save_s < QUICK_S else min(saving, SAVING_SHARE * left + self.save_s))

    def fitting(self, taken: int, most: int) -> int:
        """Return the steps, at least ``taken`` and at most ``most``, that the training can have in time."""
        left = TARGET * self.budget.seconds - self.budget.elapsed()
        ends = range(taken, most + 1)
        return max(taken, taken - 1 + bisect_right(ends, left, key=lambda steps: self.seconds(taken, steps)))

    def plan(self, taken: int, steps: int, most: int) -> int:
        """Measure again. Return ``steps`` if they still fit the budget well, else another number of them."""
        self._measure(taken)
        end = (self.budget.elapsed() + self.seconds(taken, steps)) / self.budget.seconds
        return steps if EARLIEST <= end <= LATEST else self.fitting(taken, most)

    def saved(self, epochs: int, seconds: float) -> None:
        """Count the time of saving an epoch."""
        self._saved, self._saving = epochs, self._saving + seconds
        self.save_s = (self.save_s + seconds) / 2

    def _measure(self, taken: int) -> None:
        now = self.budget.elapsed() - self._saving
        self._marks.append((now, taken))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW * self.budget.seconds:
            self._marks.popleft()
        since, before = self._marks[0]
        if taken > before and now - since >= SHORTEST * self.budget.seconds:
            self.step_s = (now - since) / (taken - before)


class Pace:
    """Count the steps of a training. Decide its end and its learning rate.

    Every process of a group holds the same numbers. Only the main process reads the clock; it tells the others at
    steps that all of them know.
    """

    def __init__(
        self,
        recipe: Recipe,
        steps_per_epoch: int,
        group: ProcessGroup,
        *,
        taken: int = 0,
        schedule: Schedule | None = None,
        forecast: Forecast | None = None,
    ) -> None:
        """Start at ``taken`` steps.

        Args:
            recipe: decides the learning rate and, without a schedule, the number of steps.
            steps_per_epoch: batches of an epoch.
            group: the processes that take the same steps.
            taken: steps before this start.
            schedule: how a time budget shortened the training; of a forecast, as it is planned now.
            forecast: plans again during the training; None: the number of steps stays.
        """
        self.taken, self.steps_per_epoch = taken, steps_per_epoch
        self._recipe, self._group, self._forecast, self._schedule = recipe, group, forecast, schedule
        self._most = recipe.epochs * steps_per_epoch
        self.steps = schedule.steps if schedule else self._most
        self._planned = schedule.planned if schedule else self.steps
        self._replanned = (schedule.replanned_at, schedule.progress) if schedule else (0, 0.0)
        self._drops = schedule.drops if schedule else recipe.drop_steps(self.steps, steps_per_epoch)
        self._interval, self._next_check = 1, taken + 1
        self._checked = self._saved = time.monotonic()
        self._save_s = 0.0
        self.must_save = False
        """Whether the steps since the last checkpoint took long."""
        self._is_shortened = forecast is None and schedule is not None

    @property
    def epoch(self) -> int:
        """The epoch of the next step, counted from 0."""
        return self.taken // self.steps_per_epoch

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs; the last one of the training may be partial."""
        return -(-self.taken // self.steps_per_epoch) if self.is_finished else self.epoch

    @property
    def is_finished(self) -> bool:
        """Whether no step remains."""
        return self.taken >= self.steps

    def learning_rate(self, step: int | None = None) -> float:
        """Return the learning rate of a step, counted from 0; None: of the next one."""
        at = self.taken if step is None else step
        return self._recipe.learning_rate_at(at, self._planned, self._drops, progress=self._progress_at(at))

    def _progress_at(self, step: int) -> float:
        """Return the share of a cosine that has passed at a step. A new plan changes how fast it goes on from there."""
        since, reached = self._replanned
        return reached + (1 - reached) * (step - since) / max(self.steps - since, 1)

    def count_step(self, wait: Callable[[], object]) -> None:
        """Count a step. ``wait`` waits for it; it is called only if a time budget is checked now."""
        self.taken += 1
        if self.taken >= self._next_check:
            if self._forecast is not None:
                wait()
            self.check()

    def check(self) -> None:
        """Plan the remaining steps again, and whether to save. Every process must call it after the same step."""
        decided = self._decide() if self._group.is_main else None
        steps, self._interval, self.must_save = self._group.broadcast(decided)
        self._set_steps(steps)
        self._next_check = self.taken + self._interval

    def _decide(self) -> tuple[int, int, bool]:
        """Return the number of steps, the steps until the next check, and whether to save now."""
        now = time.monotonic()
        passed, self._checked = now - self._checked, now
        must_save = self.taken > 0 and now - self._saved >= SAVE_AFTER_S
        if self._forecast is not None:
            steps = self._forecast.plan(self.taken, self.steps, self._most)
            unsaved_s = 0.0 if must_save else now - self._saved
            until_save = int((SAVE_AFTER_S - unsaved_s) / max(self._forecast.step_s, 1e-6))
            return steps, max(1, min((steps - self.taken) // CHECKS, until_save)), must_save
        longer = 2 * self._interval if passed < CLOCK_S / 2 else self._interval
        return self.steps, longer if passed < CLOCK_S else max(1, longer // 2), must_save

    def _set_steps(self, steps: int) -> None:
        """Change the number of steps. The learning rate never rises, and reaches its last value."""
        if steps == self.steps:
            return
        is_last = bool(self._drops) and all(drop < self.taken for drop in self._drops)
        self._replanned = self.taken, self._progress_at(self.taken)
        self.steps = steps if is_last and self.taken else max(steps, self.taken + 1)
        planned = self._recipe.drop_steps(self.steps, self.steps_per_epoch)
        self._drops = tuple(
            old if old < self.taken else max(self.taken, new) for old, new in zip(self._drops, planned, strict=True)
        )

    def is_saving_due(self) -> bool:
        """Return whether to save after an epoch or within it: not if that would take too large a share of the time."""
        if self.is_finished or self.must_save or self._save_s < QUICK_S:
            return True
        return time.monotonic() - self._saved >= min(self._save_s / SAVING_SHARE, SAVE_AFTER_S)

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Count the time of saving."""
        begin = time.monotonic()
        yield
        self.must_save, self._saved = False, time.monotonic()
        self._save_s = self._saved - begin
        if self._forecast is not None:
            self._forecast.saved(self.epochs_done, self._save_s)

    def recorded(self, run: Run) -> Run:
        """Return the record of a training with the steps that are planned and taken."""
        if self._schedule is None:
            return run
        whole = self._recipe.drop_steps(self._most, self.steps_per_epoch)
        self._is_shortened |= (self.steps, self._drops) != (self._most, whole) or self._replanned != (0, 0.0)
        if not self._is_shortened:  # as without a time budget
            return run
        since, reached = self._replanned
        schedule = replace(
            self._schedule,
            steps=self.steps,
            taken=self.taken,
            drops=self._drops,
            replanned_at=since,
            progress=reached,
        )
        return replace(run, schedule=schedule, recipe=replace(run.recipe, epochs=schedule.epochs))

    def report(self) -> str:
        """Return a sentence about the time budget; an empty string if there is none."""
        if self._forecast is None or self._schedule is None:
            return ""
        budget = self._forecast.budget
        return (
            f" It took {plural(self.taken, 'step')} ({self._schedule.planned} planned at the start) and "
            f"{budget.elapsed() / budget.seconds:.0%} of the time budget of {duration(budget.seconds)}."
        )
