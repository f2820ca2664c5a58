"""Folders of mixed content: the scan is never confused with a mask, and what is not used is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.dicom_files import header, save, volume, write_series
from helpers.predictions import write
from helpers.refusals import refused

from dvtplan.core.errors import DvtError
from dvtplan.dicom.series import choose_volume, read_study
from dvtplan.imaging import volume_io
from dvtplan.inference import inputs
from dvtplan.inference.input_files import volume_files


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A DICOM series with its mask as a volume in one folder."""
    write_series(tmp_path / "p", volume())
    grid = choose_volume(read_study(tmp_path / "p"), None).grid
    mask = np.zeros(grid.shape, np.uint8)
    mask[1:3, 2:7, 1:4] = 1
    volume_io.write_mask(tmp_path / "p" / "thrombus.nii.gz", mask, grid)
    return tmp_path / "p"


def opened(source: Path, **how: list[str]) -> dict[str, np.ndarray]:
    """Return the images of an input by case."""
    with inputs.open_input(source, 1, **how) as found:
        return {case.id: volume_io.read(case.images[0])[0] for case in found.cases}


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "not used" in line]


def test_a_series_with_its_mask_in_its_folder_is_the_scan(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert np.array_equal(opened(series)["p"], volume())
    (line,) = lines(capsys)
    assert "thrombus.nii.gz is not used" in line
    assert np.array_equal(opened(series, series=["5"])["p"], volume())


def test_a_series_in_a_sub_folder_next_to_volumes_is_refused_unless_it_is_chosen(series: Path) -> None:
    """Either may be the scan."""
    (series / "DICOM").mkdir()
    for path in [path for path in series.iterdir() if path.name.startswith("IM")]:
        path.rename(series / "DICOM" / path.name)
    message = refused(lambda: opened(series))
    assert "thrombus.nii.gz" in message and "DICOM" in message
    assert np.array_equal(opened(series, series=["5"])["p"], volume())
    assert np.array_equal(opened(series / "DICOM")["DICOM"], volume())


def test_a_mask_deep_in_a_folder_or_archive_of_dicom_is_named(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (series / "masks").mkdir()
    (series / "thrombus.nii.gz").rename(series / "masks" / "thrombus.nii.gz")
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", series))
    for source in (series, archive):
        assert np.array_equal(opened(source)[source.stem], volume())
        (line,) = lines(capsys)
        assert "masks/thrombus.nii.gz is not used" in line


def test_volumes_are_the_scans_next_to_dicom_objects_that_are_not_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a folder of masks that were also written as segmentation objects."""
    write(tmp_path / "in" / "a.nii.gz")
    save(header("1.2.9", 12, "seg", 3, 3, Modality="SEG", PixelData=bytes(18)), tmp_path / "in" / "a_seg.dcm")
    (tmp_path / "in" / "a.json").write_text("{}")
    assert list(opened(tmp_path / "in")) == ["a"]
    (line,) = lines(capsys)
    assert "a_seg.dcm" in line and "a.json" not in line


def test_masks_among_the_objects_of_a_study_are_named(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (series / "thrombus.nii.gz").unlink()
    ds = header("1.2.9", 9, "contours", 2, 2, Modality="RTSTRUCT", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    del ds.Rows, ds.Columns
    save(ds, series / "RS1")
    assert np.array_equal(opened(series)["p"], volume())
    (line,) = lines(capsys)
    assert "RS1" in line and not line.startswith("warning")


def test_what_is_not_used_next_to_volumes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "in" / "a.nii.gz")), str(tmp_path / "in" / "b.mhd"))
    assert set(opened(tmp_path / "in")) == {"a", "b"} and lines(capsys) == []
    for name in ("c.hdr", "d.mgz", "Segmentation.seg.nrrd", "more/e.nii.gz", *(f"{k}.tif" for k in range(20))):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    assert set(opened(tmp_path / "in")) == {"a", "b"}
    (line,) = lines(capsys)
    assert "24 entries" in line and "0.tif" in line and "16 more" in line and len(line) < 250


def test_the_masks_of_an_earlier_run_within_the_input_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "out").mkdir()
    (tmp_path / "in" / "out" / "predictions.json").write_text("{}")
    opened(tmp_path / "in")
    assert lines(capsys) == []


def test_upper_case_endings_are_volumes_and_segmentations_of_slicer_are_not(tmp_path: Path) -> None:
    for name in ("A.NII.GZ", "b.nii", "c.SEG.nrrd", ".d.nii"):
        (tmp_path / name).touch()
    assert [path.name for path in volume_files(tmp_path)] == ["A.NII.GZ", "b.nii"]
    with pytest.raises(DvtError, match=r"c.SEG.nrrd: is a segmentation"):
        opened(tmp_path / "c.SEG.nrrd")


@pytest.mark.parametrize("name", ["study.zip", "sub/a.nii.gz", "IM1.dcm.gz", "b.mgz"])
def test_a_folder_without_a_scan_is_refused_and_its_content_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DvtError, match=f"{name.partition('/')[0]}.*`input`"):
        opened(tmp_path)


def test_an_archive_of_another_kind_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "study.tar.gz").write_bytes(b"x")
    with pytest.raises(DvtError, match=r"study.tar.gz: is an archive"):
        opened(tmp_path / "study.tar.gz")


def test_stations_in_files_may_lie_next_to_dicom(series: Path) -> None:
    """They are named by their files, so nothing is guessed. These two lie apart."""
    there, mask = volume_io.read(series / "thrombus.nii.gz"), volume(seed=2)
    volume_io.write_image(series / "other.nii.gz", mask, there[1].window(np.array([0, 500, 0]), there[1].shape))
    with pytest.raises(DvtError, match=r"thrombus.nii.gz.*other.nii.gz"):
        opened(series, stations=["thrombus.nii.gz", "other.nii.gz"])


def test_files_that_a_system_makes_are_never_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.nii.gz", "~$a.nii.gz"):
        (tmp_path / name).write_bytes(b"\x00" * 200)
    (tmp_path / "@eaDir").mkdir()
    message = refused(lambda: opened(tmp_path))
    assert "no file at all" in message and "Thumbs" not in message
    write(tmp_path / "a.nii.gz")
    assert list(opened(tmp_path)) == ["a"] and lines(capsys) == []
