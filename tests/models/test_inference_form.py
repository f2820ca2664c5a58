"""Networks converted for predictions give the logits that they give without."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dvtplan.models import devices
from dvtplan.models.networks.inference_form import convert_for_inference
from dvtplan.models.networks.registry import NETWORKS, build


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_network_predicts_in_bf16_what_it_predicts_in_float32(name: str, channels_last: bool) -> None:
    torch.manual_seed(0)
    network = build(name, 2, 3, width=4, norm_groups=2).eval()
    image = torch.rand(2, 2, 64, 32)
    with torch.inference_mode():
        expected = network(image)
        setup = devices.choose("cpu", precision="bf16", channels_last=channels_last)
        with setup.autocast():
            found = setup.place(copy.deepcopy(network))(setup.images(image))
    assert found.dtype == torch.bfloat16 and found.shape == expected.shape
    # Eight bits of mantissa, over many layers; in SegNet rounding also decides between maxima that are nearly equal.
    tolerance = {"gcn": 0.2, "segnet": 0.5}.get(name, 0.05)
    assert float((found.float() - expected).norm() / expected.norm()) < tolerance


def test_normalizations_keep_float32() -> None:
    network = build("gn_unet", 1, 1, width=4, norm_groups=2)
    convert_for_inference(network, torch.bfloat16)
    for module in network.modules():
        expected = torch.float32 if isinstance(module, nn.GroupNorm) else torch.bfloat16
        assert {p.dtype for p in module.parameters(recurse=False)} <= {expected}


def test_prepared_kernels_give_bit_equal_logits() -> None:
    torch.manual_seed(0)
    network = build("gn_unet", 1, 1, width=8, norm_groups=4).eval()
    image = torch.rand(1, 1, 32, 48)
    with torch.inference_mode():
        expected = network(image)
        convert_for_inference(network, torch.float32)
        assert torch.equal(network(image), expected)
