"""Voxels of NIfTI files, written byte by byte and read as they are."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.volumes import nifti_bytes, put, refused

from dvtplan.core.errors import DvtError
from dvtplan.imaging import nifti, volume_io
from dvtplan.imaging.geometry import orientation_code


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "i8", "u8", "c8"])
def test_voxels_are_those_that_simpleitk_reads(tmp_path: Path, kind: str, order: str, zipped: bool) -> None:
    """Of every type, in either byte order, plain, and scaled by their header."""
    codes = {value: key for key, value in nifti.KINDS.items()} | {"c8": 32, "i8": 1024, "u8": 1280}
    whole = bytearray(nifti_bytes((4, 3, 2), order=order, spacing=(1, 2, 5), corner=(-10, -20, 30)))
    numbers = np.arange(-12, 12) if kind[0] not in "u" else np.arange(24)
    struct.pack_into(f"{order}2h", whole, 70, codes[kind], 8 * np.dtype(kind).itemsize)
    whole[352:] = (numbers * (3.5 if kind[0] == "f" else 1)).astype(f"{order}{kind}").tobytes()
    for scale in ((0, 0), (1, 0), (0.5, 0), (1, 3)):
        struct.pack_into(f"{order}2f", whole, 112, *scale)
        path = put(tmp_path / f"i.nii{'.gz' if zipped else ''}", bytes(whole))
        if kind == "c8":
            assert "complex" in refused(path)
            continue
        array, grid = volume_io.read(path)
        image = sitk.ReadImage(str(path))
        expected = sitk.GetArrayFromImage(image)
        assert np.array_equal(array, expected) and array.flags.writeable and array.dtype.isnative
        assert array.dtype == (expected.dtype if expected.dtype in volume_io._KEEP else np.float64)
        assert grid.origin_mm == image.GetOrigin() and grid.spacing_mm == image.GetSpacing()[::-1]


@pytest.fixture(params=["as installed", "zlib"])
def any_unpacker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either library that unpacks gzip."""
    if request.param == "zlib":
        monkeypatch.setattr(nifti, "unpacker", lambda: (gzip.open, zlib.error))


@pytest.mark.usefixtures("any_unpacker")
def test_either_unpacker_reads_and_refuses_alike(tmp_path: Path) -> None:
    whole = gzip.compress(nifti_bytes((40, 30, 20)))
    path = tmp_path / "i.nii.gz"
    path.write_bytes(whole)
    assert np.array_equal(volume_io.read(path)[0], np.arange(24000).reshape(20, 30, 40))
    wrong_sum, middle = bytearray(whole), bytearray(whole)
    wrong_sum[-6] ^= 1
    middle[len(whole) // 2] ^= 255
    for damaged in (wrong_sum, middle, whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(damaged)
        assert refused(path) == "gzip data are damaged or truncated. Copy or export it again."


def test_plain_voxels_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "i.nii.gz", nifti_bytes((4, 3, 2)))
    monkeypatch.setattr(sitk, "ReadImage", lambda name: pytest.fail(f"{name} was read a second time"))
    assert np.array_equal(volume_io.read(path)[0], np.arange(24).reshape(2, 3, 4))


def test_a_header_with_an_impossible_size_takes_no_memory(tmp_path: Path) -> None:
    path = put(tmp_path / "i.nii.gz", nifti_bytes((30000, 30000, 30000), data=np.zeros(10)))
    assert "is truncated: expected 108000000000352 bytes, found 392" in refused(path)


@pytest.mark.parametrize("name", ["i.nii", "i.nii.gz"])
def test_slices_that_the_header_omits_are_not_lost(tmp_path: Path, name: str) -> None:
    whole = bytearray(nifti_bytes((4, 3, 2)))
    struct.pack_into("<h", whole, 46, 1)
    path = put(tmp_path / name, bytes(whole))
    assert "describes" in refused(path)


def test_bits_that_do_not_fit_the_type_are_refused(tmp_path: Path) -> None:
    whole = bytearray(nifti_bytes((4, 3, 2)))
    struct.pack_into("<h", whole, 72, 64)
    assert "in 64 bits" in refused(put(tmp_path / "i.nii", bytes(whole)))


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(tmp_path: Path, order: str) -> None:
    path = put(tmp_path / "i.nii.gz", nifti_bytes((4, 3, 2), order=order, spacing=(1, 2, 5), corner=(-10, -20, 30)))
    array, grid = volume_io.read(path)
    assert np.array_equal(array, np.arange(24).reshape(2, 3, 4))
    # NIfTI counts right and anterior as negative, so the file's x and y run against LPS.
    assert grid.origin_mm == (10, 20, 30)
    assert grid.spacing_mm == (5, 2, 1)
    assert orientation_code(grid) == "RAS"


def test_a_fourth_axis_of_length_1_is_ignored(tmp_path: Path) -> None:
    path = put(tmp_path / "i.nii.gz", nifti_bytes((4, 3, 2, 1)))
    array, grid = volume_io.read(path)
    assert array.shape == grid.shape == (2, 3, 4)
    assert volume_io.read_grid(path) == grid


def test_a_volume_in_two_files_is_read_by_either_name(tmp_path: Path) -> None:
    whole = bytearray(nifti_bytes((4, 3, 2), offset=0))
    whole[344:348] = b"ni1\0"
    (tmp_path / "i.hdr").write_bytes(whole[:348])
    (tmp_path / "i.img").write_bytes(whole[352:])
    for name in ("i.hdr", "i.img"):
        assert np.array_equal(volume_io.read(tmp_path / name)[0], np.arange(24).reshape(2, 3, 4))
    (tmp_path / "i.img").write_bytes(whole[352:-1])
    with pytest.raises(DvtError, match=r"i.img: is truncated: expected 96 bytes, found 95"):
        volume_io.read(tmp_path / "i.hdr")
    (tmp_path / "i.img").unlink()
    assert "its other half i.img was not found" in refused(tmp_path / "i.hdr")
