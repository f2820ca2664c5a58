"""Which masks are scored: of the folds of a network, or of any program by name."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers.films import EMPTY, LEVELS, PREDICTIONS, TRUTHS, counts, make, prediction, put
from helpers.processes import tree

from dvtplan.core import digests, json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.folds import split, split_by_group
from dvtplan.data.paths import Workspace
from dvtplan.data.patient_groups import PatientGroups
from dvtplan.data.prediction_records import PredictionIndex
from dvtplan.evaluation.evaluate import evaluate, evaluate_folders
from dvtplan.evaluation.options import EvaluationOptions
from dvtplan.evaluation.pairing import name_folds

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
    with pytest.raises(DvtError, match=r"contains predictions of a, .* training cases of fold 1"):
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
    with pytest.raises(DvtError, match=r"splits\.json: fold 0 trains on d, which .*DVT does not contain"):
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


# --- masks of any program -------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"labels": {"0": "background", "1": "clot"}}',
        '{"labels": {"background": 0}}',
        '{"labels": {"background": 0, "lesion": 1, "ignore": 2}}',
        '{"labels": {"background": 0, "whole": [1, 2], "core": 2}}',
        '{"labels": {"lesion": 1, "lesion": 2}}',
    ],
)
def test_a_dataset_json_that_names_no_labels_is_refused(folders: tuple[Path, Path, Path], text: str) -> None:
    labels, theirs, out = folders
    (theirs / "dataset.json").write_text(text)
    with pytest.raises(DvtError, match=r"theirs/dataset.json: .*label"):
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
    before = evaluate_folders(labels, theirs, out, prediction_values="labels").rows
    (theirs / "c.nii.gz").unlink()
    put(theirs / "c.nrrd", PREDICTIONS["c"])
    (theirs / "plans.json").write_text("{}")
    after = evaluate_folders(labels, theirs, out, prediction_values="labels").rows
    pd.testing.assert_frame_equal(after, before)


def test_a_folder_is_not_scored_against_itself_and_no_data_set_is_written_to(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    with pytest.raises(DvtError, match="Name two folders"):
        evaluate_folders(labels, labels, out)
    before = tree(labels)
    with pytest.raises(DvtError, match="labelsTr: belongs to the data set"):
        evaluate_folders(theirs, labels, labels)
    assert tree(labels) == before


@pytest.mark.parametrize("link", ["folder", "files", "hard"])
def test_links_to_the_true_masks_are_not_scored(folders: tuple[Path, Path, Path], tmp_path: Path, link: str) -> None:
    labels, _, out = folders
    links = tmp_path / "links"
    if link == "folder":
        links.symlink_to(labels)
    else:
        links.mkdir()
        for path in labels.iterdir():
            (links / path.name).hardlink_to(path) if link == "hard" else (links / path.name).symlink_to(path)
    with pytest.raises(DvtError, match="Name two folders" if link == "folder" else "links/a.nii.gz: .*same file"):
        evaluate_folders(labels, links, out)
    with pytest.raises(DvtError, match="Name two folders"):
        evaluate_folders(labels, labels / ".." / labels.name, out)


def test_endings_in_upper_case_are_masks_too(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    before = evaluate_folders(labels, theirs, out, prediction_values="lesion").rows
    (labels / "c.nii.gz").rename(labels / "c.NII.GZ")
    (theirs / "c.nii.gz").rename(theirs / "c.NII.GZ")
    after = evaluate_folders(labels, theirs, out, prediction_values="lesion").rows
    pd.testing.assert_frame_equal(after, before)


def test_truth_that_is_not_read_is_said(folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    labels, theirs, out = folders
    evaluate_folders(labels, theirs, out, prediction_values="lesion")
    assert "not scored" not in capsys.readouterr().err
    (labels / "e.tif").write_bytes(b"II*")
    put(labels / "patient_f" / "f.nii.gz", EMPTY)
    evaluate_folders(labels, theirs, out, prediction_values="lesion")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not scored" in line]
    assert line.endswith("e.tif, patient_f.")


def test_a_folder_that_cannot_be_listed_is_no_truth(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, predictions, output = folders
    closed, listed = reference / "private", Path.iterdir
    closed.mkdir()

    def iterdir(self: Path) -> Iterator[Path]:
        if self == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    evaluate_folders(reference, predictions, output, prediction_values="lesion")


def test_many_missing_masks_are_counted_and_not_all_named(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    for k in range(30):
        put(labels / f"m{k:02}.nii.gz", EMPTY)
        put(theirs / f"x{k:02}.nii.gz", EMPTY)
    with pytest.raises(DvtError) as error:
        evaluate_folders(labels, theirs, out)
    for line in str(error.value).splitlines():
        assert " and 22 more" in line


def test_one_edited_mask_is_scored_without_the_others(workspace: Workspace, tmp_path: Path) -> None:
    """The data set above the true mask names patient, levels and labels."""
    edited = tmp_path / "corrected" / "a_new.nii.gz"
    put(edited, TRUTHS["a"].replace("2", "1"))
    edited.with_name("notes.txt").touch()
    truth = workspace.raw / "labelsTr" / "a.nii.gz"
    rows = evaluate_folders(truth, edited, tmp_path / "out", prediction_values="lesion").rows
    assert set(rows["case_id"]) == {"a"} and set(rows["patient_id"]) == {"P"}
    assert counts(rows, "a", "distal") == (2, 0, 0)
    with pytest.raises(DvtError, match="Name two"):
        evaluate_folders(truth, truth.parent / ".." / "labelsTr" / "a.nii.gz", tmp_path / "out")
    with pytest.raises(DvtError, match="two folders with one mask per case, or two files"):
        evaluate_folders(truth, edited.parent, tmp_path / "out")
    with pytest.raises(DvtError, match=r"notes\.txt: is not a mask"):
        evaluate_folders(truth, edited.with_name("notes.txt"), tmp_path / "out")


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


def test_a_case_with_the_name_of_a_station_is_scored_like_any_other(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    for folder in (labels, theirs):
        put(folder / "a_station_2.nii.gz", "1... .... .... ....")
    rows = evaluate_folders(labels, theirs, out, prediction_values="lesion").rows
    assert counts(rows, "a_station_2", "all") == (1, 0, 0)
    (theirs / "a_station_2.nii.gz").unlink()
    with pytest.raises(DvtError, match="1 of 5 true masks have no prediction of the same name: a_station_2"):
        evaluate_folders(labels, theirs, out)


def test_predictions_as_reference_have_their_companions_too(workspace: Workspace, tmp_path: Path) -> None:
    one = workspace.fold("unet", 0).predictions
    shutil.copytree(one, tmp_path / "two")
    shutil.copy(one / "a.nii.gz", one / "a_probability_lesion.nii.gz")
    rows = evaluate_folders(one, tmp_path / "two", tmp_path / "out").rows
    assert set(rows["case_id"]) == {"a", "b"}


def test_a_patient_that_the_network_was_trained_on_is_never_scored(trained: Workspace) -> None:
    """The splits were changed during the training, and restored after it."""
    run_file = trained.fold("gn_unet", 0).run
    body = json.loads(run_file.read_text())
    body["train"].append(body["test"][0])
    run_file.write_text(json.dumps(body))
    with pytest.raises(DvtError, match=rf"run\.json: the network was trained on {body['test'][0]}"):
        evaluate(trained, "gn_unet")


@pytest.mark.parametrize("described", [False, True])
def test_a_table_that_does_not_say_what_it_seems_to_is_refused_or_told(
    workspace: Workspace, folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str], described: bool
) -> None:
    labels, theirs, out = folders
    table = workspace.raw / "cases.csv"
    dataset = workspace.raw if described else None
    table.write_text("case_id,patient\na,P\nb,P\n")
    with pytest.raises(DvtError, match=r"cases\.csv: the column 'patient' is not known\. Name it patient_id"):
        evaluate_folders(labels, theirs, out, prediction_values="lesion", dataset=dataset)
    table.write_text("case_id,patient_id,rater\na,P,1\nb,P,1\n")
    rows = evaluate_folders(labels, theirs, out, prediction_values="lesion", dataset=dataset).rows
    shown = capsys.readouterr().err
    assert "rater are not used" in shown and "no row for c, d" in shown
    assert set(rows["patient_id"]) == {"P", "c", "d"}


def test_folds_by_group_are_named_with_their_groups() -> None:
    patient_of = {"a": "a", "b": "b", "c": "c"}
    groups = PatientGroups(column="centre", group_of={"a": "X", "b": "Y", "c": "Y"})
    splits = split_by_group(patient_of, groups)
    assert name_folds(splits.folds, splits) == (
        "all 2 folds, each trained without those that it tests (fold 0 tests centre X, fold 1 tests centre Y)"
    )
    assert name_folds(splits.folds[1:], splits).startswith("fold 1 of 2, each trained without those")
    seeded = split(patient_of, 2, 0)
    assert name_folds(seeded.folds, seeded) == "all 2 folds" and name_folds(seeded.folds[:1], seeded) == "fold 0 of 2"
