"""Building blocks that several networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Norm = Callable[[int], nn.Module]
"""Channels -> normalization layer after a convolution."""


def group_norm(groups: int) -> Norm:
    """Return group normalization (Wu & He 2018) with a fixed number of groups."""

    def make(channels: int) -> nn.Module:
        return nn.GroupNorm(groups, channels)

    return make


def no_norm(channels: int) -> nn.Module:
    """Return an identity in place of a normalization."""
    return nn.Identity()


def batch_norm(channels: int) -> nn.Module:
    """Return batch normalization (Ioffe & Szegedy 2015), which couples the slices of a batch in training."""
    return nn.BatchNorm2d(channels)


def conv_norm_relu(channels_in: int, channels_out: int, norm: Norm, padding: int = 1) -> list[nn.Module]:
    """Return the layers Conv3x3, normalization, ReLU."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=padding),
        norm(channels_out),
        nn.ReLU(inplace=True),
    ]


def double_conv(channels_in: int, channels_out: int, norm: Norm, padding: int = 1) -> nn.Sequential:
    """Return two times Conv3x3-norm-ReLU: the paper's "2 Conv-GN-ReLu blocks" (section 2.3)."""
    first = conv_norm_relu(channels_in, channels_out, norm, padding)
    return nn.Sequential(*first, *conv_norm_relu(channels_out, channels_out, norm, padding))


def he_init(network: nn.Module) -> None:
    """Initialise weights from a normal distribution scaled for ReLU (He et al. 2015), and biases with zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class UpConv(nn.Conv2d):
    """Nearest upsampling by 2, concatenation of the encoder's map, Conv3x3 with padding.

    On a CPU the deep map is convolved before it is upsampled. After upsampling, pixels come in equal pairs, so three
    taps along an axis cover only two different pixels: one by a single tap, one by two taps that can be added. Which
    two depends on whether the row or column is even. So four 2x2 kernels give the result of one 3x3 kernel, up to
    rounding, with 4 products instead of 9. On other devices it runs as written.
    """

    def __init__(self, channels_deep: int, channels_skip: int, channels_out: int) -> None:
        super().__init__(channels_deep + channels_skip, channels_out, kernel_size=3, padding=1)
        self._deep = channels_deep

    def forward(self, deep_BCHW: torch.Tensor, skip_BCHW: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(B, C, H/2, W/2) and (B, D, H, W) -> (B, channels_out, H, W)."""
        if deep_BCHW.device.type == "cpu":
            return self.before_upsampling(deep_BCHW, skip_BCHW)
        return self.as_written(deep_BCHW, skip_BCHW)

    def as_written(self, deep_BCHW: torch.Tensor, skip_BCHW: torch.Tensor) -> torch.Tensor:
        """Upsample, concatenate, convolve."""
        raised = nn.functional.interpolate(deep_BCHW, scale_factor=2.0, mode="nearest")
        return super().forward(torch.cat([raised, skip_BCHW], dim=1))

    def before_upsampling(self, deep_BCHW: torch.Tensor, skip_BCHW: torch.Tensor) -> torch.Tensor:
        """Compute the same with fewer products."""
        of_deep, of_skip = self.weight.split([self._deep, self.in_channels - self._deep], dim=1)
        found = nn.functional.conv2d(skip_BCHW, of_skip.contiguous(), self.bias, padding=1)
        kernels = _two_of_three(_two_of_three(of_deep, axis=-2), axis=-1)  # (column, row, out, deep, 2, 2)
        low = nn.functional.conv2d(deep_BCHW, kernels.flatten(0, 2), padding=1).unflatten(1, (2, 2, -1))
        h, w = deep_BCHW.shape[-2:]
        places = found.unflatten(-1, (w, 2)).unflatten(-3, (h, 2))
        for p in (0, 1):
            for q in (0, 1):
                places[..., p, :, q] += low[:, q, p, :, p : p + h, q : q + w]
        return found


def _two_of_three(kernel: torch.Tensor, axis: int) -> torch.Tensor:
    """Reduce three taps along an axis to two, for even and for odd positions, on a new first axis."""
    before, at, after = kernel.unbind(axis)
    return torch.stack([torch.stack([before, at + after], axis), torch.stack([before + at, after], axis)])


class UpBlock(nn.Sequential):
    """Upsampling, concatenation and two times Conv3x3-norm-ReLU: U1 to U4 of the paper's Figure 1."""

    def __init__(self, channels_deep: int, channels_skip: int, channels_out: int, norm: Norm) -> None:
        join = UpConv(channels_deep, channels_skip, channels_out)
        second = conv_norm_relu(channels_out, channels_out, norm)
        super().__init__(join, norm(channels_out), nn.ReLU(inplace=True), *second)

    def forward(self, deep_BCHW: torch.Tensor, skip_BCHW: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(B, C, H/2, W/2) and (B, D, H, W) -> (B, channels_out, H, W)."""
        join, *rest = self
        features = join(deep_BCHW, skip_BCHW)
        for layer in rest:
            features = layer(features)
        return features
