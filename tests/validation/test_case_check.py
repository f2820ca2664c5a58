"""The check of one phantom case: what is wrong with its files or metadata is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import SimpleITK as sitk
from helpers.cohort_checks import assert_one_line, first_case


@pytest.mark.parametrize(
    ("file", "row"),
    [
        ("imagesTr/leg_001_0000.nii.gz", "image equals the image made from its metadata"),
        ("labelsTr/leg_001.nii.gz", "label is what its metadata make"),
    ],
)
@pytest.mark.parametrize("spoil", ["a voxel", "the spacing", "the type"])
def test_a_changed_volume_is_found(
    copy: Path, capsys: pytest.CaptureFixture[str], file: str, row: str, spoil: str
) -> None:
    volume = sitk.ReadImage(copy / file)
    if spoil == "a voxel":
        volume[5, 6, 7] = volume[5, 6, 7] + 1
    elif spoil == "the spacing":
        volume.SetSpacing((7.3, 8.7, 9.8))
    else:
        volume = sitk.Cast(volume, sitk.sitkFloat32)
    sitk.WriteImage(volume, copy / file)
    assert first_case(copy) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "NOT MET" in line and "(" in line]
    assert row in line


@pytest.mark.parametrize("column", ["level_left_mm", "level_right_mm", "midline_mm", "patient_id"])
def test_a_changed_row_of_the_table_of_cases_is_found(
    copy: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    head, first, *others = (copy / "cases.csv").read_text().splitlines()
    values = first.split(",")
    values[head.split(",").index(column)] = "12.5"
    (copy / "cases.csv").write_text("\n".join([head, ",".join(values), *others]) + "\n")
    assert first_case(copy) == 1
    assert "row of cases.csv is what its metadata make: leg_001\n" in capsys.readouterr().out


def test_a_volume_in_another_orientation_is_the_same(copy: Path) -> None:
    path = copy / "imagesTr" / "leg_001_0000.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(path), "RAS"), path)
    assert first_case(copy) == 0


def test_a_damaged_volume_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "imagesTr" / "leg_001_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:1000])
    assert first_case(copy) == 2
    assert_one_line(capsys, "leg_001_0000.nii.gz")


def test_metadata_of_another_case_are_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert first_case(copy, seed=4) == 1
    assert capsys.readouterr().out.count("NOT MET") >= 3  # image, label and what else the metadata say


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"version": "0.0"}, "0.0"),
        ({"scale": "huge"}, "huge"),
        ({"pattern": "everywhere"}, "everywhere"),
        ({"seed": "three"}, "seed is 'three', expected a whole number; make it again"),
        ({"index": 2.0}, "index is 2.0, expected a whole number; make it again"),
        ({"thrombus": 1}, "thrombus is 1, expected true or false; make it again"),
        ({"matrix": ["standard"]}, "expected text; make it again"),
    ],
)
def test_metadata_of_no_valid_case_are_refused(
    copy: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], found: str
) -> None:
    assert first_case(copy, **changes) == 2
    assert_one_line(capsys, "leg_001.json", found)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_damaged_metadata_are_refused(copy: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (copy / "metadata" / "leg_001.json").write_text(content)
    assert first_case(copy) == 2
    assert_one_line(capsys, "leg_001.json")
