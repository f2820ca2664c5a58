"""The networks that can be trained: one visible dict."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dvtplan.core.errors import DvtError
from dvtplan.models.networks.blocks import group_norm, no_norm
from dvtplan.models.networks.gcn import GCN
from dvtplan.models.networks.segnet import SegNet
from dvtplan.models.networks.unet import OriginalUNet, UNet


def gn_unet(channels_in: int, channels_out: int, *, width: int = 32, norm_groups: int = 32) -> nn.Module:
    """The paper's network: 7,851,969 parameters for one channel in, one out, width 32."""
    return UNet(channels_in, channels_out, width=width, norm=group_norm(norm_groups))


def unet32(channels_in: int, channels_out: int, *, width: int = 32, norm_groups: int = 32) -> nn.Module:
    """The same without normalization: what group normalization alone brings."""
    return UNet(channels_in, channels_out, width=width, norm=no_norm)


def unet(channels_in: int, channels_out: int, *, width: int = 32, norm_groups: int = 32) -> nn.Module:
    """The original U-Net, base 64, padded: the likely reading of "original U-Net" in section 2.5."""
    return OriginalUNet(channels_in, channels_out, width=2 * width, norm=no_norm, valid=False)


def unet_valid(channels_in: int, channels_out: int, *, width: int = 32, norm_groups: int = 32) -> nn.Module:
    """The original U-Net, base 64, unpadded with a mirrored border as first published."""
    return OriginalUNet(channels_in, channels_out, width=2 * width, norm=no_norm, valid=True)


def segnet(channels_in: int, channels_out: int, *, width: int = 32, norm_groups: int = 32) -> nn.Module:
    """SegNet, base 64."""
    return SegNet(channels_in, channels_out, width=2 * width)


def gcn(channels_in: int, channels_out: int, *, width: int = 32, norm_groups: int = 32) -> nn.Module:
    """Global convolutional network on a ResNet-152, as published."""
    return GCN(channels_in, channels_out, width=2 * width, layers=152)


def gcn50(channels_in: int, channels_out: int, *, width: int = 32, norm_groups: int = 32) -> nn.Module:
    """The same on a ResNet-50, for machines and data sets that a ResNet-152 is too large for."""
    return GCN(channels_in, channels_out, width=2 * width, layers=50)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "gn_unet": gn_unet,
    "unet": unet,
    "unet_valid": unet_valid,
    "unet32": unet32,
    "segnet": segnet,
    "gcn": gcn,
    "gcn50": gcn50,
}
"""Of each network, width 32 is the published size."""


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
