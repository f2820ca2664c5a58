"""One training step and nothing else (forward, backward, Adam): by batch, memory layout and kind of compilation."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from bench.clock import in_turn
from bench.inputs import Bench
from bench.limits import matrix_flop_per_s, wait
from bench.rows import Row, absent
from dvtplan.core import text
from dvtplan.models import devices
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.networks.blocks import UpConv
from dvtplan.models.networks.registry import build
from dvtplan.planning.cost import FORWARD_FLOP_PER_PIXEL

PAPER_SHAPE, TINY_SHAPE = (960, 320), (64, 32)
PAPER_BATCH = 2
PAPER_FOLD_SLICES = 2 * 589e3
"""Slices that a fold of the paper's schedule trains on: 589,000 steps of 2."""
TIMED_S = 1.0
"""How long the steps of one timing take together."""

EAGER, COMPILED, GRAPHS = "eager", "compiled", "compiled with CUDA graphs"
TUNED = "eager with cuDNN's benchmark"
"""cuDNN tries its convolution algorithms for each shape and keeps the fastest."""
CHANNELS_FIRST = f"{GRAPHS}, channels first"
TUNED_GRAPHS = f"{GRAPHS} and cuDNN's benchmark"
WAYS = (GRAPHS, EAGER, COMPILED)
"""How a step may run on a GPU; the first is what `dvt_train` does there."""
OTHER_WAYS = (TUNED, TUNED_GRAPHS, CHANNELS_FIRST)
"""Ways that `dvt_train` could take."""


@dataclass(frozen=True)
class BareStep:
    """A step on one fixed batch."""

    run: Callable[[], None]
    compile_s: float
    """Seconds that compiling and the first steps took; 0 where nothing is compiled."""
    failed: str
    """Why it could not be compiled; empty if it was, or was not to be."""


def bare_step(setup: DeviceConfig, batch: int, shape: tuple[int, int]) -> BareStep:
    """A step of GN-U-Net, width 32, as a training with this setup runs it, without data, augmentation or focal loss.

    Args:
        setup: with ``training``: compiled with CUDA graphs where it is compiled and on a GPU.
        batch: slices.
        shape: rows and columns of a slice.
    """
    forget_compiled()
    network = build("gn_unet", 1, 1, width=32, norm_groups=32)
    network = network.to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), fused=not setup.device.startswith("mps"))
    image = torch.rand(batch, 1, *shape, device=setup.device).contiguous(memory_format=setup.memory_format)

    def step(forward: devices.Forward) -> None:
        optimizer.zero_grad(set_to_none=True)
        with setup.autocast():
            loss = forward(image).float().square().mean()
        loss.backward()
        optimizer.step()

    def trial(forward: devices.Forward) -> None:
        for _ in range(3):  # CUDA graphs: the first runs warm up, a later one is recorded
            step(forward)
        wait(setup.device)

    begin = time.perf_counter()
    forward, failed = devices.try_compile(network, setup, trial)
    compile_s = time.perf_counter() - begin if setup.compiled else 0.0
    return BareStep(run=lambda: step(forward), compile_s=compile_s, failed=failed)


def forget_compiled() -> None:
    """Make the next network be compiled by itself.

    What PyTorch compiled belongs to the class: a second network would run the code of the first, and another batch size
    would be compiled for any.
    """
    torch.compiler.reset()
    gc.collect()


def seconds_of_steps(step: BareStep, device: str, count: int) -> float:
    """Seconds of so many steps in a row, after two that are not counted."""
    for _ in range(2):
        step.run()
    wait(device)
    begin = time.perf_counter()
    for _ in range(count):
        step.run()
    wait(device)
    return time.perf_counter() - begin


def steps(bench: Bench) -> Iterator[Row]:
    """A training step: on a CPU by batch and memory layout, on a GPU by kind of compilation."""
    if bench.on_gpu:
        for way in WAYS:
            yield on_gpu(bench, way, PAPER_BATCH)
    elif bench.on_cpu:
        yield from _on_cpu(bench)
    else:
        yield absent("steps", "a training step", "measured on CPUs and CUDA GPUs only")


def other_ways(bench: Bench) -> Iterator[Row]:
    """A training step on a GPU in ways that `dvt_train` does not take."""
    if not bench.on_gpu:
        yield absent("steps", "a training step in other ways", "no GPU")
        return
    for way in OTHER_WAYS:
        yield on_gpu(bench, way, PAPER_BATCH)


# --- on a GPU -------------------------------------------------------------------------------------


def on_gpu(bench: Bench, way: str, batch: int) -> Row:
    """Slices per second of bare steps in one of the ways above, compared with the rate of matrix products."""
    shape = TINY_SHAPE if bench.tiny else PAPER_SHAPE
    setup = devices.choose(
        bench.device, training=True, compiled=way not in (EAGER, TUNED), channels_last=way != CHANNELS_FIRST
    )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = way in (TUNED, TUNED_GRAPHS)
    try:
        # Without ``training``, compilation leaves CUDA graphs out.
        step = bare_step(replace(setup, training=way != COMPILED), batch, shape)
        count = max(4, round(TIMED_S / max(seconds_of_steps(step, bench.device, 2) / 2, 1e-6)))
        seconds = min(seconds_of_steps(step, bench.device, count) for _ in range(bench.rounds + 1)) / count
    finally:
        torch.backends.cudnn.benchmark = before
    peak = torch.cuda.max_memory_allocated(bench.device)
    rate = batch / seconds
    flop = 3 * FORWARD_FLOP_PER_PIXEL * shape[0] * shape[1] * rate
    matrix = matrix_flop_per_s(bench.device, setup.precision, tiny=bench.tiny)
    size = f"{shape[0]}x{shape[1]}"
    remarks = [
        f"{flop / matrix:.1%} of the matrix rate of {matrix / 1e12:.3g} TFLOP/s",
        f"{1e3 * seconds:.3g} ms a step",
        f"peak {text.size(peak)}",
    ]
    if setup.compiled:
        remarks.append(step.failed or f"compiled in {step.compile_s:.0f} s")
    if batch == PAPER_BATCH and shape == PAPER_SHAPE:
        remarks.append(f"the paper's fold in {text.duration(PAPER_FOLD_SLICES / rate)}")
    return Row(
        section="steps", what=f"{setup.precision}, batch {batch}, {way}", value=rate, unit="slices/s",
        note=f"{size}; {'; '.join(remarks)}",
        detail={
            "seconds": seconds, "flop_per_s": flop, "matrix_flop_per_s": matrix, "peak_bytes": peak,
            "compile_s": step.compile_s, "failed": step.failed, "size": size, "batch": batch,
        },
    )  # fmt: skip


# --- on a CPU -------------------------------------------------------------------------------------

LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def _on_cpu(bench: Bench) -> Iterator[Row]:
    """By batch, memory layout, and where the decoder upsamples; in forward passes."""
    shape = TINY_SHAPE if bench.tiny else PAPER_SHAPE
    image = torch.rand(1, 1, *shape)
    ways = [(batch, layout, True) for batch in (1, 2, 4) for layout in LAYOUTS] + [(2, "channels first", False)]
    plain = build("gn_unet", 1, 1, width=32, norm_groups=32).eval()
    things: dict[str, Callable[[], object]] = {"forward": lambda: _forward(plain, image)}
    for batch, layout, before in ways:
        things[_way(batch, layout, before)] = _step(image.expand(batch, -1, -1, -1), LAYOUTS[layout], before)
    timing = in_turn(things, min(bench.rounds, 2))
    size = f"{shape[0]}x{shape[1]}"
    for batch, layout, before in ways:
        name = _way(batch, layout, before)
        yield Row(
            section="steps", what=name, value=timing.ratio(name, "forward") / batch, unit="forward passes a slice",
            note=f"{timing.seconds(name) / batch:.3g} s a slice of {size}", detail={"seconds": timing.rounds[name]},
        )  # fmt: skip


def _way(batch: int, layout: str, before: bool) -> str:
    return f"batch {batch}, {layout}" + ("" if before else ", upsampled before the convolution")


def _forward(network: torch.nn.Module, image: torch.Tensor) -> None:
    with torch.inference_mode():
        network(image)


def _step(image: torch.Tensor, layout: torch.memory_format, before_upsampling: bool) -> Callable[[], None]:
    """What does one step of a network of its own."""
    network = build("gn_unet", 1, 1, width=32, norm_groups=32)
    network = network.to(memory_format=layout)  # type: ignore[call-overload]
    if not before_upsampling:
        for module in network.modules():
            if isinstance(module, UpConv):
                module.forward = module.as_written  # type: ignore[method-assign]
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    image = image.contiguous(memory_format=layout)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(image).square().mean().backward()
        optimizer.step()

    return step
