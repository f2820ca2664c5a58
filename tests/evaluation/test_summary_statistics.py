"""Summaries of a score over patients."""

from __future__ import annotations

import math
import statistics as standard
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.evaluation.summary_statistics import summarize

# Student's t, 97.5th percentile, from a printed table.
T_2 = 4.303
T_4 = 2.776


def test_summary_of_three_scores_by_hand() -> None:
    summary = summarize([0.9, 0.5, 0.7])
    assert summary.n == 3
    assert summary.mean == pytest.approx(0.7)
    assert summary.sd == pytest.approx(math.sqrt((0.04 + 0 + 0.04) / 2))  # 0.2
    assert (summary.median, summary.minimum, summary.maximum) == (0.7, 0.5, 0.9)


def test_interval_is_the_t_interval_of_the_mean() -> None:
    summary = summarize([0.1, 0.2, 0.3, 0.4, 0.5])
    half = T_4 * math.sqrt(0.025) / math.sqrt(5)
    assert summary.ci_low == pytest.approx(0.3 - half, abs=1e-4)  # the printed table has four digits
    assert summary.ci_high == pytest.approx(0.3 + half, abs=1e-4)


def test_interval_is_not_clipped_to_scores() -> None:
    summary = summarize([0.5, 0.7, 0.9])
    assert summary.ci_high == pytest.approx(0.7 + T_2 * 0.2 / math.sqrt(3), abs=1e-3)
    assert summary.ci_high > 1


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
    assert summary.ci_low <= summary.mean <= summary.ci_high
