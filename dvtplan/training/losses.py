"""Focal loss (Lin et al. 2017) on logits, for one output or several classes."""

from __future__ import annotations

import torch
from torch.nn import functional


def focal(
    logits_BKHW: torch.Tensor, target_BHW: torch.Tensor, gamma: float, alpha: float | None = None
) -> torch.Tensor:
    """Mean over pixels of ``-weight * (1 - p)**gamma * log(p)``, p being the true class's probability.

    At gamma 0 without alpha this is cross-entropy. Everything is computed in float32 (float64 for
    float64 logits) from logs, so that neither saturated logits nor a gamma below 1 give a loss or
    gradient that is not finite.

    Args:
        logits_BKHW: K = 1 for a sigmoid (every class above 0 against 0), K > 1 for a softmax over K classes.
        target_BHW: class numbers, any integer type.
        gamma: focusing exponent, not negative.
        alpha: weight of the foreground classes, ``1 - alpha`` of the background; none: all weigh 1.

    Returns:
        A scalar, float32 or wider.
    """
    logits = logits_BKHW.to(torch.promote_types(logits_BKHW.dtype, torch.float32))
    if logits.shape[1] == 1:
        log_p, log_rest = _sigmoid_logs(logits[:, 0], target_BHW)
    else:
        log_p, log_rest = _softmax_logs(logits, target_BHW.long())
    loss = -log_p
    if gamma > 0:
        loss = loss * torch.exp(gamma * log_rest)
    if alpha is not None:
        loss = loss * torch.where(target_BHW > 0, alpha, 1.0 - alpha)
    return loss.mean()


def _sigmoid_logs(logit_BHW: torch.Tensor, target_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithms of the true class's probability and of its complement."""
    toward = torch.where(target_BHW > 0, logit_BHW, -logit_BHW)
    return functional.logsigmoid(toward), functional.logsigmoid(-toward)


def _softmax_logs(logits_BKHW: torch.Tensor, target_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``_sigmoid_logs``; the complement is summed over the other classes, never taken as 1 - p."""
    chosen = target_BHW.unsqueeze(1)
    total = torch.logsumexp(logits_BKHW, dim=1)
    others = logits_BKHW.scatter(1, chosen, float("-inf"))
    log_p = logits_BKHW.gather(1, chosen).squeeze(1) - total
    return log_p, torch.logsumexp(others, dim=1) - total
