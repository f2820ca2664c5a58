"""Run the parts, each in a process with a time limit, and update the record."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dvtplan.core import worker_pool
from dvtplan.core.errors import DvtError
from gpucheck.checks import FAILED
from gpucheck.record import DONE, RUNNING, STOPPED, Record
from gpucheck.settings import LOG, ROOT, TOOLS, Settings

STAGES = (
    ("machine",), ("cohort", "correctness", "compiled", "processes", "collectives"), ("memory",), ("speed",), ("study",)
)  # fmt: skip
"""Stages in order. The parts of a stage run in parallel; a part that is timed, or needs all memory, runs alone."""
SHARES = {
    "machine": 0.10, "cohort": 0.35, "correctness": 0.30, "compiled": 0.30, "processes": 0.30, "collectives": 0.30,
    "memory": 0.08, "speed": 0.50, "study": 1.0,
}  # fmt: skip
"""Part -> largest share of the total time; the last part gets the rest."""
SHARE_OF_CORES = 8
"""Divisor of the number of cores for a part that runs in parallel with others, so that threads do not compete."""
CHILD = "gpucheck.child"
"""Module of the process of a part."""
LAST, LAST_SHARE = "study", 0.25
"""The last part, and the share of the total time that is reserved for it."""
GRACE_S = 3.0
"""Seconds reserved at the end for the table and for ending processes."""

Print = Callable[[str], None]


class Stopped(Exception):
    """A signal stopped the whole check."""


@dataclass(slots=True)
class _Process:
    """A running part."""

    part: str
    process: subprocess.Popen[bytes]
    begin: float
    limit_s: float

    @property
    def overdue(self) -> bool:
        return time.monotonic() - self.begin > self.limit_s


class Runner:
    """Starts parts and enters their events into the record."""

    def __init__(self, settings: Settings, record: Record, print_line: Print, child: str = CHILD) -> None:
        self.settings, self.record, self.print_line, self.child = settings, record, print_line, child
        self._events: queue.Queue[tuple[str, Mapping[str, Any] | None]] = queue.Queue()
        self._running: dict[str, _Process] = {}
        self._total_s = settings.remaining_s

    def run(self, stages: Sequence[Sequence[str]] = STAGES) -> None:
        """Run stages in order; return when all are done or the time is over.

        Raises:
            Stopped: on a signal; all processes have ended and the record is saved.
        """
        try:
            for stage in stages:
                if self.settings.remaining_s < 2 * GRACE_S:
                    break
                for part in stage:
                    self._start(part, alone=len(stage) == 1)
                while self._running:
                    self._attend()
        finally:
            for running in list(self._running.values()):
                with contextlib.suppress(DvtError):  # the processes must end even if the record cannot be written
                    self._end(running, STOPPED)

    def _start(self, part: str, *, alone: bool) -> None:
        last_follows = part != LAST and any(each.name == LAST for each in self.record.parts)
        reserved_s = LAST_SHARE * self._total_s if last_follows else 0.0
        limit_s = max(GRACE_S, min(SHARES[part] * self._total_s, self.settings.remaining_s - GRACE_S - reserved_s))
        settings = replace(self.settings, until=time.time() + limit_s)
        reading, writing = os.pipe()
        command = [sys.executable, "-m", self.child, part, settings.to_json(), str(writing)]
        with (self.settings.out / LOG).open("ab") as log:
            log.write(f"=== {part}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[writing], cwd=ROOT,
                env=self._variables(alone), start_new_session=True,
            )  # fmt: skip
        os.close(writing)
        self._running[part] = _Process(part, process, time.monotonic(), limit_s)
        result = self.record.part(part)
        result.state, result.limit_s = RUNNING, round(limit_s, 1)
        self.record.save()
        self.print_line(f"{part}: at most {limit_s:.0f} s")
        threading.Thread(target=self._listen, args=(part, reading), daemon=True).start()

    def _variables(self, alone: bool) -> dict[str, str]:
        """Return the environment of a part: this repository's modules, and fewer threads if it runs in parallel."""
        path = os.pathsep.join([str(ROOT), str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
        if self.settings.tiny and not self.settings.on_gpu:
            threads = {"OMP_NUM_THREADS": "1"}
        elif not alone:
            threads = {"OMP_NUM_THREADS": str(max(1, worker_pool.available_cores() // SHARE_OF_CORES))}
        else:
            threads = {}
        return {**os.environ, **threads, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def _listen(self, part: str, reading: int) -> None:
        """Put the events of a part into the queue, and None when it has ended."""
        with os.fdopen(reading, encoding="utf-8", errors="replace") as events:
            for line in events:
                with contextlib.suppress(ValueError):  # an incomplete line of a process that has ended
                    self._events.put((part, json.loads(line)))
        self._events.put((part, None))

    def _attend(self) -> None:
        """Enter one event, if any; end parts that take too long and parts whose process has ended."""
        with contextlib.suppress(queue.Empty):
            self._enter(*self._events.get(timeout=0.2))
        for running in list(self._running.values()):
            if running.overdue:
                self._end(running, STOPPED)
            elif running.process.poll() is not None and self._events.empty():
                self._ended(running.part)

    def _enter(self, part: str, event: Mapping[str, Any] | None) -> None:
        """Enter an event into the record; the last event, or None, ends a part."""
        if event is None or event["event"] == "done":
            self._ended(part)
            return
        self.record.take(part, event)
        self._print(part, event)

    def _print(self, part: str, event: Mapping[str, Any]) -> None:
        if event["event"] == "end":
            result = self.record.part(part).check(event["check"])
            last = event["error"].splitlines()[-1:] if event["error"] else []
            self.print_line(": ".join([f"  {part}, {event['check']}: {result.state}, {event['seconds']:.1f} s", *last]))

    def _ended(self, part: str) -> None:
        """Handle the last event or closed pipe of a part: it is done, or it crashed or was killed by the system."""
        running = self._running.get(part)
        if running is None:
            return  # we have ended it
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(timeout=5)
        status = running.process.poll()
        error = f"its process ended with status {status}; the end of {LOG}:\n{self._log_end()}" if status else ""
        self._end(running, FAILED if status else DONE, error)

    def _end(self, running: _Process, state: str, error: str = "") -> None:
        """End a part's process and all processes that it started, unless that is done already."""
        if self._running.pop(running.part, None) is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
        self._drain(running.part)
        seconds = time.monotonic() - running.begin
        self.record.end(running.part, state, seconds, error)
        self.print_line(f"{running.part}: {state}, {seconds:.0f} s")

    def _drain(self, part: str) -> None:
        """Enter the events that a process reported before it ended."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                source, event = self._events.get(timeout=0.2)
                if source == part and event is None:
                    return
                self._enter(source, event)

    def _log_end(self, lines: int = 8) -> str:
        text = (self.settings.out / LOG).read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def shorten_log(path: Path, most_bytes: int) -> None:
    """Shorten a log to its begin and its end."""
    content = path.read_bytes() if path.exists() else b""
    if len(content) > most_bytes:
        half = most_bytes // 2
        cut = f"\n... {len(content) - 2 * half} bytes omitted ...\n".encode()
        path.write_bytes(content[:half] + cut + content[-half:])
