"""Exact scores of patients, and their means over the runs of a method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import pandas as pd

from dvtplan.evaluation import table1
from dvtplan.evaluation.confusion import Confusion

PatientScores = dict[str, dict[str, Fraction]]
"""Region -> patient with truth there -> DSC."""


def exact(rows: pd.DataFrame) -> PatientScores:
    """Return the DSC of each region and patient with truth there, from the voxel counts in ``metrics.csv``.

    Raises:
        KeyError: if a column is missing.
        ValueError: if a count is not a number.
    """
    patients = table1.by_patient(rows)
    found: PatientScores = {}
    counted = patients[patients["counted"]]
    for region, patient, *counts in counted[["region", "patient_id", "tp", "fp", "fn"]].values.tolist():
        found.setdefault(str(region), {})[str(patient)] = Confusion(*map(int, counts)).exact("dsc")
    # The rows have every region of every patient, in order; the first patient may lack truth in one.
    return {region: found[region] for region in dict.fromkeys(map(str, rows["region"])) if region in found}


def patients_of(scores: PatientScores) -> dict[str, list[str]]:
    """Return the patients of each region, sorted."""
    return {region: sorted(patients) for region, patients in scores.items()}


def means(runs: Iterable[PatientScores], region: str, patients: Sequence[str]) -> list[Fraction]:
    """Return the mean DSC of each patient over some runs."""
    several = list(runs)
    return [sum((run[region][patient] for run in several), Fraction()) / len(several) for patient in patients]


def mean(values: Sequence[Fraction]) -> float:
    """Return the mean of at least one value."""
    return float(sum(values, Fraction()) / len(values))
