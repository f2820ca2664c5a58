"""Our backward pass of group normalization against PyTorch's, and against numerical derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dvtplan.models.networks import normalization
from dvtplan.models.networks.normalization import GroupNorm


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of a few pixels take our backward pass, in several chunks with a rest."""
    monkeypatch.setattr(normalization, "CHUNK", 200)


def gradients(norm: nn.GroupNorm, x: torch.Tensor) -> list[torch.Tensor]:
    """Return output and gradients of a weighted sum of the squared output."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    (y.double().square() * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum().backward()
    assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    return [y.detach(), x.grad, norm.weight.grad, norm.bias.grad]


def layer(groups: int, channels: int, kind: type[nn.GroupNorm], dtype: torch.dtype = torch.float32) -> nn.GroupNorm:
    torch.manual_seed(1)
    norm = kind(groups, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.to(dtype)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("groups", "channels"), [(8, 8), (4, 8), (2, 8), (1, 8), (32, 64)])
def test_gradients_are_those_of_pytorch(groups: int, channels: int) -> None:
    x = (torch.randn(3, channels, 9, 7) * 3 + 5).contiguous(memory_format=torch.channels_last)
    ours = gradients(layer(groups, channels, GroupNorm), x)
    theirs = gradients(layer(groups, channels, nn.GroupNorm), x.contiguous())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.contiguous(), other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    assert ours[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("small_chunks")
def test_gradients_are_derivatives() -> None:
    norm = layer(2, 4, GroupNorm, torch.float64)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w, b: torch.func.functional_call(norm, {"weight": w, "bias": b}, (x,)), (x, norm.weight, norm.bias)
    )


@pytest.mark.usefixtures("small_chunks")
def test_bf16_maps_have_statistics_and_sums_in_float32() -> None:
    """The sum of 2400 values near 16 would lose all signal in bf16, which has steps of 16 there."""
    x = 16 + torch.randint(-2, 3, (2, 8, 40, 30)) / 4
    x = x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    ours = gradients(layer(4, 8, GroupNorm), x)
    exact = gradients(layer(4, 8, nn.GroupNorm, torch.float64), x.double().contiguous())
    assert [one.dtype for one in ours] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    for one, other in zip(ours, exact, strict=True):
        assert float((one.double() - other).norm() / other.norm()) < 0.02


def test_small_maps_and_predictions_take_the_pass_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalization._GroupNorm, "apply", lambda *_: pytest.fail("our pass was taken"))
    norm, last = layer(4, 8, GroupNorm), torch.channels_last
    large = torch.zeros(1, 8, 128, 128)
    assert large[0].numel() >= normalization.CHUNK // 4
    norm(torch.zeros(1, 8, 4, 4).contiguous(memory_format=last))
    norm(large)  # channels first
    with torch.no_grad():
        norm(large.contiguous(memory_format=last))
    with pytest.raises(pytest.fail.Exception):
        norm(large.contiguous(memory_format=last))
