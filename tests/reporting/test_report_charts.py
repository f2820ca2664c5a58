"""Charts of the report: which patients are named in them."""

from __future__ import annotations

from dvtplan.reporting.report_charts import named_points


def test_outliers_are_named_or_else_the_lowest() -> None:
    at, rule = named_points([0.8, 0.82, 0.84, 0.86, 0.1])
    assert at == [4] and "0.74" in rule  # quartiles 0.80 and 0.84
    at, rule = named_points([0.9, 0.8, 0.85, 0.82, 0.83, 0.84, 0.86])
    assert at == [1, 3, 4, 5, 2] and rule.startswith("the 5 patients with the lowest DSC")
    assert named_points([]) == ([], "no patient")
