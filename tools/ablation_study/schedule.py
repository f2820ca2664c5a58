"""Run jobs side by side, each on a core of its own. A failed job does not stop the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from compare import stages
from compare.settings import on_cores
from compare.stages import Running, Stage, Work

POLL_S = 0.2
"""Seconds between two looks at the commands."""

J = TypeVar("J")


@dataclass(slots=True)
class _Open(Generic[J]):
    """A job that has begun."""

    job: J
    work: Work[object]
    running: Running | None = None


def run(
    jobs: Sequence[J], cores: Sequence[int], start: Callable[[J], Work[object]], done: Callable[[J], None]
) -> dict[J, str]:
    """Run all jobs, on each core one at a time, in their order.

    Args:
        jobs: what to run.
        cores: numbers of the cores.
        start: returns the commands of a job.
        done: is called after each job that has succeeded.

    Returns:
        The message of each job that failed.
    """
    waiting, at_work, failed = deque(jobs), dict[int, _Open[J]](), dict[J, str]()
    try:
        while waiting or at_work:
            for core in cores:
                if core not in at_work and waiting:
                    job = waiting.popleft()
                    at_work[core] = _Open(job, start(job))
                if core in at_work and not _goes_on(at_work[core], core, done, failed):
                    del at_work[core]
            time.sleep(POLL_S if at_work else 0)
    finally:
        stages.end(*(one.running for one in at_work.values() if one.running is not None))
    return failed


def _goes_on(one: _Open[J], core: int, done: Callable[[J], None], failed: dict[J, str]) -> bool:
    """Start the next command of a job if the last one has ended; return whether the job is at work."""
    if one.running is not None and one.running.is_running:
        return True
    try:
        running, one.running = one.running, None
        stage: Stage | None = None if running is None else stages.finish(running)
        while True:
            planned = next(one.work) if stage is None else one.work.send(stage)
            stage = stages.finished(planned)
            if stage is None:
                with on_cores([core]):
                    one.running = stages.start(planned)
                return True
    except StopIteration:
        return not _succeeded(one.job, done, failed)
    except Exception as error:  # whatever it is, the other jobs go on
        failed[one.job] = _message(error)
    return False


def _succeeded(job: J, done: Callable[[J], None], failed: dict[J, str]) -> bool:
    try:
        done(job)
    except Exception as error:
        failed[job] = _message(error)
    return True


def _message(error: Exception) -> str:
    return str(error) or type(error).__name__
