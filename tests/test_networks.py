"""One contract that every network keeps, and the paper's parameter count."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dvtplan.errors import DvtError
from dvtplan.networks import NETWORKS, build, parameter_count

SMALL = {"width": 4, "norm_groups": 2}


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    """Each network in turn: two channels in, three out."""
    torch.manual_seed(0)
    return build(request.param, 2, 3, **SMALL)


@pytest.mark.parametrize("shape", [(16, 16), (32, 48), (96, 32)])
def test_logits_have_the_shape_of_the_image(network: nn.Module, shape: tuple[int, int]) -> None:
    assert network(torch.rand(1, 2, *shape)).shape == (1, 3, *shape)


def test_a_gradient_reaches_every_parameter(network: nn.Module) -> None:
    network(torch.rand(2, 2, 32, 48)).square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_evaluation_is_deterministic(network: nn.Module) -> None:
    image = torch.rand(2, 2, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network.eval()(image), network(image))


def test_state_goes_into_a_fresh_network_and_gives_the_same_logits(network: nn.Module) -> None:
    fresh = copy.deepcopy(network)
    for parameter in fresh.parameters():
        nn.init.constant_(parameter, 0.5)
    fresh.load_state_dict(network.state_dict())
    image = torch.rand(1, 2, 32, 32)
    assert torch.equal(fresh(image), network(image))


def test_slices_of_a_batch_do_not_see_each_other(network: nn.Module) -> None:
    image = torch.rand(3, 2, 32, 32)
    alone = torch.cat([network(one[None]) for one in image])
    # A convolution may sum in another order for another batch size: some float32 rounding.
    torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-5)


def test_the_seed_decides_the_initial_weights() -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(build("gn_unet", 1, 1, **SMALL).state_dict()["enter.0.weight"])
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_gn_unet_has_the_papers_parameters() -> None:
    """Base 32, parameter-free upsampling (section 2.3, "about 7.8 million")."""
    with torch.device("meta"):
        assert parameter_count(build("gn_unet", 1, 1, width=32, norm_groups=32)) == 7_851_969


def test_gn_unet_hands_detail_past_its_poolings() -> None:
    """With everything below the first level silenced, the logits still follow the image."""
    torch.manual_seed(0)
    network = build("gn_unet", 1, 1, **SMALL)
    silence = network.get_submodule("down.0").register_forward_hook(lambda *args: torch.zeros_like(args[2]))
    image = torch.rand(1, 1, 32, 32)
    changed = image.clone()
    changed[0, 0, 8, 8] += 1
    difference = (network(image) - network(changed)).abs()[0, 0]
    silence.remove()
    # Two convolutions in, two out, a pixel each; the group norms spread next to nothing further.
    assert difference[4:13, 4:13].max() > 10 * difference[20:, 20:].max()


def test_an_unknown_network_is_refused_with_the_choices() -> None:
    with pytest.raises(DvtError, match=r"--network vnet: .* Choose one of: gn_unet"):
        build("vnet", 1, 1, **SMALL)
