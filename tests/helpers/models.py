"""Networks with known answers."""

from __future__ import annotations

import torch
from torch import nn

from dvtplan.inference.model import Model
from dvtplan.models import devices
from dvtplan.planning.plan import Plan


class Bright(nn.Module):
    """A network without training: voxels brighter than half of one channel are thrombus."""

    def __init__(self, channel: int = 0, sign: float = 1.0) -> None:
        super().__init__()
        self.channel, self.sign = channel, sign

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return 40.0 * self.sign * (image_BCHW[:, self.channel : self.channel + 1] - 0.5)


def model_of(plan: Plan, *networks: nn.Module, classes: dict[str, int] | None = None) -> Model:
    return Model(
        networks=networks,
        folds=tuple(range(len(networks))),
        plan=plan,
        classes=classes or {"thrombus": 1},
        setup=devices.choose("cpu"),
        digest="of these networks",
    )
