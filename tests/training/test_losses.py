"""Focal loss against a float64 reference, its limits, and its safety at extreme logits; the registry of losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from dvtplan.core.errors import DvtError
from dvtplan.planning.recipe import RECIPES, Recipe
from dvtplan.training.losses import DICE_SMOOTHING, LOSSES, dice, focal, loss_function, topk_cross_entropy

GAMMAS = (0.0, 0.1, 1.0, 2.0, 5.0)


def batch(outputs: int, *, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of two 5x4 slices, every class present."""
    random = np.random.default_rng(outputs)
    logits = torch.tensor(random.normal(0, spread, (2, outputs, 5, 4)), dtype=torch.float32)
    target = torch.tensor(random.integers(0, max(2, outputs), (2, 5, 4)), dtype=torch.uint8)
    assert len(target.unique()) == max(2, outputs)
    return logits, target


def reference(logits: torch.Tensor, target: torch.Tensor, gamma: float, alpha: float | None) -> float:
    """Lin et al. 2017, eq. 5, as it is written, in float64."""
    z = logits.double().numpy()
    if z.shape[1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=1)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    true = np.take_along_axis(p, target.numpy()[:, None].astype(int), axis=1)[:, 0]
    weight = 1.0 if alpha is None else np.where(target.numpy() > 0, alpha, 1 - alpha)
    return float((-weight * (1 - true) ** gamma * np.log(true)).mean())


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_equals_the_formula_in_float64(outputs: int, gamma: float, alpha: float | None) -> None:
    logits, target = batch(outputs)
    # A few float32 roundings (6e-8 each) on exponents of up to gamma * 10.
    assert float(focal(logits, target, gamma, alpha)) == pytest.approx(
        reference(logits, target, gamma, alpha), rel=5e-6
    )


def test_at_gamma_zero_one_output_is_binary_cross_entropy() -> None:
    logits, target = batch(1)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())
    torch.testing.assert_close(focal(logits, target, 0.0), expected)


def test_at_gamma_zero_several_outputs_are_cross_entropy() -> None:
    logits, target = batch(4)
    torch.testing.assert_close(focal(logits, target, 0.0), functional.cross_entropy(logits, target.long()))


def test_a_softmax_of_two_equals_a_sigmoid_of_their_difference() -> None:
    logits, target = batch(2)
    difference = (logits[:, 1:] - logits[:, :1]).contiguous()
    for gamma in GAMMAS:
        torch.testing.assert_close(focal(logits, target, gamma, 0.3), focal(difference, target, gamma, 0.3))


def test_one_pixel_by_hand() -> None:
    """Logit 0 is probability 1/2: (1/2)^2 * ln 2 for either class, times its weight."""
    logits = torch.zeros(1, 1, 1, 1)
    thrombus, background = torch.ones(1, 1, 1, dtype=torch.uint8), torch.zeros(1, 1, 1, dtype=torch.uint8)
    quarter = 0.25 * math.log(2)
    assert float(focal(logits, thrombus, 2.0)) == pytest.approx(quarter)
    assert float(focal(logits, thrombus, 2.0, 0.75)) == pytest.approx(0.75 * quarter)
    assert float(focal(logits, background, 2.0, 0.75)) == pytest.approx(0.25 * quarter)


def test_alpha_weighs_all_foreground_classes_alike() -> None:
    logits = torch.zeros(1, 3, 1, 3)
    target = torch.tensor([[[0, 1, 2]]], dtype=torch.uint8)
    # Each pixel has probability 1/3; the weights are 0.2, 0.8, 0.8.
    each = (2 / 3) ** 2 * math.log(3)
    assert float(focal(logits, target, 2.0, 0.8)) == pytest.approx(each * (0.2 + 0.8 + 0.8) / 3)


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("gamma", [0.1, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saturated_logits_give_finite_loss_and_gradient(outputs: int, gamma: float, dtype: torch.dtype) -> None:
    """Logits of +-1e4 on the right and on the wrong side, and all equal."""
    rows = [[sign * 1e4 * (k == hot) for k in range(outputs)] for sign in (1, -1) for hot in range(outputs)]
    values = torch.tensor([*rows, [0.0] * outputs, [1e4] * outputs, [-1e4] * outputs])
    for klass in range(max(2, outputs)):
        logits = values.T[None, :, None, :].to(dtype).contiguous().requires_grad_()
        target = torch.full((1, 1, len(values)), klass, dtype=torch.uint8)
        loss = focal(logits, target, gamma)
        loss.backward()
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_a_certain_and_wrong_pixel_still_pulls() -> None:
    logits = torch.full((1, 1, 1, 1), -1e4, requires_grad=True)
    focal(logits, torch.ones(1, 1, 1, dtype=torch.uint8), 2.0).backward()
    assert logits.grad is not None
    # p = 0: the loss is -logit, its slope -1.
    assert float(logits.grad) == pytest.approx(-1.0)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_gradient_is_the_losss(outputs: int, gamma: float) -> None:
    logits, target = batch(outputs)
    exact = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: focal(z, target, gamma, 0.4), (exact,))


def test_the_registry_takes_the_options_of_a_loss_from_the_recipe() -> None:
    logits, target = torch.randn(2, 1, 4, 4), torch.randint(0, 2, (2, 4, 4)).to(torch.uint8)
    found = loss_function("focal")(logits, target, Recipe(focal_gamma=1.5, focal_alpha=0.6))
    assert torch.equal(found, focal(logits, target, 1.5, 0.6))


def test_every_named_recipe_has_a_known_loss() -> None:
    assert {recipe.loss for recipe in RECIPES.values()} <= set(LOSSES)


def test_an_unknown_loss_is_refused_with_the_choices() -> None:
    with pytest.raises(DvtError, match=r"`loss=mse`.*focal"):
        loss_function("mse")


# --- Dice -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_dice_equals_its_formula_over_the_batch(outputs: int) -> None:
    logits, target = batch(outputs)
    z = logits.double().numpy()
    if outputs == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=1)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    scores = []
    for number in range(1, p.shape[1]):
        truth = (target.numpy() > 0) if outputs == 1 else target.numpy() == number
        overlap, total = (p[:, number] * truth).sum(), p[:, number].sum() + truth.sum()
        scores.append((2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING))
    assert float(dice(logits, target)) == pytest.approx(1 - np.mean(scores), rel=1e-5)


def test_a_perfect_prediction_has_no_dice_loss_and_classes_count_alike() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    target[0, :6] = 1
    target[0, 7, 7] = 2
    perfect = functional.one_hot(target.long(), 3).permute(0, 3, 1, 2) * 60.0 - 30.0
    assert float(dice(perfect, target)) == pytest.approx(0, abs=1e-6)
    missed = perfect.clone()
    missed[0, :, 7, 7] = torch.tensor([30.0, -30.0, -30.0])
    assert float(dice(missed, target)) == pytest.approx(0.5 * (1 - 1 / 2), abs=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_hardest_pixels_alone_count(outputs: int) -> None:
    logits, target = batch(outputs)
    truth = (target > 0).double() if outputs == 1 else functional.one_hot(target.long(), 3).permute(0, 3, 1, 2)
    p = logits.double().sigmoid()[:, 0] if outputs == 1 else logits.double().softmax(1)
    right = p * truth + (1 - p) * (1 - truth) if outputs == 1 else (p * truth).sum(1)
    losses = np.sort(-np.log(right.numpy().ravel()))[::-1]
    for share, count in ((0.1, round(0.1 * losses.size)), (1e-9, 1), (1.0, losses.size)):
        value = float(topk_cross_entropy(logits, target, share))
        assert value == pytest.approx(losses[:count].mean(), rel=1e-5)
    assert float(topk_cross_entropy(logits, target, 1.0)) == pytest.approx(float(focal(logits, target, 0.0)), rel=1e-6)


def test_easy_pixels_have_no_gradient_among_the_hardest() -> None:
    logits = torch.full((1, 1, 10, 10), -9.0, requires_grad=True)
    target = torch.zeros(1, 10, 10, dtype=torch.uint8)
    target[0, 4, :5] = 1  # 5 of 100 pixels, all missed
    topk_cross_entropy(logits, target, 0.05).backward()
    assert logits.grad is not None
    assert bool((logits.grad[0, 0] != 0).eq(target[0] > 0).all())


def test_the_parts_of_a_sum_are_weighted_and_empty_masks_are_finite() -> None:
    logits, target = batch(3)
    recipe = Recipe(dice_weight=0.25, focal_gamma=1.5, focal_alpha=0.75, topk_share=0.2)
    overlap = 0.25 * float(dice(logits, target))
    pixels = {
        "dice_ce": focal(logits, target, 0.0),
        "dice_topk": topk_cross_entropy(logits, target, 0.2),
        "dice_focal": focal(logits, target, 1.5, 0.75),
    }
    for name, expected in pixels.items():
        assert float(LOSSES[name](logits, target, recipe)) == pytest.approx(overlap + float(expected), rel=1e-6)
        empty = logits.clone().requires_grad_()
        loss = LOSSES[name](empty, torch.zeros_like(target), recipe)
        loss.backward()
        assert math.isfinite(loss.item()) and empty.grad is not None and bool(empty.grad.isfinite().all())
