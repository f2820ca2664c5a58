"""Cases of a raw data set, and all problems of its files at once, each with what to do."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.datasets import tiny_dataset, tiny_image
from helpers.raw_data import edit, image_path, label_path, problems_of
from helpers.volumes import write_volume

from dvtplan.anatomy.levels import Levels
from dvtplan.data.dataset import consistency_warnings, discover
from dvtplan.planning.verification import examine

# --- what is listed -------------------------------------------------------------------------------


def test_a_sound_folder_is_listed_in_order(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ("b", "a_1"), channels=2, labels={"proximal": 1, "distal": 2})
    dataset = discover(folder)
    assert dataset.name == "DVT"
    assert dataset.channels == ("MR0", "MR1")
    assert dataset.labels == {"proximal": 1, "distal": 2}
    assert [case.id for case in dataset.cases] == ["a_1", "b"]
    first = dataset.cases[0]
    assert first.images == (image_path(folder, "a_1", 0), image_path(folder, "a_1", 1))
    assert first.label == label_path(folder, "a_1")
    assert (first.patient, first.levels) == ("a_1", None)


def test_patients_and_levels_come_from_the_table(raw: Path) -> None:
    (raw / "cases.csv").write_text("case_id,patient_id,level_left_mm,level_right_mm\na,P,15,-20.5\nb,P,,\n")
    a, b = discover(raw).cases
    assert (a.patient, a.levels) == ("P", Levels(left_mm=15.0, right_mm=-20.5))
    assert (b.patient, b.levels) == ("P", None)


def test_classes_are_numbered_by_value_in_any_order_of_dataset_json(raw: Path) -> None:
    edit(raw, labels={"distal": 2, "background": 0, "proximal": 1})
    assert list(discover(raw).labels.items()) == [("proximal", 1), ("distal", 2)]


def test_hidden_files_and_other_fields_are_ignored(raw: Path) -> None:
    for folder, name in itertools.product(("imagesTr", "labelsTr"), (".DS_Store", "._a_0000.nii.gz", "Thumbs.db")):
        (raw / folder / name).write_text("")
    (raw / "labelsTr" / "@eaDir").mkdir()
    (raw / "labelsTr" / "Desktop.ini").write_text("")
    (raw / "notes.txt").write_text("")
    edit(raw, reference="somewhere", numTraining=2)
    assert len(discover(raw).cases) == 2


def test_the_older_name_of_channel_names_is_accepted(raw: Path) -> None:
    edit(raw, channel_names=None, modality={"0": "MR"})
    assert discover(raw).channels == ("MR",)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_any_ending_in_dataset_json_is_accepted(tmp_path: Path, ending: str) -> None:
    dataset = discover(tiny_dataset(tmp_path / "DVT", ending=ending))
    found = [examine(case, dataset.labels) for case in dataset.cases]
    assert len(found) == 4
    assert all(e.fingerprint is not None for e in found)


# --- files that are missing, extra or misnamed ----------------------------------------------------


@pytest.mark.parametrize("ending", [".tif", ".png", ".gipl", ".mhd", ".dcm"])
def test_an_ending_of_no_single_volume_file_is_one_problem(raw: Path, ending: str) -> None:
    edit(raw, file_ending=ending)
    (problem,) = problems_of(raw)
    assert f"file_ending {ending} is not a supported volume format" in problem


def test_a_missing_label_and_a_label_without_image_are_named(raw: Path) -> None:
    label_path(raw, "a").rename(label_path(raw, "z"))
    assert problems_of(raw) == [
        "labelsTr/a.nii.gz: not found. Add this case's label file.",
        "labelsTr/z.nii.gz: a label without an image. Add z_0000.nii.gz or remove it.",
    ]


def test_a_missing_channel_is_named(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ("a", "b"), channels=2)
    image_path(folder, "b", 0).unlink()
    assert problems_of(folder) == ["imagesTr/b_0000.nii.gz: not found. Add this channel."]


def test_an_extra_channel_is_named(raw: Path) -> None:
    write_volume(image_path(raw, "a", 1), tiny_image(0, 1))
    assert problems_of(raw) == [
        "imagesTr/a_0001.nii.gz: is of channel 0001, but dataset.json lists 1 channel, counted from 0000. Remove the "
        "file, add the channel, or correct the number."
    ]


@pytest.mark.parametrize("name", ["a.nii.gz", "a_000.nii.gz", "_0000.nii.gz", "a_00x0.nii.gz", "a_٠٠٠٠.nii.gz"])
def test_an_image_that_names_no_channel_is_refused(raw: Path, name: str) -> None:
    (raw / "imagesTr" / name).write_text("")
    assert problems_of(raw) == [
        f"imagesTr/{name}: expected a name like ID_0000.nii.gz. Rename it; the number is the channel."
    ]


@pytest.mark.parametrize("name", ["imagesTr/a_0000.nii", "labelsTr/a.NII.GZ", "imagesTr/notes.tif", "labelsTr/more"])
def test_a_file_of_another_ending_is_refused_also_as_a_second_file_of_a_case(raw: Path, name: str) -> None:
    (raw / name).write_text("")
    assert problems_of(raw) == [
        f"{name}: does not end in .nii.gz, the file_ending in dataset.json. Convert, rename or remove it."
    ]


def test_notes_next_to_the_volumes_are_no_problem(raw: Path) -> None:
    for name in ("imagesTr/a_0000.json", "labelsTr/Thumbs.db", "labelsTr/desktop.ini", "imagesTr/README.txt"):
        (raw / name).write_text("x")
    assert len(discover(raw).cases) == 2


def test_a_folder_instead_of_a_volume_is_named(raw: Path) -> None:
    (raw / "imagesTr" / "c_0000.nii.gz").mkdir()
    assert problems_of(raw) == [
        "imagesTr/c_0000.nii.gz: expected a file, found a folder. Replace it by one volume file."
    ]


@pytest.mark.parametrize("name", [b"bad\n_0000.nii.gz", b"bad\xff_0000.nii.gz"])
def test_a_name_that_cannot_be_printed_is_refused_in_one_line(raw: Path, name: bytes) -> None:
    Path(os.fsdecode(bytes(raw) + b"/imagesTr/" + name)).write_text("")
    (line,) = problems_of(raw)
    assert line.startswith(f"{raw}/imagesTr".removeprefix(f"{raw}/"))
    assert "contains characters that cannot be printed. Rename the file." in line
    assert line.isprintable()


@pytest.mark.parametrize("name", ["imagesTr", "labelsTr"])
def test_a_missing_folder_is_named(raw: Path, name: str) -> None:
    for path in (raw / name).iterdir():
        path.unlink()
    (raw / name).rmdir()
    assert f"{name}: no such folder. " in problems_of(raw)[0] or f"{name}: no such folder. " in problems_of(raw)[-1]


def test_a_folder_without_permission_is_named(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    found = problems_of(raw)
    for name in ("imagesTr", "labelsTr"):
        assert f"{name}: cannot be read (Permission denied). Fix the permissions." in found


def test_empty_folders_are_named(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ())
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    assert problems_of(folder) == ["imagesTr: contains no case. Add files named ID_0000.nii.gz."]


# --- what is legal and probably not meant ---------------------------------------------------------


def test_a_wrong_numtraining_is_a_warning(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "D")
    cases = len(discover(folder).cases)
    description = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": cases}))
    assert consistency_warnings(discover(folder)) == []
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": cases + 1}))
    (line,) = consistency_warnings(discover(folder))
    assert f"numTraining is {cases + 1}, but the data set has {cases} cases" in line


def test_an_unused_column_is_a_warning(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "D")
    case_id = discover(folder).cases[0].id
    (folder / "cases.csv").write_text(f"case_id,note\n{case_id},P\n")
    line = next(o for o in consistency_warnings(discover(folder)) if "cases.csv" in o)
    assert "the columns note are not used" in line


@pytest.mark.parametrize("name", ["Cases.csv", "cases.xlsx", "splits_final.json", "splits.JSON"])
def test_a_table_under_another_name_is_a_warning(raw: Path, name: str) -> None:
    (raw / name).write_text("")
    (line,) = consistency_warnings(discover(raw))
    assert f"{name}: is not read" in line


@pytest.mark.parametrize("name", ["imagesTr", "labelsTr"])
def test_a_folder_that_is_a_file_is_the_only_problem(raw: Path, name: str) -> None:
    """It says nothing about the cases, whose files must not be removed."""
    shutil.rmtree(raw / name)
    (raw / name).write_text("")
    assert [line.partition(". ")[0] for line in problems_of(raw)] == [f"{name}: is a file, expected a folder"]


def test_a_label_whose_name_is_too_long_for_files_is_named(tmp_path: Path) -> None:
    """In bytes a label may be longer than in characters; its name stands beside the case's in file names."""
    discover(tiny_dataset(tmp_path / "DVT", ("a",), labels={"日" * 64: 1}))
    (problem,) = problems_of(tiny_dataset(tmp_path / "Long", ("case_of_the_first_patient",), labels={"日" * 64: 1}))
    assert "dataset.json: the label 日" in problem and "192 bytes" in problem
    (problem,) = problems_of(tiny_dataset(tmp_path / "Case", ("x" * 150,), labels={"日" * 64: 1}))
    assert "imagesTr: the case xxx" in problem and "150 bytes" in problem
