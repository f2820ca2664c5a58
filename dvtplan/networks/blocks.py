"""The pieces that the networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Norm = Callable[[int], nn.Module]
"""Channels -> the normalization that follows a convolution."""


def group_norm(groups: int) -> Norm:
    """Group normalization (Wu & He 2018) with a fixed number of groups."""

    def make(channels: int) -> nn.Module:
        return nn.GroupNorm(groups, channels)

    return make


def no_norm(channels: int) -> nn.Module:
    """Nothing where a normalization would be."""
    return nn.Identity()


def batch_norm(channels: int) -> nn.Module:
    """Batch normalization (Ioffe & Szegedy 2015): slices of a batch see each other while training."""
    return nn.BatchNorm2d(channels)


def conv_norm_relu(channels_in: int, channels_out: int, norm: Norm, padding: int = 1) -> list[nn.Module]:
    """Conv3x3-norm-ReLU."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=padding),
        norm(channels_out),
        nn.ReLU(inplace=True),
    ]


def double_conv(channels_in: int, channels_out: int, norm: Norm, padding: int = 1) -> nn.Sequential:
    """Two times Conv3x3-norm-ReLU: the paper's "2 Conv-GN-ReLu blocks" (section 2.3)."""
    first = conv_norm_relu(channels_in, channels_out, norm, padding)
    return nn.Sequential(*first, *conv_norm_relu(channels_out, channels_out, norm, padding))


def he_init(network: nn.Module) -> None:
    """Normal weights scaled for ReLU (He et al. 2015), zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class UpConcat(nn.Module):
    """Nearest upsampling by 2, then concatenation of the encoder's map: no parameters."""

    def forward(self, deep_BCHW: torch.Tensor, skip_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, H/2, W/2) and (B, D, H, W) -> (B, C + D, H, W)."""
        raised = nn.functional.interpolate(deep_BCHW, scale_factor=2.0, mode="nearest")
        return torch.cat([raised, skip_BCHW], dim=1)
