"""Loss functions on logits, for one output or several classes, in one visible dict."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from dvtplan.core.errors import DvtError
from dvtplan.planning.recipe import Recipe
from dvtplan.training.distributed import sum_over_processes

LossFunction = Callable[[torch.Tensor, torch.Tensor, Recipe], torch.Tensor]
"""Logits (B, K, H, W), class numbers (B, H, W) and the recipe -> a scalar, float32 or wider.

K = 1: a sigmoid for every class above 0 against 0. K > 1: a softmax over K classes.
"""
DICE_SMOOTHING = 1.0
"""Pixels that are added to numerator and denominator of the Dice coefficient."""


def focal(
    logits_BKHW: torch.Tensor, target_BHW: torch.Tensor, gamma: float, alpha: float | None = None
) -> torch.Tensor:
    """Compute the focal loss (Lin et al. 2017): the mean over pixels of ``-weight * (1 - p)**gamma * log(p)``.

    p is the probability of the true class. At gamma 0 without alpha this is cross-entropy. Everything is computed
    from logarithms in float32 (float64 for float64 logits). So saturated logits and a gamma below 1 give a finite
    loss and gradient.

    Args:
        logits_BKHW: K = 1 for a sigmoid (every class above 0 against 0), K > 1 for a softmax over K classes.
        target_BHW: class numbers, any integer type.
        gamma: focusing exponent, not negative.
        alpha: weight of the foreground classes, ``1 - alpha`` of the background; None: all have weight 1.

    Returns:
        A scalar, float32 or wider.
    """
    log_p, log_rest = _logs(logits_BKHW, target_BHW)
    loss = -log_p
    if gamma > 0:
        loss = loss * torch.exp(gamma * log_rest)
    if alpha is not None:
        loss = loss * torch.where(target_BHW > 0, alpha, 1.0 - alpha)
    return loss.mean()


def _logs(logits_BKHW: torch.Tensor, target_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logarithms of the true class's probability and of its complement, (B, H, W), float32 or wider."""
    logits = logits_BKHW.to(torch.promote_types(logits_BKHW.dtype, torch.float32))
    if logits.shape[1] == 1:
        return _sigmoid_logs(logits[:, 0], target_BHW)
    return _softmax_logs(logits, target_BHW.long())


def _sigmoid_logs(logit_BHW: torch.Tensor, target_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Do as ``_logs`` for one output."""
    toward = torch.where(target_BHW > 0, logit_BHW, -logit_BHW)
    return functional.logsigmoid(toward), functional.logsigmoid(-toward)


def _softmax_logs(logits_BKHW: torch.Tensor, target_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Do as ``_logs`` for several classes; the complement is summed over the other classes, never computed as 1 - p."""
    chosen = target_BHW.unsqueeze(1)
    total = torch.logsumexp(logits_BKHW, dim=1)
    others = logits_BKHW.scatter(1, chosen, float("-inf"))
    log_p = logits_BKHW.gather(1, chosen).squeeze(1) - total
    return log_p, torch.logsumexp(others, dim=1) - total


def dice(logits_BKHW: torch.Tensor, target_BHW: torch.Tensor) -> torch.Tensor:
    """Compute 1 minus the soft Dice coefficient (Milletari et al. 2016) over all pixels of a batch.

    Args:
        logits_BKHW: as for ``focal``.
        target_BHW: class numbers, any integer type.

    Returns:
        The mean over the foreground classes, float32 or wider. In a group of processes the batch is that of all.
    """
    logits = logits_BKHW.to(torch.promote_types(logits_BKHW.dtype, torch.float32))
    if logits.shape[1] == 1:
        predicted, truth = logits.sigmoid(), (target_BHW > 0)[:, None].to(logits.dtype)
    else:
        numbers = torch.arange(1, logits.shape[1], device=logits.device)[:, None, None]
        predicted, truth = logits.softmax(dim=1)[:, 1:], (target_BHW[:, None] == numbers).to(logits.dtype)
    sums = torch.stack([(predicted * truth).sum((0, 2, 3)), predicted.sum((0, 2, 3)) + truth.sum((0, 2, 3))])
    overlap, total = sum_over_processes(sums)
    return (1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


def topk_cross_entropy(logits_BKHW: torch.Tensor, target_BHW: torch.Tensor, share: float) -> torch.Tensor:
    """Compute the cross-entropy over the pixels with the largest loss (Wu et al. 2016, online bootstrapping).

    Nearly all pixels are easy background. In a mean over all of them, a class of few pixels has almost no weight.

    Args:
        logits_BKHW: as for ``focal``.
        target_BHW: class numbers, any integer type.
        share: of the pixels of the batch that count, above 0 and at most 1; at least one counts.

    Returns:
        The mean over these pixels, float32 or wider. In a group of processes each chooses from its own batch.
    """
    losses = -_logs(logits_BKHW, target_BHW)[0].flatten()
    return losses.topk(max(1, round(share * losses.numel())), sorted=False).values.mean()


LOSSES: dict[str, LossFunction] = {
    "focal": lambda logits, target, recipe: focal(logits, target, recipe.focal_gamma, recipe.focal_alpha),
    "dice_ce": lambda logits, target, recipe: recipe.dice_weight * dice(logits, target) + focal(logits, target, 0.0),
    "dice_topk": lambda logits, target, recipe: (
        recipe.dice_weight * dice(logits, target) + topk_cross_entropy(logits, target, recipe.topk_share)
    ),
    "dice_focal": lambda logits, target, recipe: (
        recipe.dice_weight * dice(logits, target) + focal(logits, target, recipe.focal_gamma, recipe.focal_alpha)
    ),
}
"""Loss functions by name, the value of ``Recipe.loss``."""


def loss_function(name: str) -> LossFunction:
    """Return a loss function by name.

    Raises:
        DvtError: if there is no loss of that name.
    """
    if name not in LOSSES:
        raise DvtError(f"`loss={name}`: unknown loss. Choose one of: {', '.join(LOSSES)}.")
    return LOSSES[name]
