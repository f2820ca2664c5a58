"""Comparison of independent groups of patients: Mann-Whitney and Kruskal-Wallis tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MANN_WHITNEY, KRUSKAL_WALLIS = "Mann-Whitney", "Kruskal-Wallis"

RULE = (
    "two-sided Mann-Whitney U test for two groups, Kruskal-Wallis test for more; the unit is the patient. Mann-Whitney "
    "is exact if a group has at most 8 patients and no scores are equal. Otherwise the normal and the chi-square "
    "approximation are used, with correction for ties, and p is rough if a group has fewer than 5 patients. p Holm is "
    "corrected for the regions of its score"
)
"""The method, for footnotes; without the last full stop."""


def name_test(groups: int) -> str:
    """Return the name of the test for a number of groups."""
    return MANN_WHITNEY if groups <= 2 else KRUSKAL_WALLIS


def compare_groups(samples: Sequence[Sequence[float]]) -> float:
    """Test whether the scores of groups of patients differ.

    Args:
        samples: the scores of each group, each with at least one.

    Returns:
        Two-sided p; NaN with fewer than two groups, or if all scores are equal.

    Raises:
        ValueError: if a group is empty or a score is not finite.
    """
    arrays = [np.asarray(sample, float) for sample in samples]
    if not all(len(array) and np.isfinite(array).all() for array in arrays):
        raise ValueError("a comparison needs finite scores in every group; omit the patients that do not count")
    if len(arrays) < 2 or len(np.unique(np.concatenate(arrays))) == 1:
        return math.nan
    from scipy import stats  # this import takes half a second, which other commands need not wait for

    if len(arrays) == 2:
        return float(stats.mannwhitneyu(arrays[0], arrays[1], alternative="two-sided", method="auto").pvalue)
    return float(stats.kruskal(*arrays).pvalue)
