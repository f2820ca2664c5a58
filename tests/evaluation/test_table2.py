"""Table 2: several networks on the same patients."""

from __future__ import annotations

import io
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dvtplan.core.errors import DvtError
from dvtplan.evaluation.table2 import Comparison, table_2, to_csv, to_latex, to_markdown, to_text


def metrics(*tps: int, fold: tuple[int, ...] = (0, 0, 0, 1, 1, 1), region: str = "all") -> pd.DataFrame:
    """Rows of metrics.csv: patients P0, P1, ... with ten voxels of truth, ``tp`` of them predicted and no others.

    DSC is then 2 tp / (tp + 10): 10 gives 1, 6 gives .75, 0 gives 0.
    """
    table = pd.DataFrame({"tp": tps})
    table["fn"], table["fp"] = 10 - table["tp"], 0
    table["case_id"] = [f"c{i}" for i in range(len(tps))]
    table["patient_id"] = [f"P{i}" for i in range(len(tps))]
    table["fold"] = fold[: len(tps)]
    table["region"] = region
    table["truth_ml"], table["predicted_ml"], table["false_positive_ml"] = 10.0, table["tp"] * 1.0, 0.0
    table["rule"] = "level"
    return table


def compared(**rows: pd.DataFrame) -> Comparison:
    return table_2(rows, subject="DVT", rule="level (at the knee)", folds="folds 0, 1 of 2")


@pytest.fixture
def table() -> Comparison:
    """The reference is better in all six patients by different amounts; the third network never differs."""
    best = metrics(10, 9, 8, 7, 6, 10)
    return compared(gn_unet=best, unet=metrics(9, 7, 5, 3, 1, 2), copy=best)


def test_the_reference_has_no_p_and_the_others_have_theirs(table: Comparison) -> None:
    scores = {name: entries["dsc"] for name, entries in table.entries["all"].items()}
    assert scores["gn_unet"].difference is None
    assert scores["gn_unet"].summary.maximum == 1.0
    worse = scores["unet"].difference
    assert worse is not None
    assert worse.p == pytest.approx(2 / 64)  # all six signs the same
    assert worse.estimate > 0  # reference less network
    # One of two networks has a p-value: Holm multiplies it by one.
    assert scores["unet"].p_holm == pytest.approx(2 / 64)
    same = scores["copy"].difference
    assert same is not None and same.zeros == 6 and math.isnan(same.p)


def test_recall_is_compared_too(table: Comparison) -> None:
    recall = table.entries["all"]["unet"]["recall"].summary
    assert recall.mean == pytest.approx((9 + 7 + 5 + 3 + 1 + 2) / 60)


def test_p_is_exact_in_tables_of_small_lesions() -> None:
    """Whole multiples of 1 / lcm have no rounding, so scipy on them gives the p that the counts define."""
    rng = np.random.default_rng(0)
    naive = 0
    for _ in range(12):
        truth = rng.integers(1, 7, 30)
        first, second = (small_lesions(truth, rng) for _ in range(2))
        difference = compared(a=first, b=second).entries["all"]["b"]["dsc"].difference
        assert difference is not None
        scores = [
            [Fraction(2 * int(r.tp), int(2 * r.tp + r.fp + r.fn)) for r in t.itertuples()] for t in (first, second)
        ]
        common = math.lcm(*(score.denominator for score in (*scores[0], *scores[1])))
        whole = np.array([int((a - b) * common) for a, b in zip(*scores, strict=True)])
        assert abs(whole).max() < 2**53
        kept = whole[whole != 0]
        method = "exact" if len(np.unique(abs(kept))) == len(kept) else "approx"
        expected = stats.wilcoxon(kept, correction=False, method=method).pvalue
        assert difference.p == pytest.approx(expected, abs=1e-12)
        assert difference.zeros == 30 - len(kept)
        rounded = np.array(scores[0], float) - np.array(scores[1], float)
        naive += len(np.unique(abs(rounded))) != len(np.unique(abs(whole)))
    assert naive > 6  # rounded differences would have had other ties in most of these tables


def small_lesions(truth: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of metrics.csv of patients with a few voxels of truth, some of them found, some false positive ones."""
    table = metrics(*rng.integers(0, truth + 1).tolist(), fold=(0,) * len(truth))
    table["fn"], table["fp"] = truth - table["tp"], rng.integers(0, 4, len(truth))
    return table


def test_zero_differences_are_named(table: Comparison) -> None:
    text = " ".join(to_text(table).split())
    assert "all DSC copy 6" in text
    # Precision is 1 for all networks and patients.
    assert "all Precision unet 6" in text


def test_a_row_per_network_fold_and_region(table: Comparison) -> None:
    rows = table.by_fold.set_index(["network", "fold"])
    assert len(rows) == 6
    assert rows.loc[("unet", 1), "n"] == 3
    assert rows.loc[("unet", 1), "recall"] == pytest.approx((3 + 1 + 2) / 30)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (metrics(9, 7, 5, 3, 1), r"not scored on the same cases and regions: c5"),
        (
            metrics(9, 7, 5, 3, 1, 2, region="distal"),
            r"scored in all, unet in distal\. Score both with",
        ),
        (metrics(9, 7, 5, 3, 1, 2).assign(rule="by-label"), r"different rule for c0"),
        (metrics(9, 7, 5, 3, 1, 2, fold=(0, 0, 1, 0, 1, 1)), r"different fold for c2, c3"),
        (metrics(9, 7, 5, 3, 1, 2).assign(patient_id="P"), r"different patient for c0"),
        (metrics(9, 7, 5, 3, 1, 2).assign(fn=0), r"different truth of c0"),
    ],
)
def test_what_is_not_paired_is_refused(other: pd.DataFrame, message: str) -> None:
    with pytest.raises(DvtError, match=message):
        compared(gn_unet=metrics(10, 9, 8, 7, 6, 10), unet=other)


def test_the_order_of_rows_does_not_matter() -> None:
    best, other = metrics(10, 9, 8, 7, 6, 10), metrics(9, 7, 5, 3, 1, 2)
    straight, turned = compared(a=best, b=other), compared(a=best, b=other.iloc[::-1])
    assert straight.entries["all"]["b"]["dsc"].difference == turned.entries["all"]["b"]["dsc"].difference


def test_one_network_is_no_comparison() -> None:
    with pytest.raises(DvtError, match="Name two or more"):
        compared(gn_unet=metrics(10))


def test_patients_without_truth_in_a_region_are_left_out_of_both() -> None:
    best = metrics(10, 9, 8, 7, 6, 10)
    best.loc[0, ["tp", "fn"]] = 0
    other = metrics(0, 8, 7, 6, 5, 4)
    other.loc[0, ["fn", "fp"]] = (0, 5)
    entry = compared(gn_unet=best, unet=other).entries["all"]["unet"]["dsc"]
    assert entry.difference is not None
    assert entry.summary.n == entry.difference.n == 5


def test_csv_reads_back_in_full_precision(table: Comparison) -> None:
    back = pd.read_csv(io.StringIO(to_csv(table))).set_index(["network", "score"])
    assert len(back) == 9
    assert back.loc[("unet", "dsc"), "p"] == pytest.approx(2 / 64, abs=1e-12)
    assert math.isnan(back.loc[("gn_unet", "dsc"), "p"])
    assert set(back["reference"]) == {"gn_unet"}


def test_intervals_stay_within_what_scores_and_differences_can_be() -> None:
    better, worse = metrics(10, 10, 10, 10, 9, 10, fold=(0,) * 6), metrics(0, 0, 1, 0, 10, 0, fold=(0,) * 6)
    back = pd.read_csv(io.StringIO(to_csv(compared(a=better, b=worse)))).set_index(["network", "score"])
    for line in (back.loc[("a", "recall")], back.loc[("b", "recall")]):
        assert 0 <= line["ci_low"] <= line["mean"] <= line["ci_high"] <= 1
        assert "BCa" in line["interval"]
    assert -1 <= back.loc[("b", "recall"), "difference_ci_low"] < back.loc[("b", "recall"), "difference_ci_high"] == 1


@pytest.mark.parametrize("write", [to_text, to_markdown, to_latex])
def test_every_format_holds_the_numbers_and_says_how_they_were_got(table: Comparison, write: object) -> None:
    text = " ".join(write(table).split())  # type: ignore[operator]
    for part in (
        "Comparison of networks",
        "unet",
        "0.031",
        "Wilcoxon",
        "Holm",
        "Hodges-Lehmann",
        "the unit is the patient",
    ):
        assert part in text


def test_a_p_value_near_one_does_not_look_like_zero() -> None:
    near = compared(gn_unet=metrics(5, 6, 7, 8, 9, 4), unet=metrics(6, 5, 8, 7, 8, 5))
    p = near.entries["all"]["unet"]["dsc"].difference
    assert p is not None and p.p > 0.5 and f"{p.p:.3f}" in to_text(near)
