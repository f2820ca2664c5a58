"""Building blocks that several networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from dvtplan.models.networks.normalization import GroupNorm

Norm = Callable[[int], nn.Module]
"""Channels -> normalization layer after a convolution."""


def group_norm(groups: int) -> Norm:
    """Return group normalization (Wu & He 2018) with a fixed number of groups."""

    def make(channels: int) -> nn.Module:
        return GroupNorm(groups, channels)

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
        self._prepared: tuple[torch.Tensor, torch.Tensor] | None = None

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
        kernels, of_skip = self._kernels() if self._prepared is None else self._prepared
        from_skip = nn.functional.conv2d(skip_BCHW, of_skip, self.bias, padding=1)
        from_deep = nn.functional.conv2d(deep_BCHW, kernels, padding=1)
        if torch.compiler.is_compiling():  # which finds its own backward pass
            return _add_phases(from_skip, from_deep)
        return _AddPhases.apply(from_skip, from_deep)

    def prepare(self, dtype: torch.dtype) -> None:
        """Compute the kernels once, for predictions with fixed weights."""
        with torch.no_grad():
            kernels, of_skip = (kernel.to(dtype) for kernel in self._kernels())
        self._prepared = kernels, of_skip

    def _kernels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the kernels of the deep map, (4 channels_out, channels_deep, 2, 2), and those of the encoder's map."""
        of_deep, of_skip = self.weight.split([self._deep, self.in_channels - self._deep], dim=1)
        kernels = _two_of_three(_two_of_three(of_deep, axis=-2), axis=-1)  # (column, row, out, deep, 2, 2)
        last = self.weight.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        return kernels.flatten(0, 2).contiguous(memory_format=layout), of_skip.contiguous(memory_format=layout)


class _AddPhases(torch.autograd.Function):
    """Add four maps of half the size to the even and odd rows and columns of a map, in place.

    Autograd's own backward pass of these eight slices writes and adds eight maps of the full size.
    """

    @staticmethod
    def forward(ctx: Any, map_BKHW: torch.Tensor, phases_BKhw: torch.Tensor) -> torch.Tensor:
        """(B, K, 2h, 2w) and (B, 4K, h + 1, w + 1) -> (B, K, 2h, 2w)."""
        ctx.mark_dirty(map_BKHW)
        ctx.like_phases = torch.empty_like(phases_BKhw, device="meta")
        return _add_phases(map_BKHW, phases_BKhw)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BKHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        of_phases = torch.empty_like(ctx.like_phases, device=grad_BKHW.device)
        for edge in (of_phases[:, :, 0], of_phases[:, :, -1], of_phases[..., 0], of_phases[..., -1]):
            edge.zero_()  # each phase omits a row and a column, which no gradient reaches
        for part_of_grad, part in _pairs(grad_BKHW, of_phases):
            part.copy_(part_of_grad)
        return grad_BKHW, of_phases


def _add_phases(map_BKHW: torch.Tensor, phases_BKhw: torch.Tensor) -> torch.Tensor:
    for part_of_map, part in _pairs(map_BKHW, phases_BKhw):
        part_of_map += part
    return map_BKHW


def _pairs(map_BKHW: torch.Tensor, phases_BKhw: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield views of a map's even and odd rows and columns, each with its part of the phases, (B, K, H/2, W/2)."""
    h, w = map_BKHW.shape[-2] // 2, map_BKHW.shape[-1] // 2
    by_phase = phases_BKhw.unflatten(1, (2, 2, -1))
    for p in (0, 1):
        for q in (0, 1):
            yield map_BKHW[..., p::2, q::2], by_phase[:, q, p, :, p : p + h, q : q + w]


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
