"""The measures in addition to the paper's three: pooling, summary, empty masks, formats."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest

from dvtplan.evaluation.lesion_detection import Lesions
from dvtplan.evaluation.secondary_metrics import (
    COLUMNS,
    COUNTS,
    EMPTY_MEASURES_RULE,
    MEASURES,
    POOLING_RULE,
    UNITS,
    MeasuresTable,
    by_patient,
    lesion_counts,
    scores,
    summarize_measures,
    to_csv,
    to_text,
)

NAN = math.nan
NO_LESIONS = (0, 0, 0, 0)


def case(
    patient: str,
    case_id: str,
    region: str,
    voxels: tuple[int, int, int],
    lesions: tuple[tuple[int, ...], tuple[int, ...], int, int] = (NO_LESIONS, NO_LESIONS, 0, 0),
    apart: tuple[float, float, float] = (NAN, NAN, NAN),
) -> dict[str, object]:
    """A row of metrics.csv from tp, fp, fn; lesions by volume, detected, predicted, true_positives; surface scores.

    A voxel is 0.5 mL.
    """
    tp, fp, fn = voxels
    true, detected, predicted, true_positives = lesions
    counted = Lesions(
        true_by_volume=true, detected_by_volume=detected, predicted=predicted, true_positives=true_positives
    )
    counts = {
        **{"tp": tp, "fp": fp, "fn": fn, "truth_ml": (tp + fn) * 0.5, "predicted_ml": (tp + fp) * 0.5},
        **lesion_counts(counted),
    }
    return {
        **{"patient_id": patient, "case_id": case_id, "region": region, "false_positive_ml": fp * 0.5},
        **counts,
        **scores(counts),
        **dict(zip(("assd_mm", "hd95_mm", "surface_dice"), apart, strict=True)),
        "tolerance_mm": 2.0,
    }


def frame(*rows: dict[str, object]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    table["counted"] = table.groupby(["region", "patient_id"])["truth_ml"].transform("sum") > 0
    return table


# Patient P1 has two scans, in the second of which nothing was predicted; P2 one; P3 has no thrombus.
COHORT = frame(
    case("P1", "a", "all", (8, 2, 2), ((2, 0, 0, 1), (1, 0, 0, 1), 3, 2), (1.0, 6.0, 0.8)),
    case("P1", "b", "all", (0, 0, 10), ((0, 0, 0, 1), NO_LESIONS, 0, 0), (NAN, NAN, 0.0)),
    case("P2", "c", "all", (6, 4, 4), ((0, 0, 0, 1), (0, 0, 0, 1), 1, 1), (3.0, 12.0, 0.5)),
    case("P3", "d", "all", (0, 3, 0), (NO_LESIONS, NO_LESIONS, 2, 0)),
)
MISSED = frame(
    case("P1", "a", "distal", (4, 0, 0), ((1, 0, 0, 0), (1, 0, 0, 0), 1, 1), (0.0, 0.0, 1.0)),
    case("P2", "b", "distal", (0, 0, 4), ((2, 0, 0, 0), NO_LESIONS, 0, 0), (NAN, NAN, 0.0)),
)


@pytest.fixture
def table() -> MeasuresTable:
    return summarize_measures(COHORT, rule="level (at the knee)", folds="folds 0, 2 of 8")


# --- one case -------------------------------------------------------------------------------------


def test_scores_follow_from_counts() -> None:
    row = case("P", "a", "all", (6, 3, 2), ((1, 0, 1, 0), (0, 0, 1, 0), 3, 1))
    assert row["iou"] == pytest.approx(6 / 11)
    assert row["volume_difference_ml"] == pytest.approx(4.5 - 4.0)
    assert row["volume_difference_percent"] == pytest.approx(12.5)
    assert (row["lesion_sensitivity"], row["lesion_precision"]) == pytest.approx((1 / 2, 1 / 3))
    assert row["lesion_f1"] == pytest.approx(2 * (1 / 6) / (5 / 6))
    assert row["lesion_sensitivity_under_0.1_ml"] == 0
    assert row["lesion_sensitivity_from_0.5_ml"] == 1
    assert row["false_positive_lesions"] == 2


@pytest.mark.parametrize(
    ("voxels", "lesions", "iou", "difference", "percent", "lesion"),
    [
        ((0, 0, 4), ((1, 0, 0, 0), NO_LESIONS, 0, 0), 0.0, -2.0, -100.0, 0.0),
        ((0, 3, 0), (NO_LESIONS, NO_LESIONS, 1, 0), NAN, 1.5, NAN, NAN),
        ((0, 0, 0), (NO_LESIONS, NO_LESIONS, 0, 0), NAN, 0.0, NAN, NAN),
    ],
    ids=["missed", "false positive", "neither"],
)
def test_every_row_of_the_empty_mask_table(
    voxels: tuple[int, int, int],
    lesions: tuple[tuple[int, ...], tuple[int, ...], int, int],
    iou: float,
    difference: float,
    percent: float,
    lesion: float,
) -> None:
    row = case("P", "a", "all", voxels, lesions)
    found = [row["iou"], row["volume_difference_ml"], row["volume_difference_percent"]]
    assert found == pytest.approx([iou, difference, percent], nan_ok=True)
    found = [row["lesion_sensitivity"], row["lesion_precision"], row["lesion_f1"]]
    assert found == pytest.approx([lesion] * 3, nan_ok=True)
    assert row["lesion_sensitivity_under_0.1_ml"] == pytest.approx(lesion, nan_ok=True)
    assert row["lesion_sensitivity_from_2_ml"] == pytest.approx(NAN, nan_ok=True)


def test_every_column_is_made() -> None:
    assert set(COLUMNS) <= set(COHORT.columns)
    assert set(COUNTS) < set(COLUMNS)
    assert set(UNITS) < set(MEASURES)


# --- patients -------------------------------------------------------------------------------------


def test_counts_of_a_patients_cases_are_added_and_surfaces_averaged() -> None:
    pooled = by_patient(COHORT).set_index("patient_id")
    assert pooled.index.tolist() == ["P1", "P2", "P3"]
    first = pooled.loc["P1"]
    assert first["iou"] == pytest.approx(8 / 22)
    assert first["volume_difference_ml"] == pytest.approx(5.0 - 10.0)
    assert first["volume_difference_percent"] == pytest.approx(-50)
    assert first["lesion_sensitivity"] == pytest.approx(2 / 4)
    assert first["lesion_precision"] == pytest.approx(2 / 3)
    assert first["lesion_sensitivity_from_2_ml"] == pytest.approx(1 / 2)
    assert (first["assd_mm"], first["hd95_mm"]) == (1.0, 6.0)  # of the scan that has them
    assert first["surface_dice"] == pytest.approx((0.8 + 0.0) / 2)
    assert pooled["counted"].tolist() == [True, True, False]


def test_a_summary_is_over_patients_with_truth(table: MeasuresTable) -> None:
    (whole,) = table.regions
    assert (whole.patients, whole.without_truth) == (2, 1)
    assert whole.measures["iou"].mean == pytest.approx((8 / 22 + 6 / 14) / 2)
    assert whole.measures["assd_mm"].median == pytest.approx(2.0)
    assert whole.measures["hd95_mm"].minimum == 6.0
    assert {summary.n for name, summary in whole.measures.items() if name in COLUMNS} == {2}


def test_the_prediction_for_patients_without_truth_is_reported_separately(table: MeasuresTable) -> None:
    (whole,) = table.regions
    assert (whole.false_positive_lesions, whole.false_positive_ml) == (2, 1.5)


def test_lesions_are_counted_over_patients(table: MeasuresTable) -> None:
    (whole,) = table.regions
    assert whole.lesions["lesion_sensitivity"] == (5, 3)
    assert whole.lesions["lesion_precision"] == (4, 3)  # P3's two are no part of it
    assert whole.lesions["lesion_sensitivity_under_0.1_ml"] == (2, 1)
    assert whole.lesions["lesion_sensitivity_from_2_ml"] == (3, 2)
    small = whole.measures["lesion_sensitivity_under_0.1_ml"]
    assert (small.n, small.mean) == (1, 0.5)  # only P1 has such lesions


def test_a_measure_that_a_patient_lacks_is_in_no_mean_and_its_n_says_so() -> None:
    table = summarize_measures(MISSED, rule="", folds="")
    (distal,) = table.regions
    assert distal.patients == 2
    assert (distal.measures["assd_mm"].n, distal.measures["assd_mm"].mean) == (1, 0.0)
    assert (distal.measures["surface_dice"].n, distal.measures["surface_dice"].mean) == (2, 0.5)
    text = to_text(table)
    assert "0.00, 0.00 to 0.00 (n = 1)" in text
    back = pd.read_csv(io.StringIO(to_csv(table))).set_index("measure")
    assert (back.loc["hd95_mm", "n"], back.loc["hd95_mm", "patients_with_truth"]) == (1, 2)
    assert (back.loc["hd95_mm", "undefined"], back.loc["iou", "undefined"]) == (1, 0)


def test_a_region_without_any_truth_has_no_numbers() -> None:
    rows = frame(case("P1", "a", "distal", (0, 1, 0), (NO_LESIONS, NO_LESIONS, 1, 0)))
    table = summarize_measures(rows, rule="", folds="")
    assert {summary.n for summary in table.regions[0].measures.values()} == {0}
    assert to_text(table).splitlines()[3].split() == ["Patients", "with", "truth", "0"]
    assert "nan" not in to_text(table)


# --- formats --------------------------------------------------------------------------------------


def test_text_has_a_line_per_measure_and_says_its_rules(table: MeasuresTable) -> None:
    lines = to_text(table).splitlines()
    assert lines[0] == "Further measures, as mean ± SD over patients unless stated otherwise."
    assert lines[2].split() == ["all"]
    assert lines[3].split() == ["Patients", "with", "truth", "2"]
    # IoU 0.364 and 0.429: mean 0.396, SD 0.0459.
    assert lines[4].split() == ["IoU", "0.40", "±", "0.05"]
    assert "Surface Dice at 2 mm" in lines[9]
    detected = next(line for line in lines if line.startswith("Lesions detected, 2 mL and more"))
    assert detected.endswith("2 of 3")
    assert next(line for line in lines if line.startswith("Lesions detected, 0.5 to 2 mL")).endswith("  -")
    assert next(line for line in lines if line.startswith("False positive lesions")).endswith("2, 1.50 mL in 1 patient")
    text = " ".join(to_text(table).split())
    for fact in (EMPTY_MEASURES_RULE, POOLING_RULE, "at least 10 % of its voxels"):
        assert fact in text
    assert max(map(len, lines)) <= 100


def test_csv_reads_back_in_full_precision_with_its_rule_and_folds(table: MeasuresTable) -> None:
    back = pd.read_csv(io.StringIO(to_csv(table))).set_index(["region", "measure"])
    assert back.index.get_level_values("measure").tolist() == list(MEASURES)
    iou = back.loc[("all", "iou")]
    assert iou["mean"] == pytest.approx((8 / 22 + 6 / 14) / 2, abs=1e-12)
    assert iou["sd"] == pytest.approx((6 / 14 - 8 / 22) / np.sqrt(2), abs=1e-12)
    assert (iou["minimum"], iou["maximum"]) == pytest.approx((8 / 22, 6 / 14))
    assert back["unit"].to_dict()[("all", "hd95_mm")] == "mm"
    assert back.loc[("all", "lesion_sensitivity"), ["lesions", "lesions_overlapping"]].tolist() == [5, 3]
    assert back.loc[("all", "surface_dice"), "tolerance_mm"] == 2
    assert set(back["patients_without_truth"]) == {1}
    assert set(back["false_positive_lesions_without_truth"]) == {2}
    assert set(back["false_positive_ml_without_truth"]) == {1.5}
    assert set(back["rule"]) == {"level (at the knee)"}
    assert set(back["folds"]) == {"folds 0, 2 of 8"}
    assert set(back["empty_masks"]) == {EMPTY_MEASURES_RULE}
