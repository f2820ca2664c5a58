"""Cases of a raw data set, and all its problems at once, each with what to do."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import TINY_SHAPE, tiny_dataset, tiny_image, tiny_label
from helpers.volumes import write_volume

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DatasetProblems, DvtError
from dvtplan.data.cases_table import read_cases_table
from dvtplan.data.dataset import Case, consistency_warnings, discover, survey
from dvtplan.planning.verification import Examination, examine

SPACING = (2, 5, 2)
"""x, y, z of the tiny volumes, in mm: 18 x 3 x 20 voxels reach 34, 10 and 38 mm from the origin."""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tiny_dataset(tmp_path / "DVT", ("a", "b"))


def problems_of(folder: Path) -> list[str]:
    """Return all problems of a data set, without the folder's name."""
    with pytest.raises(DatasetProblems) as caught:
        discover(folder)
    assert all("\n" not in line and line.endswith(".") for line in caught.value.problems)
    assert f"{len(caught.value.problems)} problem" in str(caught.value)
    return [line.removeprefix(f"{folder}/") for line in caught.value.problems]


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of ``dataset.json``; None removes one."""
    path = folder / "dataset.json"
    body = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in body.items() if v is not None}))


def image_path(folder: Path, case: str = "a", channel: int = 0) -> Path:
    return folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"


def label_path(folder: Path, case: str = "a") -> Path:
    return folder / "labelsTr" / f"{case}.nii.gz"


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
    (raw / "imagesTr" / ".DS_Store").write_text("")
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
        "imagesTr/a_0001.nii.gz: channel 1, but dataset.json lists 1. Remove the file or add the channel."
    ]


@pytest.mark.parametrize("name", ["a.nii.gz", "a_000.nii.gz", "_0000.nii.gz", "a_00x0.nii.gz", "a_٠٠٠٠.nii.gz"])
def test_an_image_that_names_no_channel_is_refused(raw: Path, name: str) -> None:
    (raw / "imagesTr" / name).write_text("")
    assert problems_of(raw) == [
        f"imagesTr/{name}: expected a name like ID_0000.nii.gz. Rename it; the number is the channel."
    ]


@pytest.mark.parametrize("name", ["imagesTr/a_0000.nii", "labelsTr/a.NII.GZ", "imagesTr/notes.txt", "labelsTr/more"])
def test_a_file_of_another_ending_is_refused_also_as_a_second_file_of_a_case(raw: Path, name: str) -> None:
    (raw / name).write_text("")
    assert problems_of(raw) == [
        f"{name}: does not end in .nii.gz, the file_ending in dataset.json. Convert, rename or remove it."
    ]


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


# --- dataset.json ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": None}, 'channel_names must number the channels from "0", found None.'),
        ({"channel_names": {}}, "channel_names must number the channels"),
        ({"channel_names": ["MR"]}, "found ['MR']."),
        ({"channel_names": {"1": "MR"}}, "found {'1': 'MR'}."),
        ({"channel_names": {"0": "MR", "2": "T2"}}, "channel_names must number the channels"),
        ({"file_ending": None}, 'file_ending must be an ending such as ".nii.gz", found None.'),
        ({"file_ending": "nii.gz"}, "found 'nii.gz'."),
        ({"file_ending": 3}, "found 3."),
        ({"labels": None}, "labels must map each name to one whole number from 0 to 254, found None."),
        ({"labels": {"0": "background", "1": "clot"}}, "labels must map each name to one whole number"),
        ({"labels": {"background": 0, "clot": [1, 2]}}, "regions that join several values are not supported."),
        ({"labels": {"background": 0, "clot": 255}}, "from 0 to 254"),
        ({"labels": {"background": 0, "clot": 1.0}}, "one whole number"),
        ({"labels": {"background": 0, "clot": True}}, "one whole number"),
        ({"labels": {"background": 0}}, 'labels need "background": 0 and at least one other'),
        ({"labels": {"clot": 1}}, 'labels need "background": 0'),
        ({"labels": {"background": 1, "clot": 2}}, 'labels need "background": 0'),
        ({"labels": {"background": 0, "air": 0, "clot": 1}}, 'labels need "background": 0'),
        ({"labels": {"background": 0, "clot": 1, "lesion": 1}}, "two labels share a value"),
        ({"labels": {"background": 0, "all": 1}}, '"all" is the name of the union'),
        ({"labels": {"background": 0, "clot": 1, "ignore": 2}}, "the label ignore would be trained"),
    ],
)  # fmt: skip
def test_a_wrong_description_is_named_by_field(raw: Path, change: dict[str, Any], message: str) -> None:
    edit(raw, **change)
    (line,) = problems_of(raw)
    assert line.startswith("dataset.json: ")
    assert message in line


def test_all_faults_of_dataset_json_come_at_once(raw: Path) -> None:
    (raw / "dataset.json").write_text("{}")
    assert len(problems_of(raw)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not readable JSON ("),
        (b"\xff\xfe", "is not readable JSON ("),
        (b"[]", "expected an object with channel_names and labels."),
    ],
)
def test_a_dataset_json_that_is_not_an_object_is_refused(raw: Path, content: bytes, message: str) -> None:
    (raw / "dataset.json").write_bytes(content)
    (line,) = problems_of(raw)
    assert line.startswith(f"dataset.json: {message}")


def test_a_missing_dataset_json_names_an_example(raw: Path) -> None:
    (raw / "dataset.json").unlink()
    assert problems_of(raw) == ["dataset.json: not found. Add it; datasets_raw/README.md has an example."]


# --- cases.csv ------------------------------------------------------------------------------------


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "cases.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case_id\na\n", {"a": ("a", None)}),
        ("case_id,patient_id\na,\n", {"a": ("a", None)}),
        ("case_id,patient_id\na\n", {"a": ("a", None)}),
        ("\ufeffcase_id , patient_id\r\n a , P \r\n\r\n,\r\n", {"a": ("P", None)}),
        ("case_id,patient_id\na,P,\n", {"a": ("P", None)}),
        ("case_id,note,patient_id\na,\"1, 2\",007\n", {"a": ("007", None)}),
        (",case_id,,patient_id\n0,a,,P\n", {"a": ("P", None)}),
        ("patient_id,case_id,midline_mm\nP,a,3\n", {"a": ("P", None)}),
        ("case_id,level_left_mm\na,-1e2\n", {"a": ("a", Levels(left_mm=-100.0))}),
        ("case_id,level_right_mm,midline_mm\na,0,3\n", {"a": ("a", Levels(right_mm=0.0, midline_mm=3.0))}),
        ("case_id\n", {}),
    ],
)  # fmt: skip
def test_tables_as_people_and_spreadsheets_write_them(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    assert read_cases_table(table(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"found none\. Fix its first line\."),
        ("patient_id\nP\n", "at least case_id; found patient_id"),
        ("case_id;patient_id\na;P\n", "at least case_id; found case_id;patient_id"),
        ("case_id,case_id\na,b\n", "each once and at least case_id"),
        ("case_id\na\n\na\n", "line 4: a occurs twice. Keep one row per case."),
        ("case_id,patient_id\n,P\n", "line 2: case_id is empty. Keep one row per case."),
        ("case_id,level_left_mm\na,high\n", "line 2: level_left_mm is 'high', expected a number. Give millimetres"),
        ("case_id,level_right_mm\na,nan\n", "level_right_mm is 'nan', expected a number"),
        ("case_id,midline_mm,level_left_mm\na,inf,1\n", "midline_mm is 'inf', expected a number"),
        ("case_id,level_left_mm\na,12,5\n", "line 2: contains '5' after the last column. Write decimals with a point"),
        ('case_id\n"a\n', "is not a readable table"),
        (b"case_id\n\xe9\n", "is not a readable table"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_by_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DvtError, match=message) as caught:
        read_cases_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_all_faults_of_a_table_are_reported_with_those_of_the_files(raw: Path) -> None:
    table(raw, "case_id,level_left_mm\na,x\na,1\nb,y\nz,1\n")
    label_path(raw, "b").unlink()
    assert [line.split(":")[0] for line in problems_of(raw)] == [
        "labelsTr/b.nii.gz",
        "cases.csv, line 2",
        "cases.csv, line 3",
        "cases.csv, line 4",
        "cases.csv",
    ]


def test_a_table_with_semicolons_is_explained(raw: Path) -> None:
    table(raw, "case_id;level_left_mm\na;1\n")
    (line,) = problems_of(raw)
    assert "found case_id;level_left_mm" in line and "semicolons" in line


def test_a_row_without_files_is_named(raw: Path) -> None:
    table(raw, "case_id\nz\n")
    assert problems_of(raw) == ["cases.csv: lists the case z, which has no image. Remove the row or add the files."]


# --- what the volumes hold ------------------------------------------------------------------------


def look(folder: Path, case: str = "a") -> Examination:
    dataset, _ = survey(folder)
    assert dataset is not None
    (found,) = (examine(c, dataset.labels) for c in dataset.cases if c.id == case)
    assert all("\n" not in line and line.endswith(".") for line in (*found.problems, *found.warnings))
    assert (found.fingerprint is None) == bool(found.problems)
    return found


def only_problem(folder: Path) -> str:
    (line,) = look(folder).problems
    return line.removeprefix(f"{folder}/")


def test_a_sound_case_is_measured(raw: Path) -> None:
    found = look(raw)
    assert (found.case_id, found.problems, found.warnings) == ("a", (), ())
    assert found.fingerprint is not None
    assert found.fingerprint.shape == {"LR": 18, "AP": 3, "SI": 20}
    assert found.fingerprint.regions["thrombus"].voxels == 8


def test_a_label_off_by_one_slice_is_refused(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1])[:-1], SPACING)
    assert only_problem(raw) == (
        "labelsTr/a.nii.gz: shape (18, 3, 19) differs from that of a_0000.nii.gz, (18, 3, 20). "
        "Export it on the image's grid."
    )


def test_a_label_two_micrometres_away_is_refused_and_half_a_micrometre_is_not(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1]), SPACING, (0.002, 0, 0))
    line = only_problem(raw)
    assert line.startswith("labelsTr/a.nii.gz: lies up to 0.002 mm away from a_0000.nii.gz (tolerance 0.001 mm)")
    assert line.endswith("Export it on the image's grid.")
    write_volume(label_path(raw), tiny_label([1]), SPACING, (0.0005, 0, 0))
    assert look(raw).problems == ()


def test_a_label_of_another_spacing_shows_both(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1]), (2, 5, 2.5))
    assert "spacing (2.5, 5, 2) against (2, 5, 2) mm" in only_problem(raw)


def test_a_reversed_label_is_refused(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1]), SPACING, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    assert "lies up to" in only_problem(raw)


def test_channels_must_lie_on_one_grid(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ("a",), channels=2)
    write_volume(image_path(folder, "a", 1), tiny_image(0, 1), SPACING, (0, 0, 1))
    assert only_problem(folder).startswith("imagesTr/a_0001.nii.gz: lies up to 1 mm away from a_0000.nii.gz")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_voxels_that_are_not_finite_are_counted(tmp_path: Path, ending: str, kind: str, bad: float) -> None:
    # SimpleITK itself makes zeros of them where the file is NIfTI.
    folder = tiny_dataset(tmp_path / "DVT", ("a",), ending=ending)
    image = tiny_image(0).astype(kind)
    image[0, 0, :3] = bad
    write_volume(folder / "imagesTr" / f"a_0000{ending}", image, SPACING)
    assert only_problem(folder) == (
        f"imagesTr/a_0000{ending}: 3 of 1080 voxels are not finite. Replace them, for example by 0 outside the body."
    )


def test_a_label_with_nan_is_refused(raw: Path) -> None:
    label = tiny_label([1]).astype(np.float32)
    label[0, 0, 0] = np.nan
    write_volume(label_path(raw), label, SPACING)
    assert "labelsTr/a.nii.gz: 1 of 1080 voxels are not finite." in only_problem(raw)


def test_an_image_without_contrast_is_refused(raw: Path) -> None:
    write_volume(image_path(raw), np.full(TINY_SHAPE, 7, np.uint8), SPACING)
    assert only_problem(raw) == ("imagesTr/a_0000.nii.gz: every voxel is 7; expected an image. Export it again.")


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (2, "u1", "2"),
        (-1, "i2", "-1"),
        (257, "i2", "257"),
        (0.5, "f4", "0.5"),
        (0.99999994, "f4", "0.99999994"),
    ],
)
def test_label_values_beyond_dataset_json_are_shown(raw: Path, value: float, kind: str, shown: str) -> None:
    label = tiny_label([1]).astype(kind)
    label[0, 0, 0] = value
    write_volume(label_path(raw), label, SPACING)
    assert only_problem(raw) == (
        f"labelsTr/a.nii.gz: contains the values {shown}; dataset.json lists 0 background, 1 thrombus. "
        "Fix the mask or the list."
    )


def test_an_image_instead_of_a_label_lists_a_few_values(raw: Path) -> None:
    write_volume(label_path(raw), tiny_image(0), SPACING)
    assert only_problem(raw).count(",") < 10


def test_label_values_may_be_stored_as_floats(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1]).astype(np.float64), SPACING)
    assert look(raw).problems == ()


def test_an_empty_label_is_a_warning(raw: Path) -> None:
    write_volume(label_path(raw), np.zeros(TINY_SHAPE, np.uint8), SPACING)
    found = look(raw)
    assert found.problems == ()
    assert found.warnings == (f"{label_path(raw)}: contains no foreground. Check that this patient has no thrombus.",)


@pytest.mark.parametrize(("level", "warned"), [(0.0, False), (38.0, False), (-1.0, True), (39.0, True)])
def test_a_level_outside_the_volume_is_a_warning(raw: Path, level: float, warned: bool) -> None:
    table(raw, f"case_id,level_right_mm\na,{level}\n")
    found = look(raw)
    assert found.problems == ()
    assert [w.split(" lies")[0] for w in found.warnings] == (
        [f"cases.csv: a: level_right_mm {level:g}"] if warned else []
    )


def test_all_problems_of_a_case_come_at_once_each_with_its_own_file(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ("a",), channels=3)
    image_path(folder, "a", 0).write_bytes(b"")
    write_volume(image_path(folder, "a", 1), np.zeros(TINY_SHAPE), SPACING)
    write_volume(image_path(folder, "a", 2), tiny_image(0, 2), SPACING, (0, 0, 1))
    write_volume(label_path(folder), tiny_label([9]), SPACING)
    lines = [line.removeprefix(f"{folder}/") for line in look(folder).problems]
    assert [line.split(".nii.gz: ")[0] for line in lines] == [
        "imagesTr/a_0000",
        "imagesTr/a_0001",
        "labelsTr/a",
        "imagesTr/a_0002",
    ]
    assert "is empty" in lines[0]
    assert "every voxel is 0" in lines[1]
    assert "contains the values 9" in lines[2]
    assert "away from a_0001.nii.gz" in lines[3]


def test_a_case_without_any_readable_file_does_not_crash() -> None:
    case = Case(id="a", patient="a", images=(Path("gone_0000.nii.gz"),), label=Path("gone.nii.gz"))
    assert len(examine(case, {"thrombus": 1}).problems) == 2
    assert len(examine(replace(case, label=None), {"thrombus": 1}).problems) == 1


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
    (folder / "cases.csv").write_text(f"case_id,patient\n{case_id},P\n")
    (line,) = [o for o in consistency_warnings(discover(folder)) if "cases.csv" in o]
    assert "the columns patient are not used" in line
