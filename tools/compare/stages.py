"""Run a command once: its result on disk shows that it is done."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from compare.settings import MADE_BY
from dvtplan.core import json_records
from dvtplan.core.child_processes import GRACE_S
from dvtplan.core.errors import DvtError

PEAK_MEMORY = Path(__file__).absolute().with_name("peak_memory.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A command that is to run once."""

    title: str
    """Who runs it, for messages."""
    record: Path
    """File that is written when the command has succeeded; its output goes to a log next to it."""
    command: Sequence[str]
    """Program and arguments."""
    variables: Mapping[str, str]
    """Additional environment variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A finished command."""

    command: str
    seconds: float
    """Wall time of the command, with its start."""
    peak_bytes: int
    """Peak memory of its largest process."""
    processor_s: float
    """Processor time of all its processes."""

    @property
    def processor_share(self) -> float:
        """Processor time over wall time: 1 for one thread that always ran."""
        return self.processor_s / self.seconds


T = TypeVar("T")
Work = Generator[Planned, Stage, T]
"""Commands one after the other: yields each, gets its stage, and returns a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A command that runs."""

    planned: Planned
    process: subprocess.Popen[bytes]
    begin: float

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    @property
    def log(self) -> Path:
        """File of its output."""
        return self.planned.record.with_suffix(".log")


def in_turn(work: Work[T]) -> T:
    """Run the commands of some work, as far as they are not done, and return its result.

    Raises:
        DvtError: if a command fails.
    """
    try:
        planned = next(work)
        while True:
            planned = work.send(once(planned))
    except StopIteration as end:
        return end.value


def once(planned: Planned) -> Stage:
    """Run a command, unless its record exists.

    Raises:
        DvtError: if the command fails.
    """
    done = finished(planned)
    if done is not None:
        return done
    running = start(planned)
    try:
        running.process.wait()
    except BaseException:
        end(running)
        raise
    return finish(running)


def finished(planned: Planned) -> Stage | None:
    """Return the record of a command, None if it has not succeeded yet."""
    if not planned.record.exists():
        return None
    return json_records.load(Stage, planned.record, MADE_BY, "Remove it, then run again.")


def start(planned: Planned) -> Running:
    """Start a command."""
    record = planned.record
    print(f"== {planned.title}: {record.stem}", file=sys.stderr, flush=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with record.with_suffix(".log").open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PEAK_MEMORY), str(record.with_suffix(".peak")), *planned.command],
            env={**os.environ, **planned.variables}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return Running(planned=planned, process=process, begin=begin)


def finish(running: Running) -> Stage:
    """Write and return the record of a command that has ended.

    Raises:
        DvtError: if it failed.
    """
    record, log, status = running.planned.record, running.log, running.process.wait()
    if status:
        raise DvtError(
            f"{log}: the command ended with status {status} ({_last_line(log)}). Fix the error, then run again; what "
            "is finished is kept."
        )
    seconds, peak = time.perf_counter() - running.begin, record.with_suffix(".peak")
    memory, processor_s = peak.read_text(encoding="utf-8").split()
    stage = Stage(
        command=shlex.join(running.planned.command),
        seconds=seconds,
        peak_bytes=int(memory),
        processor_s=float(processor_s),
    )
    peak.unlink()
    json_records.save(stage, record)
    return stage


def end(*commands: Running) -> None:
    """End commands and their children; first let them end by themselves."""
    for number, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        for running in commands:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, number)
        for running in commands:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(seconds)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no message"
