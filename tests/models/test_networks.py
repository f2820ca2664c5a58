"""One contract that every network keeps, their published parameter counts, and what is particular to each."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dvtplan.core.errors import DvtError
from dvtplan.models.networks.blocks import UpConv
from dvtplan.models.networks.gcn import LargeKernel
from dvtplan.models.networks.registry import (
    NETWORKS,
    NetworkEntry,
    build,
    parameter_count,
    require_divisible,
    uses_norm_groups,
)
from dvtplan.models.networks.unet import mirror_to, valid_input
from dvtplan.planning import plan_rules

SMALL = {"width": 4, "norm_groups": 2}


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    """Each network in turn: two channels in, three out."""
    torch.manual_seed(0)
    return build(request.param, 2, 3, **SMALL)


@pytest.mark.parametrize("shape", [(32, 32), (32, 64), (96, 32)])
def test_logits_have_the_shape_of_the_image(network: nn.Module, shape: tuple[int, int]) -> None:
    assert network(torch.rand(2, 2, *shape)).shape == (2, 3, *shape)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_divisor_of_a_network_is_the_smallest_side_that_it_can_process(name: str) -> None:
    divisor = NETWORKS[name].divisor
    assert plan_rules.STEP % divisor == 0
    network = build(name, 1, 1, **SMALL).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 3 * divisor, divisor)).shape == (1, 1, 3 * divisor, divisor)
    require_divisible(name, (3 * divisor, divisor), "target_shape", "plan.json")
    with pytest.raises(DvtError, match=rf"^plan.json: .*multiples of {divisor}"):
        require_divisible(name, (3 * divisor, divisor + divisor // 2), "target_shape", "plan.json")


def test_a_gradient_reaches_every_parameter(network: nn.Module) -> None:
    network(torch.rand(2, 2, 64, 96)).square().mean().backward()
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
    assert torch.equal(fresh.eval()(image), network.eval()(image))


def test_slices_of_a_batch_do_not_see_each_other_in_prediction(network: nn.Module) -> None:
    network.eval().requires_grad_(False)
    image = torch.rand(3, 2, 32, 32)
    alone = torch.cat([network(one[None]) for one in image])
    # A convolution may sum in another order for another batch size: some float32 rounding, more in deeper networks.
    torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


def test_the_seed_decides_the_initial_weights() -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(build("gn_unet", 1, 1, **SMALL).state_dict()["enter.0.weight"])
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


PARAMETERS = {
    "gn_unet": (1, 1, 7_851_969),
    "unet": (1, 2, 31_030_658),
    "unet_valid": (1, 2, 31_030_658),
    "unet32": (1, 1, 7_851_969 - 5_888),
    "segnet": (3, 11, 29_449_355),
    # A ResNet-152 without its classifier, 58,143,808 for three channels; its head for two classes.
    "gcn": (3, 2, 58_143_808 + 231_926),
    "gcn50": (3, 2, 23_508_032 + 231_926),
}
"""Channels in, outputs, trainable numbers. GN-U-Net: base 32, parameter-free upsampling ("about 7.8 million",
section 2.3). Original U-Net and SegNet: their published configurations. GCN: large kernels of 15."""


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_parameter_counts_are_those_published(name: str) -> None:
    channels, outputs, count = PARAMETERS[name]
    with torch.device("meta"):
        assert parameter_count(build(name, channels, outputs, width=32, norm_groups=32)) == count


def test_segnet_of_one_channel_and_two_classes_has_29_44_million() -> None:
    with torch.device("meta"):
        assert parameter_count(build("segnet", 1, 2, width=32, norm_groups=32)) == 29_443_010


def test_normalization_alone_parts_gn_unet_from_unet32() -> None:
    gn, plain = (build(name, 1, 1, **SMALL).state_dict() for name in ("gn_unet", "unet32"))
    convolutions = {name: value.shape for name, value in gn.items() if value.dim() == 4}
    assert convolutions == {name: value.shape for name, value in plain.items() if value.dim() == 4}


@pytest.mark.parametrize(("wanted", "side", "given"), [(960, 1148, 964), (320, 508, 324), (388, 572, 388)])
def test_an_unpadded_unet_needs_and_gives_the_sides_of_its_publication(wanted: int, side: int, given: int) -> None:
    """572 gives 388 in Ronneberger 2015, Figure 1; 960x320 needs 1148x508 and gives 964x324."""
    assert valid_input(wanted, poolings=4) == side
    left = side
    for _ in range(4):
        assert (left - 4) % 2 == 0
        left = (left - 4) // 2
    left -= 4
    for _ in range(4):
        left = 2 * left - 4
    assert left == given


def test_mirroring_repeats_the_image_without_its_border() -> None:
    row = torch.arange(3.0).reshape(1, 1, 1, 3)
    assert mirror_to(row, [1, 9]).flatten().tolist() == [1, 2, 1, 0, 1, 2, 1, 0, 1]
    assert mirror_to(torch.ones(1, 1, 1, 1), [3, 3]).shape == (1, 1, 3, 3)


@pytest.mark.parametrize(("name", "sees_it"), [("unet_valid", False), ("unet", True)])
def test_only_a_padded_unet_sees_the_border_of_a_constant_image(name: str, sees_it: bool) -> None:
    """Up-convolutions repeat every 16 pixels; beyond that nothing tells one place of a constant from another."""
    torch.manual_seed(0)
    logits = build(name, 1, 1, **SMALL).eval()(torch.full((1, 1, 64, 64), 0.7))
    assert torch.allclose(logits[..., :16, :16], logits[..., 32:48, 32:48], atol=1e-5) != sees_it


def test_segnet_hands_over_places_and_no_encoder_maps() -> None:
    """What the decoder makes of one deep map follows the places of the maxima alone."""
    torch.manual_seed(0)
    network = build("segnet", 1, 1, **SMALL).eval()
    deep = []
    first_up = network.get_submodule("up.0")
    hook = first_up.register_forward_pre_hook(lambda module, args: deep.append(args[0]))
    network(torch.rand(1, 1, 32, 32))
    hook.remove()
    kept = deep[0][deep[0] != 0]
    # Of each 2x2 window one value comes back: 1x1 pixels of 64 channels became 2x2, three quarters of them zero.
    assert deep[0].shape == (1, 64, 2, 2) and len(kept) <= 64
    assert first_up[0].in_channels == 64  # no concatenation


def test_large_kernels_reach_along_both_axes_and_no_further() -> None:
    """With k = 5 a pixel is seen two pixels away along each axis, and at the corners of that square."""
    module = LargeKernel(1, 1, kernel=5)
    for parameter in module.parameters():
        nn.init.ones_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    expected = torch.zeros(9, 9)
    expected[2:7, 2:7] = 2
    assert torch.equal(module(image)[0, 0], expected)


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


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 2)])
def test_convolving_before_upsampling_changes_rounding_only(shape: tuple[int, int], last: bool) -> None:
    """Values and every gradient, in double precision, in either memory layout."""
    torch.manual_seed(1)
    join = UpConv(6, 4, 5).double()
    layout = torch.channels_last if last else torch.contiguous_format
    found = []
    for way in (join.as_written, join.before_upsampling):
        torch.manual_seed(2)
        deep, skip = torch.randn(2, 6, *shape, dtype=torch.double), torch.randn(2, 4, *(2 * n for n in shape)).double()
        deep, skip = (x.contiguous(memory_format=layout).requires_grad_() for x in (deep, skip))
        result = way(deep, skip)
        gradients = torch.autograd.grad(result.sin().sum(), (deep, skip, *join.parameters()))
        found.append((result.detach(), *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_only_a_cpu_convolves_before_upsampling(monkeypatch: pytest.MonkeyPatch) -> None:
    join = UpConv(2, 2, 2)
    monkeypatch.setattr(join, "as_written", lambda *_: "as written")
    monkeypatch.setattr(join, "before_upsampling", lambda *_: "before")
    assert join(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 2, 2)) == "before"
    assert join(torch.zeros(1, 2, 1, 1, device="meta"), torch.zeros(1, 2, 2, 2, device="meta")) == "as written"


def test_weights_of_the_unet_have_the_names_that_checkpoints_hold() -> None:
    names = set(build("gn_unet", 1, 1, **SMALL).state_dict())
    assert {"enter.0.weight", "down.3.3.bias", "up.0.0.weight", "up.0.1.weight", "up.3.4.bias", "head.bias"} <= names


def test_an_unknown_network_is_refused_with_the_choices() -> None:
    with pytest.raises(DvtError, match=r"`network=vnet`: .* Choose one of: gn_unet"):
        build("vnet", 1, 1, **SMALL)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "gcn"])
def test_norm_groups_have_an_effect_where_the_registry_says_so(name: str) -> None:
    modules = build(name, 1, 1, **SMALL).modules()
    groups = {module.num_groups for module in modules if isinstance(module, nn.GroupNorm)}
    assert groups == ({2} if uses_norm_groups(name) else set())


def test_a_network_of_others_is_not_said_to_ignore_the_norm_groups() -> None:
    assert NetworkEntry(build=lambda *_: nn.Identity(), divisor=1).uses_norm_groups
