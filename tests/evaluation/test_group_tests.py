"""Tests of the difference between groups of patients."""

from __future__ import annotations

import math

import pytest

from dvtplan.evaluation.group_tests import compare_groups, name_test


def test_two_groups_are_compared_by_the_exact_mann_whitney_test() -> None:
    """All of 3 below all of 3: 2 of the 20 orders are as extreme."""
    assert compare_groups([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]) == pytest.approx(2 / 20)
    assert compare_groups([[0.4, 0.5, 0.6], [0.1, 0.2, 0.3]]) == pytest.approx(2 / 20)
    assert name_test(2) == "Mann-Whitney"


def test_more_groups_are_compared_by_kruskal_wallis() -> None:
    """Ranks 1 2 | 3 4 | 5 6: H = 12 / 42 * (9 / 2 + 49 / 2 + 121 / 2) - 21 = 32 / 7; chi-square with 2 degrees."""
    assert compare_groups([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]) == pytest.approx(math.exp(-16 / 7))
    assert name_test(3) == "Kruskal-Wallis"


def test_equal_scores_and_a_single_group_have_no_p() -> None:
    assert math.isnan(compare_groups([[0.0, 0.0], [0.0], [0.0]]))
    assert math.isnan(compare_groups([[0.1, 0.2]])) and math.isnan(compare_groups([]))


@pytest.mark.parametrize("samples", [[[0.1], []], [[0.1], [math.nan]]])
def test_patients_without_a_score_are_refused(samples: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="finite"):
        compare_groups(samples)
