"""The process of the collectives: started by torchrun, one GPU, so that everything goes through NCCL with itself.

On a CPU it goes through Gloo. The last line is JSON: backend, and whether each collective gave what it must.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch
from torch import distributed, nn

from dvtplan import devices, parallel
from dvtplan.devices import Setup
from gpucheck.networks import Outcome, network_of, outcome_of
from gpucheck.settings import Settings

NETWORK = "gn_unet"


def main(settings_json: str) -> None:
    """Join the group and try all that a data-parallel training uses."""
    settings = Settings.from_json(settings_json)
    device = parallel.local_device("cuda" if settings.on_gpu else "cpu")
    setup = devices.choose(device, training=True, precision="fp32", compiled=False)
    with parallel.joined(device, alone_too=True) as group:
        value = torch.arange(4.0, device=device)
        found: dict[str, object] = {
            "backend": distributed.get_backend(),
            "processes": group.world,
            "mean": bool(torch.equal(group.mean(value), value)),
            "gather": group.gather({"rank": group.rank}) == [{"rank": 0}],
            "from leader": group.from_leader("word") == "word",
        }
        alone = outcome_of(network_of(NETWORK, settings.tiny), setup, settings.tiny)
        network = network_of(NETWORK, settings.tiny).to(device, memory_format=setup.memory_format)  # type: ignore[call-overload]
        shared = group.wrap(network, device)
        found["step"] = step_of(network, shared, setup, settings).compare(alone)["cosine"]
        if settings.on_gpu:
            found |= _compiled(network, shared, setup, settings, alone)
    print(json.dumps(found))


def step_of(network: nn.Module, forward: devices.Forward, setup: Setup, settings: Settings) -> Outcome:
    """One training step through what stands for the network."""
    return outcome_of(network, setup, settings.tiny, forward)


def _compiled(
    network: nn.Module, shared: nn.Module, setup: Setup, settings: Settings, alone: Outcome
) -> dict[str, object]:
    """The same compiled with CUDA graphs, as `dvt_train` does on several GPUs."""
    compiling = replace(setup, compiled=True)

    def trial(forward: devices.Forward) -> None:
        for _ in range(3):
            step_of(network, forward, setup, settings)

    forward, failed = devices.compiled(shared, compiling, trial)
    step = step_of(network, forward, setup, settings).compare(alone)["cosine"]
    return {"compiled step": step, "compilation": failed or "works"}


if __name__ == "__main__":
    main(*sys.argv[1:])
