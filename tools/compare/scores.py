"""Score all runs on the same test patients in the same way, and test the recipes against nnU-Net."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pandas as pd

from compare import patient_scores
from compare.patient_scores import PatientScores
from compare.settings import Setup
from dvtplan.core.errors import DvtError
from dvtplan.data import dataset_json
from dvtplan.evaluation import paired_tests
from dvtplan.evaluation.evaluate import Evaluation, evaluate_folders
from dvtplan.evaluation.paired_tests import Difference
from dvtplan.evaluation.summary_statistics import Summary, summarize

Known = dict[tuple[str, str], Evaluation]
"""(name of a run, how values are read) -> its scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A method against the reference in one region."""

    method: str
    region: str
    difference: Difference
    """DSC of the method minus that of the reference."""
    p_holm: float
    """Corrected over the methods of this region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """DSC of all methods."""

    dsc: dict[str, dict[str, Summary]]
    """Method -> region -> DSC over the patients with truth in the region, of each the mean over the runs."""
    by_run: dict[str, dict[str, tuple[float, ...]]]
    """Method -> region -> mean DSC of each run."""
    reference: str
    """The method that the others are tested against; empty: none is finished."""
    tests: tuple[Test, ...]
    values: str
    """How the values of the masks were read: 'labels' or 'lesion'."""
    rule: str
    """Region rule."""


def score(setup: Setup, runs: Mapping[str, Iterable[str]], references: Sequence[str], known: Known) -> Scores:
    """Score the predictions of each run with the same function, and write its tables next to them.

    If a method predicts the union of the labels, the labels that others predict do not count either.

    Args:
        setup: of the comparison.
        runs: method -> the names of its runs, at least one.
        references: methods of which the best is the reference of the tests.
        known: runs that are scored already; it gets the others.

    Raises:
        DvtError: if a mask is missing or damaged.
    """
    names = [name for several in runs.values() for name in several]
    values = "lesion" if any(predicts_union(setup.predictions(name)) for name in names) else "labels"
    for name in names:
        if (name, values) not in known:
            known[name, values] = evaluate_folders(
                setup.test_labels,
                setup.predictions(name),
                setup.folder(name) / "scores",
                prediction_values=values,
                dataset=setup.workspace.raw,
            )
    rows = {method: [known[name, values].rows for name in several] for method, several in runs.items()}
    return compare(rows, references, values, known[names[0], values].table.rule)


def predicts_union(predictions: Path) -> bool:
    """Return whether the masks in a folder have one class for all labels."""
    description = predictions / dataset_json.FILE_NAME
    return description.exists() and set(dataset_json.read_labels(description) or ()) == {"lesion"}


def compare(rows: Mapping[str, Sequence[pd.DataFrame]], references: Sequence[str], values: str, rule: str) -> Scores:
    """Summarize the DSC of each method, and compare the others with the best reference.

    The unit is the patient, each with the mean over the runs of a method. The choice of the best reference uses the
    test patients, so it favours the reference.

    Args:
        rows: method -> ``metrics.csv`` of each run, at least one.
        references: methods among which the reference is, as far as they have rows.
        values: as in ``Scores``.
        rule: as in ``Scores``.

    Raises:
        DvtError: if the runs were not scored on the same patients and regions.
    """
    runs = {name: [patient_scores.exact(one) for one in several] for name, several in rows.items()}
    patients = _common_patients(runs)
    means = {
        name: {region: patient_scores.means(several, region, who) for region, who in patients.items()}
        for name, several in runs.items()
    }
    dsc = {name: {region: summarize(map(float, one)) for region, one in found.items()} for name, found in means.items()}
    by_run = {
        name: {region: tuple(patient_scores.mean(list(one[region].values())) for one in several) for region in patients}
        for name, several in runs.items()
    }
    finished = [name for name in references if name in runs]
    reference = max(finished, key=lambda name: _merit(dsc[name], values, rule), default="")
    others = [name for name in runs if name not in references]
    tests = _tests(means, others, reference) if reference else ()
    return Scores(dsc=dsc, by_run=by_run, reference=reference, tests=tests, values=values, rule=rule)


def _common_patients(runs: Mapping[str, Sequence[PatientScores]]) -> dict[str, list[str]]:
    """Return the regions with truth, and the patients of each.

    Raises:
        DvtError: if the runs do not have the same.
    """
    first = next(iter(runs))
    known = runs[first][0]
    for name, several in runs.items():
        if any(patient_scores.patients_of(one) != patient_scores.patients_of(known) for one in several):
            raise DvtError(f"{name} and {first} were not scored on the same patients. Use a new folder as --out.")
    return {region: list(scores) for region, scores in known.items()}


def _merit(dsc: Mapping[str, Summary], values: str, rule: str) -> float:
    """Return the score that chooses a reference: the DSC of the union of the labels.

    If labels are scored as predicted, the union does not show whether they were told apart. Then it is the mean over
    the labels. The union is the last region.
    """
    regions = list(dsc)
    apart = values == "labels" and rule.startswith("by-label") and len(regions) > 1
    chosen = regions[:-1] if apart else regions[-1:]
    return sum(dsc[region].mean for region in chosen) / max(1, len(chosen))


def _tests(
    means: Mapping[str, Mapping[str, list[Fraction]]], others: Sequence[str], reference: str
) -> tuple[Test, ...]:
    """Test the other methods against the reference in each region."""
    tests = []
    for region, expected in means[reference].items():
        differences = [paired_tests.compare_paired(means[name][region], expected) for name in others]
        corrected = paired_tests.holm([difference.p for difference in differences])
        for name, difference, p_holm in zip(others, differences, corrected, strict=True):
            tests.append(Test(method=name, region=region, difference=difference, p_holm=p_holm))
    return tuple(tests)
