"""Compare the speed of the network on this CPU with an earlier commit, each run in its own process, in turn."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.inputs import Bench
from bench.results import Row, absent
from bench.timing import child, in_turn

TOOLS = Path(__file__).parents[1]
STEPS = ((320, 128, 4), (960, 320, 2))
"""Rows, columns and slices of a training step: of small slices, and of the paper."""
PAPER_SLICE = (960, 320, 1)
TINY = (64, 32, 2)
FORWARD_GOAL, STEP_GOAL = 4.0, 2.5
"""Goals on a processor with bf16 matrix units."""
INSTRUCTIONS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Variables of PyTorch and its library of convolutions that imitate an older processor."""


def earlier(bench: Bench) -> Iterator[Row]:
    """Forward pass and training step against an earlier commit, and against plain PyTorch."""
    if not bench.on_cpu or bench.earlier is None:
        yield absent("earlier", "speed over that of an earlier commit", "needs a CPU and --earlier")
        return
    then, now = bench.earlier.resolve(), TOOLS.parent
    imitated = {name: os.environ[name] for name in INSTRUCTIONS if name in os.environ}
    remark = "".join(f"; {name}={value}" for name, value in imitated.items())
    slice_ = TINY if bench.tiny else PAPER_SLICE
    tasks = {
        "plain": partial(_seconds, now, "plain", slice_),
        "then": partial(_seconds, then, "forward", slice_),
        "now": partial(_seconds, now, "forward", slice_),
    }
    timing = in_turn(tasks, bench.rounds, warm_up=False)
    size = f"{slice_[0]}x{slice_[1]}"
    for over, what in (("plain", "plain float32"), ("then", "earlier")):
        yield Row(
            section="earlier", what=f"forward pass, {what} over now", value=timing.ratio(over, "now"), unit="x",
            at_least=_goal(FORWARD_GOAL) if over == "plain" else None,
            note=f"{timing.seconds(over):.3g} s and {timing.seconds('now'):.3g} s a slice of {size}{remark}",
            detail={"seconds": timing.rounds, "variables": imitated},
        )  # fmt: skip
    for shape in (TINY,) if bench.tiny else STEPS:
        rounds = {"then": partial(_seconds, then, "step", shape), "now": partial(_seconds, now, "step", shape)}
        timing = in_turn(rounds, bench.rounds, warm_up=False)
        yield Row(
            section="earlier", what=f"training step, {shape[2]} slices of {shape[0]}x{shape[1]}, earlier over now",
            value=timing.ratio("then", "now"), unit="x", at_least=_goal(STEP_GOAL),
            note=f"{timing.seconds('then'):.3g} s and {timing.seconds('now'):.3g} s{remark}",
            detail={"seconds": timing.rounds, "variables": imitated},
        )  # fmt: skip


def _goal(value: float) -> float | None:
    """Return a goal where it applies: on processors with bf16 matrix units."""
    from dvtplan.models import devices

    return value if "AMX" in devices.processor() else None


def _seconds(tree: Path, task: str, shape: tuple[int, int, int]) -> float:
    """Return the seconds of a task of ``bench.speed_probe`` with the package of a source tree."""
    # -P: not the package of the current folder, which is probably this source tree.
    words = [sys.executable, "-P", "-m", "bench.speed_probe", task, *map(str, shape)]
    return float(child(words, {"PYTHONPATH": os.pathsep.join([str(tree), str(TOOLS)])})[1])
