"""The form in which networks predict on a CPU: weights in the number type of the arithmetic, prepared once."""

from __future__ import annotations

import torch
from torch import nn

from dvtplan.models.networks.blocks import UpConv


def convert_for_inference(network: nn.Module, dtype: torch.dtype) -> None:
    """Give all convolutions weights of a number type, in place, and prepare those that are computed from others.

    Normalizations keep float32: PyTorch computes their statistics in float32 for bf16 maps, too. The network can then
    predict images of this type, but not be trained.
    """
    for module in network.modules():
        if isinstance(module, UpConv):
            module.prepare(dtype)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(dtype)
