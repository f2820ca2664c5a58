"""The networks that can be trained, in one visible dict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dvtplan.core.errors import DvtError
from dvtplan.models.networks.blocks import group_norm, no_norm
from dvtplan.models.networks.gcn import GCN
from dvtplan.models.networks.segnet import SegNet
from dvtplan.models.networks.unet import OriginalUNet, UNet


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkEntry:
    """One entry of ``NETWORKS``."""

    build: Callable[[int, int, int, int], nn.Module]
    """(channels in, channels out, width, norm groups) -> a network for images (B, C, H, W) that returns logits
    (B, channels out, H, W). At width 32 it has its published size. A network without group normalization ignores the
    norm groups."""
    divisor: int
    """H and W must be multiples of this."""
    uses_norm_groups: bool = True
    """Whether the norm groups have an effect; if not, choosing them gives a warning."""


NETWORKS: dict[str, NetworkEntry] = {
    "gn_unet": NetworkEntry(
        build=lambda c_in, c_out, width, groups: UNet(c_in, c_out, width=width, norm=group_norm(groups)),
        divisor=16,
    ),
    "unet": NetworkEntry(
        build=lambda c_in, c_out, width, _: OriginalUNet(c_in, c_out, width=2 * width, norm=no_norm, valid=False),
        divisor=16,
        uses_norm_groups=False,
    ),
    "unet_valid": NetworkEntry(
        build=lambda c_in, c_out, width, _: OriginalUNet(c_in, c_out, width=2 * width, norm=no_norm, valid=True),
        divisor=16,
        uses_norm_groups=False,
    ),
    "unet32": NetworkEntry(
        build=lambda c_in, c_out, width, _: UNet(c_in, c_out, width=width, norm=no_norm),
        divisor=16,
        uses_norm_groups=False,
    ),
    "segnet": NetworkEntry(
        build=lambda c_in, c_out, width, _: SegNet(c_in, c_out, width=2 * width),
        divisor=32,
        uses_norm_groups=False,
    ),
    "gcn": NetworkEntry(
        build=lambda c_in, c_out, width, _: GCN(c_in, c_out, width=2 * width, layers=152),
        divisor=32,
        uses_norm_groups=False,
    ),
    "gcn50": NetworkEntry(
        build=lambda c_in, c_out, width, _: GCN(c_in, c_out, width=2 * width, layers=50),
        divisor=32,
        uses_norm_groups=False,
    ),
}
"""Networks by name:

- ``gn_unet``: the paper's network; 7,851,969 parameters for one channel in, one out, width 32.
- ``unet``: the original U-Net, base 64, padded: the likely reading of "original U-Net" in section 2.5.
- ``unet_valid``: the original U-Net, base 64, unpadded with a mirrored border as first published.
- ``unet32``: ``gn_unet`` without normalization, to show the effect of group normalization alone.
- ``segnet``: SegNet, base 64.
- ``gcn``: global convolutional network on a ResNet-152, as published.
- ``gcn50``: the same on a ResNet-50, for machines and data sets that are too small for a ResNet-152.
"""


def build(name: str, channels_in: int, channels_out: int, *, width: int, norm_groups: int) -> nn.Module:
    """Build a network by name, initialised from torch's global random generator.

    Raises:
        DvtError: if there is no network of that name.
    """
    return _entry(name).build(channels_in, channels_out, width, norm_groups)


def require_divisible(name: str, shape: tuple[int, int], field: str, where: str) -> None:
    """Refuse a shape of slices or patches that a network cannot process.

    Raises:
        DvtError: if there is no network of that name, or its divisor does not divide the shape, which is ``field`` in
            ``where``, a file or a parameter.
    """
    divisor = _entry(name).divisor
    if any(side % divisor for side in shape):
        raise DvtError(
            f"{where}: {field} {shape[0]}x{shape[1]} must be multiples of {divisor} for {name}. Change {field}, or "
            "choose another network."
        )


def uses_norm_groups(name: str) -> bool:
    """Return whether the norm groups have an effect on a network; raises as ``build``."""
    return _entry(name).uses_norm_groups


def _entry(name: str) -> NetworkEntry:
    if name not in NETWORKS:
        raise DvtError(f"`network={name}`: unknown network. Choose one of: {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def outputs_of(classes: int) -> int:
    """Return the number of outputs: 1 for one foreground class (sigmoid), else one more than classes (softmax)."""
    return 1 if classes == 1 else classes + 1


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
