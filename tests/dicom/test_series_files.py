"""The files of each series: two series are never one, and no file of a series is passed over."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import CORONAL, SAGITTAL, read, volume, write_enhanced, write_series
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import SecondaryCaptureImageStorage

from dvtplan.core.errors import DvtError
from dvtplan.dicom import series


def refusal(source: Path, wanted: str | None = None) -> str:
    with pytest.raises(DvtError) as caught:
        read(source, wanted)
    return str(caught.value)


def without_uid(folder: Path) -> None:
    """Empty the series UID, as some anonymizers do."""
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        ds.SeriesInstanceUID = ""
        ds.save_as(path)


def with_coordinates(folder: Path, uid_of: Callable[[int], str]) -> None:
    write_series(folder, volume((8, 12, 8)), change=lambda ds, k: setattr(ds, "FrameOfReferenceUID", uid_of(k)))


@pytest.mark.parametrize("count", [1, 2])
def test_slices_in_other_coordinates_are_not_of_the_volume(tmp_path: Path, count: int) -> None:
    with_coordinates(tmp_path, lambda k: "1.2.4" if k >= 8 - count else "1.2.3")
    assert "FrameOfReferenceUID" in refusal(tmp_path)


def test_volumes_of_one_series_in_two_coordinates_are_two(tmp_path: Path) -> None:
    with_coordinates(tmp_path, lambda k: f"1.2.{k % 2 + 3}")
    array = volume((8, 12, 8))
    found = {read(tmp_path, name)[0].tobytes() for name in ("5-1", "5-2")}
    assert found == {array[::2].tobytes(), array[1::2].tobytes()}


@pytest.mark.parametrize("uid_of", [lambda k: f"1.2.{k}", lambda k: "1.2.3" if k < 7 else ""], ids=["each", "lacking"])
def test_coordinates_that_tell_nothing_do_not_divide_a_series(tmp_path: Path, uid_of: Callable[[int], str]) -> None:
    with_coordinates(tmp_path, uid_of)
    assert np.array_equal(read(tmp_path)[0], volume((8, 12, 8)))


@pytest.mark.parametrize("name", ["inner.zip", "scan.tar.gz"])
def test_an_archive_within_is_named_where_nothing_else_is(tmp_path: Path, name: str) -> None:
    paths = write_series(tmp_path / "in", volume())
    with zipfile.ZipFile(tmp_path / "in" / name, "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.write(tmp_path / "in" / name, name)
    assert name in refusal(tmp_path / "scan.zip")
    assert np.array_equal(read(tmp_path / "in")[0], volume())


@pytest.mark.parametrize("uid", ["1.2.3.5", ""], ids=["same", "empty"])
@pytest.mark.parametrize("shift", [0.0, 5 * 1.25, 0.625], ids=["same place", "behind", "between"])
@pytest.mark.parametrize(
    "change",
    [
        {"SeriesNumber": 6},
        {"SeriesDescription": "cor_t2"},
        {"ProtocolName": "t2"},
        {"StudyInstanceUID": "1.2.3.9"},
        {"PatientID": "p2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_series_that_share_a_uid_are_told_apart(tmp_path: Path, uid: str, shift: float, change: dict[str, Any]) -> None:
    def other(ds: Dataset, k: int) -> None:
        for keyword, value in change.items():
            setattr(ds, keyword, value)

    write_series(tmp_path / "all", volume(), uid=uid or "1.2", name=lambda k: f"a{k}")
    start = (-100.0, -30.0 + shift, 200.0)
    write_series(tmp_path / "all", volume(seed=1), uid=uid or "1.2", start=start, change=other, name=lambda k: f"b{k}")
    if not uid:
        without_uid(tmp_path / "all")
    study = series.read_study(tmp_path / "all")
    assert len(study.volumes) == 2 and study.faults == ()
    found = {one.stack.frames[0].file[0]: series.read_volume(study, one)[0] for one in study.volumes}
    assert np.array_equal(found["a"], volume()) and np.array_equal(found["b"], volume(seed=1))
    assert len({one.series_key for one in study.volumes}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"SeriesInstanceUID": "1.2.9"},
        {"SeriesInstanceUID": ""},
        {"SeriesNumber": None},
        {"SeriesDescription": "other"},
        {"PatientID": ""},
    ],
    ids=lambda change: str(next(iter(change.items()))),
)
def test_one_image_whose_series_is_unclear_is_not_lost(tmp_path: Path, change: dict[str, Any]) -> None:
    last = write_series(tmp_path, volume())[-1]
    ds = pydicom.dcmread(last)
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    ds.save_as(last)
    message = refusal(tmp_path, "5")
    assert last.name in message and next(iter(change)) in message and "p1" not in message


def test_series_without_number_and_description_are_told_apart_by_their_uids(tmp_path: Path) -> None:
    """After anonymization a localizer of two images is not part of the scan."""

    def bare(ds: Dataset, k: int) -> None:
        ds.SeriesNumber, ds.SeriesDescription = None, ""

    write_series(tmp_path / "a", volume(), change=bare)
    write_series(tmp_path / "b", volume((2, 12, 8)), change=bare)
    assert np.array_equal(read(tmp_path)[0], volume())


@pytest.mark.parametrize("modality", ["PR", "KO", "RTDOSE"])
@pytest.mark.parametrize("which", ["last", "all"])
def test_a_slice_with_a_wrong_modality_is_not_lost(tmp_path: Path, modality: str, which: str) -> None:
    def change(ds: Dataset, k: int) -> None:
        if which == "all" or k == 4:
            ds.Modality = modality

    paths = write_series(tmp_path, volume(), change=change)
    if which == "all":
        assert np.array_equal(read(tmp_path)[0], volume())
    else:
        assert paths[-1].name in refusal(tmp_path)


PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows")


@pytest.mark.parametrize("keyword", PLACE)
@pytest.mark.parametrize("how", ["missing", "empty"])
@pytest.mark.parametrize("which", ["last", "all"])
def test_an_image_without_a_place_is_named_with_the_tag_that_it_lacks(
    tmp_path: Path, keyword: str, how: str, which: str
) -> None:
    def change(ds: Dataset, k: int) -> None:
        if which == "all" or k == 4:
            if how == "missing":
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, None)

    paths = write_series(tmp_path, volume(), change=change)
    message = refusal(tmp_path)
    assert keyword in message and "\n" not in message
    assert paths[-1].name in message if which == "last" else "IM0000" in message


def captured(change: Callable[[Dataset], object] = lambda ds: None) -> Callable[[Dataset, int], None]:
    def capture(ds: Dataset, k: int) -> None:
        ds.SOPClassUID = SecondaryCaptureImageStorage
        del ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing
        change(ds)

    return capture


def test_a_screenshot_is_named_and_the_scan_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the series itself, or in a series of its own."""
    write_series(tmp_path, volume(), uid="1.2.5")
    write_series(tmp_path, volume((1, 12, 8)), uid="1.2.5", change=captured(), name=lambda k: "shot")
    write_series(tmp_path, volume((2, 12, 8)), number=9, words="photos", change=captured(), name=lambda k: f"photo{k}")
    assert np.array_equal(read(tmp_path)[0], volume())
    assert "shot has no ImagePositionPatient" in capsys.readouterr().err
    assert any("series 9 (photos): 2 images without" in line for line in series.read_study(tmp_path).skipped)


def test_a_number_or_a_word_that_also_names_a_faulty_volume_does_not_choose_the_sound_one(tmp_path: Path) -> None:
    """The faulty one may be meant. The full name chooses the other."""
    for echo in (1, 2):
        write_series(
            tmp_path / str(echo),
            volume(seed=echo),
            uid="1.2.5",
            change=lambda ds, k, echo=echo: setattr(ds, "EchoTime", 2.5 * echo),  # type: ignore[misc]
        )[2 * echo].unlink()
    for wanted in ("5", "vein"):
        message = refusal(tmp_path, wanted)
        assert "1 slice missing" in message and "one other volume matches" in message and "5b (" in message
    assert len(read(tmp_path, "5b")[0]) == 4


# --- files that are not there ---------------------------------------------------------------------


def medium(folder: Path) -> Path:
    """Write two series with a DICOMDIR."""
    files = FileSet()
    for number in (5, 6):
        for path in write_series(folder / "in" / str(number), volume(seed=number), number=number):
            ds = pydicom.dcmread(path)
            ds.StudyDate, ds.StudyTime, ds.StudyID = "20000101", "120000", "1"
            files.add(ds)
    files.write(folder / "cd")
    return folder / "cd"


def test_an_image_that_the_directory_lists_is_missed(tmp_path: Path) -> None:
    folder = medium(tmp_path)
    assert np.array_equal(read(folder, "5")[0], volume(seed=5))
    study = series.read_study(folder)
    lost = next(one for one in study.volumes if one.name == "5").stack.frames[-1].file
    (folder / lost).unlink()
    message = refusal(folder, "5")
    assert "DICOMDIR lists 1 image" in message and lost in message
    assert np.array_equal(read(folder, "6")[0], volume(seed=6))


def test_a_series_that_was_left_on_the_medium_is_not_missed(tmp_path: Path) -> None:
    folder = medium(tmp_path)
    for frame in next(one for one in series.read_study(folder).volumes if one.name == "5").stack.frames:
        (folder / frame.file).unlink()
    assert np.array_equal(read(folder)[0], volume(seed=6))


@pytest.mark.parametrize("found", [1, 2])
def test_a_part_of_a_divided_object_is_missed(tmp_path: Path, found: int) -> None:
    array = volume((6, 12, 8))
    for part in range(found):
        path = tmp_path / f"part{part}"
        start = (-100.0, -30.0 + 3 * part * 1.25, 200.0)
        write_enhanced(path, array[3 * part :][:3], start=start, uid="1.2.7")
        ds = pydicom.dcmread(path)
        ds.ConcatenationUID, ds.InConcatenationNumber, ds.InConcatenationTotalNumber = "1.2.9", part + 1, 2
        ds.save_as(path)
    if found == 2:
        np.testing.assert_allclose(read(tmp_path)[0], array * 2.0 - 100.0)
    else:
        assert "2 files (InConcatenationTotalNumber), but 1 found" in refusal(tmp_path)


@pytest.mark.parametrize("ending", [".part", ".crdownload"])
def test_an_interrupted_download_is_missed(tmp_path: Path, ending: str) -> None:
    last = write_series(tmp_path, volume())[-1]
    last.unlink()
    last.with_suffix(ending).touch()
    assert f"{last.name}{ending}: is empty" in refusal(tmp_path)


def test_files_that_the_archive_had_are_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path, volume(), change=lambda ds, k: setattr(ds, "NumberOfSeriesRelatedInstances", 6))
    read(tmp_path)
    assert "NumberOfSeriesRelatedInstances is 6, but 5 files" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", bytes(300)], ids=["empty", "zeros"])
@pytest.mark.parametrize("name", ["LOCKFILE", "VERSION", "Readme", "disc/INDEX"])
def test_the_files_of_a_medium_are_not_slices(tmp_path: Path, name: str, content: bytes) -> None:
    write_series(tmp_path, volume())
    (tmp_path / "disc").mkdir()
    (tmp_path / name).write_bytes(content)
    assert np.array_equal(read(tmp_path)[0], volume())


@pytest.mark.parametrize("name", [lambda k: f"IM{k}", lambda k: "abcde"[k]], ids=["numbered", "lettered"])
def test_an_empty_file_called_like_the_images_is_missed(tmp_path: Path, name: Callable[[int], str]) -> None:
    last = write_series(tmp_path, volume(), name=name)[-1]
    last.write_bytes(b"")
    assert f"{last.name}: is empty" in refusal(tmp_path)


def test_a_localizer_in_three_planes_is_not_one_series(tmp_path: Path) -> None:
    """Some scanners give each of its images a series UID, but one number."""
    write_series(tmp_path / "scan", volume())
    for k, plane in enumerate((CORONAL, SAGITTAL, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))):
        write_series(tmp_path / f"plane{k}", volume((1, 16, 16)), number=1, words="localizer", plane=plane)
    assert np.array_equal(read(tmp_path)[0], volume())
