"""Measure the limits of this machine: rates of matrix products and copies, the reference of other results."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch

from bench.inputs import Bench
from bench.results import Row

SIDES = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""Device type -> side of the square matrices; large enough to keep every core busy."""
TINY_SIDE = 256
COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32, "mps": 1 << 30}
"""Device type -> bytes of a copy; many times larger than the caches."""
TINY_BYTES = 1 << 22
TIMED, WARM_UPS = 5, 2


def limits(bench: Bench) -> Iterator[Row]:
    """Rates of matrix products and of copies."""
    for precision in ("bf16", "fp32", "tf32") if not bench.on_cpu else ("bf16", "fp32"):
        rate = matrix_flop_per_s(bench.device, precision, tiny=bench.tiny)
        yield Row(
            section="limits", what=f"matrix product, {precision}", value=rate / 1e12, unit="TFLOP/s",
            note=f"square matrices of {_side(bench.device, bench.tiny)}", detail={"flop_per_s": rate},
        )  # fmt: skip
    count = TINY_BYTES if bench.tiny else COPY_BYTES[_kind(bench.device)]
    source = torch.ones(count, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), bench.device)
    yield Row(
        section="limits", what="copy within memory", value=2 * count / seconds / 1e9, unit="GB/s",
        note=f"{count / 1e6:.0f} MB, bytes read and bytes written", detail={"bytes_per_s": 2 * count / seconds},
    )  # fmt: skip
    if bench.on_gpu:
        yield from _host_copies(bench.device, count // 4)


def _host_copies(device: str, count: int) -> Iterator[Row]:
    """Measure copies from the host's pinned memory to the GPU and back."""
    host = torch.ones(count, dtype=torch.uint8, pin_memory=True)
    remote = torch.empty(count, dtype=torch.uint8, device=device)
    copies: dict[str, Callable[[], object]] = {
        "copy from host to GPU": lambda: remote.copy_(host, non_blocking=True),
        "copy from GPU to host": lambda: host.copy_(remote, non_blocking=True),
    }
    for what, copy in copies.items():
        seconds = seconds_of(copy, device)
        yield Row(
            section="limits", what=what, value=count / seconds / 1e9, unit="GB/s",
            note=f"{count / 1e6:.0f} MB, pinned", detail={"bytes_per_s": count / seconds},
        )  # fmt: skip


def matrix_flop_per_s(device: str, precision: str, *, tiny: bool = False) -> float:
    """Return the rate of a large matrix product of random numbers.

    Args:
        device: resolved name of the device.
        precision: 'bf16', 'fp32', or 'tf32' (float32 numbers rounded to 10 bits by a GPU's matrix units).
        tiny: use a small product, as a test that it runs.
    """
    side = _side(device, tiny)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        return 2 * side**3 / seconds_of(lambda: torch.mm(one, other), device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def seconds_of(work: Callable[[], object], device: str, repeats: int = 4) -> float:
    """Return the duration of some work on a device: the median of several timings of ``repeats`` runs each."""
    for _ in range(WARM_UPS):
        work()
    taken = []
    for _ in range(TIMED):
        wait(device)
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        wait(device)
        taken.append((time.perf_counter() - begin) / repeats)
    return statistics.median(taken)


def wait(device: str) -> None:
    """Return when the device has finished all its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _kind(device: str) -> str:
    return torch.device(device).type


def _side(device: str, tiny: bool) -> int:
    return TINY_SIDE if tiny else SIDES[_kind(device)]
