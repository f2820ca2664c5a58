"""What the values of predicted masks mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.films import EMPTY, LESION, TWO_LABELS, counts, describe, make, put, unwrapped, write_log

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.evaluate import evaluate, evaluate_folders
from dvtplan.evaluation.options import EvaluationOptions


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


def test_folds_that_predict_different_labels_are_not_mixed(workspace: Workspace) -> None:
    write_log(workspace, 1, TWO_LABELS)
    with pytest.raises(DvtError, match=r"names other classes \(proximal, distal\) than fold 0 \(lesion\)"):
        evaluate(workspace, "unet")


def test_external_masks_are_labels_where_there_are_several_and_the_table_says_so(
    folders: tuple[Path, Path, Path],
) -> None:
    labels, theirs, out = folders
    with pytest.raises(DvtError, match=r"only the label proximal, .*`prediction_values=lesion`"):
        evaluate_folders(labels, theirs, out)  # probably masks of 0 and 1
    assert not out.exists()
    evaluation = evaluate_folders(labels, theirs, out, prediction_values="labels")
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


# --- masks of one value ---------------------------------------------------------------------------


@pytest.mark.parametrize("split", [None, ("distal",), ("proximal",), ("distal", "all")])
def test_masks_of_one_value_are_not_taken_for_the_first_label_whatever_is_reported(
    folders: tuple[Path, Path, Path], split: tuple[str, ...] | None
) -> None:
    labels, theirs, out = folders
    with pytest.raises(DvtError, match=r"only the label proximal, value 1, .*distal.*`prediction_values=lesion`"):
        evaluate_folders(labels, theirs, out, options=EvaluationOptions(split=split))
    assert not out.exists()


def test_masks_of_one_value_are_refused_if_the_truth_has_the_other_label_only(
    folders: tuple[Path, Path, Path],
) -> None:
    labels, theirs, out = folders
    for case_id in "abcd":
        put(labels / f"{case_id}.nii.gz", ".... .... ..2. ....")
    with pytest.raises(DvtError, match="only the label proximal, value 1, but the truth has distal"):
        evaluate_folders(labels, theirs, out)


@pytest.mark.parametrize("described", [True, False])
def test_masks_of_one_value_that_are_labels_by_declaration_are_scored_with_a_warning(
    folders: tuple[Path, Path, Path], described: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, theirs, out = folders
    if described:
        describe(theirs, TWO_LABELS)
    evaluation = evaluate_folders(labels, theirs, out, prediction_values="auto" if described else "labels")
    assert counts(evaluation.rows, "c", "distal") == (0, 0, 1)
    warning = next(line for line in capsys.readouterr().err.splitlines() if "warning" in line)
    assert "only the label proximal, value 1" in warning and "lesion" in warning
    assert "nothing is predicted as distal" in unwrapped((out / "table1.md").read_text())
    assert "nothing is predicted as distal" in unwrapped(evaluation.text)


def test_a_patient_with_one_label_is_scored_without_a_warning_if_values_are_labels_by_declaration(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, theirs, out = folders
    put(labels / "c.nii.gz", "..11 ..1. .... ....")
    put(theirs / "c.nii.gz", "..11 .... .... ....")
    one = labels / "c.nii.gz", theirs / "c.nii.gz", out
    assert counts(evaluate_folders(*one, prediction_values="labels").rows, "c", "proximal") == (2, 0, 1)
    assert "warning" not in capsys.readouterr().err
    evaluate_folders(*one)  # the values may be thrombus of any label
    assert "only the label proximal, value 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ("..11 ..1. .... ...2", {}),  # one prediction of two labels shows that values are labels
        ("..11 ..1. .... ...1", {"prediction_values": "lesion"}),
        ("..11 ..1. .... ...1", {"options": EvaluationOptions(region_rule="level")}),  # divides any value
        ("..11 ..1. .... ...1", {"options": EvaluationOptions(split=("all",))}),
    ],
)
def test_values_that_cannot_be_mistaken_give_no_warning(
    folders: tuple[Path, Path, Path], rows: str, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, theirs, out = folders
    put(theirs / "c.nii.gz", rows)
    evaluate_folders(labels, theirs, out, **options)
    assert "warning" not in capsys.readouterr().err


def test_predictions_that_are_all_empty_are_scored(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, theirs, out = folders
    for case_id in "abcd":
        put(theirs / f"{case_id}.nii.gz", EMPTY)
    assert counts(evaluate_folders(labels, theirs, out).rows, "c", "distal") == (0, 0, 1)
    assert "warning" not in capsys.readouterr().err


def test_true_masks_of_one_value_are_a_warning_if_the_predictions_have_more_labels(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, theirs, out = folders
    for case_id in "abcd":
        put(labels / f"{case_id}.nii.gz", "11.. .... .1.. ....")
        put(theirs / f"{case_id}.nii.gz", "11.. .... .2.. ....")
    evaluation = evaluate_folders(labels, theirs, out)
    assert "All true masks have only the label proximal" in unwrapped(evaluation.text)
    assert "true masks have only the label proximal" in capsys.readouterr().err
