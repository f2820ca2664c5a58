"""Regions and their levels: which rule divides truth and prediction, and what it needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from helpers.films import (
    LEVELS,
    UNION,
    counts,
    make,
    prediction,
    put,
    score,
    unwrapped,
)

from dvtplan.anatomy.landmarks import Landmarks, Limb
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.evaluate import evaluate, evaluate_folders
from dvtplan.evaluation.options import EvaluationOptions
from dvtplan.imaging import volume_io

# --- how truth and prediction are divided ---------------------------------------------------------


def test_levels_divide_truth_and_prediction_alike(workspace: Workspace) -> None:
    rows = score(workspace, split=("proximal", "distal"), region_rule="level").rows
    expected = {
        ("a", "proximal"): (3, 0, 1),
        ("a", "distal"): (1, 0, 1),
        ("a", "all"): (4, 0, 2),
        ("b", "proximal"): (0, 0, 2),
        ("b", "distal"): (0, 0, 0),
        ("b", "all"): (0, 0, 2),
        ("c", "proximal"): (2, 1, 0),
        ("c", "distal"): (1, 0, 0),
        ("c", "all"): (3, 1, 0),
        ("d", "proximal"): (0, 0, 0),
        ("d", "distal"): (0, 1, 0),
        ("d", "all"): (0, 1, 0),
    }
    assert {key: counts(rows, *key) for key in expected} == expected
    assert len(rows) == len(expected)
    assert set(rows["rule"]) == {"level"}


def test_auto_divides_by_label_where_the_labels_name_the_regions(workspace: Workspace) -> None:
    evaluation = evaluate(workspace, "unet")
    assert set(evaluation.rows["rule"]) == {"by-label"}
    assert "Region rule: by-label" in unwrapped(evaluation.text)
    assert list(dict.fromkeys(evaluation.rows["region"])) == ["proximal", "distal", "all"]


def test_by_label_reaches_below_the_level_where_the_truth_does(workspace: Workspace) -> None:
    put(workspace.raw / "labelsTr" / "c.nii.gz", "..11 ..1. ..1. ...2")
    put(prediction(workspace, "c"), "..11 ..1. ..1. ..1.")
    # The voxel at the foot is as near to the proximal label above it as a row, 10 mm, and to the
    # distal label next to it as a column, 5 mm.
    rows = score(workspace, region_rule="by-label").rows
    assert counts(rows, "c", "proximal") == (4, 0, 0)
    assert counts(rows, "c", "distal") == (0, 1, 1)


def test_levels_serve_where_the_labels_do_not_name_the_regions(tmp_path: Path) -> None:
    evaluation = score(make(tmp_path, UNION), split=("distal",))
    assert set(evaluation.rows["rule"]) == {"level"}
    assert list(dict.fromkeys(evaluation.rows["region"])) == ["distal", "all"]
    assert counts(evaluation.rows, "a", "distal") == (1, 0, 1)


def test_labels_in_any_order_of_values_divide_alike(tmp_path: Path) -> None:
    rows = score(make(tmp_path, {"background": 0, "distal": 1, "proximal": 2}), region_rule="by-label").rows
    assert counts(rows, "a", "distal") == (3, 0, 1)  # what is drawn as 1 is distal now


def test_one_label_without_levels_gives_the_whole_only(tmp_path: Path) -> None:
    workspace = make(tmp_path, UNION)
    (workspace.raw / "cases.csv").write_text("case_id,patient_id\na,P\nb,P\n")
    evaluation = evaluate(workspace, "unet")
    assert set(evaluation.rows["region"]) == {"all"}
    assert set(evaluation.rows["rule"]) == {"none"}
    assert counts(evaluation.rows, "a", "all") == (4, 0, 2)


def test_levels_of_some_cases_are_not_enough_and_the_table_says_so(tmp_path: Path) -> None:
    workspace = make(tmp_path, UNION)
    (workspace.raw / "cases.csv").write_text("case_id,level_left_mm\na,15\nb,15\nc,15\n")
    evaluation = evaluate(workspace, "unet")
    assert set(evaluation.rows["region"]) == {"all"}
    assert "gives no level for 1 of 4 cases: d" in unwrapped(evaluation.text)


def test_the_whole_can_be_scored_alone(workspace: Workspace) -> None:
    assert set(score(workspace, split=("all",)).rows["region"]) == {"all"}


@pytest.mark.parametrize(
    ("split", "rule", "message"),
    [
        (("femoral",), "auto", "`split=femoral`.* proximal, distal, all"),
        (("proximal",), "confluence", "`region_rule=confluence`.* auto, by-label, level"),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(
    workspace: Workspace, split: tuple[str, ...], rule: str, message: str
) -> None:
    with pytest.raises(DvtError, match=message):
        score(workspace, split=split, region_rule=rule)


def test_regions_that_no_label_and_no_level_gives_are_refused_with_what_to_add(tmp_path: Path) -> None:
    workspace = make(tmp_path, UNION)
    (workspace.raw / "cases.csv").write_text("case_id,level_left_mm\na,15\nb,15\n")
    with pytest.raises(DvtError, match=r"cases.csv: gives no level for 2 of 4 cases: c, d.*Add level_left_mm"):
        score(workspace, split=("proximal", "distal"))


def test_by_label_without_such_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DvtError, match="the rule by-label gives thrombus, not proximal"):
        score(make(tmp_path, UNION), split=("proximal",), region_rule="by-label")


# --- levels from the image, and moved ones --------------------------------------------------------


def found_at(monkeypatch: pytest.MonkeyPatch, level_mm: float) -> None:
    """Every image shows a left knee whose level is at this height."""
    found = Landmarks(left=Limb(knee_mm=level_mm + 65, sharpness=3.0), right=Limb(reason="no second leg in view"))
    monkeypatch.setattr("dvtplan.anatomy.knee.estimate", lambda image, grid: found)


def test_where_the_table_gives_no_level_the_image_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The level of d alone; its only voxel is at z 10."""
    workspace = make(tmp_path, UNION)
    (workspace.raw / "cases.csv").write_text("case_id,level_left_mm\na,15\nb,15\nc,15\n")
    found_at(monkeypatch, 5.0)
    for wanted in ({"region_rule": "level"}, {"estimate_levels": True}, {"split": ("proximal", "distal")}):
        evaluation = score(workspace, **wanted)
        assert set(evaluation.rows["rule"]) == {"level"}
        assert counts(evaluation.rows, "d", "proximal") == (0, 1, 0)
        assert counts(evaluation.rows, "c", "proximal") == (2, 1, 0)
        assert "gives no level for 1 of 4 cases: d. Their level is estimated" in unwrapped(evaluation.text)


def test_where_neither_gives_a_level_the_reason_of_the_image_is_reported(tmp_path: Path) -> None:
    workspace = make(tmp_path, UNION)
    (workspace.raw / "cases.csv").write_text("case_id,level_left_mm\na,15\nb,15\nc,15\n")
    with pytest.raises(DvtError, match=r"1 of 4 cases: d.*none either: no leg in view.*Add level"):
        score(workspace, region_rule="level")
    assert "gives no level for 1 of 4 cases: d" in unwrapped(score(workspace, estimate_levels=True).text)


def test_masks_without_images_have_no_estimate(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    with pytest.raises(DvtError, match=r"`estimate_levels`.*`dataset`"):
        evaluate_folders(labels, theirs, out, options=EvaluationOptions(estimate_levels=True))


def test_moved_levels_are_a_table_of_their_own(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Table 1 does not change, each mask is read once, and the scores at 0 mm are those of the rule level."""
    plain = evaluate(workspace, "unet")
    by_level = score(workspace, region_rule="level")
    (workspace.raw / "cases.csv").write_text("case_id,patient_id\na,P\nb,P\n")
    unlevelled = evaluate(workspace, "unet")
    found_at(monkeypatch, 15.0)
    reads: list[Path] = []
    read = volume_io.read
    monkeypatch.setattr("dvtplan.imaging.volume_io.read", lambda path: reads.append(path) or read(path))
    moved = score(workspace, level_sensitivity=True)
    assert sorted(Counter(reads).values()) == [1] * 12  # four truths, predictions and images
    assert moved.rows.equals(unlevelled.rows) and set(moved.rows["rule"]) == {"by-label"}
    assert not moved.rows.equals(plain.rows)
    assert "estimated" not in moved.text[: moved.text.index("Level sensitivity")]
    assert "Their level is estimated" in unwrapped(moved.text)
    table = pd.read_csv(workspace.results("unet") / "level_sensitivity.csv")
    assert workspace.results("unet") / "level_sensitivity.csv" in moved.written
    evaluate(workspace, "unet")
    assert not (workspace.results("unet") / "level_sensitivity.csv").exists()  # of other scores
    for region in by_level.table.regions[:2]:
        here = table[(table["region"] == region.region) & (table["shift_mm"] == 0)].set_index("score")
        assert here["mean"].to_dict() == pytest.approx({s: of.mean for s, of in region.scores.items()})
    assert table["shift_mm"].unique().tolist() == [-20, -10, 0, 10, 20]


def test_a_level_far_outside_the_scan_is_told(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    score(workspace)
    assert "outside the volume" not in capsys.readouterr().err
    (workspace.raw / "cases.csv").write_text(LEVELS.replace("b,P,15", "b,P,1500"))
    score(workspace)
    shown = capsys.readouterr().err
    assert shown.count("outside the volume") == 1 and "cases.csv: b: level_left_mm 1500" in shown
    (workspace.raw / "cases.csv").write_text("case_id,patient_id,level_left_mm,midline_mm\na,P,15,\nb,P,15,1500\n")
    score(workspace)
    assert "cases.csv: b: midline_mm 1500 lies outside the volume" in capsys.readouterr().err
