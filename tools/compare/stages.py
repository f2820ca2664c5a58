"""Run a command once: its result on disk shows that it is done."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compare.settings import MADE_BY
from dvtplan.core import json_records
from dvtplan.core.child_processes import GRACE_S
from dvtplan.core.errors import DvtError

PEAK_MEMORY = Path(__file__).absolute().with_name("peak_memory.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A finished command."""

    command: str
    seconds: float
    """Wall time of the command, with its start."""
    peak_bytes: int
    """Peak memory of its largest process."""


def once(record: Path, command: Sequence[str], variables: Mapping[str, str]) -> Stage:
    """Run a command, unless its record exists; its output goes to a log next to the record.

    Args:
        record: file that is written when the command has succeeded.
        command: program and arguments.
        variables: additional environment variables.

    Raises:
        DvtError: if the command fails.
    """
    if record.exists():
        return json_records.load(Stage, record, MADE_BY, "Remove it, then run again.")
    print(f"== {record.parent.name}: {record.stem}", file=sys.stderr, flush=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    log, peak = record.with_suffix(".log"), record.with_suffix(".peak")
    begin = time.perf_counter()
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PEAK_MEMORY), str(peak), *command],
            env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait()
        except BaseException:
            _end(process)
            raise
    if status:
        raise DvtError(
            f"{log}: the command ended with status {status} ({_last_line(log)}). Fix the error, then run again; what "
            "is finished is kept."
        )
    seconds, peak_bytes = time.perf_counter() - begin, int(peak.read_text(encoding="utf-8"))
    peak.unlink()
    stage = Stage(command=shlex.join(command), seconds=seconds, peak_bytes=peak_bytes)
    json_records.save(stage, record)
    return stage


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children; first let it end by itself."""
    for number, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no message"
