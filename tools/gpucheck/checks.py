"""A check: its name, its measurement, and its possible states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.results import Row

from gpucheck.settings import Settings

PASSED, MISSED, FAILED, NO_GPU, NOT_REACHED = "passed", "missed", "failed", "no GPU", "not reached"
"""States of a finished check. Missed: it worked, but a value did not reach its goal."""


class OutOfTime(Exception):
    """The remaining time is too short for a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of the machine."""

    name: str
    measure: Callable[[Settings], Iterator[Row]]
    """Yields each measured value at once."""
    needs_gpu: bool = False
    must_hold: bool = False
    """Whether a value beyond its limit is a failure; otherwise it is a missed goal, such as a speed."""
