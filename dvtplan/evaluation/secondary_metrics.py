"""Measures in addition to the paper's three: their names, and their summary over patients.

The table gives each measure on empty masks, for one region of a case or of all cases of a patient. A dash is NaN: it is
empty in CSV files and is not in any mean.

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
| predicted_, true_positive_, false_positive_lesions | 0, 0, 0              | counted, 0, counted      | 0, 0, 0 |

As in Table 1, a summary is over the patients with truth in the region. If a measure is undefined for some of them, its
n is smaller, and both numbers are reported. What was predicted for the other patients is reported separately.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvtplan.core.text import plural
from dvtplan.evaluation import table_text
from dvtplan.evaluation.confusion import Confusion
from dvtplan.evaluation.lesion_detection import OVERLAP, VOLUMES, Lesions
from dvtplan.evaluation.summary_statistics import INTERVAL_RULE, Summary, summarize
from dvtplan.evaluation.surface_distance import PERCENTILE, SurfaceScores
from dvtplan.evaluation.table_text import mean_sd, number, span

if TYPE_CHECKING:
    import pandas as pd

VOXELS = ("iou", "volume_difference_ml", "volume_difference_percent")
"""Columns that follow from voxel counts and volumes."""

SURFACES = SurfaceScores._fields
"""Columns of surface distances; they do not follow from counts."""

LESIONS = ("lesion_sensitivity", "lesion_precision", "lesion_f1")
"""Columns of scores that follow from lesion counts."""

COUNTS = (
    "true_lesions",
    "detected_lesions",
    "predicted_lesions",
    "true_positive_lesions",
    "false_positive_lesions",
    *(f"{which}_lesions_{volume}" for volume in VOLUMES for which in ("true", "detected")),
)
"""Columns that add up over the cases of a patient, in addition to those of Table 1."""

COLUMNS = (*VOXELS, *SURFACES, "tolerance_mm", *LESIONS, *COUNTS)
"""Columns of ``metrics.csv`` after the counts and scores of Table 1, in this order."""

BY_VOLUME = {f"lesion_sensitivity_{name}": f"Lesions detected, {words}" for name, words in VOLUMES.items()}
"""Measures of the summary only, because a case seldom has enough lesions in a bin."""

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
"""Measure -> its title in tables."""

DISTANCES = ("assd_mm", "hd95_mm")
"""Measures without an upper bound. A single distant voxel could dominate a mean, so median and range are printed."""

LINES = {"patients": "Patients with truth", **MEASURES, "false_positives": "False positive lesions"}
"""Rows of the printed table: n, the measures, and the total prediction for patients without truth."""

UNITS = {"volume_difference_ml": "mL", "volume_difference_percent": "%", "assd_mm": "mm", "hd95_mm": "mm"}
"""Measure -> unit; the others are shares from 0 to 1."""

EMPTY_MEASURES_RULE = (
    "If a patient has truth in a region and nothing was predicted there, IoU, surface Dice and the lesion scores are "
    "0, the volume difference is minus the true volume, and ASSD and HD95 are undefined. A patient without truth in a "
    "region is not in that region's statistics; what was predicted there is reported as lesions and volume."
)
"""The table above in words, for footnotes."""

POOLING_RULE = (
    "Voxels, volumes and lesions of a patient's cases are added before scoring. A surface measure is the mean over the "
    "patient's cases in which it is defined."
)
"""Distances cannot be added; two scans of one patient have equal weight."""

DEFINITIONS = (
    "Distances are those of boundary voxels. HD95 is the larger of the two one-way "
    f"{PERCENTILE:g}th percentiles. A lesion is a 26-connected component. A true lesion counts as detected, and a "
    f"predicted one as a true positive, if at least {100 * OVERLAP:g} % of its voxels overlap the other mask. A "
    "thrombus in two regions is a lesion of each, and a single lesion of all."
)
"""What a reader must know to read the numbers; ``surface_distance`` and ``lesion_detection`` give all details."""

TITLE = "Further measures, as mean ± SD over patients unless stated otherwise."
TEXT_NOTE = (
    "n is given where a measure is undefined for some patients. Lesions by volume are totals over patients. False "
    "positive: total prediction for patients without truth. -: there are no such lesions or patients. measures.csv has "
    "median, range and interval of each measure."
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
    """Total number of lesions predicted in the region for the patients without truth."""
    false_positive_ml: float
    """Total volume, likewise."""
    measures: dict[str, Summary]
    """A summary per key of ``MEASURES``, over the patients with truth for whom it is defined."""
    lesions: dict[str, tuple[int, int]]
    """Measure that is a share of lesions -> their total number over these patients, and the number that overlaps.
    Lesions of one patient are not independent, so there is no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuresTable:
    """The further measures, with the notes that define them."""

    regions: tuple[RegionMeasures, ...]
    tolerance_mm: float
    """Of surface Dice."""
    rule: str
    """Name and meaning of the region rule."""
    folds: str
    """Which folds were scored, as in 'folds 0, 2 of 8'."""


def lesion_counts(lesions: Lesions) -> dict[str, int]:
    """Return the columns ``COUNTS`` of one region."""
    by_volume = zip(VOLUMES, lesions.true_by_volume, lesions.detected_by_volume, strict=True)
    return {
        "true_lesions": lesions.true,
        "detected_lesions": lesions.detected,
        "predicted_lesions": lesions.predicted,
        "true_positive_lesions": lesions.true_positives,
        "false_positive_lesions": lesions.false_positives,
        **{
            f"{which}_lesions_{volume}": value
            for volume, true, detected in by_volume
            for which, value in (("true", true), ("detected", detected))
        },
    }


def scores(counts: Mapping[str, float]) -> dict[str, float]:
    """Compute the measures that follow from voxels, volumes and lesions, of a case or of all cases of a patient.

    Args:
        counts: tp, fp, fn, truth_ml, predicted_ml, and ``COUNTS``.

    Returns:
        ``VOXELS``, ``LESIONS`` and ``BY_VOLUME``; NaN as in the table above.
    """
    voxels = Confusion(int(counts["tp"]), int(counts["fp"]), int(counts["fn"]))
    difference_ml = counts["predicted_ml"] - counts["truth_ml"]
    lesions = Lesions(
        true_by_volume=tuple(int(counts[f"true_lesions_{volume}"]) for volume in VOLUMES),
        detected_by_volume=tuple(int(counts[f"detected_lesions_{volume}"]) for volume in VOLUMES),
        predicted=int(counts["predicted_lesions"]),
        true_positives=int(counts["true_positive_lesions"]),
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
    """Pool the cases of each patient by ``POOLING_RULE``, then score.

    Args:
        rows: ``metrics.csv``, one per (case, region).

    Returns:
        One row per (region, patient) in order of appearance: the added counts, ``MEASURES``, and ``counted``.
    """
    keys = ["region", "patient_id"]
    patients = rows.groupby(keys, sort=False)
    added = patients[["tp", "fp", "fn", "truth_ml", "predicted_ml", "false_positive_ml", *COUNTS]].sum()
    pooled = added.join([patients[list(SURFACES)].mean(), patients["counted"].any()])
    import pandas as pd

    scored = pd.DataFrame([scores(dict(counts)) for _, counts in added.iterrows()], index=pooled.index)
    return pooled.join(scored).reset_index()


def summarize_measures(rows: pd.DataFrame, *, rule: str, folds: str) -> MeasuresTable:
    """Summarize every measure per region over patients.

    Args:
        rows: ``metrics.csv``; regions keep their order of appearance.
        rule: name and meaning of the region rule.
        folds: which folds were scored, as in 'folds 0, 2 of 8'.
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
        "lesion_precision": ("predicted_lesions", "true_positive_lesions"),
        **{
            name: (f"true_lesions_{volume}", f"detected_lesions_{volume}")
            for name, volume in zip(BY_VOLUME, VOLUMES, strict=True)
        },
    }
    return {
        name: (int(patients[total].sum()), int(patients[overlapping].sum()))
        for name, (total, overlapping) in columns.items()
    }


# --- formats --------------------------------------------------------------------------------------


def to_csv(table: MeasuresTable) -> str:
    """Format ``measures.csv``: one line per (region, measure) in full precision; undefined numbers are empty.

    ``n`` of the ``patients_with_truth`` have the measure; ``lesions`` and ``lesions_overlapping`` are totals over them.
    """
    lines = [
        {
            "region": region.region,
            "measure": name,
            "unit": UNITS.get(name, "1"),
            **{field: getattr(summary, field) for field in Summary.__dataclass_fields__},
            "patients_with_truth": region.patients,
            "undefined": region.patients - summary.n,
            "lesions": region.lesions.get(name, (None, None))[0],
            "lesions_overlapping": region.lesions.get(name, (None, None))[1],
            "tolerance_mm": table.tolerance_mm if name == "surface_dice" else None,
            "patients_without_truth": region.without_truth,
            "false_positive_lesions_without_truth": region.false_positive_lesions,
            "false_positive_ml_without_truth": region.false_positive_ml,
            "rule": table.rule,
            "folds": table.folds,
            "empty_masks": EMPTY_MEASURES_RULE,
            "interval": INTERVAL_RULE,
        }
        for region in table.regions
        for name, summary in region.measures.items()
    ]
    whole = {"lesions": "Int64", "lesions_overlapping": "Int64"}
    import pandas as pd

    return pd.DataFrame(lines).astype(whole).to_csv(index=False, lineterminator="\n")


def to_text(table: MeasuresTable) -> str:
    """Format a row per measure and a column per region, for a terminal."""
    columns = [cells(region) for region in table.regions]
    rows = [("", *(region.region for region in table.regions))]
    for name, title in LINES.items():
        rows.append((title.format(tolerance=f"{table.tolerance_mm:g} mm"), *(column[name] for column in columns)))
    return table_text.text_table(TITLE, rows, (TEXT_NOTE, f"{DEFINITIONS} {POOLING_RULE}", EMPTY_MEASURES_RULE))


def cells(region: RegionMeasures) -> dict[str, str]:
    """Format each of ``LINES`` for one region.

    A measure is given as mean and SD, a distance as median and range, with n if some patients with truth lack it. A
    volume bin is the number of detected lesions, over patients. '-' means that there are no such lesions or patients.
    """
    found = {"patients": str(region.patients)}
    for name, summary in region.measures.items():
        fewer = "" if summary.n == region.patients else f" (n = {summary.n})"
        text = mean_sd(summary.mean, summary.sd)
        if name in DISTANCES:
            text = f"{number(summary.median)}, {span(summary.minimum, summary.maximum)}"
        found[name] = f"{text}{fewer}" if summary.n else "n/a"
    for name in BY_VOLUME:
        lesions, detected = region.lesions[name]
        found[name] = f"{detected} of {lesions}" if lesions else "-"
    others = plural(region.without_truth, "patient")
    false = f"{region.false_positive_lesions}, {region.false_positive_ml:.2f} mL in {others}"
    return {**found, "false_positives": false if region.without_truth else "-"}
