"""Measure durations in turn, so that a change of the machine's speed affects all of them."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of several tasks in each round."""

    rounds: dict[str, tuple[float, ...]]
    """Task -> seconds in each round."""

    def seconds(self, name: str) -> float:
        """Return the median duration of a task."""
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, over: str) -> float:
        """Return the median over the rounds of the ratio of two tasks in the same round."""
        return statistics.median(a / b for a, b in zip(self.rounds[name], self.rounds[over], strict=True))

    def spread(self, name: str, over: str) -> tuple[float, float]:
        """Return the lowest and highest of these ratios."""
        ratios = [a / b for a, b in zip(self.rounds[name], self.rounds[over], strict=True)]
        return min(ratios), max(ratios)


def in_turn(tasks: Mapping[str, Callable[[], object]], rounds: int, warm_up: bool = True) -> Timing:
    """Run every task once per round.

    A task that measures its own duration returns it as a float; this value is used instead.
    """
    if warm_up:
        for task in tasks.values():
            task()
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds):
        # Reverse every other round, so that the order gives no task an advantage.
        for name in list(tasks) if number % 2 == 0 else reversed(list(tasks)):
            begin = time.perf_counter()
            own = tasks[name]()
            taken[name].append(own if isinstance(own, float) else time.perf_counter() - begin)
    return Timing({name: tuple(seconds) for name, seconds in taken.items()})


def child(arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Run a process; return its duration in seconds and its standard output.

    Args:
        arguments: path of the program, and its arguments.
        variables: additional environment variables.

    Raises:
        RuntimeError: if it fails.
    """
    begin = time.perf_counter()
    done = subprocess.run(
        list(arguments), env={**os.environ, **(variables or {})}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{shlex.join(arguments)}: ended with status {done.returncode} ({last})")
    return seconds, done.stdout
