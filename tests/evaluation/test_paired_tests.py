"""Paired comparisons: equal to scipy's and to sums that a reader can redo."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dvtplan.evaluation.paired_tests import compare_paired, holm

COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=30)
SCORES = st.lists(st.floats(0, 1, allow_nan=False, width=32), min_size=1, max_size=30)

SIX_UP_FOUR_DOWN = (
    [(7, 6), (3, 2), (9, 8), (4, 3), (6, 5), (2, 1), (2, 3), (7, 8), (1, 2), (4, 5)],
    [(1, 0), (2, 1), (3, 2), (8, 7), (9, 8), (10, 9), (0, 1), (5, 6), (6, 7), (9, 10)],
    [(5, 4), (6, 5), (4, 3), (2, 1), (7, 6), (8, 7), (3, 4), (1, 2), (4, 5), (8, 9)],
)
"""Scores of ten patients in tenths: in each table six differences of 1 and four of -1."""


def test_five_gains_of_different_size_by_hand() -> None:
    """All five signs positive: of 2^5 = 32 sign patterns 1 is as extreme on each side, so p = 2/32."""
    found = compare_paired([0.5, 0.6, 0.7, 0.8, 0.9], [0.4, 0.4, 0.4, 0.4, 0.4])
    assert (found.n, found.zeros) == (5, 0)
    assert found.p == pytest.approx(2 / 32)
    assert found.estimate == pytest.approx(0.3)
    # P(T <= 0) = 1/32 > .025: no interval of five pairs covers 95 %.
    assert math.isnan(found.ci_low) and math.isnan(found.ci_high) and math.isnan(found.coverage)


def test_one_loss_among_six_by_hand() -> None:
    """Differences 1..5 and -6 (in tenths): the negative rank sum is 6, the positive 15.

    Sign patterns with a rank sum of at most 6: 1 + 1 + 1 + 2 + 2 + 3 + 4 = 14 of 64, twice for two sides.
    """
    found = compare_paired([0.1, 0.2, 0.3, 0.4, 0.5, 0.0], [0, 0, 0, 0, 0, 0.6])
    assert found.p == pytest.approx(2 * 14 / 64)
    # P(T <= 0) = 1/64 <= .025 < P(T <= 1): the interval runs from the smallest average to the largest.
    assert (found.ci_low, found.ci_high) == pytest.approx((-0.6, 0.5))
    assert found.coverage == pytest.approx(1 - 2 / 64)


def test_hodges_lehmann_is_the_median_of_walsh_averages() -> None:
    """Differences 0, 1, 5: averages 0, .5, 1, 2.5, 3, 5; their median is 1.75."""
    assert compare_paired([0, 1, 5], [0, 0, 0]).estimate == pytest.approx(1.75)


def test_zero_differences_are_counted_and_dropped_from_the_test_alone() -> None:
    with_zeros = compare_paired([1, 2, 3, 4, 5, 7, 7], [0, 0, 0, 0, 0, 7, 7])
    assert (with_zeros.n, with_zeros.zeros) == (7, 2)
    assert with_zeros.p == pytest.approx(2 / 32)
    assert with_zeros.estimate < compare_paired([1, 2, 3, 4, 5], [0] * 5).estimate


def test_methods_that_never_differ_have_no_p() -> None:
    same = compare_paired([0.3, 0.4], [0.3, 0.4])
    assert same.zeros == 2 and math.isnan(same.p) and same.estimate == 0


def test_nobody_to_compare() -> None:
    nobody = compare_paired([], [])
    assert nobody.n == 0 and math.isnan(nobody.p) and math.isnan(nobody.estimate)


@pytest.mark.parametrize("second", [[0.1], [0.1, math.nan], [[0.1, 0.2]]])
def test_what_is_no_pair_is_refused(second: list[float]) -> None:
    with pytest.raises(ValueError, match="paired comparison needs"):
        compare_paired([0.1, 0.2], second)


@pytest.mark.parametrize("table", SIX_UP_FOUR_DOWN)
@pytest.mark.parametrize("kind", [float, Fraction])
def test_equal_differences_are_ties_whatever_their_rounding(
    table: list[tuple[int, int]], kind: type[float] | type[Fraction]
) -> None:
    """All ranks are 5.5: 22 against an expectation of 27.5, variance 10 * 5.5^2 / 4, so z is 0.6325 and p 0.527."""
    first, second = ([kind(Fraction(pair[k], 10)) for pair in table] for k in (0, 1))
    found = compare_paired(first, second)
    assert found.p == pytest.approx(0.52709, abs=1e-5)
    assert found.zeros == 0


def test_a_difference_of_rounding_alone_is_none() -> None:
    found = compare_paired([0.1 + 0.2, 0.5, 0.9], [0.3, 0.4, 0.7])
    assert (0.1 + 0.2 != 0.3) and found.zeros == 1


def test_fractions_that_differ_by_less_than_any_rounding_are_not_tied() -> None:
    tiny = Fraction(1, 10**15)
    up = [Fraction(k, 10) + k * tiny for k in (1, 1, 1, 1, 1, 1)]
    apart = [value + rank * tiny for rank, value in enumerate(up)]
    nothing = [Fraction(0)] * 6
    assert compare_paired(apart, nothing).p == pytest.approx(2 / 64)  # exact, as six different sizes allow
    assert compare_paired(up, nothing).p == pytest.approx(stats.wilcoxon([1] * 6, method="approx").pvalue)


@given(COUNTS, st.integers(0, 2**32))
def test_p_is_that_of_whole_numbers(first: list[int], seed: int) -> None:
    """Thousandths as rounded floats have the p of the counts, which have no rounding."""
    second = np.random.default_rng(seed).permutation(first)
    found = compare_paired([count / 1000 for count in first], [count / 1000 for count in second])
    differences = np.asarray(first) - second
    assert found.zeros == np.count_nonzero(differences == 0)
    if not differences.any():
        assert math.isnan(found.p)
        return
    kept = differences[differences != 0]
    tied = len(np.unique(np.abs(kept))) < len(kept)
    expected = stats.wilcoxon(first, second, zero_method="wilcox", method="approx" if tied else "exact")
    assert found.p == pytest.approx(expected.pvalue)


@given(SCORES)
def test_exchanging_the_methods_turns_the_difference_round(first: list[float]) -> None:
    second = [0.5] * len(first)
    there, back = compare_paired(first, second), compare_paired(second, first)
    assert there.p == pytest.approx(back.p, nan_ok=True)
    assert there.estimate == pytest.approx(-back.estimate)
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low), nan_ok=True)


@pytest.mark.parametrize("n", [6, 8, 9])
def test_the_interval_holds_what_the_test_would_not_reject(n: int) -> None:
    """Inverting the exact test: a shift just inside an end has p > .05, just outside p <= .05."""
    rng = np.random.default_rng(n)
    differences = rng.normal(0.1, 0.2, n)
    found = compare_paired(differences, np.zeros(n))
    for end, outwards in ((found.ci_low, -1), (found.ci_high, 1)):
        for way, rejected in ((outwards, True), (-outwards, False)):
            shifted = differences - (end + way * 1e-6)
            p = exact_p(shifted)
            assert (p <= 0.05) == rejected


def exact_p(differences: np.ndarray) -> float:
    """Two-sided p of the signed-rank test by going through all sign patterns."""
    ranks = stats.rankdata(np.abs(differences))
    low = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return min(1.0, 2 * sum(s <= low for s in sums) / len(sums))


def test_holm_by_hand() -> None:
    """.01 x 3, .02 x 2, .04 x 1 = .03, .04, .04."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_leaves_out_what_has_no_p() -> None:
    corrected = holm([math.nan, 0.01, 0.03])
    assert math.isnan(corrected[0]) and corrected[1:] == pytest.approx([0.02, 0.03])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(corrected[i] <= corrected[j] for i, j in itertools.pairwise(order))
