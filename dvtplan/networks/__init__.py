"""The networks that can be trained: one visible dict."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dvtplan.errors import DvtError
from dvtplan.networks.blocks import group_norm
from dvtplan.networks.unet import UNet


def gn_unet(channels_in: int, channels_out: int, *, width: int = 32, norm_groups: int = 32) -> nn.Module:
    """The paper's network: 7,851,969 parameters for one channel in, one out, width 32."""
    return UNet(channels_in, channels_out, width=width, norm=group_norm(norm_groups))


NETWORKS: dict[str, Callable[..., nn.Module]] = {"gn_unet": gn_unet}


def build(name: str, channels_in: int, channels_out: int, *, width: int, norm_groups: int) -> nn.Module:
    """Make a network by name, freshly initialised from torch's global random generator.

    Raises:
        DvtError: if there is no network of that name.
    """
    if name not in NETWORKS:
        raise DvtError(f"--network {name}: no such network. Choose one of: {', '.join(NETWORKS)}.")
    return NETWORKS[name](channels_in, channels_out, width=width, norm_groups=norm_groups)


def outputs_of(classes: int) -> int:
    """How many outputs tell so many foreground classes: one for a sigmoid, or a softmax with background."""
    return 1 if classes == 1 else classes + 1


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
