"""Measure training steps and forward passes next to other programs that compute on the same cores."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.inputs import Bench
from bench.results import Row, absent
from dvtplan.core import child_processes, threads

OTHER_PROGRAM = "while True: pass"
OTHERS, TINY_OTHERS = (0, 1, 2), (0, 1)
"""Numbers of other programs."""
WORKS = ("training step", "forward pass")
TURN_S = 2.0
"""Seconds in which a process repeats its work in its turn."""
MOST_OF_FAIR_SHARE, MOST_WHEN_QUIET = 2.5, 1.02
"""Goals: time over that on the fair share of the cores; time over that with OpenMP's own waiting without others."""
OURS, DEFAULT = "dvtplan", "OpenMP's default"


def busy(bench: Bench) -> Iterator[Row]:
    """Training step and forward pass next to 0, 1 and 2 programs that compute, by how OpenMP's threads wait."""
    if not bench.on_cpu:
        yield absent("busy", "work next to other programs", "measured on CPUs only")
        return
    for work in WORKS:
        yield from _rows(work, _measure(work, bench))


@dataclass(frozen=True, slots=True)
class _Server:
    """A process that repeats one work on request."""

    process: subprocess.Popen[str]

    def seconds(self, turn_s: float) -> float:
        """Let it work for some time; return the mean seconds of the work.

        Raises:
            RuntimeError: if the process has ended.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(f"{turn_s}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> float:
        """Return the number on the next line of its output.

        Raises:
            RuntimeError: if the process has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"bench.busy_probe: ended with status {self.process.wait()}, see above")
        return float(line)


Times = dict[int, dict[str, list[float]]]
"""Number of other programs -> way to wait -> seconds in each round."""


def _measure(work: str, bench: Bench) -> Times:
    """Let a process of each way to wait take turns.

    New processes begin every round, because each has its own speed: it depends on where its memory lies.
    """
    counts = TINY_OTHERS if bench.tiny else OTHERS
    found: Times = {count: {DEFAULT: [], OURS: []} for count in counts}
    for number in range(bench.rounds):
        with contextlib.ExitStack() as stack:
            servers = {way: stack.enter_context(_serving(work, way, bench.tiny)) for way in (DEFAULT, OURS)}
            for server in servers.values():
                server.answer()  # it is ready
            for count in counts:
                with _other_programs(count):
                    for way in list(servers) if number % 2 == 0 else reversed(list(servers)):
                        found[count][way].append(servers[way].seconds(0.0 if bench.tiny else TURN_S))
    return found


@contextlib.contextmanager
def _serving(work: str, way: str, tiny: bool) -> Iterator[_Server]:
    """Start a process in which OpenMP's threads wait in one way, and end it."""
    variables = {name: value for name, value in os.environ.items() if name not in threads.WAITING}
    if way == OURS:
        variables.update(threads.settings(variables))
    variables["PYTHONPATH"] = os.pathsep.join(str(Path(__file__).parents[k]) for k in (1, 2))
    command = [sys.executable, "-m", "bench.busy_probe", work, "tiny" if tiny else "full"]
    process = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield _Server(process)
    finally:
        child_processes.end_children([process])
        process.wait()


@contextlib.contextmanager
def _other_programs(count: int) -> Iterator[None]:
    """Run programs that compute all the time."""
    programs = [subprocess.Popen([sys.executable, "-c", OTHER_PROGRAM]) for _ in range(count)]
    try:
        yield
    finally:
        child_processes.end_children(programs)
        for program in programs:
            program.wait()


def _rows(work: str, times: Times) -> Iterator[Row]:
    cores = threads.usable_cores()
    alone = times[0]
    ratio = statistics.median(a / b for a, b in zip(alone[OURS], alone[DEFAULT], strict=True))
    yield Row(
        section="busy", what=f"{work}, no other program", value=ratio, unit="x", at_most=MOST_WHEN_QUIET,
        note=f"over {DEFAULT}; {_shown(alone)}", detail={"seconds": alone, "cores": cores},
    )  # fmt: skip
    for count, taken in times.items():
        if count == 0:
            continue
        share = cores / (cores + count)
        over = {way: share * statistics.median(taken[way]) / statistics.median(alone[way]) for way in taken}
        yield Row(
            section="busy", what=f"{work} over its fair share, {count} other program{'s' if count > 1 else ''}",
            value=over[OURS], unit="x", at_most=MOST_OF_FAIR_SHARE,
            note=f"{DEFAULT}: {over[DEFAULT]:.3g} x; {_shown(taken)}",
            detail={"seconds": taken, "fair_share": share, "cores": cores},
        )  # fmt: skip


def _shown(taken: dict[str, list[float]]) -> str:
    ours, default = (statistics.median(taken[way]) for way in (OURS, DEFAULT))
    return f"{ours:.3g} and {default:.3g} s"
