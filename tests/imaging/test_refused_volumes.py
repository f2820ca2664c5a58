"""Volumes that cannot be used: one clear line for each, and never a crash."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.volumes import nifti_bytes, put, refused, write_volume
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io

GOOD = nifti_bytes((4, 3, 2))


def zipped_tail(change: Callable[[bytearray], object]) -> bytes:
    """Gzip data whose last eight bytes, checksum and length, are tampered with."""
    data = bytearray(gzip.compress(GOOD))
    change(data)
    return bytes(data)


BAD_BYTES: dict[str, tuple[str, bytes, str]] = {
    "zero bytes": ("i.nii.gz", b"", "is empty (0 bytes). Copy or export it again."),
    "cut-off gzip": ("i.nii.gz", gzip.compress(GOOD)[:-20], "gzip data are damaged or truncated."),
    "gzip without its end": ("i.nii.gz", gzip.compress(GOOD)[:-8], "gzip data are damaged or truncated."),
    "wrong checksum": (
        "i.nii.gz",
        zipped_tail(lambda d: d.__setitem__(-8, d[-8] ^ 1)),
        "gzip data are damaged or truncated.",
    ),
    "flipped bits": (
        "i.nii.gz",
        zipped_tail(lambda d: d.__setitem__(slice(30, 50), bytes(b ^ 255 for b in d[30:50]))),
        "gzip data are damaged or truncated.",
    ),
    "cut-off volume": ("i.nii", GOOD[:-4], "is truncated: expected 448 bytes, found 444."),
    "cut-off volume, zipped": ("i.nii.gz", gzip.compress(GOOD[:-4]), "expected 448 bytes, found 444."),
    "cut-off header": ("i.nii", GOOD[:340], "is not a NIfTI file (shorter than its header)."),
    "text": ("i.nii", b"no volume " * 100, "is not a NIfTI file (its header does not begin with 348)."),
    "text in gzip": ("i.nii.gz", gzip.compress(b"no volume " * 100), "is not a NIfTI file"),
    "not gzip": ("i.nii.gz", GOOD, "is not gzip, but its name ends in .gz. Rename it"),
    "gzip in disguise": ("i.nii", gzip.compress(GOOD), "is gzip, but its name does not end in .gz. Rename it"),
    "NIfTI-2": ("i.nii", struct.pack("<i", 540) + bytes(600), "is NIfTI-2, which is not supported. Save it as"),
    "NIfTI-2, big-endian": ("i.nii", struct.pack(">i", 540) + bytes(600), "is NIfTI-2"),
    "2-D": ("i.nii", nifti_bytes((4, 3)), "is 2-D (4x3), expected 3-D. Save all slices as one volume."),
    "4-D": ("i.nii", nifti_bytes((4, 3, 2, 2)), "is 4-D (4x3x2x2), expected 3-D. Save each time point"),
    "5-D": ("i.nii", nifti_bytes((1, 2, 3, 1, 3)), "is 5-D (1x2x3x1x3), expected 3-D. Save each time point"),
    "5-D of ones": ("i.nii", nifti_bytes((4, 3, 2, 1, 1)), "is 5-D (4x3x2x1x1)"),
    "5-D, big-endian": ("i.nii", nifti_bytes((1, 2, 3, 1, 3), order=">"), "is 5-D (1x2x3x1x3)"),
    "7-D": ("i.nii", nifti_bytes((1, 2, 1, 1, 1, 1, 2)), "is 7-D (1x2x1x1x1x1x2)"),
    "99-D": ("i.nii", GOOD[:40] + struct.pack("<h", 99) + GOOD[42:], "its NIfTI header lists 99 dimensions."),
    "an axis of nothing": ("i.nii", nifti_bytes((4, 0, 2)), "lists 4x0x2 voxels"),
    "an axis of less": ("i.nii", nifti_bytes((4, -3, 2)), "lists 4x-3x2 voxels"),
    "no spacing": ("i.nii", nifti_bytes((4, 3, 2), spacing=(1, 0, 1)), "the rows (1, 0, 0, 0); (0, 0, 0, 0)"),
    "no number for spacing": ("i.nii", nifti_bytes((4, 3, 2), spacing=(np.nan, 1, 1)), "the rows (nan, 0, 0, 0)"),
    "voxels nowhere": ("i.nii", nifti_bytes((4, 3, 2), offset=np.nan), "places the voxels at byte nan."),
    "voxels at infinity": ("i.nii", nifti_bytes((4, 3, 2), offset=np.inf), "places the voxels at byte inf."),
    "origin nowhere": ("i.nii", nifti_bytes((4, 3, 2), corner=(0, np.nan, 0)), "(0, 1, 0, nan); (0, 0, 1, 0)"),
    "another 5-D format": (
        "i.mha",
        b"ObjectType = Image\nNDims = 5\nDimSize = 2 2 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        + bytes(32),
        "is 5-D (2x2x2x2x2)",
    ),
    "cut-off nrrd": (
        "i.nrrd",
        b"NRRD0004\ntype: uint8\ndimension: 3\nspace: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nsizes: 2 2 2\n"
        b"encoding: raw\n\n" + bytes(7),
        "is truncated: expected 123 bytes, found 122.",
    ),
    "cut-off mha": (
        "i.mha",
        b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
        b"ElementDataFile = LOCAL\n" + bytes(7),
        "is truncated: expected 124 bytes, found 123.",
    ),
    "no volume format": ("i.txt", b"hello", "is not a supported volume format"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_BYTES.values(), ids=BAD_BYTES)
def test_a_file_that_cannot_be_used_gets_one_clear_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert message in refused(path)


@pytest.mark.parametrize("name", ["i.nii", "i.nii.gz", "I.NII", "i.Nii.GZ", "i.nia", "i.hdr", "i.img"])
def test_a_5d_file_never_reaches_simpleitk_which_would_kill_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def never(*_: object) -> None:
        pytest.fail("SimpleITK has seen it")

    monkeypatch.setattr(sitk, "ReadImage", never)
    monkeypatch.setattr(sitk, "ImageFileReader", never)
    content = nifti_bytes((1, 2, 3, 1, 3))
    for half in ("i.hdr", "i.img") if name in ("i.hdr", "i.img") else (name,):
        (tmp_path / half).write_bytes(gzip.compress(content) if half.lower().endswith(".gz") else content)
    for read in (volume_io.read, volume_io.read_grid):
        with pytest.raises(DvtError, match=r"is 5-D \(1x2x3x1x3\)"):
            read(tmp_path / name)


def test_a_file_truncated_anywhere_is_noticed(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD)
    for length in range(len(packed)):
        (tmp_path / "i.nii.gz").write_bytes(packed[:length])
        refused(tmp_path / "i.nii.gz")
    for length in range(0, len(GOOD), 5):
        (tmp_path / "i.nii").write_bytes(GOOD[:length])
        refused(tmp_path / "i.nii")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", [0, 1048575, 1048576, 1099999])
def test_one_voxel_that_is_nan_is_found_anywhere(tmp_path: Path, place: int, order: str) -> None:
    data = np.zeros(1_100_000, np.float32)  # more than the 4 MiB that are read at a time
    data[place] = np.nan
    content = nifti_bytes((110, 100, 100), order=order, data=data)
    assert refused(put(tmp_path / "i.nii", content)).startswith("1 of 1100000 voxels are not finite.")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_a_header_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(GOOD)
    for position, value in changes:
        content[position] = value
    path = put(tmp_path_factory.getbasetemp() / "damaged.nii", bytes(content))
    for read in (volume_io.read, volume_io.read_grid):
        try:
            read(path)
        except DvtError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [nifti_bytes((4, 3, 2, 5)), nifti_bytes((1, 2, 3, 1, 3)), b"", b"text" * 99])
def test_the_header_refuses_the_same_files_as_the_voxels(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "i.nii"
    path.write_bytes(content)
    with pytest.raises(DvtError) as caught:
        volume_io.read_grid(path)
    assert str(caught.value) == f"{path}: {refused(path)}"


def test_a_header_can_be_read_without_the_voxels(tmp_path: Path) -> None:
    grid = volume_io.read_grid(put(tmp_path / "i.nii", GOOD))
    (tmp_path / "i.nii").write_bytes(GOOD[:-4])
    assert volume_io.read_grid(tmp_path / "i.nii") == grid


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("i.nii.gz", "is 5-D (4x3x2x1x3), expected 3-D."),  # so NIfTI stores vectors
        ("i.nrrd", "has 3 values per voxel, expected 1. Save each component as a file of its own."),
    ],
)
def test_colours_and_vectors_are_refused(tmp_path: Path, name: str, message: str) -> None:
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4, 3), np.float32), isVector=True)
    sitk.WriteImage(image, str(tmp_path / name))
    assert message in refused(tmp_path / name)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "i.nii.gz", np.ones((2, 3, 4), np.complex64))
    assert refused(path) == "contains complex numbers, expected real numbers. Export the magnitude."


def test_axes_that_are_not_at_right_angles_say_what_to_do(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    struct.pack_into("<4f", content, 280, 1, 0.5, 0, 0)
    assert "enclose 63.43 degrees, expected 90 (resample it onto axes at right angles)" in refused(
        put(tmp_path / "i.nii", bytes(content))
    )


def test_a_name_that_is_not_text_is_refused_before_the_image_library_ends_the_process(tmp_path: Path) -> None:
    """Such as a name in Latin-1, from an old archive."""
    path = tmp_path / os.fsdecode(b"M\xfcller.nii.gz")
    path.write_bytes(gzip.compress(GOOD))
    array, grid = volume_io.read(put(tmp_path / "good.nii.gz", GOOD))
    for use in (
        lambda: volume_io.read(path),
        lambda: volume_io.read_grid(path),
        lambda: volume_io.write_mask(path, array.astype("u1"), grid),
    ):
        with pytest.raises(DvtError, match=r"M\\udcfcller.*Rename") as caught:
            use()
        assert str(caught.value).isprintable()
