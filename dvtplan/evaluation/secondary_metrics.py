"""Measures beside the paper's three, per patient and region: what they are called, and their summary.

Every measure on empty masks, for one region of one case (a patient: of all its cases); a dash is not a number,
which stands empty in csv files and is in no mean:

| measure                                       | truth, none predicted | no truth, some predicted | neither |
|-----------------------------------------------|-----------------------|--------------------------|---------|
| dsc, precision, recall, iou                   | 0                     | -                        | -       |
| truth_ml, predicted_ml, false_positive_ml     | truth, 0, 0           | 0, predicted, predicted  | 0, 0, 0 |
| volume_difference_ml                          | -truth                | predicted                | 0       |
| volume_difference_percent                     | -100                  | -                        | -       |
| assd_mm, hd95_mm                              | -                     | -                        | -       |
| surface_dice                                  | 0                     | -                        | -       |
| lesion_sensitivity, lesion_precision, lesion_f1 | 0                   | -                        | -       |
| lesion_sensitivity of a bin of volumes        | 0, - without lesions in it | -                   | -       |
| true_, detected_lesions                       | counted, 0            | 0, 0                     | 0, 0    |
| predicted_, confirmed_, false_positive_lesions | 0, 0, 0              | counted, 0, counted      | 0, 0, 0 |

As in Table 1 a summary is over the patients with truth in the region. Where a measure is none for some of them its
n is smaller than theirs, and both numbers are told; what was predicted for the other patients is told apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from dvtplan.core.text import plural
from dvtplan.evaluation import table_text
from dvtplan.evaluation.confusion import Confusion
from dvtplan.evaluation.lesion_detection import OVERLAP, VOLUMES, Lesions
from dvtplan.evaluation.summary_statistics import Summary, summarize
from dvtplan.evaluation.surface_distance import PERCENTILE, SurfaceScores
from dvtplan.evaluation.table_text import mean_sd, number, span

VOXELS = ("iou", "volume_difference_ml", "volume_difference_percent")
"""Columns that follow from voxel counts and volumes."""

SURFACES = SurfaceScores._fields
"""Columns of surface distances, which no counts give."""

LESIONS = ("lesion_sensitivity", "lesion_precision", "lesion_f1")
"""Columns of scores that follow from lesion counts."""

COUNTS = (
    "true_lesions",
    "detected_lesions",
    "predicted_lesions",
    "confirmed_lesions",
    "false_positive_lesions",
    *(f"{which}_lesions_{volume}" for volume in VOLUMES for which in ("true", "detected")),
)
"""Columns that add up over the cases of a patient, beside those of Table 1."""

COLUMNS = (*VOXELS, *SURFACES, "tolerance_mm", *LESIONS, *COUNTS)
"""What ``metrics.csv`` holds beside the counts and scores of Table 1, in this order."""

BY_VOLUME = {f"lesion_sensitivity_{name}": f"Lesions detected, {words}" for name, words in VOLUMES.items()}
"""Measures of the summary only: a case seldom has enough lesions in a bin for a column."""

MEASURES = {
    "iou": "IoU",
    "volume_difference_ml": "Volume difference, mL",
    "volume_difference_percent": "Volume difference, %",
    "assd_mm": "ASSD, mm: median, range",
    "hd95_mm": "HD95, mm: median, range",
    "surface_dice": "Surface Dice at {tolerance}",
    "lesion_sensitivity": "Lesion sensitivity",
    "lesion_precision": "Lesion precision",
    "lesion_f1": "Lesion F1",
    **BY_VOLUME,
}
"""What is summarized, and how a reader calls it."""

DISTANCES = ("assd_mm", "hd95_mm")
"""Without an upper end, so that one far voxel may decide a mean; median and range are printed instead."""

LINES = {"patients": "Patients with truth", **MEASURES, "false_positives": "False positive lesions"}
"""Lines of the printed table: n, the measures, and what was predicted for the patients without truth, in total."""

UNITS = {"volume_difference_ml": "mL", "volume_difference_percent": "%", "assd_mm": "mm", "hd95_mm": "mm"}
"""Of the measures that have one; the others are shares from 0 to 1."""

EMPTY_MEASURES_RULE = (
    "Where a patient has truth in a region and nothing was predicted there, IoU, surface Dice and the lesion scores "
    "are 0, the volume difference is minus the truth, and ASSD and HD95 do not exist. A patient without truth in a "
    "region is not in that region's statistics; what was predicted there is reported as lesions and volume."
)
"""The table above in words, for footnotes."""

POOLING_RULE = (
    "Voxels, volumes and lesions of a patient's cases are added before scoring; a surface measure is the plain mean "
    "over those of the patient's cases that have it."
)
"""Distances cannot be added; two scans of one patient weigh alike."""

DEFINITIONS = (
    f"Distances are those of boundary voxels; HD95 is the larger of the two one-way {PERCENTILE:g}th percentiles. A "
    f"lesion is a 26-connected component, and met where at least {100 * OVERLAP:g} % of its voxels lie in the other "
    "mask: then a true one is detected, a predicted one confirmed. Across regions a thrombus is a lesion of each, "
    "and one of all."
)
"""What a reader must know to read the numbers; ``surface_distance`` and ``lesion_detection`` give all details."""

TITLE = "Further measures, mean ± SD over patients where nothing else is said."
TEXT_NOTE = (
    "n after a measure: those who have it where they are fewer than the patients with truth. Lesions by volume "
    "are counted over patients. False positive: predicted for patients without truth, in total. Median, range "
    "and interval of each measure: measures.csv."
)
"""Note of the printed table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionMeasures:
    """One region over all patients."""

    region: str
    patients: int
    """With truth in the region."""
    without_truth: int
    false_positive_lesions: int
    """Predicted in the region for the patients without truth, in total."""
    false_positive_ml: float
    """Likewise."""
    measures: dict[str, Summary]
    """A summary per key of ``MEASURES``, over those patients with truth for whom it exists."""
    lesions: dict[str, tuple[int, int]]
    """Per measure that is a share of lesions: how many there are over all these patients, and how many were met.
    Lesions of one patient are not independent, so this has no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuresTable:
    """The further measures, with what a reader needs to know which numbers these are."""

    regions: tuple[RegionMeasures, ...]
    tolerance_mm: float
    """Of surface Dice."""
    rule: str
    """The split rule's name and meaning."""
    folds: str
    """What was scored, as in 'folds 0, 2 of 8'."""


def lesion_counts(lesions: Lesions) -> dict[str, int]:
    """The columns ``COUNTS`` of one region."""
    by_volume = zip(VOLUMES, lesions.true_by_volume, lesions.detected_by_volume, strict=True)
    return {
        "true_lesions": lesions.true,
        "detected_lesions": lesions.detected,
        "predicted_lesions": lesions.predicted,
        "confirmed_lesions": lesions.confirmed,
        "false_positive_lesions": lesions.false_positives,
        **{
            f"{which}_lesions_{volume}": value
            for volume, true, detected in by_volume
            for which, value in (("true", true), ("detected", detected))
        },
    }


def scores(counts: Mapping[str, float]) -> dict[str, float]:
    """The measures that follow from voxels, volumes and lesions, of a case or of a patient's cases together.

    Args:
        counts: tp, fp, fn, truth_ml, predicted_ml, and ``COUNTS``.

    Returns:
        ``VOXELS``, ``LESIONS`` and ``BY_VOLUME``; not a number as the table above says.
    """
    voxels = Confusion(int(counts["tp"]), int(counts["fp"]), int(counts["fn"]))
    difference_ml = counts["predicted_ml"] - counts["truth_ml"]
    lesions = Lesions(
        true_by_volume=tuple(int(counts[f"true_lesions_{volume}"]) for volume in VOLUMES),
        detected_by_volume=tuple(int(counts[f"detected_lesions_{volume}"]) for volume in VOLUMES),
        predicted=int(counts["predicted_lesions"]),
        confirmed=int(counts["confirmed_lesions"]),
    )
    return {
        "iou": voxels.iou,
        "volume_difference_ml": float(difference_ml),
        "volume_difference_percent": float(100 * difference_ml / counts["truth_ml"]) if voxels.truth else math.nan,
        "lesion_sensitivity": lesions.sensitivity,
        "lesion_precision": lesions.precision,
        "lesion_f1": lesions.f1,
        **dict(zip(BY_VOLUME, lesions.sensitivity_by_volume, strict=True)),
    }


def by_patient(rows: pd.DataFrame) -> pd.DataFrame:
    """Pool the cases of each patient as ``POOLING_RULE`` says, then score.

    Args:
        rows: ``metrics.csv``, one per (case, region).

    Returns:
        One row per (region, patient) in order of appearance: what adds up, ``MEASURES``, and ``counted``.
    """
    keys = ["region", "patient_id"]
    patients = rows.groupby(keys, sort=False)
    added = patients[["tp", "fp", "fn", "truth_ml", "predicted_ml", "false_positive_ml", *COUNTS]].sum()
    pooled = added.join([patients[list(SURFACES)].mean(), patients["counted"].any()])
    scored = pd.DataFrame([scores(dict(counts)) for _, counts in added.iterrows()], index=pooled.index)
    return pooled.join(scored).reset_index()


def summarize_measures(rows: pd.DataFrame, *, rule: str, folds: str) -> MeasuresTable:
    """Summarize every measure per region over patients.

    Args:
        rows: ``metrics.csv``; regions come in order of appearance.
        rule: name and meaning of the rule that divides masks into regions.
        folds: what was scored, as in 'folds 0, 2 of 8'.
    """
    regions = []
    for region, patients in by_patient(rows).groupby("region", sort=False):
        counted, others = patients[patients["counted"]], patients[~patients["counted"]]
        regions.append(
            RegionMeasures(
                region=str(region),
                patients=len(counted),
                without_truth=len(others),
                false_positive_lesions=int(others["false_positive_lesions"].sum()),
                false_positive_ml=float(others["false_positive_ml"].sum()),
                measures={name: summarize(counted[name].dropna()) for name in MEASURES},
                lesions=_lesions(counted),
            )
        )
    (tolerance_mm,) = rows["tolerance_mm"].unique()
    return MeasuresTable(regions=tuple(regions), tolerance_mm=float(tolerance_mm), rule=rule, folds=folds)


def _lesions(patients: pd.DataFrame) -> dict[str, tuple[int, int]]:
    columns = {
        "lesion_sensitivity": ("true_lesions", "detected_lesions"),
        "lesion_precision": ("predicted_lesions", "confirmed_lesions"),
        **{
            name: (f"true_lesions_{volume}", f"detected_lesions_{volume}")
            for name, volume in zip(BY_VOLUME, VOLUMES, strict=True)
        },
    }
    return {name: (int(patients[of].sum()), int(patients[met].sum())) for name, (of, met) in columns.items()}


# --- formats --------------------------------------------------------------------------------------


def to_csv(table: MeasuresTable) -> str:
    """``measures.csv``: one line per (region, measure) in full precision; empty where a number does not exist.

    ``n`` patients of ``patients_with_truth`` have the measure; ``lesions`` and ``lesions_met`` are totals over them.
    """
    lines = [
        {
            "region": region.region,
            "measure": name,
            "unit": UNITS.get(name, "1"),
            **{field: getattr(summary, field) for field in Summary.__dataclass_fields__},
            "patients_with_truth": region.patients,
            "not_defined": region.patients - summary.n,
            "lesions": region.lesions.get(name, (None, None))[0],
            "lesions_met": region.lesions.get(name, (None, None))[1],
            "tolerance_mm": table.tolerance_mm if name == "surface_dice" else None,
            "patients_without_truth": region.without_truth,
            "their_false_positive_lesions": region.false_positive_lesions,
            "their_false_positive_ml": region.false_positive_ml,
            "rule": table.rule,
            "folds": table.folds,
            "empty_masks": EMPTY_MEASURES_RULE,
        }
        for region in table.regions
        for name, summary in region.measures.items()
    ]
    whole = {"lesions": "Int64", "lesions_met": "Int64"}
    return pd.DataFrame(lines).astype(whole).to_csv(index=False, lineterminator="\n")


def to_text(table: MeasuresTable) -> str:
    """Format a row per measure and a column per region, for a terminal."""
    columns = [cells(region) for region in table.regions]
    rows = [("", *(region.region for region in table.regions))]
    for name, title in LINES.items():
        rows.append((title.format(tolerance=f"{table.tolerance_mm:g} mm"), *(column[name] for column in columns)))
    return table_text.text_table(TITLE, rows, (TEXT_NOTE, f"{DEFINITIONS} {POOLING_RULE}", EMPTY_MEASURES_RULE))


def cells(region: RegionMeasures) -> dict[str, str]:
    """The words of each of ``LINES`` for one region.

    A measure is mean and SD, a distance median and range, with its n where fewer than all patients with truth have
    it; a bin of volumes is the number of lesions met, over patients.
    """
    found = {"patients": str(region.patients)}
    for name, summary in region.measures.items():
        fewer = "" if summary.n == region.patients else f" (n = {summary.n})"
        text = mean_sd(summary.mean, summary.sd)
        if name in DISTANCES:
            text = f"{number(summary.median)}, {span(summary.minimum, summary.maximum)}"
        found[name] = f"{text}{fewer}" if summary.n else "n/a"
    for name in BY_VOLUME:
        lesions, met = region.lesions[name]
        found[name] = f"{met} of {lesions}" if lesions else "none"
    others = plural(region.without_truth, "patient")
    false = f"{region.false_positive_lesions}, {region.false_positive_ml:.2f} mL in {others}"
    return {**found, "false_positives": false if region.without_truth else "none without truth"}
