"""Summaries of a score over patients."""

from __future__ import annotations

import math
import statistics as standard
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dvtplan.evaluation import summary_statistics
from dvtplan.evaluation.summary_statistics import summarize


def test_summary_of_three_scores_by_hand() -> None:
    summary = summarize([0.9, 0.5, 0.7])
    assert summary.n == 3
    assert summary.mean == pytest.approx(0.7)
    assert summary.sd == pytest.approx(math.sqrt((0.04 + 0 + 0.04) / 2))  # 0.2
    assert (summary.median, summary.minimum, summary.maximum) == (0.7, 0.5, 0.9)


HIGH = [0.99, 0.98, 0.97, 0.99, 0.61, 0.95, 0.98, 0.88, 0.99, 0.97]
"""Scores whose t-interval of the mean reaches 1.01."""


def test_the_interval_is_scipys_bca_bootstrap() -> None:
    """Both are Monte Carlo: with 9,999 resamples the ends differ by far less than 0.005."""
    summary = summarize(HIGH)
    theirs = stats.bootstrap((HIGH,), np.mean, method="BCa", n_resamples=9999, rng=3).confidence_interval
    assert (summary.ci_low, summary.ci_high) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    plain = stats.bootstrap((HIGH,), np.mean, method="percentile", n_resamples=9999, rng=3).confidence_interval
    assert summary.ci_low < plain.low - 0.01  # not the percentile interval


def test_the_interval_of_five_scores_by_hand() -> None:
    """A mean of k/5 has probability C(5, k) .2^k .8^(5 - k): .328, .410, .205, .051, .006, .0003 for k = 0 to 5.

    Bias: Phi^-1(.328 + .410 / 2) = .082; acceleration: .48 / (6 * .8^1.5) = .112. The levels are Phi(.082 - 1.878 /
    1.21) = .071, which is k = 0, and Phi(.082 + 2.042 / .772) = .9967, which is k = 4 (.9933 to .9997).
    """
    summary = summarize([0, 0, 1, 0, 0])
    assert (summary.ci_low, summary.ci_high) == (0.0, 0.8)


def test_the_same_scores_have_the_same_interval_in_any_order() -> None:
    summary, back = summarize(HIGH), summarize(HIGH[::-1])
    assert (summary.ci_low, summary.ci_high) == (back.ci_low, back.ci_high)


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_there_is_no_interval_below_five_scores(n: int) -> None:
    summary = summarize(HIGH[:n])
    assert math.isnan(summary.ci_low) and math.isnan(summary.ci_high)


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0, -3.1])
def test_equal_scores_have_their_value_as_interval(value: float) -> None:
    summary = summarize([value] * 6)
    assert (summary.ci_low, summary.ci_high) == (value, value)


def test_many_scores_are_resampled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summarize(HIGH)
    monkeypatch.setattr(summary_statistics, "BLOCK", 70_001)
    assert summarize(HIGH) == whole


def test_one_score_has_neither_sd_nor_interval() -> None:
    summary = summarize([0.4])
    assert (summary.n, summary.mean, summary.median, summary.minimum, summary.maximum) == (
        1,
        0.4,
        0.4,
        0.4,
        0.4,
    )
    assert all(math.isnan(v) for v in (summary.sd, summary.ci_low, summary.ci_high))


def test_no_score_has_nothing_but_its_n() -> None:
    n, *others = astuple(summarize([]))
    assert n == 0
    assert all(math.isnan(v) for v in others)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused_not_dropped(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        summarize([0.5, bad])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_summary_agrees_with_the_standard_library(values: list[float]) -> None:
    summary = summarize(values)
    # Two orders of summation of at most 20 scores differ by far less than 1e-9.
    assert summary.mean == pytest.approx(standard.fmean(values), abs=1e-9)
    assert summary.sd == pytest.approx(standard.stdev(values), abs=1e-7)
    assert summary.median == pytest.approx(standard.median(values), abs=1e-9)
    if len(values) < 5:
        assert math.isnan(summary.ci_low)
        return
    assert min(values) <= summary.ci_low <= summary.mean + 1e-12
    assert summary.mean - 1e-12 <= summary.ci_high <= max(values)
