"""SegNet (Badrinarayanan et al. 2017): the layers of VGG16, and a decoder that uses the positions of the maxima."""

from __future__ import annotations

import torch
from torch import nn

from dvtplan.models.networks.blocks import batch_norm, conv_norm_relu, he_init

STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
"""Channels of the 13 convolutions between the five poolings, in base widths; the published base is 64."""


class SegNet(nn.Module):
    """Five encoder stages whose max-pooling stores the position of each maximum; five decoder stages that use it.

    There are no skip connections: the decoder gets only the positions. Trained from scratch, not from weights of
    photographs.
    """

    def __init__(self, channels_in: int, channels_out: int, *, width: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        stages = [[width * n for n in stage] for stage in STAGES]
        self.down = nn.ModuleList()
        source = channels_in
        for stage in stages:
            self.down.append(_stage(source, stage))
            source = stage[-1]
        self.up = nn.ModuleList()
        for number in reversed(range(len(stages))):
            # A stage keeps its width up to its last convolution, which has the width of the stage above.
            above = stages[number - 1][-1] if number else width
            keep = stages[number][-1]
            aims = [keep] * (len(stages[number]) - 1) + [above]
            if number == 0:
                aims.pop()  # the head is the last convolution of the first stage
            self.up.append(_stage(keep, aims))
        self.head = nn.Conv2d(width, channels_out, kernel_size=3, padding=1)
        he_init(self)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W), H and W divisible by 32 -> logits (B, classes, H, W)."""
        features = image_BCHW
        places = []
        for stage in self.down:
            features, where = self.pool(stage(features))
            places.append(where)
        for stage, where in zip(self.up, reversed(places), strict=True):
            features = stage(self.unpool(features, where))
        return self.head(features)


def _stage(source: int, channels: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for aim in channels:
        layers += conv_norm_relu(source, aim, batch_norm)
        source = aim
    return nn.Sequential(*layers)
