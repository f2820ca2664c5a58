"""A check: a name and what measures it; and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.rows import Row

from gpucheck.settings import Settings

HELD, MISSED, FAILED, NO_GPU, NOT_REACHED = "held", "missed", "failed", "no GPU", "not reached"
"""What may become of a check. Missed: it worked, and a figure did not reach its goal."""


class OutOfTime(Exception):
    """A check that cannot be done in the time that is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question to the machine."""

    name: str
    measure: Callable[[Settings], Iterator[Row]]
    """Yields each figure as soon as it is known."""
    needs_gpu: bool = False
    must_hold: bool = False
    """Whether a figure beyond its limit is a fault; else it is a goal that was missed, as of speed."""
