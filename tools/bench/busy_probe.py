"""Repeat one work on request: ``python -m bench.busy_probe WORK full|tiny``.

Prints a line when it is ready. For each line with a number of seconds it repeats the work until they have passed, at
least once, and prints the mean seconds of the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from bench.inputs import gn_unet
from bench.steps import PAPER_SHAPE, TINY_SHAPE, bare_step
from dvtplan.models import devices

STEP_SHAPE, STEP_BATCH = (320, 128), 4
"""Slices of a training step: those that a CPU trains on."""


def main(work: str, size: str) -> None:
    """Serve until the input ends."""
    run = _work(work, tiny=size == "tiny")
    run()
    print(0.0, flush=True)
    for line in sys.stdin:
        count, begin = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - begin < float(line):
            run()
            count += 1
        print((time.perf_counter() - begin) / count, flush=True)


def _work(work: str, *, tiny: bool) -> Callable[[], object]:
    training = work == "training step"
    setup = devices.choose("cpu", training=training, precision="fp32", channels_last=not training, compiled=False)
    if training:
        return bare_step(setup, STEP_BATCH, TINY_SHAPE if tiny else STEP_SHAPE, tiny=tiny).run
    network = gn_unet(setup, tiny=tiny).eval()
    image = torch.rand(1, 1, *(TINY_SHAPE if tiny else PAPER_SHAPE)).contiguous(memory_format=setup.memory_format)

    def forward() -> None:
        with torch.inference_mode():
            network(image)

    return forward


if __name__ == "__main__":
    main(*sys.argv[1:])
