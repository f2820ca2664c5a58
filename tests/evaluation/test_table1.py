"""Table 1 of the paper, from voxel counts per case."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pandas as pd
import pytest

from dvtplan.evaluation.confusion import EMPTY_MASK_RULE
from dvtplan.evaluation.table1 import Table, by_patient, table_1, to_csv, to_latex, to_markdown, to_text


def rows(*counts: tuple[str, str, str, int, int, int]) -> pd.DataFrame:
    """Rows of metrics.csv from (patient, case, region, tp, fp, fn); one voxel is 0.5 mL."""
    table = pd.DataFrame(counts, columns=["patient_id", "case_id", "region", "tp", "fp", "fn"])
    table["truth_ml"] = (table["tp"] + table["fn"]) * 0.5
    table["predicted_ml"] = (table["tp"] + table["fp"]) * 0.5
    table["false_positive_ml"] = table["fp"] * 0.5
    return table


COHORT = rows(
    ("P1", "a", "proximal", 8, 2, 2),  # 16/20 = 0.8
    ("P1", "a", "all", 8, 2, 2),
    ("P2", "b", "proximal", 6, 4, 4),  # 12/20 = 0.6
    ("P2", "b", "all", 6, 4, 4),
    ("P3", "c", "proximal", 0, 3, 0),  # no truth, 1.5 mL false positive
    ("P3", "c", "all", 0, 3, 5),
)


@pytest.fixture
def table() -> Table:
    return table_1(COHORT, subject="unet on DVT", rule="level (at the knee)", folds="folds 0, 2 of 8")


def test_cases_of_a_patient_are_pooled_before_scores() -> None:
    scans = rows(("P1", "a", "all", 9, 0, 1), ("P1", "b", "all", 0, 0, 10), ("P2", "c", "all", 5, 5, 5))
    pooled = by_patient(scans)
    assert pooled["patient_id"].tolist() == ["P1", "P2"]
    assert pooled["dsc"].tolist() == pytest.approx([18 / 29, 10 / 20])  # not the mean of 18/19 and 0
    assert pooled["recall"].tolist() == pytest.approx([9 / 20, 5 / 10])
    assert pooled["truth_ml"].tolist() == [10.0, 5.0]
    assert table_1(scans, subject="", rule="", folds="").regions[0].n == 2


def test_truth_in_one_scan_makes_the_whole_patient_count() -> None:
    pooled = by_patient(rows(("P1", "a", "all", 2, 0, 0), ("P1", "b", "all", 0, 4, 0)))
    assert pooled["counted"].tolist() == [True]
    assert pooled["precision"].tolist() == pytest.approx([2 / 6])


def test_a_patient_without_truth_is_left_out_and_its_volume_reported(table: Table) -> None:
    proximal, whole = table.regions
    assert (proximal.n, proximal.without_truth, proximal.false_positive_ml) == (2, 1, 1.5)
    assert proximal.scores["dsc"].mean == pytest.approx(0.7)
    assert (whole.n, whole.without_truth, whole.false_positive_ml) == (3, 0, 0.0)
    assert whole.scores["dsc"].mean == pytest.approx(1.4 / 3)


def test_a_region_without_any_truth_has_no_numbers() -> None:
    table = table_1(rows(("P1", "a", "distal", 0, 1, 0)), subject="", rule="", folds="")
    assert table.regions[0].n == 0
    assert math.isnan(table.regions[0].scores["dsc"].mean)
    assert "distal (n = 0)" in to_text(table)
    assert "nan" not in to_text(table)


def test_regions_have_the_order_of_the_rows(table: Table) -> None:
    assert [region.region for region in table.regions] == ["proximal", "all"]


def test_text_has_the_layout_of_the_paper(table: Table) -> None:
    lines = to_text(table).splitlines()
    assert lines[0] == "Table 1. Segmentation performance by region: unet on DVT."
    assert lines[2].split() == ["DSC", "Precision", "Recall"]
    # DSC 0.8 and 0.6: mean 0.7, SD 0.1414
    assert lines[3].split("  ")[0] == "proximal (n = 2)"
    assert lines[3].split()[7:10] == ["0.70", "±", "0.14"]
    assert lines[4].split()[:2] == ["Median", "0.70"]
    assert lines[5].split()[:4] == ["Range", "0.60", "to", "0.80"]
    assert lines[6].split()[-4:] == ["mean", "-", "-", "-"]
    assert lines[7].startswith("all (n = 3)")


HIGH = rows(*((f"P{i}", f"c{i}", "all", tp, 0, 40 - tp) for i, tp in enumerate((40, 40, 39, 40, 12, 38, 40))))
"""Seven patients, whose t-interval of the mean DSC would be 0.74 to 1.08."""


@pytest.mark.parametrize("write", [to_text, to_markdown, to_latex])
def test_every_format_has_an_interval_between_0_and_1_and_its_method(write: Callable[[Table], str]) -> None:
    table = table_1(HIGH, subject="", rule="", folds="")
    dsc = table.regions[0].scores["dsc"]
    assert 0.46 <= dsc.ci_low < dsc.mean < dsc.ci_high <= 1
    text = " ".join(write(table).split())
    assert f"{dsc.ci_low:.2f} to {dsc.ci_high:.2f}" in text
    assert "1.00 to 1.00" in text  # of precision, which is 1 for all
    assert "BCa bootstrap interval over patients (9,999 resamples, seed 0)" in text
    back = pd.read_csv(io.StringIO(to_csv(table))).set_index("score")
    assert (back.loc["dsc", "ci_low"], back.loc["dsc", "ci_high"]) == pytest.approx((dsc.ci_low, dsc.ci_high))
    assert back["interval"].str.contains("BCa").all()


def test_the_csv_has_no_interval_of_few_patients(table: Table) -> None:
    back = pd.read_csv(io.StringIO(to_csv(table)))
    assert back[["ci_low", "ci_high"]].isna().all(axis=None)


@pytest.mark.parametrize("write", [to_text, to_markdown, to_latex])
def test_every_format_says_which_numbers_these_are(write: Callable[[Table], str], table: Table) -> None:
    text = " ".join(write(table).split())
    for fact in (
        "level (at the knee)",
        "folds 0, 2 of 8",
        "of 3 patients with 3 cases",
        "pooled before scoring",
        EMPTY_MASK_RULE,
        "proximal 1, 1.50 mL",
        "all 0, 0.00 mL",
        "proximal (n = 2)",
        "all (n = 3)",
    ):
        assert fact in text


def test_further_notes_are_kept() -> None:
    table = table_1(COHORT, subject="", rule="", folds="", notes=("No distal: no level.",))
    assert "No distal: no level." in to_markdown(table)


def test_csv_reads_back_in_full_precision_with_its_rule_and_folds(table: Table) -> None:
    back = pd.read_csv(io.StringIO(to_csv(table))).set_index(["region", "score"])
    assert len(back) == 6
    proximal = back.loc[("proximal", "dsc")]
    assert (proximal["n"], proximal["patients"], proximal["patients_without_truth"]) == (2, 3, 1)
    assert proximal["mean"] == pytest.approx(0.7, abs=1e-12)
    assert proximal["sd"] == pytest.approx(math.sqrt(0.02), abs=1e-12)
    assert proximal["false_positive_ml_without_truth"] == 1.5
    assert set(back["rule"]) == {"level (at the knee)"}
    assert set(back["folds"]) == {"folds 0, 2 of 8"}
    assert set(back["empty_masks"]) == {EMPTY_MASK_RULE}


def test_latex_and_markdown_escape_names() -> None:
    odd = rows(("P1", "a", "left_leg|50%", 1, 0, 0))
    table = table_1(odd, subject="net_a & b", rule="", folds="")
    latex = to_latex(table)
    assert r"left\_leg|50\% (n = 1)" in latex
    assert r"net\_a \& b" in latex
    assert r"1.00 $\pm$ n/a" in latex
    assert r"left_leg\|50% (n = 1)" in to_markdown(table)


def test_latex_rows_all_have_five_columns(table: Table) -> None:
    body = [line for line in to_latex(table).splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + 2 * 4
    assert all(line.count("&") == 4 for line in body)


def test_markdown_rows_all_have_five_columns(table: Table) -> None:
    body = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    assert len(body) == 2 + 2 * 4
    assert all(line.count("|") == 6 for line in body)
