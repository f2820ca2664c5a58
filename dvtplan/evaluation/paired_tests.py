"""Paired comparison of two methods: Wilcoxon signed-rank test, Holm correction, size of the difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

CONFIDENCE = 0.95
"""Nominal coverage of the interval of a difference."""

EQUAL = Fraction(1, 10**12)
"""Differences of rounded scores that are no further apart are equal. 0.7 - 0.6 and 0.6 - 0.5 differ by 1e-16, which
would otherwise make two ranks of a tie."""

RULE = (
    "two-sided paired Wilcoxon signed-rank test; the unit is the patient. Zeros and ties are found in exact fractions. "
    "Zero differences are dropped from the test (Wilcoxon's rule) and counted. p Holm is corrected for the comparisons "
    "of its region and score. The difference is the first minus the other: the Hodges-Lehmann estimate, which is the "
    "median of the means of all pairs of differences, zeros included. Its interval is from the exact signed-rank "
    "distribution and stays within the smallest and the largest difference. With fewer than 6 patients there is no "
    "95 % interval, and p cannot be below 0.0625"
)
"""The method, for footnotes; without the last full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """First method minus second, over the patients that both were scored on."""

    n: int
    """Patients."""
    zeros: int
    """Patients without any difference."""
    p: float
    """Two-sided; NaN if no pair differs."""
    estimate: float
    """Hodges-Lehmann; NaN without patients."""
    ci_low: float
    """Lower end of its interval; NaN if n is too small for one."""
    ci_high: float
    """Upper end, likewise."""
    coverage: float
    """Actual coverage of the interval, at least ``CONFIDENCE``; NaN without an interval."""


def compare_paired(first: Sequence[float | Fraction], second: Sequence[float | Fraction]) -> Difference:
    """Compare two methods on the same patients in the same order (Huang 2019, section 2.5).

    The paper gives uncorrected p-values and does not state how it handles ties. Here scipy computes them
    (zero_method="wilcox"): exactly for at most 50 pairs without ties, else by the normal approximation without
    continuity correction. Zeros, ties and ranks are those of the exact differences, not of their rounded values.

    Args:
        first: one score per patient. Fractions are compared exactly, other numbers to ``EQUAL``.
        second: likewise.

    Raises:
        ValueError: if the lengths differ or a score is not finite.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a paired comparison needs equally many scores, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a paired comparison needs finite scores; omit the patients that do not count")
    signed_ranks = _dense_ranks(first, second)
    differences = np.where(signed_ranks == 0, 0.0, a - b)
    estimate, low, high, coverage = _hodges_lehmann(differences)
    zeros = int(np.count_nonzero(signed_ranks == 0))
    return Difference(
        n=len(a),
        zeros=zeros,
        p=_wilcoxon(signed_ranks) if zeros < len(a) else math.nan,
        estimate=estimate,
        ci_low=low,
        ci_high=high,
        coverage=coverage,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down method (1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; the results never decrease and are at most 1.
    NaN stays NaN and does not count in m.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        corrected[i] = least
    return corrected


def _dense_ranks(first: Sequence[float | Fraction], second: Sequence[float | Fraction]) -> np.ndarray:
    """Rank the sizes of the differences, equal ones alike: 0 for no difference, else 1, 2, ... with its sign."""
    exact = all(isinstance(score, Fraction) for score in (*first, *second))
    equal = 0 if exact else EQUAL
    differences = [_exact(a) - _exact(b) for a, b in zip(first, second, strict=True)]
    ranks = np.zeros(len(differences))
    rank, last = 0, Fraction(0)
    for i in sorted(range(len(differences)), key=lambda i: abs(differences[i])):
        size = abs(differences[i])
        rank += size - last > equal
        last = size
        ranks[i] = rank if differences[i] > 0 else -rank
    return ranks


def _exact(score: float | Fraction) -> Fraction:
    return score if isinstance(score, Fraction) else Fraction(float(score))


def _wilcoxon(differences: np.ndarray) -> float:
    """Return the p of the signed-rank test, which depends on the order of the differences only."""
    from scipy.stats import wilcoxon  # this import takes half a second, which other commands need not wait for

    kept = differences[differences != 0]
    sizes = np.abs(kept)
    exact = len(kept) <= 50 and len(np.unique(sizes)) == len(sizes)
    return float(wilcoxon(kept, zero_method="wilcox", correction=False, method="exact" if exact else "approx").pvalue)


def _hodges_lehmann(differences: np.ndarray) -> tuple[float, float, float, float]:
    """Return estimate, interval and coverage from the Walsh averages (Hollander & Wolfe 1999, 3.2-3.3)."""
    n, nan = len(differences), math.nan
    if n == 0:
        return nan, nan, nan, nan
    rows, columns = np.triu_indices(n)
    walsh = np.sort((differences[rows] + differences[columns]) / 2)
    estimate = float(np.median(walsh))
    below = np.cumsum(_signed_rank_distribution(n))
    # The largest c with P(T <= c - 1) <= alpha / 2; the interval runs from the c-th average to the c-th last.
    c = int(np.searchsorted(below, (1 - CONFIDENCE) / 2, side="right"))
    if c == 0:
        return estimate, nan, nan, nan
    return estimate, float(walsh[c - 1]), float(walsh[len(walsh) - c]), float(1 - 2 * below[c - 1])


def _signed_rank_distribution(n: int) -> np.ndarray:
    """Return the probability of each sum of positive ranks 0 ... n(n+1)/2 if all signs are equally likely."""
    probability = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(probability) + rank)
        longer[: len(probability)] += probability / 2
        longer[rank:] += probability / 2
        probability = longer
    return probability
