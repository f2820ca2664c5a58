"""Measure bare training steps (forward, backward, Adam) by batch size, memory layout and kind of compilation."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from bench.inputs import Bench, gn_unet
from bench.limits import matrix_flop_per_s, wait
from bench.results import Row, absent
from bench.timing import in_turn
from dvtplan.core import allocator, text
from dvtplan.models import devices
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.networks.blocks import UpConv
from dvtplan.planning.cost import FORWARD_FLOP_PER_PIXEL

PAPER_SHAPE, TINY_SHAPE = (960, 320), (64, 32)
PAPER_BATCH = 2
PAPER_FOLD_SLICES = 2 * 589e3
"""Slices that a fold of the paper's schedule trains on: 589,000 steps of 2."""
TIMED_S = 1.0
"""Duration of the steps of one timing."""

EAGER, COMPILED, GRAPHS = "eager", "compiled", "compiled with CUDA graphs"
TUNED = "eager with cuDNN's benchmark"
"""cuDNN tests its convolution algorithms for each shape and keeps the fastest."""
CHANNELS_FIRST = f"{GRAPHS}, channels first"
TUNED_GRAPHS = f"{GRAPHS} and cuDNN's benchmark"
WAYS = (GRAPHS, EAGER, COMPILED)
"""Ways to run a step on a GPU; `dvt_train` uses the first."""
OTHER_WAYS = (TUNED, TUNED_GRAPHS, CHANNELS_FIRST)
"""Ways that `dvt_train` does not use."""


@dataclass(frozen=True)
class BareStep:
    """A training step on one fixed batch."""

    run: Callable[[], None]
    compile_s: float
    """Seconds of compilation and the first steps; 0 without compilation."""
    failed: str
    """Why compilation failed; empty otherwise."""


def bare_step(
    setup: DeviceConfig,
    batch: int,
    shape: tuple[int, int],
    *,
    channels: int = 1,
    upsample_first: bool = False,
    tiny: bool = False,
) -> BareStep:
    """Return a training step of GN-U-Net without data loading, augmentation or focal loss.

    Args:
        setup: with ``training``; a compiled step on a GPU uses CUDA graphs.
        batch: number of slices.
        shape: rows and columns of a slice.
        channels: of a slice.
        tiny: use a narrow network.
        upsample_first: in the decoder, upsample before the convolution on every device, as the paper writes it.
    """
    forget_compiled()
    network = gn_unet(setup, channels, tiny=tiny)
    if upsample_first:
        for module in network.modules():
            if isinstance(module, UpConv):
                module.forward = module.as_written  # type: ignore[method-assign]
    optimizer = torch.optim.Adam(network.parameters(), fused=not setup.device.startswith("mps"))
    image = torch.rand(batch, channels, *shape, device=setup.device).contiguous(memory_format=setup.memory_format)

    def step(forward: devices.Forward) -> None:
        optimizer.zero_grad(set_to_none=True)
        with setup.autocast():
            loss = forward(image).float().square().mean()
        loss.backward()
        optimizer.step()

    def trial(forward: devices.Forward) -> None:
        for _ in range(3):  # with CUDA graphs the first runs warm up, and a later run is recorded
            step(forward)
        wait(setup.device)

    begin = time.perf_counter()
    forward, failed = devices.try_compile(network, setup, trial)
    compile_s = time.perf_counter() - begin if setup.compiled else 0.0
    return BareStep(run=lambda: step(forward), compile_s=compile_s, failed=failed)


def forget_compiled() -> None:
    """Forget compiled code, so that the next network is compiled separately.

    PyTorch caches compiled code by class: a second network would run the code of the first, and a second batch size
    would be compiled for all sizes.
    """
    torch.compiler.reset()
    gc.collect()


def seconds_of_steps(step: BareStep, device: str, count: int) -> float:
    """Return the seconds of ``count`` steps in a row, after two steps that are not counted."""
    for _ in range(2):
        step.run()
    wait(device)
    begin = time.perf_counter()
    for _ in range(count):
        step.run()
    wait(device)
    return time.perf_counter() - begin


def steps(bench: Bench) -> Iterator[Row]:
    """Training step: on a CPU by batch size and memory layout, on a GPU by kind of compilation."""
    if bench.on_gpu:
        for way in WAYS:
            yield on_gpu(bench, way, PAPER_BATCH)
    elif bench.on_cpu:
        yield from _on_cpu(bench)
    else:
        yield absent("steps", "a training step", "measured on CPUs and CUDA GPUs only")


def other_ways(bench: Bench) -> Iterator[Row]:
    """Training step on a GPU in ways that `dvt_train` does not use."""
    if not bench.on_gpu:
        yield absent("steps", "a training step in other ways", "no GPU")
        return
    for way in OTHER_WAYS:
        yield on_gpu(bench, way, PAPER_BATCH)


# --- on a GPU -------------------------------------------------------------------------------------


def on_gpu(bench: Bench, way: str, batch: int) -> Row:
    """Measure slices per second of bare steps in one of the ways above, and compare with the matrix rate."""
    shape = TINY_SHAPE if bench.tiny else PAPER_SHAPE
    setup = devices.choose(
        bench.device, training=True, compiled=way not in (EAGER, TUNED), channels_last=way != CHANNELS_FIRST
    )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = way in (TUNED, TUNED_GRAPHS)
    try:
        # Without ``training``, compilation does not use CUDA graphs.
        step = bare_step(replace(setup, training=way != COMPILED), batch, shape, tiny=bench.tiny)
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


@dataclass(frozen=True)
class _CpuWay:
    """A way to run a training step on a CPU."""

    batch: int
    precision: str = "fp32"
    channels_last: bool = False
    upsample_first: bool = False

    @property
    def name(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        suffix = ", upsampled before the convolution" if self.upsample_first else ""
        return f"batch {self.batch}, {self.precision}, {layout}{suffix}"


CPU_WAYS = (
    *(_CpuWay(batch, *way) for batch in (1, 2, 4) for way in (("fp32", False), ("fp32", True), ("bf16", True))),
    _CpuWay(2, "bf16", channels_last=True, upsample_first=True),
    _CpuWay(2, "bf16"),
)


def _on_cpu(bench: Bench) -> Iterator[Row]:
    """Measure steps by batch size, precision, layout and place of upsampling, in units of a float32 forward pass."""
    shape = TINY_SHAPE if bench.tiny else PAPER_SHAPE
    allocator.keep_freed_memory()
    setups = {
        way: devices.choose(
            "cpu", training=True, precision=way.precision, channels_last=way.channels_last, compiled=False
        )
        for way in CPU_WAYS
    }
    image = torch.rand(1, 1, *shape)
    plain = gn_unet(devices.choose("cpu", precision="fp32", channels_last=False), tiny=bench.tiny).eval()
    tasks: dict[str, Callable[[], object]] = {"forward": lambda: _forward(plain, image)}
    for way in CPU_WAYS:
        step = bare_step(setups[way], way.batch, shape, upsample_first=way.upsample_first, tiny=bench.tiny)
        tasks[way.name] = step.run
    timing = in_turn(tasks, min(bench.rounds, 2), bench.warm_up)
    size = f"{shape[0]}x{shape[1]}"
    for way in CPU_WAYS:
        name, batch = way.name, way.batch
        yield Row(
            section="steps", what=name, value=timing.ratio(name, "forward") / batch, unit="forward passes a slice",
            note=f"{timing.seconds(name) / batch:.3g} s a slice of {size}", detail={"seconds": timing.rounds[name]},
        )  # fmt: skip


def _forward(network: torch.nn.Module, image: torch.Tensor) -> None:
    with torch.inference_mode():
        network(image)
