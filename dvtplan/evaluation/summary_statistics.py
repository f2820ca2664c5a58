"""Summaries of a score over patients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Coverage of the interval of the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One score over n patients; a statistic that needs more patients is NaN."""

    n: int
    mean: float
    sd: float
    """Sample standard deviation (divides by n - 1); needs two values."""
    median: float
    minimum: float
    maximum: float
    ci_low: float
    """Lower end of the 95 % t-interval of the mean; needs two values."""
    ci_high: float
    """Upper end, likewise."""


def summarize(values: Iterable[float]) -> Summary:
    """Compute mean, SD, median, range and 95 % interval of the mean.

    The interval is mean +- t(n - 1) * sd / sqrt(n) and is not clipped. With few patients it may leave [0, 1], which
    shows that it is too wide to be useful. The paper gives no interval and does not state which SD it uses.

    Args:
        values: one per patient. The caller decides who counts, so nothing is dropped here.

    Returns:
        With one value SD and interval are NaN; without any value everything except n is NaN.

    Raises:
        ValueError: if a value is not finite.
    """
    scores = np.array(list(values), dtype=float)
    if not np.isfinite(scores).all():
        raise ValueError("a summary needs finite values; omit the patients that do not count")
    n, nan = len(scores), math.nan
    if n == 0:
        return Summary(n=0, mean=nan, sd=nan, median=nan, minimum=nan, maximum=nan, ci_low=nan, ci_high=nan)
    mean = float(scores.mean())
    sd = float(scores.std(ddof=1)) if n > 1 else nan
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n) if n > 1 else nan
    return Summary(
        n=n,
        mean=mean,
        sd=sd,
        median=float(np.median(scores)),
        minimum=float(scores.min()),
        maximum=float(scores.max()),
        ci_low=mean - half,
        ci_high=mean + half,
    )
