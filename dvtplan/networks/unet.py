"""The U-Net family of the paper (section 2.3, Figure 1)."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from dvtplan.networks.blocks import Norm, UpConcat, double_conv, he_init


class UNet(nn.Module):
    """Encoder and decoder with skip concatenation.

    One input block (C1-C2), ``poolings`` blocks of 2x2 max-pooling and two convolutions (P1-P4),
    as many of upsampling, concatenation and two convolutions (U1-U4), and a 1x1 head (conv1).
    """

    def __init__(self, channels_in: int, channels_out: int, *, width: int, norm: Norm, poolings: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(poolings + 1)]
        self.enter = double_conv(channels_in, width, norm)
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(double_conv(above, below, norm) for above, below in itertools.pairwise(widths))
        self.join = UpConcat()
        self.up = nn.ModuleList(
            double_conv(below + above, above, norm) for above, below in reversed(list(itertools.pairwise(widths)))
        )
        self.head = nn.Conv2d(width, channels_out, kernel_size=1)
        he_init(self)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W), H and W divisible by 2**poolings -> logits (B, classes, H, W)."""
        features = self.enter(image_BCHW)
        skips = []
        for block in self.down:
            skips.append(features)
            features = block(self.pool(features))
        for block, skip in zip(self.up, reversed(skips), strict=True):
            features = block(self.join(features, skip))
        return self.head(features)
