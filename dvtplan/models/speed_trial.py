"""Try on this machine which way of running a network is the fastest."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from dvtplan.models.devices import DeviceConfig

MIN_SPEEDUP = 1.1
"""How much faster than the default another way must be. It differs in rounding, so it must be worth it."""
MIN_WORK = 5e10
"""Pixels times parameters of a pass from which a trial is worth its time."""
TRIAL_PIXELS = 128 * 320
"""Pixels of a batch in a trial, if the batch has more."""
ROWS = 32
"""Rows of an image in a trial are a multiple of this, which every network accepts."""
ROUNDS, LIMIT_S = 3, 1.0
"""Rounds of timed passes, after one that is not timed, and the seconds after which no further round begins. In a round
each way has its turn, so that other programs slow all of them; the fastest pass of each way counts."""


def fastest_for_prediction(
    network: nn.Module, channels: int, shape: tuple[int, int], setup: DeviceConfig
) -> DeviceConfig:
    """Return how forward passes of one image are fastest: the setup or one of its alternatives.

    Args:
        network: in evaluation mode, on the CPU, in float32; it stays as it is.
        channels: of the images.
        shape: (rows, columns) of the images.
        setup: the default, with its alternatives.

    Returns:
        The chosen setup, with the measured times. Without alternatives, and for a network so small
        that a trial takes longer than it can gain, this is the default.
    """

    def preparation(way: DeviceConfig) -> Callable[[], None]:
        placed = way.place(copy.deepcopy(network))
        image = way.images(_noise(1, channels, shape))

        def run() -> None:
            with torch.inference_mode(), way.autocast():
                placed(image)

        return run

    return _fastest(setup, _work(network, 1, shape), preparation)


def fastest_for_training(network: nn.Module, batch: tuple[int, int, int, int], setup: DeviceConfig) -> DeviceConfig:
    """Return how a forward and a backward pass are fastest: the setup or one of its alternatives.

    Args:
        network: on the CPU, in float32; it stays as it is.
        batch: (B, C, H, W) of a step.
        setup: the default, with its alternatives.

    Returns:
        As ``fastest_for_prediction``.
    """
    slices, channels, *shape = batch

    def preparation(way: DeviceConfig) -> Callable[[], None]:
        placed = way.place(copy.deepcopy(network))
        image = way.images(_noise(slices, channels, (shape[0], shape[1])))

        def run() -> None:
            with way.autocast():
                logits = placed(image)
            logits.float().square().mean().backward()
            placed.zero_grad(set_to_none=True)

        return run

    return _fastest(setup, _work(network, slices, (shape[0], shape[1])), preparation)


def _work(network: nn.Module, slices: int, shape: tuple[int, int]) -> float:
    return slices * shape[0] * shape[1] * sum(p.numel() for p in network.parameters())


def _noise(slices: int, channels: int, shape: tuple[int, int]) -> torch.Tensor:
    """Return images of about ``TRIAL_PIXELS`` or fewer. Own generator: the global one decides the training.

    A batch keeps two images: with one, batch normalization could have a single value.
    """
    rows, columns = shape
    slices = min(slices, max(2, TRIAL_PIXELS // (ROWS * columns)))
    rows = min(rows, max(ROWS, TRIAL_PIXELS // (slices * columns) // ROWS * ROWS))
    return torch.rand(slices, channels, rows, columns, generator=torch.Generator().manual_seed(0))


def _fastest(
    setup: DeviceConfig, work: float, preparation: Callable[[DeviceConfig], Callable[[], None]]
) -> DeviceConfig:
    if not setup.alternatives or work < MIN_WORK:
        return replace(setup, alternatives=())
    seconds = _seconds(setup, preparation)
    best = min(seconds, key=lambda way: seconds[way])
    chosen = best if seconds[best] * MIN_SPEEDUP < seconds[setup] else setup
    times = "; ".join(f"{way.words} {seconds[way]:.2g} s" for way in seconds)
    return replace(chosen, alternatives=(), trial=f"Trial: {times}.")


def _seconds(
    setup: DeviceConfig, preparation: Callable[[DeviceConfig], Callable[[], None]]
) -> dict[DeviceConfig, float]:
    """Return the seconds of the fastest pass of the setup and of each alternative that works."""
    runs: dict[DeviceConfig, Callable[[], None]] = {}
    for way in (setup, *setup.alternatives):
        run = preparation(way)
        try:
            run()
        except RuntimeError:  # this PyTorch or processor lacks an operation in bf16
            if way is setup:
                raise
            continue
        runs[way] = run
    taken: dict[DeviceConfig, list[float]] = {way: [] for way in runs}
    for _ in range(ROUNDS):
        for way, run in runs.items():
            begin = time.perf_counter()
            run()
            taken[way].append(time.perf_counter() - begin)
        if sum(map(sum, taken.values())) > LIMIT_S:
            break
    return {way: min(passes) for way, passes in taken.items()}
