"""Table 1 per group of patients: numbers, tests, forms, files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from helpers.films import score, unwrapped

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.data.patient_groups import NO_GROUP, PatientGroups
from dvtplan.evaluation import table1_by_group
from dvtplan.evaluation.evaluate import compare_networks, evaluate_folders
from dvtplan.evaluation.options import EvaluationOptions
from dvtplan.evaluation.paired_tests import holm
from dvtplan.evaluation.table1_by_group import GroupTable, summarize_groups

NAMES = ["table1_by_group.csv", "table1_by_group.md", "table1_by_group.tex"]


def rows(groups: dict[str, list[tuple[int, int]]]) -> tuple[pd.DataFrame, PatientGroups]:
    """Patients of some groups, by true positives in two regions; 10 voxels of truth, 0 where tp is negative."""
    lines, group_of = [], {}
    for group, patients in groups.items():
        for k, scores in enumerate(patients):
            patient = f"{group}{k}"
            group_of[patient] = group
            for region, tp in zip(("proximal", "all"), scores, strict=True):
                count = {"tp": max(tp, 0), "fp": 2, "fn": 10 - tp if tp >= 0 else 0}
                volumes = {"truth_ml": 1.0, "predicted_ml": 1.0, "false_positive_ml": 0.5}
                lines.append({"case_id": patient, "patient_id": patient, "region": region, **count, **volumes})
    return pd.DataFrame(lines), PatientGroups(column="centre", group_of=group_of)


def summarized(groups: dict[str, list[tuple[int, int]]]) -> GroupTable:
    frame, found = rows(groups)
    return summarize_groups(frame, found, subject="net on DVT", rule="level", folds="all 2 folds")


TWO = summarized({"B": [(9, 1), (8, 2), (7, 3)], "A": [(1, 9), (2, 1), (3, 6), (-1, 5)], NO_GROUP: [(5, 5)]})


def test_groups_are_summarized_in_their_order_over_patients_with_truth() -> None:
    proximal, whole = TWO.regions
    assert list(proximal.groups) == ["A", "B", NO_GROUP]
    assert [scores.n for scores in proximal.groups.values()] == [3, 3, 1]
    assert (proximal.groups["A"].without_truth, proximal.groups["A"].false_positive_ml) == (1, 0.5)
    assert proximal.groups["B"].scores["recall"].mean == pytest.approx(0.8)
    assert whole.groups["A"].n == 4


def test_the_test_leaves_out_patients_without_a_group_and_is_corrected_over_regions() -> None:
    proximal, whole = (region.tests["recall"] for region in TWO.regions)
    assert (proximal.n, proximal.groups, whole.n) == (6, 2, 7)
    assert proximal.p == pytest.approx(2 / 20)  # all of 3 below all of 3
    assert [proximal.p_holm, whole.p_holm] == pytest.approx(holm([proximal.p, whole.p]))
    assert proximal.p_holm == pytest.approx(0.2)


def test_a_group_without_truth_is_not_compared_and_one_group_has_no_p() -> None:
    table = summarized({"A": [(1, 5), (2, 6)], "B": [(-1, 7)], "C": [(9, 8)]})
    proximal, whole = (region.tests["dsc"] for region in table.regions)
    assert (proximal.n, proximal.groups, whole.groups) == (3, 2, 3)
    alone = summarized({"A": [(1, 5), (2, 6)]})
    assert "n/a" in table1_by_group.to_text(alone)
    assert pd.isna(alone.regions[0].tests["dsc"].p)


def test_every_form_has_the_cells_and_the_notes() -> None:
    text = table1_by_group.to_text(TWO)
    assert "Table 1 by centre." in text and "p Mann-Whitney" in text and "0.100" in text and "0.200" in text
    assert f"A: 4, B: 3, {NO_GROUP}: 1" in unwrapped(text)
    assert "| proximal | A | 3 |" in table1_by_group.to_markdown(TWO)
    latex = table1_by_group.to_latex(TWO)
    assert r"centre & n & DSC" in latex and r"\caption{Segmentation performance" in latex


def test_the_csv_has_full_precision_and_the_tests(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(table1_by_group.to_csv(TWO))
    back = pd.read_csv(tmp_path / "t.csv", dtype={"group": str}).set_index(["region", "group", "score"])
    line = back.loc[("proximal", "A", "recall")]
    assert (line["n"], line["patients"], line["n_compared"], line["groups_compared"]) == (3, 4, 6, 2)
    assert line["p"] == pytest.approx(0.1) and line["mean"] == pytest.approx(0.2)
    assert line["column"] == "centre" and line["test"] == "Mann-Whitney"


# --- the stage ------------------------------------------------------------------------------------


def with_column(workspace: Workspace, values: dict[str, str], column: str = "centre") -> None:
    """Add a column to cases.csv."""
    path = workspace.raw / "cases.csv"
    head, *lines = path.read_text().splitlines()
    body = [f"{line},{values[line.partition(',')[0]]}" for line in lines]
    path.write_text("\n".join([f"{head},{column}", *body]) + "\n")


def test_the_table_is_written_beside_table_1_and_removed_with_the_next_scores(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with_column(workspace, {"a": "X", "b": "X", "c": "Y", "d": ""})
    done = score(workspace, by="centre")
    assert [path.name for path in done.written if "by_group" in path.name] == NAMES
    assert done.by_group is not None
    assert {g: s.n for g, s in done.by_group.regions[-1].groups.items()} == {"X": 1, "Y": 1, NO_GROUP: 0}
    assert done.text.index("Table 1.") < done.text.index("Table 1 by centre") < done.text.index("Further measures")
    assert "no centre of the patients d" in capsys.readouterr().err
    score(workspace)
    assert not any((workspace.results("unet") / name).exists() for name in NAMES)


def test_a_wrong_column_is_refused_before_anything_is_scored(workspace: Workspace) -> None:
    with_column(workspace, {"a": "X", "b": "Y", "c": "Y", "d": "Y"})
    for column, message in (("sex", "no column sex"), ("centre", "different values")):
        with pytest.raises(DvtError, match=message):
            score(workspace, by=column)
    assert not workspace.metrics("unet").exists()


def test_masks_of_other_programs_are_grouped_by_the_table_next_to_them(
    workspace: Workspace, folders: tuple[Path, Path, Path]
) -> None:
    labels, theirs, out = folders
    with_column(workspace, {"a": "X", "b": "X", "c": "Y", "d": "Y"})
    evaluate_folders(labels, theirs, out, prediction_values="lesion", options=EvaluationOptions(by="centre"))
    assert (out / NAMES[0]).exists()


def test_each_compared_network_gets_its_table(workspace: Workspace) -> None:
    import shutil

    with_column(workspace, {"a": "X", "b": "X", "c": "Y", "d": "Y"})
    shutil.copytree(workspace.results("unet"), workspace.results("other"))
    compare_networks(workspace, ["unet", "other"], options=EvaluationOptions(by="centre"))
    assert all((workspace.results(name) / NAMES[1]).exists() for name in ("unet", "other"))
    shown = compare_networks(workspace, ["unet", "other"], folds=[1], options=EvaluationOptions(by="centre"))
    assert not any(one.written for one in shown.evaluations.values()), "a comparison of some folds"
    text = " ".join(shown.text.split())
    assert text.index("Table 2") < text.index("region and centre: unet on") < text.index("region and centre: other on")
