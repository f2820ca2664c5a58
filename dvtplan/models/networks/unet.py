"""The U-Net family: the paper's network (section 2.3, Figure 1) and the original U-Net."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from dvtplan.models.networks.blocks import Norm, UpBlock, double_conv, he_init


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
        self.up = nn.ModuleList(
            UpBlock(below, above, above, norm) for above, below in reversed(list(itertools.pairwise(widths)))
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
            features = block(features, skip)
        return self.head(features)


class OriginalUNet(nn.Module):
    """The U-Net of Ronneberger et al. 2015: learned 2x2 up-convolutions that halve the channels.

    With ``valid`` the convolutions have no padding. Instead the image is mirrored outwards, encoder maps are cropped
    to the size of the decoder maps, and the logits to the image. Otherwise the convolutions are padded.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, width: int, norm: Norm, valid: bool, poolings: int = 4
    ) -> None:
        super().__init__()
        padding = 0 if valid else 1
        steps = list(itertools.pairwise(width * 2**level for level in range(poolings + 1)))
        self.enter = double_conv(channels_in, width, norm, padding)
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(double_conv(above, below, norm, padding) for above, below in steps)
        self.raise_ = nn.ModuleList(
            nn.ConvTranspose2d(below, above, kernel_size=2, stride=2) for above, below in reversed(steps)
        )
        self.up = nn.ModuleList(double_conv(2 * above, above, norm, padding) for above, _ in reversed(steps))
        self.head = nn.Conv2d(width, channels_out, kernel_size=1)
        self._valid, self._poolings = valid, poolings
        he_init(self)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W), H and W divisible by 2**poolings -> logits (B, classes, H, W)."""
        size = image_BCHW.shape[-2:]
        if self._valid:
            image_BCHW = mirror_to(image_BCHW, [valid_input(n, self._poolings) for n in size])
        features = self.enter(image_BCHW)
        skips = []
        for block in self.down:
            skips.append(features)
            features = block(self.pool(features))
        for raise_, block, skip in zip(self.raise_, self.up, reversed(skips), strict=True):
            raised = raise_(features)
            features = block(torch.cat([cut_to(skip, raised.shape[-2:]), raised], dim=1))
        return cut_to(self.head(features), size)


def valid_input(side_out: int, poolings: int) -> int:
    """Return the smallest input side whose unpadded U-Net gives at least ``side_out`` pixels and always halves evenly.

    For four poolings: 960 needs 1148 and gives 964 (each of the two convolutions of a block costs two pixels).
    """
    side = side_out
    for _ in range(poolings):
        side = -(-(side + 4) // 2)
    side += 4
    for _ in range(poolings):
        side = 2 * side + 4
    return side


def mirror_to(image_BCHW: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Enlarge an image to a size by mirroring it outwards at its borders, as often as needed."""
    for axis, aim in zip((-2, -1), size, strict=True):
        n = image_BCHW.shape[axis]
        before = (aim - n) // 2
        at = torch.arange(-before, aim - before, device=image_BCHW.device)
        period = max(2 * (n - 1), 1)
        at = at.remainder(period)
        image_BCHW = image_BCHW.index_select(axis, torch.minimum(at, period - at) if n > 1 else torch.zeros_like(at))
    return image_BCHW


def cut_to(map_BCHW: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Crop the centre of a map to a size."""
    (h, w), (rows, columns) = size, map_BCHW.shape[-2:]
    top, left = (rows - h) // 2, (columns - w) // 2
    return map_BCHW[..., top : top + h, left : left + w]
