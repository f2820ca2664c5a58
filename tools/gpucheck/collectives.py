"""Check the collectives in one process under torchrun, so that all communication goes through NCCL.

On a CPU it goes through Gloo. The last line of output is JSON: backend, and whether each collective was correct.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch
from torch import distributed, nn

from dvtplan.models import devices
from dvtplan.models.devices import DeviceConfig
from dvtplan.training.distributed import alone, local_device, process_group
from dvtplan.training.losses import dice
from gpucheck.lifetime import end_with_the_parent
from gpucheck.networks import network_of, outcome_of
from gpucheck.settings import Settings

NETWORK = "gn_unet"
WORKS = "works"
"""Reported for a compilation without an error."""


def main(settings_json: str, part: str, compiled: str = "") -> None:
    """Join the group and test all operations of a data-parallel training."""
    end_with_the_parent(int(part))  # torchrun starts this process in its own session
    settings = Settings.from_json(settings_json)
    device = local_device("cuda" if settings.on_gpu else "cpu")
    setup = devices.choose(device, training=True, precision="fp32", compiled=False)
    with process_group(device, alone_too=True) as group:
        value = torch.arange(4.0, device=device)
        found: dict[str, object] = {
            "backend": distributed.get_backend(),
            "processes": group.world,
            "mean": bool(torch.equal(group.mean(value), value)),
            "gather": group.all_gather({"rank": group.rank}) == [{"rank": 0}],
            "from leader": group.broadcast("word") == "word",
            "dice loss": _dice_loss_is_that_of_one(device),
        }
        network = network_of(NETWORK, settings.tiny).to(device, memory_format=setup.memory_format)  # type: ignore[call-overload]
        forward, failed = _compiled(network, setup, settings) if compiled else (network, "")
        alone = outcome_of(network, setup, settings.tiny, network)
        shared = outcome_of(network, setup, settings.tiny, group.wrap(forward, device))
        found |= {"step": shared.compare(alone)["cosine"], "compilation": failed or WORKS}
    print(json.dumps(found))


def _dice_loss_is_that_of_one(device: str) -> bool:
    """Compare the Dice loss and its gradient, whose sums go through the group, with those of a process alone."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 32, 16, generator=random).to(device).requires_grad_()
    target = torch.randint(0, 3, (2, 32, 16), generator=random).to(device)
    shared = dice(logits, target)
    (gradient,) = torch.autograd.grad(shared, logits)
    with alone():
        expected = dice(logits, target)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    return torch.allclose(shared, expected) and torch.allclose(gradient, expected_gradient)


def _compiled(network: nn.Module, setup: DeviceConfig, settings: Settings) -> tuple[nn.Module, str]:
    """Return the network compiled with CUDA graphs, as `dvt_train` compiles it before it shares gradients."""

    def trial(forward: devices.Forward) -> None:
        for _ in range(3):
            outcome_of(network, setup, settings.tiny, forward)

    forward, failed = devices.try_compile(network, replace(setup, compiled=True), trial)
    if not isinstance(forward, nn.Module):
        raise TypeError(f"{forward} has no gradients to share")
    return forward, failed


if __name__ == "__main__":
    main(*sys.argv[1:])
