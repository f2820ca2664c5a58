"""Group normalization that is also fast in channels-last layout on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

CHUNK = 1 << 18
"""Elements that the backward pass handles at a time: few enough to stay in a core's cache between operations."""


class GroupNorm(nn.GroupNorm):
    """Group normalization (Wu & He 2018): PyTorch's, with a backward pass of our own for channels-last maps on a CPU.

    PyTorch's backward pass takes up to 15 times as long in channels-last layout as in channels-first layout. Ours
    computes the same from PyTorch's batch normalization, which is fast in both. Statistics are float32 for bf16 maps.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape, type and layout."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or not _is_large_channels_last(input):
            return super().forward(input)
        return _GroupNorm.apply(input, self.weight, self.bias, self.num_groups, self.eps)


def _is_large_channels_last(x: torch.Tensor) -> bool:
    """Return whether our backward pass is faster: for small maps its many small operations are not."""
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and x[0].numel() >= CHUNK // 4
        and x.is_contiguous(memory_format=torch.channels_last)
    )


class _GroupNorm(torch.autograd.Function):
    """Forward by PyTorch, backward in two passes over the maps of each image."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, groups: int, eps: float
    ) -> torch.Tensor:
        b, c, h, w = x_BCHW.shape
        y, mean_BG, scale_BG = torch.ops.aten.native_group_norm(x_BCHW, weight_C, bias_C, b, c, h * w, groups, eps)
        ctx.save_for_backward(x_BCHW, weight_C, mean_BG, scale_BG)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_BCHW, weight_C, mean_BG, scale_BG = ctx.saved_tensors
        grad_BCHW = grad_BCHW.contiguous(memory_format=torch.channels_last)
        result = torch.empty_like(x_BCHW)
        of_weight, of_bias = torch.zeros_like(weight_C), torch.zeros_like(weight_C)
        for x, grad, mean_G, scale_G, out in zip(
            x_BCHW.split(1), grad_BCHW.split(1), mean_BG, scale_BG, result.split(1), strict=True
        ):
            products_C, sums_C = _backward_of_one(x, grad, weight_C, mean_G, scale_G, out)
            of_weight += products_C
            of_bias += sums_C
        return result, of_weight, of_bias, None, None


def _backward_of_one(
    x: torch.Tensor,
    grad: torch.Tensor,
    weight_C: torch.Tensor,
    mean_G: torch.Tensor,
    scale_G: torch.Tensor,
    out: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the gradient of one image's maps to ``out``, all (1, C, H, W); return those of weight and bias.

    With the normalized map n = (x - mean) scale, the weight w and N elements in a group, the gradient is
    ``scale (w grad - mean(w grad) - n mean(w grad n))``, where the means are those of a group: for each channel a
    linear function of grad and x.
    """
    _, channels, rows, columns = x.shape
    per_group = channels // len(mean_G)
    mean_C, scale_C = mean_G.repeat_interleave(per_group), scale_G.repeat_interleave(per_group)
    zero_C, one_C = torch.zeros_like(weight_C), torch.ones_like(weight_C)
    _, products_C, sums_C = torch.ops.aten.native_batch_norm_backward(
        grad, x, one_C, None, None, mean_C, scale_C, True, 0.0, [False, True, True]
    )

    def mean_of_groups(sums_C: torch.Tensor) -> torch.Tensor:
        means_G = (weight_C * sums_C).view(-1, per_group).sum(dim=1) / (per_group * rows * columns)
        return means_G.repeat_interleave(per_group)

    factor_of_grad_C = scale_C * weight_C
    factor_of_x_C = -scale_C.square() * mean_of_groups(products_C)
    constant_C = -scale_C * mean_of_groups(sums_C) - factor_of_x_C * mean_C
    step = max(1, CHUNK // (channels * columns))
    for top in range(0, rows, step):
        part = slice(top, top + step)
        # Batch normalization with mean 0 and variance 1 is a linear function for each channel, in float32.
        from_x = torch.batch_norm(x[:, :, part], factor_of_x_C, constant_C, zero_C, one_C, False, 0.0, 0.0, False)
        from_grad = torch.batch_norm(grad[:, :, part], factor_of_grad_C, zero_C, zero_C, one_C, False, 0.0, 0.0, False)
        torch.add(from_x, from_grad, out=out[:, :, part])
    return products_C, sums_C
