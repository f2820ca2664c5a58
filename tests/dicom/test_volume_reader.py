"""The voxels of a volume: each slice filled exactly once, with exactly the values of its file."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import read, volume, write_enhanced, write_series
from pydicom.dataset import Dataset

from dvtplan.core.errors import DvtError
from dvtplan.dicom import series
from dvtplan.dicom.volume_reader import read_stack


def refusal(source: Path, wanted: str | None = None) -> str:
    with pytest.raises(DvtError) as caught:
        read(source, wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def flattened(path: Path, folders: list[Path]) -> Path:
    """Pack folders whose files have the same names into one folder of an archive."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for folder in folders:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"DICOM/{file.name}")
    return path


def test_each_of_two_series_in_a_flattened_archive_has_its_own_voxels(tmp_path: Path) -> None:
    for number in (5, 6):
        write_series(tmp_path / str(number), volume(seed=number), number=number)
    path = flattened(tmp_path / "scan.zip", [tmp_path / "5", tmp_path / "6"])
    for number in (5, 6):
        assert np.array_equal(read(path, str(number))[0], volume(seed=number))


def test_a_series_in_an_archive_with_names_that_repeat_is_whole(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", volume())
    (tmp_path / "b").mkdir()
    for k in (1, 3):
        shutil.move(paths[k], tmp_path / "b" / paths[k - 1].name)
    found, _ = read(flattened(tmp_path / "scan.zip", [tmp_path / "a", tmp_path / "b"]))
    assert np.array_equal(found, volume())


def test_an_object_with_fewer_or_more_frames_than_positions_is_refused(tmp_path: Path) -> None:
    array = volume()
    for name, change, words in (
        (
            "pixels",
            {"NumberOfFrames": 3, "PixelData": array[:3].tobytes()},
            "IM1: has the pixels of 3 images",
        ),
        ("places", {"places": 3}, "IM1: NumberOfFrames is 5"),
    ):
        path = tmp_path / name / "IM1"
        write_enhanced(path, array)
        ds = pydicom.dcmread(path)
        for keyword, value in change.items():
            if keyword == "places":
                ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:value]
            else:
                setattr(ds, keyword, value)
        ds.save_as(path)
        assert words in refusal(path.parent)


def test_frames_of_a_file_with_one_position_are_not_lost(tmp_path: Path) -> None:
    def several(ds: Dataset, k: int) -> None:
        ds.NumberOfFrames, ds.PixelData = 4, ds.PixelData * 4

    write_series(tmp_path, volume(), change=several)
    assert "IM0000: NumberOfFrames is 4" in refusal(tmp_path)


TYPES = {
    "u1": (8, 0, [0, 255]),
    "u2": (16, 0, [0, 65535]),
    "i2": (16, 1, [-32768, 32767]),
    "u4": (32, 0, [0, 4294967295]),
    "i4": (32, 1, [-2147483648, 2147483647]),
}
"""Number type -> BitsAllocated, PixelRepresentation, and its extreme values."""


def write_types(folder: Path, kinds: list[str], **tags: Any) -> np.ndarray:
    """Write a series whose slices have these number types and contain their extreme values; return the values."""

    def change(ds: Dataset, k: int) -> None:
        bits, signed, extremes = TYPES[kinds[k]]
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, signed
        ds.PixelData = np.resize(extremes, (2, 4)).astype(kinds[k]).tobytes()
        for name, value in tags.items():
            setattr(ds, name, value)

    write_series(folder, np.zeros((len(kinds), 2, 4), np.uint16), change=change)
    return np.array([np.resize(TYPES[kind][2], (2, 4)) for kind in kinds], np.int64)


@pytest.mark.parametrize("first", TYPES)
@pytest.mark.parametrize("last", TYPES)
def test_slices_of_several_number_types_keep_their_values(tmp_path: Path, first: str, last: str) -> None:
    true = write_types(tmp_path, [first, first, last, last])
    found, _ = read(tmp_path)
    assert np.array_equal(found, true)
    assert found.dtype in {np.dtype(name) for name in (*TYPES, "f8")}  # those that volumes are written in


def test_rescaled_integers_of_32_bits_keep_their_values(tmp_path: Path) -> None:
    true = write_types(tmp_path, ["i4"] * 3, RescaleSlope=1, RescaleIntercept=-1)
    assert np.array_equal(read(tmp_path)[0], true - 1)


def test_a_duplicate_with_other_pixels_is_refused(tmp_path: Path) -> None:
    """Copies of a file are ignored, but only if they are copies."""
    paths = write_series(tmp_path, volume())
    copy = tmp_path / "copy"
    shutil.copy(paths[2], copy)
    found, _ = read(tmp_path)
    assert np.array_equal(found, volume())
    ds = pydicom.dcmread(copy)
    ds.PixelData = volume(seed=1)[2].tobytes()
    ds.save_as(copy)
    message = refusal(tmp_path)
    assert f"{paths[2].name} and copy" in message and "different pixels" in message


def test_a_slice_that_nothing_fills_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, volume())
    study = series.read_study(tmp_path)
    stack = study.volumes[0].stack
    twice = replace(stack, frames=(*stack.frames[:4], stack.frames[3]))
    with pytest.raises(DvtError, match="was not read exactly once"):
        read_stack(tmp_path, twice, "scan")


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_images_without_pixels_are_refused(tmp_path: Path, keyword: str) -> None:
    write_series(tmp_path, volume(), change=lambda ds, k: setattr(ds, keyword, 0))
    assert f"{keyword} is 0" in refusal(tmp_path)
