"""Exact scores of patients, and means over runs."""

from __future__ import annotations

from fractions import Fraction

import pandas as pd
from compare import patient_scores
from helpers.comparisons import rows


def test_scores_are_exact_and_only_of_patients_with_truth() -> None:
    found = patient_scores.exact(pd.concat([rows([1, 3], "distal"), rows([5], "none", truth=0), rows([2, 7])]))
    assert found == {
        "distal": {"p0": Fraction(1, 10), "p1": Fraction(3, 10)},
        "all": {"p0": Fraction(1, 5), "p1": Fraction(7, 10)},
    }
    assert list(found) == ["distal", "all"]


def test_means_follow_the_order_of_the_patients() -> None:
    first, second = (patient_scores.exact(rows(hits)) for hits in ([1, 2], [2, 4]))
    found = patient_scores.means([first, second], "all", ["p1", "p0"])
    assert found == [Fraction(3, 10), Fraction(3, 20)]
    assert patient_scores.mean(found) == 0.225
    assert patient_scores.patients_of({"all": {"b": Fraction(1), "a": Fraction(0)}}) == {"all": ["a", "b"]}
