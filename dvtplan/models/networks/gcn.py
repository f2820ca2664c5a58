"""Global convolutional network (Peng et al. 2017): large kernels on the maps of a ResNet."""

from __future__ import annotations

import torch
from torch import nn

from dvtplan.models.networks.blocks import batch_norm, he_init

DEPTHS = {50: (3, 4, 6, 3), 152: (3, 8, 36, 3)}
"""Bottlenecks in the four stages of a ResNet, by its number of layers."""
KERNEL = 15
"""Length of the large kernels. At 1/32 of 960x320 it covers all of the width and half of the height; the
original covered a whole square image."""
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, source: int, width: int, stride: int) -> None:
        super().__init__()
        aim = EXPANSION * width
        self.body = nn.Sequential(
            nn.Conv2d(source, width, 1, bias=False),
            batch_norm(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            batch_norm(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, aim, 1, bias=False),
            batch_norm(aim),
        )
        passes = source == aim and stride == 1
        self.past: nn.Module = (
            nn.Identity()
            if passes
            else nn.Sequential(nn.Conv2d(source, aim, 1, stride=stride, bias=False), batch_norm(aim))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, 4 width, H / stride, W / stride)."""
        return self.relu(self.body(x) + self.past(x))


class LargeKernel(nn.Module):
    """A k x k convolution to class scores by two separable branches, without nonlinearity between."""

    def __init__(self, source: int, classes: int, kernel: int) -> None:
        super().__init__()
        half = kernel // 2

        def tall(source: int) -> nn.Module:
            return nn.Conv2d(source, classes, (kernel, 1), padding=(half, 0))

        def wide(source: int) -> nn.Module:
            return nn.Conv2d(source, classes, (1, kernel), padding=(0, half))

        self.tall_first = nn.Sequential(tall(source), wide(classes))
        self.wide_first = nn.Sequential(wide(source), tall(classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, classes, H, W)."""
        return self.tall_first(x) + self.wide_first(x)


class BoundaryRefinement(nn.Module):
    """Scores plus a residual of two convolutions."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(classes, classes, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(classes, classes, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any scores -> the same shape."""
        return x + self.residual(x)


class GCN(nn.Module):
    """A ResNet with a large-kernel module on each of its four stages, and learned upsampling between them.

    Trained from scratch, because the published ResNet weights are from photographs.
    """

    def __init__(self, channels_in: int, channels_out: int, *, width: int, layers: int, kernel: int = KERNEL) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.Conv2d(channels_in, width, 7, stride=2, padding=3, bias=False),
            batch_norm(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages, sources = nn.ModuleList(), []
        source = width
        for number, depth in enumerate(DEPTHS[layers]):
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(source, width * 2**number, stride=2 if number and not block else 1))
                source = EXPANSION * width * 2**number
            self.stages.append(nn.Sequential(*blocks))
            sources.append(source)
        self.scores = nn.ModuleList(
            nn.Sequential(LargeKernel(source, channels_out, kernel), BoundaryRefinement(channels_out))
            for source in sources
        )
        # Three between the stages, two more to the size of the image.
        self.raise_ = nn.ModuleList(
            nn.ConvTranspose2d(channels_out, channels_out, 4, stride=2, padding=1) for _ in range(len(sources) + 1)
        )
        self.refine = nn.ModuleList(BoundaryRefinement(channels_out) for _ in range(len(sources) + 1))
        he_init(self)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W), H and W divisible by 32 -> logits (B, classes, H, W)."""
        features, scores = self.enter(image_BCHW), []
        for stage, score in zip(self.stages, self.scores, strict=True):
            features = stage(features)
            scores.append(score(features))
        logits = scores.pop()
        for raise_, refine in zip(self.raise_, self.refine, strict=True):
            logits = raise_(logits)
            logits = refine(logits + scores.pop() if scores else logits)
        return logits
