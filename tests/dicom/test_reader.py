"""Files as they lie on disks: damaged, without preamble, or not DICOM; and the tags of their frames."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import header, read, save, volume, write_enhanced, write_series
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRSpectroscopyStorage, generate_uid

from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.dicom import series
from dvtplan.dicom.reader import DamagedFile, is_dicom


def refusal(source: Path, wanted: str | None = None) -> str:
    with pytest.raises(DvtError) as caught:
        read(source, wanted)
    return str(caught.value)


def offset_of(path: Path, keyword: str) -> int:
    """Return where the value of a tag begins in a file."""
    return int(pydicom.dcmread(path).get_item(keyword).value_tell)


# --- damaged --------------------------------------------------------------------------------------


def last_of(paths: list[Path]) -> Path:
    """Return the file of the last slice along the normal: no gap tells that it is missing."""
    return max(paths, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[1])


@pytest.mark.parametrize("size", [0, 100, 132, 160, 340, 500])
def test_a_file_cut_before_its_series_is_known_is_named(tmp_path: Path, size: int) -> None:
    path = last_of(write_series(tmp_path, volume()))
    path.write_bytes(path.read_bytes()[:size])
    assert path.name in refusal(tmp_path) and path.name in refusal(tmp_path, "5")
    assert series.read_study(tmp_path).damaged


@pytest.mark.parametrize("keyword", ["SeriesNumber", "Rows", "BitsAllocated"])
def test_a_file_cut_in_its_header_faults_its_series_only(tmp_path: Path, keyword: str) -> None:
    path = last_of(write_series(tmp_path, volume()))
    path.write_bytes(path.read_bytes()[: offset_of(path, keyword)])
    write_series(tmp_path, volume(seed=6), number=6, name=lambda k: f"OTHER{k}")
    assert path.name in refusal(tmp_path) and "cut off" in refusal(tmp_path)
    assert np.array_equal(read(tmp_path, "6")[0], volume(seed=6))


@pytest.mark.parametrize(("start", "stop"), [(100, 140), (131, 300), (140, 800)])
@pytest.mark.parametrize("filler", [b"\0", b"\xa5"])
def test_a_file_whose_start_is_overwritten_is_named(tmp_path: Path, start: int, stop: int, filler: bytes) -> None:
    path = last_of(write_series(tmp_path, volume()))
    body = path.read_bytes()
    path.write_bytes(body[:start] + filler * (stop - start) + body[stop:])
    assert path.name in refusal(tmp_path)


def test_zeros_within_a_header_are_damage(tmp_path: Path) -> None:
    path = last_of(write_series(tmp_path, volume()))
    start, stop = offset_of(path, "PatientID"), offset_of(path, "InstanceNumber") - 8
    body = path.read_bytes()
    path.write_bytes(body[:start] + bytes(stop - start) + body[stop:])
    assert path.name in refusal(tmp_path)


def test_a_series_uid_that_is_cut_names_no_series(tmp_path: Path) -> None:
    path = last_of(write_series(tmp_path, volume()))
    path.write_bytes(path.read_bytes()[: offset_of(path, "SeriesInstanceUID") + 9])
    assert path.name in refusal(tmp_path, "5")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"DICM", b"DxCM"),
        (b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US"),
        (b"\x20\x00\x37\x00DS", b"\x20\x00\x37\x00D\0"),
        (b"\x08\x00\x16\x00UI\x1a\x001", b"\x08\x00\x16\x00UI\x1a\x00x"),
    ],
    ids=["preamble", "rows", "kind of value", "class"],
)
def test_a_slice_with_a_damaged_byte_is_named(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = last_of(write_series(tmp_path, volume()))
    body = path.read_bytes()
    assert old in body
    path.write_bytes(body.replace(old, new).replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x11\x00OW"))
    assert path.name in refusal(tmp_path)


def test_the_next_slice_of_a_volume_belongs_to_no_other_series(tmp_path: Path) -> None:
    path = last_of(write_series(tmp_path, volume()))
    ds = pydicom.dcmread(path)
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.SeriesDescription, ds.Modality = "1.2.3.9", 9, "localizer", "M"
    ds.save_as(path)
    assert path.name in refusal(tmp_path) and path.name in refusal(tmp_path, "5")
    ds.ImagePositionPatient[1] += 50
    ds.save_as(path)
    assert len(read(tmp_path)[0]) == 4  # as of a localizer


def test_spectra_are_not_a_volume(tmp_path: Path) -> None:
    write_series(tmp_path, volume())
    write_enhanced(tmp_path / "spectra", volume())
    ds = pydicom.dcmread(tmp_path / "spectra")
    ds.SOPClassUID, ds.SpectroscopyData = MRSpectroscopyStorage, bytes(400)
    del ds.PixelData
    save(ds, tmp_path / "spectra")
    assert [one.name for one in series.read_study(tmp_path).volumes] == ["5"]


def test_an_empty_file_with_the_ending_of_dicom_is_named(tmp_path: Path) -> None:
    write_series(tmp_path, volume())
    (tmp_path / "IM9.dcm").touch()
    assert "IM9.dcm" in refusal(tmp_path)


def test_slices_behind_links_are_read_once(tmp_path: Path) -> None:
    array = volume()
    paths = write_series(tmp_path / "scan", array)
    (tmp_path / "elsewhere").mkdir()
    for path in paths[3:]:
        path.rename(tmp_path / "elsewhere" / path.name)
    (tmp_path / "scan" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "scan" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "scan" / "back").symlink_to(tmp_path)
    assert np.array_equal(read(tmp_path / "scan")[0], array)
    study = series.read_study(tmp_path / "scan")
    assert is_dicom(tmp_path / "scan") and study.volumes[0].stack.copies == ()


def test_a_slice_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    last = write_series(tmp_path, volume())[-1]
    last.unlink()
    last.symlink_to(tmp_path / "nowhere")
    assert last.name in refusal(tmp_path)


def test_a_slice_packed_with_gzip_is_named(tmp_path: Path) -> None:
    last = write_series(tmp_path, volume())[-1]
    last.with_name(f"{last.name}.gz").write_bytes(gzip.compress(last.read_bytes()))
    last.unlink()
    assert f"{last.name}.gz" in refusal(tmp_path)
    (tmp_path / f"{last.name}.gz").write_bytes(gzip.compress(b"no DICOM") + b"\0" * 9)
    assert read(tmp_path)[0].shape[0] == 4


def test_other_files_are_not_damaged_slices(tmp_path: Path) -> None:
    array = volume()
    write_series(tmp_path, array, name=lambda k: f"{k}.dcm")
    (tmp_path / "empty.txt").touch()
    (tmp_path / ".done").touch()
    (tmp_path / "DICOMDIR").touch()
    (tmp_path / "notes").write_text("No DICOM at all, " * 20)
    assert np.array_equal(read(tmp_path)[0], array)
    structures = header(generate_uid(), 9, "contours", 1, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    structures.Modality = "RTSTRUCT"
    del structures.Rows, structures.Columns
    save(structures, tmp_path / "structures.dcm")
    assert np.array_equal(read(tmp_path)[0], array)


def test_a_damaged_file_leaves_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(DamagedFile("IM1", "is empty", series_uid="1.2", certain=False)))
    assert isinstance(error, DamagedScan) and (error.name, error.series_uid, error.certain) == ("IM1", "1.2", False)
    assert str(error).startswith("IM1: is empty. ")


# --- archives -------------------------------------------------------------------------------------


def test_two_members_of_one_name_are_two_files(tmp_path: Path) -> None:
    array = volume((6, 12, 8))
    paths = write_series(tmp_path / "in", array, name=str)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for k, path in enumerate(paths):
            archive.write(path, f"IM{k % 2}")
    assert np.array_equal(read(tmp_path / "scan.zip")[0], array)


def test_an_archive_of_another_method_is_not_called_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.writestr("IM1", b"x" * 100)
    body = bytearray((tmp_path / "scan.zip").read_bytes())
    for sign, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        body[body.find(sign) + place] = 9  # Deflate64
    (tmp_path / "scan.zip").write_bytes(body)
    assert "Unpack" in refusal(tmp_path / "scan.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("at", [0, 60, 400])
def test_an_archive_with_damaged_bytes_is_refused(tmp_path: Path, at: int, method: int) -> None:
    paths = write_series(tmp_path / "in", volume())
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", method) as archive:
        for path in paths:
            archive.write(path, path.name)
    body = bytearray((tmp_path / "scan.zip").read_bytes())
    body[at : at + 8] = b"\xff" * 8
    (tmp_path / "scan.zip").write_bytes(body)
    assert "scan.zip" in refusal(tmp_path / "scan.zip")


# --- without preamble -----------------------------------------------------------------------------


def remove_preamble(path: Path, syntax: UID = ImplicitVRLittleEndian, *, meta: bool = False) -> None:
    """Write a file as the data set alone, as old archives do."""
    ds = pydicom.dcmread(path)
    if meta:
        path.write_bytes(path.read_bytes()[132:])
        return
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(buffer, ds)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, None], ids=str)
def test_files_without_preamble_are_read(tmp_path: Path, syntax: UID | None) -> None:
    array = volume()
    paths = write_series(tmp_path, array)
    for path in paths[2:]:
        remove_preamble(path, syntax or ImplicitVRLittleEndian, meta=syntax is None)
    assert is_dicom(paths[4]) and np.array_equal(read(tmp_path)[0], array)
    paths[4].write_bytes(paths[4].read_bytes()[:-600])
    assert paths[4].name in refusal(tmp_path)


def test_other_formats_are_not_dicom_without_preamble(tmp_path: Path) -> None:
    starts = {
        "notes.txt": b"08 00 16 00 UI 1.2.840.10008.5.1.4.1.1.4",
        "photo.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"1.2.840.10008.",
        "scan.nii": b"\x5c\x01\x00\x00" + bytes(344),
        "numbers": b"\x08\x00\x05\x00\x02\x00\x00\x00" + bytes(400),
        "short": b"\x08\x00",
    }
    for name, start in starts.items():
        (tmp_path / name).write_bytes(start)
    assert not is_dicom(tmp_path)
    assert "contains no DICOM image" in refusal(tmp_path / "notes.txt")
