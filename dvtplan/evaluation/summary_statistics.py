"""Summaries of a score over patients."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
"""Coverage of the interval of the mean."""

FEWEST = 5
"""With fewer values there is no interval: 4 values have 35 different resamples, which is too few for tails of 2.5 %."""

RESAMPLES = 9999
SEED = 0
"""Of the resamples, so that the same scores always have the same interval."""

INTERVAL_RULE = (
    f"The 95 % CI of a mean is the BCa bootstrap interval over patients ({RESAMPLES:,} resamples, seed {SEED}), which "
    f"stays within the smallest and the largest value; - with fewer than {FEWEST} patients, which are too few for one"
)
"""The method, for footnotes; without the last full stop."""

BLOCK = 4_000_000
"""Values resampled at a time, to limit memory."""


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
    """Lower end of the 95 % interval of the mean (``INTERVAL_RULE``); needs ``FEWEST`` values."""
    ci_high: float
    """Upper end, likewise."""


def summarize(values: Iterable[float]) -> Summary:
    """Compute mean, SD, median, range and 95 % interval of the mean.

    The interval is a bootstrap because scores have bounds: a t-interval of a few high scores would exceed 1. The
    paper gives no interval and does not state which SD it uses.

    Args:
        values: one per patient. The caller decides who counts, so nothing is dropped here.

    Returns:
        With one value the SD is NaN, with fewer than ``FEWEST`` the interval; without any, everything except n.

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
    ci_low, ci_high = _bca_interval(scores) if n >= FEWEST else (nan, nan)
    return Summary(
        n=n,
        mean=mean,
        sd=sd,
        median=float(np.median(scores)),
        minimum=float(scores.min()),
        maximum=float(scores.max()),
        ci_low=ci_low,
        ci_high=ci_high,
    )


def _bca_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval of the mean (Efron 1987).

    Equal values have this value as both ends. The order of the values does not matter.
    """
    from scipy.special import ndtr, ndtri

    values = np.sort(values)  # the seed chooses positions, which must not depend on the order of patients
    if values[0] == values[-1]:
        return float(values[0]), float(values[0])
    means = _resampled_means(values)
    mean = values.mean()
    equal = 1e-12 * max(abs(values[0]), abs(values[-1]))  # sums of the same values in another order differ by rounding
    below = np.count_nonzero(means < mean - equal)
    at = np.count_nonzero(np.abs(means - mean) <= equal)
    bias = ndtri((below + at / 2) / len(means))
    away = (values - mean) / np.abs(values - mean).max()
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    tail = bias + ndtri([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    levels = ndtr(bias + tail / (1 - acceleration * tail))
    low, high = np.quantile(means, levels).tolist()
    # Both ends enclose the mean by definition, but not after rounding.
    return float(max(min(low, mean), values[0])), float(min(max(high, mean), values[-1]))


def _resampled_means(values: np.ndarray) -> np.ndarray:
    """Return the means of ``RESAMPLES`` draws of as many values with replacement."""
    n = len(values)
    if n * RESAMPLES <= BLOCK:
        return np.asarray(values[_draws(n)].mean(axis=1))
    random = np.random.default_rng(SEED)
    step = max(1, BLOCK // n)
    sizes = [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]
    return np.concatenate([values[random.integers(0, n, (size, n))].mean(axis=1) for size in sizes])


@functools.lru_cache(maxsize=2)
def _draws(n: int) -> np.ndarray:
    """Return the drawn positions, shape (``RESAMPLES``, n); the measures of a region share them."""
    return np.random.default_rng(SEED).integers(0, n, (RESAMPLES, n))
