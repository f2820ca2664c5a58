"""The evaluation stage: masks on disk in, metrics.csv and Table 1 out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dvtplan import cli
from dvtplan.anatomy.landmarks import Landmarks, Limb
from dvtplan.core import digests, json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.paths import Workspace
from dvtplan.data.prediction_records import PredictionIndex
from dvtplan.evaluation.evaluate import COLUMNS, Evaluation, compare_networks, evaluate, evaluate_folders
from dvtplan.evaluation.options import EvaluationOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid

FILM = Grid(
    shape=(1, 4, 4),
    spacing_mm=(10.0, 10.0, 5.0),
    origin_mm=(0.0, 0.0, 30.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""One coronal slice, head up: rows at z 30, 20, 10, 0 mm. A voxel is 0.5 mL."""

EMPTY = ".... .... .... ...."
TWO_LABELS = {"background": 0, "proximal": 1, "distal": 2}
UNION = {"background": 0, "thrombus": 1}
LESION = {"background": 0, "lesion": 1}

TRUTHS = {
    "a": "11.. 11.. .2.. .2..",
    "b": "1... 1... .... ....",
    "c": "..11 .... .... ...2",
    "d": EMPTY,
}
PREDICTIONS = {
    "a": "11.. 1... .1.. ....",
    "b": EMPTY,
    "c": "..11 ..1. .... ...1",
    "d": ".... .... 1... ....",
}
"""Cases a and b are of patient P, c and d of patients of their own. By level 15 mm:

| case | proximal | distal | all |
|---|---|---|---|
| a | tp 3 fp 0 fn 1 | tp 1 fp 0 fn 1 | tp 4 fp 0 fn 2 |
| b | tp 0 fp 0 fn 2 | none           | tp 0 fp 0 fn 2 |
| c | tp 2 fp 1 fn 0 | tp 1 fp 0 fn 0 | tp 3 fp 1 fn 0 |
| d | none           | fp 1           | fp 1           |
"""
FOLD_OF = {"a": 0, "b": 0, "c": 1, "d": 1}
LEVELS = "case_id,patient_id,level_left_mm\na,P,15\nb,P,15\nc,,15\nd,,15\n"


def film(rows: str) -> np.ndarray:
    return np.array([[[0 if c == "." else int(c) for c in row] for row in rows.split()]], np.uint8)


def put(path: Path, rows: str, grid: Grid = FILM) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    volume_io.write_mask(path, film(rows), grid)


def describe(folder: Path, labels: dict[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    body = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(body))


def write_log(workspace: Workspace, index: int, labels: dict[str, int]) -> None:
    """Write what the masks of a fold mean, as predict does."""
    classes = {name: value for name, value in labels.items() if value}
    cases = {case_id: "" for case_id, fold in FOLD_OF.items() if fold == index}
    made = PredictionIndex(model_digest="", classes=classes, cases=cases)
    json_records.save(made, workspace.fold("unet", index).prediction_index)


def make(root: Path, labels: dict[str, int] = TWO_LABELS, predicted: dict[str, int] = LESION) -> Workspace:
    """A workspace of four cases in two folds, with the predictions above."""
    workspace = Workspace(root, "DVT")
    describe(workspace.raw, labels)
    (workspace.raw / "cases.csv").write_text(LEVELS)
    folds = []
    for index in (0, 1):
        test = tuple(c for c in TRUTHS if FOLD_OF[c] == index)
        folds.append(Fold(index=index, train=tuple(c for c in TRUTHS if c not in test), test=test))
        write_log(workspace, index, predicted)
    json_records.save(Splits(source="seed 0", folds=tuple(folds)), workspace.splits)
    for case_id, rows in TRUTHS.items():
        put(workspace.raw / "imagesTr" / f"{case_id}_0000.nii.gz", rows)
        put(
            workspace.raw / "labelsTr" / f"{case_id}.nii.gz",
            rows if len(labels) > 2 else rows.replace("2", "1"),
        )
        put(prediction(workspace, case_id), PREDICTIONS[case_id])
    return workspace


def prediction(workspace: Workspace, case_id: str) -> Path:
    return workspace.fold("unet", FOLD_OF[case_id]).predictions / f"{case_id}.nii.gz"


def counts(rows: pd.DataFrame, case_id: str, region: str) -> tuple[int, ...]:
    row = rows[(rows["case_id"] == case_id) & (rows["region"] == region)]
    assert len(row) == 1
    return tuple(int(row[name].iloc[0]) for name in ("tp", "fp", "fn"))


def unwrapped(text: str) -> str:
    """Text with its lines joined."""
    return " ".join(text.split())


def score(workspace: Workspace, **options: Any) -> Evaluation:
    """Evaluate ``unet`` with some options."""
    return evaluate(workspace, "unet", options=EvaluationOptions(**options))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make(tmp_path)


@pytest.fixture
def folders(workspace: Workspace, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Labels, external predictions without a description, and a folder for the results."""
    for case_id, rows in PREDICTIONS.items():
        put(tmp_path / "theirs" / f"{case_id}.nii.gz", rows)
    return workspace.raw / "labelsTr", tmp_path / "theirs", tmp_path / "out"


# --- what is counted ------------------------------------------------------------------------------


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
    assert "rule by-label" in unwrapped(evaluation.text)
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


def test_predicted_labels_are_scored_label_by_label(tmp_path: Path) -> None:
    workspace = make(tmp_path, predicted=TWO_LABELS)
    evaluation = evaluate(workspace, "unet")
    assert counts(evaluation.rows, "c", "proximal") == (2, 2, 0)  # the distal voxel is predicted as 1
    assert counts(evaluation.rows, "c", "distal") == (0, 0, 1)
    assert counts(evaluation.rows, "c", "all") == (3, 1, 0)
    assert "of their own label" in unwrapped(evaluation.text)


def test_predicted_labels_are_matched_by_name_and_not_by_value(tmp_path: Path) -> None:
    workspace = make(tmp_path, predicted={"background": 0, "distal": 1, "proximal": 2})
    assert counts(evaluate(workspace, "unet").rows, "c", "distal") == (1, 3, 0)


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
    assert "gives no level for d (1 of 4 cases)" in unwrapped(evaluation.text)


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
        assert "gives no level for d (1 of 4 cases): there the level is estimated" in unwrapped(evaluation.text)


def test_where_neither_gives_a_level_the_reason_of_the_image_is_reported(tmp_path: Path) -> None:
    workspace = make(tmp_path, UNION)
    (workspace.raw / "cases.csv").write_text("case_id,level_left_mm\na,15\nb,15\nc,15\n")
    with pytest.raises(DvtError, match=r"for d \(1 of 4 cases\); nor does the image of d \(no leg in view.*Add level"):
        score(workspace, region_rule="level")
    assert "gives no level for d" in unwrapped(score(workspace, estimate_levels=True).text)


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
    assert "there the level is estimated" in unwrapped(moved.text)
    table = pd.read_csv(workspace.results("unet") / "level_sensitivity.csv")
    assert workspace.results("unet") / "level_sensitivity.csv" in moved.written
    evaluate(workspace, "unet")
    assert not (workspace.results("unet") / "level_sensitivity.csv").exists()  # of other scores
    for region in by_level.table.regions[:2]:
        here = table[(table["region"] == region.region) & (table["shift_mm"] == 0)].set_index("score")
        assert here["mean"].to_dict() == pytest.approx({s: of.mean for s, of in region.scores.items()})
    assert table["shift_mm"].unique().tolist() == [-20, -10, 0, 10, 20]


def test_the_whole_can_be_scored_alone(workspace: Workspace) -> None:
    assert set(score(workspace, split=("all",)).rows["region"]) == {"all"}


# --- statistics over patients ---------------------------------------------------------------------


def test_patients_are_pooled_and_those_without_truth_omitted(workspace: Workspace) -> None:
    evaluation = score(workspace, region_rule="level")
    proximal, distal, whole = evaluation.table.regions
    # Patient P holds a and b: proximal tp 3 fn 3, all tp 4 fn 4. Patient c: proximal tp 2 fp 1.
    assert (proximal.n, distal.n, whole.n) == (2, 2, 2)
    assert proximal.scores["dsc"].mean == pytest.approx((6 / 9 + 4 / 5) / 2)
    assert proximal.scores["recall"].minimum == pytest.approx(3 / 6)
    assert whole.scores["dsc"].mean == pytest.approx((8 / 12 + 6 / 7) / 2)
    assert (distal.without_truth, distal.false_positive_ml) == (1, 0.5)
    assert (whole.without_truth, whole.false_positive_ml) == (1, 0.5)


def test_a_row_counts_where_its_patient_has_truth(workspace: Workspace) -> None:
    rows = score(workspace, region_rule="level").rows.set_index(["case_id", "region"])
    assert bool(rows.loc[("b", "distal"), "counted"])  # no distal truth itself, but scan a of P has
    assert np.isnan(rows.loc[("b", "distal"), "dsc"])
    assert not bool(rows.loc[("d", "distal"), "counted"])
    assert rows.loc[("d", "distal"), "false_positive_ml"] == pytest.approx(0.5)
    assert rows.loc[("b", "proximal"), "dsc"] == 0


# --- further measures -----------------------------------------------------------------------------


def test_surfaces_lesions_and_volumes_are_measured_per_case_and_region(workspace: Workspace) -> None:
    rows = score(workspace, region_rule="level").rows.set_index(["case_id", "region"])
    # Case c proximal: truth is two voxels, both predicted, and one more 10 mm below: distances 0 0, 0 0 10.
    row = rows.loc[("c", "proximal")]
    assert (row["assd_mm"], row["hd95_mm"], row["surface_dice"]) == pytest.approx((10 / 5, 9.0, 4 / 5))
    assert (row["iou"], row["volume_difference_ml"], row["volume_difference_percent"]) == pytest.approx(
        (2 / 3, 0.5, 50)
    )
    assert (row["true_lesions"], row["detected_lesions_from_0.5_ml"], row["confirmed_lesions"]) == (1, 1, 1)
    # Case a proximal: one of four voxels is missed, 5 mm from the others.
    row = rows.loc[("a", "proximal")]
    assert (row["assd_mm"], row["hd95_mm"], row["surface_dice"]) == pytest.approx((5 / 7, 4.25, 6 / 7))


def test_a_thrombus_across_the_level_is_a_lesion_of_each_region_and_one_of_all(workspace: Workspace) -> None:
    rows = score(workspace, region_rule="level").rows.set_index(["case_id", "region"])
    lesions = rows.loc["a", ["true_lesions", "detected_lesions", "predicted_lesions", "confirmed_lesions"]]
    assert lesions.to_numpy().tolist() == [[1, 1, 1, 1]] * 3
    assert rows.loc[("a", "all"), "true_lesions_from_2_ml"] == 1  # 3 mL, of which 2 are proximal
    assert rows.loc[("a", "distal"), "true_lesions_from_0.5_ml"] == 1


def test_a_lesion_predicted_as_another_region_is_missed_there_and_false_here(tmp_path: Path) -> None:
    rows = evaluate(make(tmp_path, predicted=TWO_LABELS), "unet").rows.set_index(["case_id", "region"])
    assert rows.loc[("c", "distal"), "lesion_sensitivity"] == 0  # its only voxel is predicted as proximal
    assert rows.loc[("c", "proximal"), "false_positive_lesions"] == 1
    assert rows.loc[("c", "all"), "lesion_sensitivity"] == 1


def test_a_case_without_truth_has_false_positive_lesions_and_no_scores(workspace: Workspace) -> None:
    row = score(workspace, region_rule="level").rows.set_index(["case_id", "region"]).loc[("d", "all")]
    assert (row["false_positive_lesions"], row["volume_difference_ml"]) == pytest.approx((1, 0.5))
    without = ["iou", "volume_difference_percent", "assd_mm", "hd95_mm", "surface_dice", "lesion_f1"]
    assert row[without].isna().all()


def test_a_case_with_nothing_at_all_is_measured_too(workspace: Workspace) -> None:
    put(prediction(workspace, "d"), EMPTY)
    row = score(workspace, region_rule="level").rows.set_index(["case_id", "region"]).loc[("d", "all")]
    assert (row["predicted_lesions"], row["volume_difference_ml"]) == (0, 0)
    assert np.isnan(row["surface_dice"])


def test_measures_of_patients_are_summarized_with_n(workspace: Workspace) -> None:
    put(prediction(workspace, "c"), EMPTY)
    evaluation = score(workspace, region_rule="level")
    proximal = evaluation.measures.regions[0]
    # Patient P: case a has distances, case b none (nothing predicted); patient c now has none either.
    assert (proximal.patients, proximal.measures["assd_mm"].n) == (2, 1)
    assert proximal.measures["assd_mm"].mean == pytest.approx(5 / 7)
    assert proximal.measures["surface_dice"].mean == pytest.approx((6 / 7 / 2 + 0) / 2)
    assert proximal.lesions["lesion_sensitivity"] == (3, 1)
    whole = evaluation.measures.regions[-1]
    assert (whole.without_truth, whole.false_positive_lesions, whole.false_positive_ml) == (1, 1, 0.5)
    assert "1, 0.50 mL in 1 patient" in unwrapped(evaluation.text)
    back = pd.read_csv(workspace.results("unet") / "measures.csv").set_index(["region", "measure"])
    assert back.loc[("proximal", "assd_mm"), ["n", "patients_with_truth", "not_defined"]].tolist() == [1, 2, 1]


def test_the_measures_are_below_table_1(workspace: Workspace) -> None:
    text = evaluate(workspace, "unet").text
    assert text.index("Table 1.") < text.index("Further measures") < text.index("Surface Dice at 2 mm")


def test_the_tolerance_can_be_chosen_and_is_reported(workspace: Workspace, folders: tuple[Path, Path, Path]) -> None:
    evaluation = score(workspace, region_rule="level", tolerance_mm=5.0)
    row = evaluation.rows.set_index(["case_id", "region"]).loc[("a", "proximal")]
    assert (row["surface_dice"], row["tolerance_mm"]) == (1, 5)
    assert "Surface Dice at 5 mm" in evaluation.text
    labels, theirs, out = folders
    rows = evaluate_folders(
        labels,
        theirs,
        out,
        prediction_values="lesion",
        options=EvaluationOptions(region_rule="level", tolerance_mm=5.0),
    ).rows
    assert rows.set_index(["case_id", "region"]).loc[("a", "proximal"), "surface_dice"] == 1


def test_a_tolerance_that_is_not_a_distance_is_refused(workspace: Workspace) -> None:
    with pytest.raises(DvtError, match="tolerance_mm -1"):
        score(workspace, tolerance_mm=-1.0)


# --- folds ----------------------------------------------------------------------------------------


def test_all_folds_are_scored_and_named(workspace: Workspace) -> None:
    evaluation = evaluate(workspace, "unet")
    assert evaluation.rows["fold"].tolist() == [0] * 6 + [1] * 6
    assert "Scored: all 2 folds." in evaluation.text


def test_some_folds_are_scored_and_the_table_says_which(workspace: Workspace) -> None:
    evaluation = evaluate(workspace, "unet", folds=[1])
    assert set(evaluation.rows["case_id"]) == {"c", "d"}
    for path in evaluation.written:
        assert path.name in ("metrics.csv", "scores.json") or "fold 1 of 2" in path.read_text()


def test_a_fold_without_predictions_is_omitted_and_the_table_says_so(workspace: Workspace) -> None:
    folder = workspace.fold("unet", 0).predictions
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert "fold 1 of 2" in evaluate(workspace, "unet").text
    with pytest.raises(DvtError, match=r"fold_0/predictions: not found. .*`train_fold` for fold 0, `network=unet`"):
        evaluate(workspace, "unet", folds=[0])


def test_a_missing_prediction_is_named_with_its_command_and_nothing_is_written(workspace: Workspace) -> None:
    prediction(workspace, "c").unlink()
    with pytest.raises(DvtError, match=r"1 of 4 test cases .*fold 1: c\).*`train_fold` for fold 1, `network=unet`"):
        evaluate(workspace, "unet")
    assert not (workspace.results("unet") / "metrics.csv").exists()


def test_a_prediction_of_a_training_case_is_refused(workspace: Workspace) -> None:
    put(workspace.fold("unet", 1).predictions / "a.nii.gz", PREDICTIONS["a"])
    with pytest.raises(DvtError, match=r"holds predictions of a, on which fold 1 .* trains"):
        evaluate(workspace, "unet")


def test_an_unknown_fold_is_refused(workspace: Workspace) -> None:
    with pytest.raises(DvtError, match="only the folds 0 to 1"):
        evaluate(workspace, "unet", folds=[2])


def test_an_unknown_network_is_refused_with_those_that_are_there(workspace: Workspace) -> None:
    with pytest.raises(DvtError, match="there are: unet"):
        evaluate(workspace, "segnet")


def test_a_test_case_that_left_the_data_set_is_refused(workspace: Workspace) -> None:
    (workspace.raw / "labelsTr" / "d.nii.gz").unlink()
    (workspace.raw / "imagesTr" / "d_0000.nii.gz").unlink()
    (workspace.raw / "cases.csv").write_text(LEVELS.replace("d,,15\n", ""))
    with pytest.raises(DvtError, match="fold 1 tests d, which has no label"):
        evaluate(workspace, "unet")


def test_folds_that_predict_different_labels_are_not_mixed(workspace: Workspace) -> None:
    write_log(workspace, 1, TWO_LABELS)
    with pytest.raises(DvtError, match=r"names other classes \(proximal, distal\) than fold 0 \(lesion\)"):
        evaluate(workspace, "unet")


def test_predictions_of_an_earlier_training_are_not_scored(workspace: Workspace) -> None:
    workspace.fold("unet", 1).prediction_index.unlink()
    with pytest.raises(DvtError, match=r"no prediction by the present training \(fold 1: c, d\)"):
        evaluate(workspace, "unet")


def test_a_mask_that_the_network_did_not_write_is_not_scored(workspace: Workspace) -> None:
    """Another network's mask that was copied there, or a mask that was edited by hand."""
    index_file = workspace.fold("unet", 1).prediction_index
    log = json_records.load(PredictionIndex, index_file, "")
    masks = {case_id: digests.files_digest((prediction(workspace, case_id),)) for case_id in log.cases}
    json_records.save(replace(log, masks=masks), index_file)
    evaluate(workspace, "unet")
    put(prediction(workspace, "d"), PREDICTIONS["c"])
    with pytest.raises(DvtError, match=r"d.nii.gz: is not the mask .*`train_fold`"):
        evaluate(workspace, "unet")


# --- what is written ------------------------------------------------------------------------------


def test_metrics_csv_reads_back_with_every_column(workspace: Workspace) -> None:
    evaluation = evaluate(workspace, "unet")
    assert [path.name for path in evaluation.written] == [
        "metrics.csv",
        "table1.csv",
        "table1.md",
        "table1.tex",
        "measures.csv",
        "scores.json",
    ]
    assert all(path.parent == workspace.results("unet") for path in evaluation.written)
    back = pd.read_csv(evaluation.written[0])
    assert tuple(back.columns) == COLUMNS
    assert COLUMNS[:11] == (
        "fold",
        "case_id",
        "patient_id",
        "region",
        "rule",
        "tp",
        "fp",
        "fn",
        "dsc",
        "precision",
        "recall",
    )
    assert COLUMNS[11:15] == ("truth_ml", "predicted_ml", "false_positive_ml", "counted")
    pd.testing.assert_frame_equal(back, evaluation.rows, check_dtype=False)


def test_volumes_are_in_millilitres(workspace: Workspace) -> None:
    row = score(workspace, region_rule="level").rows.set_index(["case_id", "region"]).loc[("c", "all")]
    assert (row["truth_ml"], row["predicted_ml"], row["false_positive_ml"]) == pytest.approx((1.5, 2.0, 0.5))


def test_processes_give_the_same_rows_in_the_same_order(workspace: Workspace) -> None:
    alone = score(workspace, jobs=1).rows
    pd.testing.assert_frame_equal(score(workspace, jobs=2).rows, alone)


# --- what is refused ------------------------------------------------------------------------------


def test_a_prediction_that_is_a_slice_off_is_refused_with_the_distance(workspace: Workspace) -> None:
    put(prediction(workspace, "c"), PREDICTIONS["c"], replace(FILM, origin_mm=(0.0, 10.0, 30.0)))
    with pytest.raises(DvtError, match=r"c.nii.gz: is up to 10 mm away from .*c.nii.gz"):
        evaluate(workspace, "unet")


def test_a_prediction_of_another_shape_is_refused(workspace: Workspace) -> None:
    put(prediction(workspace, "c"), ".... .... ....", replace(FILM, shape=(1, 3, 4)))
    with pytest.raises(DvtError, match=r"shape \(4, 3, 1\) differs from .* \(4, 4, 1\)"):
        evaluate(workspace, "unet")


@pytest.mark.parametrize("rows", ["3... .... .... ....", "1... 2... ...7 ...."])
def test_a_value_without_a_label_is_refused(tmp_path: Path, rows: str) -> None:
    workspace = make(tmp_path, predicted=TWO_LABELS)
    put(prediction(workspace, "c"), rows)
    with pytest.raises(DvtError, match=r"c.nii.gz: contains [37]; expected 0, 1, 2"):
        evaluate(workspace, "unet")


def test_a_truth_with_an_unknown_value_is_refused(workspace: Workspace) -> None:
    put(workspace.raw / "labelsTr" / "c.nii.gz", "5... .... .... ....")
    with pytest.raises(DvtError, match=r"labelsTr/c.nii.gz: contains 5; expected 0, 1, 2"):
        evaluate(workspace, "unet")


def test_probabilities_are_not_taken_for_a_mask(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    volume_io.write_probabilities(theirs / "c.nii.gz", film(PREDICTIONS["c"]) * np.float32(0.25), FILM)
    with pytest.raises(DvtError, match=r"contains 0.25; expected whole numbers from 0. Threshold it"):
        evaluate_folders(labels, theirs, out, prediction_values="lesion")


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
    with pytest.raises(DvtError, match=r"cases.csv: gives no level for c, d \(2 of 4 cases\).*Add level_left_mm"):
        score(workspace, split=("proximal", "distal"))


def test_by_label_without_such_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DvtError, match="the rule by-label gives thrombus, not proximal"):
        score(make(tmp_path, UNION), split=("proximal",), region_rule="by-label")


# --- masks of any program -------------------------------------------------------------------------


def test_folders_give_the_same_numbers_as_folds(workspace: Workspace, folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    ours = score(workspace, region_rule="level").rows
    evaluation = evaluate_folders(
        labels, theirs, out, prediction_values="lesion", options=EvaluationOptions(region_rule="level")
    )
    pd.testing.assert_frame_equal(evaluation.rows.drop(columns="fold"), ours.drop(columns="fold"))
    assert evaluation.rows["fold"].isna().all()
    assert (out / "table1.tex").exists()
    assert f"no folds but the masks in {theirs}" in unwrapped(evaluation.text)


def test_a_data_set_can_describe_the_folders(workspace: Workspace, folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    moved = labels.rename(out.parent / "elsewhere")
    make(workspace.root)  # the data set itself stays whole
    rows = evaluate_folders(
        moved,
        theirs,
        out,
        prediction_values="lesion",
        dataset=workspace.raw,
        options=EvaluationOptions(region_rule="level"),
    ).rows
    assert counts(rows, "c", "proximal") == (2, 1, 0)
    assert set(rows["patient_id"]) == {"P", "c", "d"}


def test_folders_without_any_description_give_the_whole(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    labels, theirs, out = folders
    bare = labels.rename(tmp_path / "bare")
    rows = evaluate_folders(bare, theirs, out).rows
    assert set(rows["region"]) == {"all"}
    assert counts(rows, "a", "all") == (4, 0, 2)
    assert rows["patient_id"].tolist() == rows["case_id"].tolist()


def test_external_masks_are_labels_where_there_are_several_and_the_table_says_so(
    folders: tuple[Path, Path, Path],
) -> None:
    labels, theirs, out = folders
    evaluation = evaluate_folders(labels, theirs, out)
    assert counts(evaluation.rows, "c", "proximal") == (2, 2, 0)
    assert "values are labels" in unwrapped(evaluation.text)


def test_a_dataset_json_next_to_external_masks_says_what_they_hold(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    describe(theirs, LESION)
    rows = evaluate_folders(labels, theirs, out).rows
    assert counts(rows, "c", "proximal") == (2, 1, 0)  # the false positive is 10 mm below the proximal label
    assert counts(rows, "c", "distal") == (1, 0, 0)


def test_external_labels_of_other_names_are_refused(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    describe(theirs, {"background": 0, "clot": 1})
    with pytest.raises(DvtError, match="names clot, but the truth has proximal, distal"):
        evaluate_folders(labels, theirs, out)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"labels": {"0": "background", "1": "clot"}}', '{"labels": {"background": 0}}']
)
def test_a_dataset_json_that_names_no_labels_is_refused(folders: tuple[Path, Path, Path], text: str) -> None:
    labels, theirs, out = folders
    (theirs / "dataset.json").write_text(text)
    with pytest.raises(DvtError, match=r"theirs/dataset.json: expected \"labels\""):
        evaluate_folders(labels, theirs, out)


def test_every_missing_and_extra_external_mask_is_named(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    (theirs / "a.nii.gz").rename(theirs / "a_pred.nii.gz")
    (theirs / "d.nii.gz").unlink()
    with pytest.raises(DvtError) as error:
        evaluate_folders(labels, theirs, out)
    missing, extra = str(error.value).splitlines()
    assert "2 of 4 true masks have no prediction of the same name: a, d" in missing
    assert "no true mask in" in extra and "a_pred" in extra


def test_any_ending_will_do_and_other_files_are_skipped(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    before = evaluate_folders(labels, theirs, out).rows
    (theirs / "c.nii.gz").unlink()
    put(theirs / "c.nrrd", PREDICTIONS["c"])
    (theirs / "plans.json").write_text("{}")
    pd.testing.assert_frame_equal(evaluate_folders(labels, theirs, out).rows, before)


def test_two_masks_of_one_case_are_refused(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    put(theirs / "c.nrrd", PREDICTIONS["c"])
    with pytest.raises(DvtError, match=r"c.nrrd: c.nii.gz .* same case"):
        evaluate_folders(labels, theirs, out)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_masks_is_refused(folders: tuple[Path, Path, Path], tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DvtError, match=f"{name}: "):
        evaluate_folders(folders[0], tmp_path / name, folders[2])


# --- independence ---------------------------------------------------------------------------------


def test_numbers_equal_those_computed_on_whole_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    grid = Grid(shape=(6, 20, 10), spacing_mm=(3.0, 2.0, 1.5), origin_mm=(5.0, -8.0, 40.0), direction=FILM.direction)
    truth = (rng.random(grid.shape) < 0.2).astype(np.uint8)
    predicted = (rng.random(grid.shape) < 0.2).astype(np.uint8)
    for folder, mask in (("truth", truth), ("predicted", predicted)):
        (tmp_path / folder).mkdir()
        volume_io.write_mask(tmp_path / folder / "x.nii.gz", mask, grid)
    (tmp_path / "truth" / "cases.csv").write_text("case_id,level_left_mm,level_right_mm\nx,21.0,13.0\n")
    rows = evaluate_folders(tmp_path / "truth", tmp_path / "predicted", tmp_path).rows.set_index("region")

    # Rows fall by 2 mm from z 40; columns rise by 1.5 mm from x 5 to 18.5, so the middle is 11.75.
    z = 40.0 - 2.0 * np.arange(20)[None, :, None]
    left = (5.0 + 1.5 * np.arange(10) >= 11.75)[None, None, :]
    proximal = np.broadcast_to(np.where(left, z >= 21.0, z >= 13.0), grid.shape)
    for region, where in (("proximal", proximal), ("distal", ~proximal), ("all", np.ones(grid.shape, bool))):
        t, p = truth[where], predicted[where]
        assert rows.loc[region, "dsc"] == pytest.approx(2 * (t & p).sum() / (t.sum() + p.sum()))
        assert rows.loc[region, "precision"] == pytest.approx((t & p).sum() / p.sum())
        assert rows.loc[region, "recall"] == pytest.approx((t & p).sum() / t.sum())
        assert rows.loc[region, "truth_ml"] == pytest.approx(t.sum() * 0.009)


def test_evaluation_never_loads_torch() -> None:
    code = "import sys, dvtplan.evaluation.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


# --- several networks -----------------------------------------------------------------------------


@pytest.fixture
def two_networks(workspace: Workspace) -> Workspace:
    """The same predictions once more under another name, but for case c, where ``gcn`` finds nothing."""
    shutil.copytree(workspace.results("unet"), workspace.results("gcn"))
    put(workspace.fold("gcn", 1).predictions / "c.nii.gz", EMPTY)
    return workspace


def test_networks_are_compared_on_the_same_patients(two_networks: Workspace) -> None:
    done = compare_networks(two_networks, ["unet", "gcn"], options=EvaluationOptions(split=("proximal", "distal")))
    dsc = {name: scores["dsc"] for name, scores in done.table.entries["all"].items()}
    # Patients P and c: unet 8/12 and 6/7, gcn 8/12 and 0; d has no truth.
    assert dsc["unet"].summary.mean == pytest.approx((8 / 12 + 6 / 7) / 2)
    assert dsc["gcn"].summary.mean == pytest.approx(8 / 12 / 2)
    difference = dsc["gcn"].difference
    assert difference is not None and (difference.n, difference.zeros) == (2, 1)
    folder = two_networks.comparison
    assert {p.name for p in folder.iterdir()} == {"table2.csv", "table2.md", "table2.tex", "folds.csv"}
    assert (two_networks.results("gcn") / "table1.csv").exists()
    folds = pd.read_csv(folder / "folds.csv").set_index(["network", "fold", "region"])
    assert folds.loc[("gcn", 1, "all"), "dsc"] == 0
    assert "Table 2" in done.text


def test_networks_with_other_folds_are_not_compared(two_networks: Workspace) -> None:
    shutil.rmtree(two_networks.fold("gcn", 1).path)
    with pytest.raises(DvtError, match="not scored on the same cases and regions: c, d"):
        compare_networks(two_networks, ["unet", "gcn"])
    assert not two_networks.comparison.exists()
    assert compare_networks(two_networks, ["unet", "gcn"], folds=[0]).table.entries


def test_a_comparison_of_some_folds_keeps_the_scores_of_all(two_networks: Workspace) -> None:
    evaluate(two_networks, "unet")
    before = two_networks.metrics("unet").read_bytes()
    done = compare_networks(two_networks.root, ["unet", "gcn"], folds=[1])
    assert two_networks.metrics("unet").read_bytes() == before and not two_networks.metrics("gcn").exists()
    assert {path.parent for path in done.written} == {two_networks.comparison}
    assert set(done.evaluations["unet"].rows["fold"]) == {1}


def test_a_network_is_not_compared_with_itself(two_networks: Workspace) -> None:
    with pytest.raises(DvtError, match="names unet twice"):
        compare_networks(two_networks, ["unet", "gcn", "unet"])


def test_a_comparison_does_not_pass_for_a_network(two_networks: Workspace) -> None:
    compare_networks(two_networks, ["unet", "gcn"])
    with pytest.raises(DvtError, match="there are: gcn, unet\\."):
        evaluate(two_networks, "segnet")


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "dvtplan.cli", "evaluate", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True)


def test_the_command_compares_networks_at_a_tolerance(two_networks: Workspace) -> None:
    ran = command("--root", two_networks.root, "--compare", "unet", "gcn", "--tolerance", "7.5")
    assert ran.returncode == 0, ran.stderr
    assert "Table 2. Comparison of networks: DVT." in ran.stdout
    assert str(two_networks.comparison / "folds.csv") in ran.stdout
    assert set(pd.read_csv(two_networks.metrics("gcn"))["tolerance_mm"]) == {7.5}


@pytest.mark.parametrize(
    "flags",
    [
        "--tolerance -1",
        "--tolerance x",
        "--folds x",
        "--compare unet gcn --overlays",
        "--compare unet gcn --network unet",
        "--reference a",
        "--reference a --predictions b --overlays",
        "--reference a --predictions b --folds 0",
        "--reference a --predictions b --network unet",
        "-o out",
        "--prediction-values lesion",
    ],
)
def test_options_that_make_no_sense_are_refused(
    flags: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dvt_evaluate", *flags.split()])
    with pytest.raises(SystemExit) as caught:
        cli.evaluate()
    message = capsys.readouterr().err.splitlines()[-1]
    assert caught.value.code == 2 and "error:" in message
    assert any(word in message for word in flags.split() if word.startswith("-"))


def test_what_a_prediction_writes_next_to_a_mask_is_not_scored(workspace: Workspace, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(workspace.fold("unet", 0).predictions, theirs)
    for name in ("a_probability_lesion", "a_station_upper"):
        shutil.copy(theirs / "a.nii.gz", theirs / f"{name}.nii.gz")
    truths = tmp_path / "truths"
    truths.mkdir()
    for name in ("a", "b"):
        shutil.copy(workspace.raw / "labelsTr" / f"{name}.nii.gz", truths)
    assert set(evaluate_folders(truths, str(theirs), str(tmp_path / "out")).rows["case_id"]) == {"a", "b"}
    (theirs / "a.nii.gz").unlink()
    with pytest.raises(DvtError, match=r"no true mask .* a_probability_lesion"):
        evaluate_folders(truths, theirs, tmp_path / "out")
