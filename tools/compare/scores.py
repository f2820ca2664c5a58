"""Score all methods on the same test patients in the same way, and test the recipes against nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pandas as pd

from compare.settings import Setup
from dvtplan.core.errors import DvtError
from dvtplan.data import dataset_json
from dvtplan.evaluation import paired_tests, table1
from dvtplan.evaluation.confusion import Confusion
from dvtplan.evaluation.evaluate import evaluate_folders
from dvtplan.evaluation.paired_tests import Difference
from dvtplan.evaluation.summary_statistics import Summary, summarize


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
    """Method -> region -> DSC over the patients with truth in the region."""
    reference: str
    """The method that the others are tested against."""
    tests: tuple[Test, ...]
    values: str
    """How the values of the masks were read: 'labels' or 'lesion'."""
    rule: str
    """Region rule."""


def score(setup: Setup, folders: Mapping[str, str], references: Sequence[str]) -> Scores:
    """Score the predictions of each method with the same function, and write its tables next to them.

    If a method predicts the union of the labels, the labels that others predict do not count either.

    Args:
        setup: of the comparison.
        folders: method -> its folder below ``setup.out``.
        references: methods of which the best is the reference of the tests.

    Raises:
        DvtError: if a mask is missing or damaged.
    """
    values = "lesion" if any(predicts_union(setup.predictions(folder)) for folder in folders.values()) else "labels"
    rows = {}
    for name, folder in folders.items():
        found = evaluate_folders(
            setup.test_labels,
            setup.predictions(folder),
            setup.folder(folder) / "scores",
            prediction_values=values,
            dataset=setup.workspace.raw,
        )
        rows[name] = found.rows
    return compare(rows, references, values, found.table.rule)


def predicts_union(predictions: Path) -> bool:
    """Return whether the masks in a folder have one class for all labels."""
    description = predictions / dataset_json.FILE_NAME
    return description.exists() and set(dataset_json.read_labels(description) or ()) == {"lesion"}


def compare(rows: Mapping[str, pd.DataFrame], references: Sequence[str], values: str, rule: str) -> Scores:
    """Summarize the DSC of each method, and compare the others with the best reference.

    The best one has the highest mean DSC in the last region, which is that of all labels. This choice uses the test
    patients, so it favours the reference.

    Args:
        rows: method -> its ``metrics.csv``.
        references: methods among which the reference is.
        values: as in ``Scores``.
        rule: as in ``Scores``.

    Raises:
        DvtError: if the methods were not scored on the same patients and regions.
    """
    counted = {name: _counted(frame) for name, frame in rows.items()}
    reference, others = references[0], [name for name in counted if name not in references]
    keys = {name: frame[["region", "patient_id"]].values.tolist() for name, frame in counted.items()}
    for name in counted:
        if keys[name] != keys[reference]:
            raise DvtError(f"{name} and {reference} were not scored on the same patients. Use a new folder as --out.")
    # The rows have every region of every patient, in order; the first patient may lack truth in one.
    known = set(counted[reference]["region"])
    regions = [str(region) for region in dict.fromkeys(rows[reference]["region"]) if region in known]
    dsc: dict[str, dict[str, Summary]] = {}
    for name, frame in counted.items():
        dsc[name] = {region: summarize(frame[frame["region"] == region]["dsc"]) for region in regions}
    reference = max(references, key=lambda name: dsc[name][regions[-1]].mean if regions else 0.0)
    tests = []
    for region in regions:
        exact = {name: _exact(frame[frame["region"] == region]) for name, frame in counted.items()}
        differences = [paired_tests.compare_paired(exact[name], exact[reference]) for name in others]
        corrected = paired_tests.holm([difference.p for difference in differences])
        for name, difference, p_holm in zip(others, differences, corrected, strict=True):
            tests.append(Test(method=name, region=region, difference=difference, p_holm=p_holm))
    return Scores(dsc=dsc, reference=reference, tests=tuple(tests), values=values, rule=rule)


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per region and patient with truth there."""
    patients = table1.by_patient(rows)
    return patients[patients["counted"]]


def _exact(patients: pd.DataFrame) -> list[Fraction]:
    """Return DSCs without rounding, from the voxel counts."""
    counts = patients[["tp", "fp", "fn"]].itertuples(index=False)
    return [Confusion(*map(int, row)).exact("dsc") for row in counts]
