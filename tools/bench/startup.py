"""Measure how long a command takes to start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.inputs import Bench
from bench.results import Row, absent
from bench.timing import child, in_turn
from dvtplan.cli.overview import COMMANDS

HELP_S = 0.3


def _help_seconds(program: Path) -> float:
    return child([str(program), "--help"])[0]


def start(bench: Bench) -> Iterator[Row]:
    """``--help`` of each command, and whether `dvt_evaluate` loads PyTorch."""
    programs = {name: Path(sys.executable).with_name(name) for name in COMMANDS}
    lacking = [name for name, path in programs.items() if not path.exists()]
    if lacking:
        yield absent("start", "--help", f"{', '.join(lacking)} not next to {sys.executable}")
        return
    tasks = {name: partial(_help_seconds, path) for name, path in programs.items()}
    timing = in_turn(tasks, bench.rounds, bench.warm_up)
    slowest = max(COMMANDS, key=timing.seconds)
    yield Row(
        section="start", what="slowest --help", value=timing.seconds(slowest), unit="s", at_most=HELP_S, note=slowest,
        detail={"seconds": timing.rounds},
    )  # fmt: skip
    loaded = subprocess.run(
        [sys.executable, "-c", "import dvtplan.cli, dvtplan.evaluation.evaluate, sys; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    yield Row(
        section="start", what="dvt_evaluate loads torch", value=float(json.loads(loaded.stdout.lower())), unit="",
        at_most=0, note="0: no",
    )  # fmt: skip
