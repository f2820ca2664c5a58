"""How long a command takes before it does anything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.clock import child, in_turn
from bench.inputs import Bench
from bench.rows import Row, absent
from dvtplan.cli.overview import COMMANDS

HELP_S = 0.3


def start(bench: Bench) -> Iterator[Row]:
    """Each command's ``--help``, and what `dvt_evaluate` loads."""
    programs = {name: Path(sys.executable).with_name(name) for name in COMMANDS}
    lacking = [name for name, path in programs.items() if not path.exists()]
    if lacking:
        yield absent("start", "--help", f"{', '.join(lacking)} not beside {sys.executable}")
        return
    timing = in_turn(
        {name: lambda path=path: child([str(path), "--help"])[0] for name, path in programs.items()},  # type: ignore[misc]
        bench.rounds,
    )
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
