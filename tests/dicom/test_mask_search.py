"""The mask of a series among the objects and files of its folder; what is not used is said, with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import CORONAL, header, save, volume, write_series
from helpers.dicom_imports import drawn, imported, scan, with_mask
from helpers.segmentations import ACROSS, START, block, foreign
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from dvtplan.data.dataset import discover
from dvtplan.imaging import volume_io

HERE = block(slice(2), slice(3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return scan(tmp_path / "p", "one")


def with_object(folder: Path, change: Callable[[Dataset], object] = lambda ds: None, **more: Any) -> Path:
    """Write a segmentation object of the series into its folder."""
    path = foreign(folder / "SEG1", folder, [(1, START + ACROSS, HERE)], ["thrombus"], **more)
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def mask_of(folder: Path, tmp_path: Path, **how: Any) -> np.ndarray | None:
    """Import a folder; return its mask."""
    done = imported([folder], tmp_path, ["T1"], **how)
    assert done.faults == ()
    cases = discover(done.folder).cases if (done.folder / "labelsTr").exists() else ()
    return volume_io.read(cases[0].label)[0] if cases and cases[0].label is not None else None


def unused(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line about what is not used."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not used:" in line]
    return line


def other_series(ds: Dataset) -> None:
    ds.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.826.0.1.77"


def other_patient(ds: Dataset) -> None:
    ds.PatientID = "two"


@pytest.mark.parametrize(
    ("change", "words"), [(other_series, "a series that is not there"), (other_patient, "another patient")]
)
def test_an_object_of_another_series_or_patient_is_not_used_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    with_object(folder, change)
    assert mask_of(folder, tmp_path) is None
    line = unused(capsys)
    assert line.startswith("warning:") and "SEG1" in line and words in line and "two" not in line


def test_an_object_of_another_series_of_the_study_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no warning if the chosen series has a mask."""
    with_object(folder)
    second = scan(tmp_path / "other", "one", 1, number=6)
    foreign(second / "SEG2", second, [(1, START, HERE)], ["thrombus"])
    shutil.copytree(second, folder / "second")
    found = mask_of(folder, tmp_path, series=["5"])
    assert found is not None and np.array_equal(found[1], HERE)
    line = unused(capsys)
    assert not line.startswith("warning:") and "SEG2 refers to series 6" in line


def test_contours_are_not_read_and_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contours = Dataset()
    contours.ROIName = "thrombus"
    ds = header("1.2.9", 9, "contours", 2, 2, Modality="RTSTRUCT", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    del ds.Rows, ds.Columns
    ds.StructureSetROISequence = Items([contours])
    save(ds, folder / "RS1")
    assert mask_of(folder, tmp_path) is None
    line = unused(capsys)
    assert "RS1" in line and "contours (RTSTRUCT) of thrombus" in line


def test_an_object_in_another_frame_of_reference_is_used_with_a_warning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its reference and its positions say that it belongs to the series."""

    def other(ds: Dataset) -> None:
        ds.FrameOfReferenceUID = "1.2.3.5"

    with_object(folder, other)
    assert mask_of(folder, tmp_path) is not None
    assert "warning: " in (err := capsys.readouterr().err) and "SEG1 refers to series 5, but has another frame" in err


@pytest.mark.parametrize("entry", ["p/SEG2", "SEG2"])
def test_a_table_may_name_an_object_by_its_file(folder: Path, tmp_path: Path, entry: str) -> None:
    with_object(folder)
    with_object(folder).rename(folder / "SEG2")
    with_object(folder)
    (tmp_path / "table.csv").write_text(f"folder,mask\np,{entry}\n")
    assert mask_of(folder, tmp_path, masks=tmp_path / "table.csv") is not None


def test_a_mask_of_a_table_is_looked_for_from_the_folder_of_the_table(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "table.csv"
    table.write_text("folder,mask\np,p/none.nii.gz\n")
    (line,) = imported(folder, tmp_path, masks=table).faults
    assert str(tmp_path / "tables" / "p" / "none.nii.gz") in line and "folder of the table" in line


# --- no reference ---------------------------------------------------------------------------------


def without_reference(ds: Dataset) -> None:
    del ds.ReferencedSeriesSequence


def other_frame_of_reference(ds: Dataset) -> None:
    without_reference(ds)
    ds.FrameOfReferenceUID = "1.2.3.5"


def no_frame_of_reference(ds: Dataset) -> None:
    without_reference(ds)
    del ds.FrameOfReferenceUID


def other_images(ds: Dataset) -> None:
    without_reference(ds)
    image, derivation = Dataset(), Dataset()
    image.ReferencedSOPInstanceUID = "1.2.99"
    derivation.SourceImageSequence = Items([image])
    ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence = Items([derivation])


def test_an_object_without_reference_is_used_if_it_lies_on_the_voxels(folder: Path, tmp_path: Path) -> None:
    with_object(folder, without_reference)
    found = mask_of(folder, tmp_path)
    assert found is not None and np.array_equal(found[1], HERE) and found.sum() == HERE.sum()


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        (other_frame_of_reference, {}, "frame of reference"),
        (no_frame_of_reference, {}, "frame of reference"),
        (other_images, {}, "images that are not those of series 5"),
        (without_reference, {"spacing": (1.45, 1.2)}, "do not lie on the voxels"),
        (without_reference, {"plane": ((-1.0, 0, 0), CORONAL[1])}, "outside the series"),
    ],
)
def test_an_object_without_reference_is_not_used_if_anything_contradicts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, more: dict[str, Any], words: str
) -> None:
    with_object(folder, change, **more)
    assert mask_of(folder, tmp_path) is None
    line = unused(capsys)
    assert "SEG1 refers to no series" in line and words in line


def test_an_object_without_reference_is_not_used_if_two_series_have_its_voxels(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_object(folder, without_reference)

    def of_patient(ds: Dataset, k: int) -> None:
        ds.PatientID = "one"

    write_series(folder / "later", volume(seed=3), number=6, change=of_patient)
    assert mask_of(folder, tmp_path, series=["5"]) is None
    assert "series 6 has the same voxels" in unused(capsys)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.NII.GZ", "p.seg.nrrd", "p/drawn.Nrrd"])
def test_a_mask_file_is_found_whatever_the_case_of_its_ending(folder: Path, tmp_path: Path, name: str) -> None:
    with_mask(folder)
    volume_io.write_mask(tmp_path / "m.nrrd", drawn(), volume_io.read_grid(tmp_path / "p.nii.gz"))
    (tmp_path / ("p.nii.gz" if name.lower().endswith("gz") else "m.nrrd")).rename(tmp_path / name)
    (tmp_path / "p.nii.gz").unlink(missing_ok=True)
    found = mask_of(folder, tmp_path)
    assert found is not None and np.array_equal(found, drawn())


def test_masks_of_formats_that_are_not_read_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Surface.STL").write_bytes(b"solid")
    (folder / "notes.txt").write_text("drawn by nobody")
    assert mask_of(folder, tmp_path) is None
    line = unused(capsys)
    assert "Surface.STL" in line and "notes" not in line


def test_a_mask_within_an_archive_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_mask(folder)
    (tmp_path / "p.nii.gz").rename(folder / "mask.nii.gz")
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    assert mask_of(archive, tmp_path) is None
    assert "mask.nii.gz lies in the archive" in unused(capsys)
