"""Seconds of things, taken in turn so that a machine that speeds up or slows down does so for all of them."""

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
    """Seconds of several things, round by round."""

    rounds: dict[str, tuple[float, ...]]

    def seconds(self, name: str) -> float:
        """The median of one."""
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, over: str) -> float:
        """Median over the rounds of the one's seconds by the other's in the same round."""
        return statistics.median(a / b for a, b in zip(self.rounds[name], self.rounds[over], strict=True))

    def spread(self, name: str, over: str) -> tuple[float, float]:
        """Lowest and highest of these ratios."""
        ratios = [a / b for a, b in zip(self.rounds[name], self.rounds[over], strict=True)]
        return min(ratios), max(ratios)


def in_turn(things: Mapping[str, Callable[[], object]], rounds: int, warm_up: bool = True) -> Timing:
    """Run every thing once a round.

    A thing may give its own seconds as a float, where it knows better what is to be counted.
    """
    if warm_up:
        for thing in things.values():
            thing()
    taken: dict[str, list[float]] = {name: [] for name in things}
    for number in range(rounds):
        # Every other round backwards: what comes first has no advantage.
        for name in list(things) if number % 2 == 0 else reversed(list(things)):
            begin = time.perf_counter()
            own = things[name]()
            taken[name].append(own if isinstance(own, float) else time.perf_counter() - begin)
    return Timing({name: tuple(seconds) for name, seconds in taken.items()})


def child(arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Seconds of a process, and what it wrote.

    Args:
        arguments: the program, by its path, and what follows.
        variables: of the environment, beside ours.

    Raises:
        RuntimeError: if it fails.
    """
    begin = time.perf_counter()
    done = subprocess.run(
        list(arguments), env={**os.environ, **(variables or {})}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"{shlex.join(arguments)}: ended with status {done.returncode} ({last})")
    return seconds, done.stdout
