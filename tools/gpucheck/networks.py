"""Compare every network on the device with float32 on the CPU: logits, masks and gradients of one training step."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from bench.limits import wait
from bench.results import Row
from torch import nn

from dvtplan.core import worker_pool
from dvtplan.models import devices
from dvtplan.models.devices import DeviceConfig, Forward
from dvtplan.models.networks.registry import NETWORKS, build
from dvtplan.training.losses import focal
from gpucheck.checks import Check, OutOfTime
from gpucheck.settings import Settings

BATCH, SHAPE, TINY_SHAPE = 2, (320, 128), (96, 64)
WIDTH, TINY_WIDTH = 32, 4
STEPS, TINY_STEPS = 40, 15
LEARNING_RATE, TINY_LEARNING_RATE = 1e-3, 5e-3
"""Training before the comparison. The logits of an untrained network are close to 0, so rounding decides its mask."""
SEED = 7
FP32_DICE, FP32_COSINE = 0.999, 0.99
BF16_DICE, BF16_COSINE = 0.90, 0.85
"""Least agreement with float32 on the CPU: mask Dice, and cosine of the angle between the gradients of all weights.

On a CPU at full size bf16 gave masks of .96 to .999 and gradients of .93 to 1 (2026-11-27), but .59 for the gradient
of ``gcn``, because batch normalization of few pixels amplifies rounding over 152 layers. So ``gcn`` has no limit for
gradients, and at the tiny size no network has a limit in bf16."""

LAST_SECONDS = 2.0
"""Seconds before the end of the part at which networks that are not ready are reported."""

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """Results of one training step and one prediction, on the CPU in float32."""

    logits: torch.Tensor
    """Logits of the prediction, or of the training step if there was no prediction."""
    gradient: torch.Tensor
    """Gradients of all weights, concatenated."""

    def compare(self, other: Outcome) -> dict[str, float]:
        """Compare with a reference: largest difference of logits over their SD, mask Dice, cosine of gradients."""
        spread = float(other.logits.std())
        masks = [outcome.logits > 0 for outcome in (self, other)]
        pixels = float(masks[0].sum() + masks[1].sum())
        dice = 2 * float((masks[0] & masks[1]).sum()) / pixels if pixels else float("nan")
        cosine = nn.functional.cosine_similarity(self.gradient.double(), other.gradient.double(), dim=0)
        largest = float((self.logits - other.logits).abs().max())
        return {"largest": largest / max(spread, 1e-30), "dice": dice, "cosine": float(cosine)}


def inputs(tiny: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (2, 1, H, W) of smooth blobs with noise, [0, 1], and masks (2, H, W) of their bright pixels."""
    random = torch.Generator().manual_seed(SEED)
    shape = TINY_SHAPE if tiny else SHAPE
    coarse = torch.rand(BATCH, 1, shape[0] // 16, shape[1] // 16, generator=random)
    smooth = nn.functional.interpolate(coarse, size=shape, mode="bicubic").clamp(0, 1)
    image = (0.8 * smooth + 0.2 * torch.rand(smooth.shape, generator=random)).clamp(0, 1)
    return image, (smooth[:, 0] > 0.75).to(torch.uint8)


def network_of(name: str, tiny: bool, state: State | None = None) -> nn.Module:
    """Return a network with the given weights, or with its initial weights, which are always the same."""
    torch.manual_seed(SEED)
    width = TINY_WIDTH if tiny else WIDTH
    network = build(name, 1, 1, width=width, norm_groups=width)
    if state is not None:
        network.load_state_dict(state)
    return network


def learn(name: str, settings: Settings) -> State:
    """Train a network to segment the bright blobs, in float32 on the device; return its weights."""
    tiny = settings.tiny
    image, label = (tensor.to(settings.device) for tensor in inputs(tiny))
    network = network_of(name, tiny).to(settings.device)
    rate = TINY_LEARNING_RATE if tiny else LEARNING_RATE
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(TINY_STEPS if tiny else STEPS):
        optimizer.zero_grad(set_to_none=True)
        focal(network(image), label, 2.0, 0.75).backward()
        optimizer.step()
    return {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}


def outcome_of(network: nn.Module, setup: DeviceConfig, tiny: bool, forward: Forward | None = None) -> Outcome:
    """Run one prediction, and one training step (forward, focal loss, backward) with the opposite of the learnt label.

    Args:
        network: on any device; it is moved.
        setup: device, precision and memory layout.
        tiny: use small inputs.
        forward: runs the training step in place of the network; then there is no prediction.
    """
    image, label = (tensor.to(setup.device) for tensor in inputs(tiny))
    image = image.contiguous(memory_format=setup.memory_format)
    network = network.to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
    network.zero_grad(set_to_none=True)
    if forward is None:
        with torch.inference_mode(), setup.autocast():
            predicted = network.eval()(image)
    network.train()
    with setup.autocast():
        logits = (network if forward is None else forward)(image)
    focal(logits, 1 - label, 2.0).backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    wait(setup.device)
    return Outcome((predicted if forward is None else logits).detach().float().cpu(), gradient.float().cpu())


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Set whether cuDNN may round float32 numbers to 10 bits in convolutions; PyTorch's default allows it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def agreement(name: str, settings: Settings) -> Iterator[Row]:
    """Compare one network in each precision and layout with float32 on the CPU."""
    tiny, state = settings.tiny, learn(name, settings)
    reference = outcome_of(network_of(name, tiny, state), _setup("cpu", "fp32", False), tiny)
    ways = [("fp32", "fp32", False, False), ("fp32, channels last", "fp32", True, False)]
    ways += [("fp32 with TF32 convolutions", "fp32", True, True)] if settings.on_gpu else []
    ways += [("bf16", "bf16", False, True), ("bf16, channels last", "bf16", True, True)]
    for title, precision, channels_last, rounded in ways:
        setup = _setup(settings.device, precision, channels_last)
        with tf32(rounded):
            outcome = outcome_of(network_of(name, tiny, state), setup, tiny)
        least = (FP32_DICE, FP32_COSINE) if precision == "fp32" and not rounded else _least_bf16(name, tiny)
        yield from _rows(name, f"{title} against the CPU", outcome.compare(reference), least)


def _least_bf16(name: str, tiny: bool) -> tuple[float | None, float | None]:
    return (None, None) if tiny else (BF16_DICE, None if name == "gcn" else BF16_COSINE)


def _setup(device: str, precision: str, channels_last: bool) -> DeviceConfig:
    return devices.choose(device, training=True, precision=precision, channels_last=channels_last, compiled=False)


def _rows(name: str, title: str, found: dict[str, float], least: tuple[float | None, float | None]) -> Iterator[Row]:
    yield Row(
        section=name, what=f"{title}: mask Dice", value=found["dice"], unit="", at_least=least[0],
        note=f"largest difference of logits {found['largest']:.2g} SD", detail=dict(found),
    )  # fmt: skip
    yield Row(section=name, what=f"{title}: gradient, cosine", value=found["cosine"], unit="", at_least=least[1])


# --- compiled -------------------------------------------------------------------------------------


def compiled(settings: Settings) -> Iterator[Row]:
    """Compare every network compiled as for training with itself not compiled, several at the same time.

    Compilation needs the CPU, so each network has its own process; the paper's network starts first.
    """
    n_parallel = max(1, worker_pool.available_cores() // 2)
    waiting, running = list(NETWORKS), dict[str, subprocess.Popen[str]]()
    threads = max(1, worker_pool.available_cores() // min(n_parallel, len(waiting)))
    first = waiting[0]  # its group normalization gives the most kernels
    failures: list[str] = []
    while waiting or running:
        while waiting and len(running) < n_parallel:
            name = waiting.pop(0)
            command = [sys.executable, "-m", "gpucheck.networks", name, settings.to_json()]
            variables = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": str(2 * threads if name == first else threads)}
            running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            process = running.pop(name)
            text, _ = process.communicate()
            found = json.loads(text.splitlines()[-1]) if process.returncode == 0 else {}
            failed = found.pop("failed", f"its process ended with status {process.returncode}, see the log")
            if failed:
                failures.append(f"{name}: {failed}")
            else:
                title = f"compiled ({found['compile_s']:.0f} s) against eager"
                yield from _rows(name, title, found, _least_bf16(name, settings.tiny))
        if settings.remaining_s < LAST_SECONDS:
            for process in running.values():
                process.kill()
            break
        time.sleep(0.1)
    if failures:
        raise RuntimeError("; ".join(failures))
    if running or waiting:
        raise OutOfTime(f"not ready: {', '.join([*running, *waiting])}")


def compile_one(name: str, settings: Settings) -> dict[str, object]:
    """Compare one compiled network with itself not compiled; also return the seconds of compilation."""
    setup = devices.choose(settings.device, training=True, compiled=True)
    eager_setup = replace(setup, compiled=False)
    network = network_of(name, settings.tiny, learn(name, settings))
    eager = outcome_of(network, eager_setup, settings.tiny, network)
    begin = time.perf_counter()

    def trial(forward: Forward) -> None:
        for _ in range(3):
            outcome_of(network, setup, settings.tiny, forward)

    forward, failed = devices.try_compile(network, setup, trial)
    seconds = time.perf_counter() - begin
    outcome = outcome_of(network, setup, settings.tiny, forward)
    return {"failed": failed, "compile_s": seconds, **outcome.compare(eager)}


def checks() -> tuple[Check, ...]:
    """Return a check for each network."""
    return tuple(Check(name=name, measure=partial(agreement, name), must_hold=True) for name in NETWORKS)


def compiled_check() -> Check:
    """Return the check of all networks compiled."""
    return Check(name="compiled networks", measure=compiled, needs_gpu=True, must_hold=True)


def main(name: str, settings_json: str) -> None:
    """Compile one network in this process; the last line of output is the result."""
    print(json.dumps(compile_one(name, Settings.from_json(settings_json))))


if __name__ == "__main__":
    main(*sys.argv[1:])
