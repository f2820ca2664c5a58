"""Folders and archives of an import: one patient or many, and what lies beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.dicom_files import CORONAL, OBLIQUE
from helpers.dicom_imports import scan, with_mask

from dvtplan.dicom.import_inputs import list_sources


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Write four folders of three patients, with a mask next to each."""
    for k, patient in enumerate(("Meier 1.1.1950", "Huber", "Huber", "Wolf")):
        with_mask(scan(tmp_path / "export" / f"scan{k}", patient, k, plane=OBLIQUE if k == 1 else CORONAL))
    return tmp_path / "export"


def test_one_folder_is_one_patient_or_many_depending_on_its_contents(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (export / "notes").mkdir()
    (export / "notes" / "a.pdf").write_bytes(b"%PDF")
    (export / "__MACOSX").mkdir()
    assert list_sources([export]) == [export / f"scan{k}" for k in range(4)]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Skipped" in line]
    assert f"Skipped {export / 'notes'}: contains no DICOM file." in line
    assert list_sources([export / "scan0"]) == [export / "scan0"]
    one = tmp_path / "one"
    for number in (5, 6):
        scan(one / str(number), "Meier", number=number)
    assert list_sources([one]) == [one]
    shutil.make_archive(str(tmp_path / "zips" / "a"), "zip", export / "scan0")
    shutil.make_archive(str(tmp_path / "zips" / "b"), "zip", export / "scan1")
    assert list_sources([tmp_path / "zips"]) == [tmp_path / "zips" / "a.zip", tmp_path / "zips" / "b.zip"]


def test_dicom_files_and_masks_that_belong_to_no_folder_are_named(
    export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a mask with a misspelt name, or of a patient whose files were not put into a folder."""
    assert len(list_sources([export])) == 4 and "not used" not in capsys.readouterr().err
    (export / "scan1.nii.gz").rename(export / "scan_1.nii.gz")
    (export / "notes.txt").write_text("none")
    shutil.copy(next((export / "scan0").iterdir()), export / "IM0001")
    assert len(list_sources([export])) == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
    assert "scan_1.nii.gz" in line and "IM0001" in line and "scan0" not in line and "notes" not in line


def test_an_archive_alone_in_a_folder_is_the_input(export: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "zips" / "a"), "zip", export / "scan0")
    assert list_sources([tmp_path / "zips"]) == [tmp_path / "zips" / "a.zip"]
