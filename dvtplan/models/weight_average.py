"""An exponential average of a network's weights over the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

FIRST_STEPS = 10
"""The decay is smaller at the start, so that the average does not remember the initial weights: after n steps at most
(n + 1) / (n + ``FIRST_STEPS``)."""


class WeightAverage:
    """Keep the average of a network's weights. Buffers, such as running means, are copied."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start with the present weights; ``decay`` per step, from 0 to below 1."""
        self._decay, self.steps = decay, 0
        self._weights = [p.detach().clone() for p in network.parameters()]

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the weights after a step."""
        self.steps += 1
        decay = min(self._decay, (self.steps + 1) / (self.steps + FIRST_STEPS))
        torch._foreach_lerp_(self._weights, [p.detach() for p in network.parameters()], 1 - decay)

    def state(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """Return the averaged weights, and the present buffers, under the names of the network's ``state_dict``."""
        averaged = {name: weight for (name, _), weight in zip(network.named_parameters(), self._weights, strict=True)}
        return {name: averaged.get(name, value) for name, value in network.state_dict().items()}

    def restore(self, network: nn.Module, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Continue from the ``state`` of an average after a number of steps."""
        self.steps = steps
        for (name, _), weight in zip(network.named_parameters(), self._weights, strict=True):
            weight.copy_(state[name])
