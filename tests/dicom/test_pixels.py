"""Stored values: bits that belong to them, orders of bytes, and pixels that contradict their header."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import header, read, save, volume, write_enhanced, write_series
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from dvtplan.core.errors import DamagedScan
from dvtplan.dicom.pixels import read_pixels

VALUES = volume((4, 40, 36))
"""From 0 to 899, in 10 bits. JPEG 2000 needs 32 x 32."""


def refusal(source: Path) -> str:
    with pytest.raises(DamagedScan) as caught:
        read(source)
    return str(caught.value)


def stored(values: np.ndarray, *, bits: int, high: int | None = None, signed: bool = False) -> Callable[..., None]:
    """Return a function that stores slices in some of the 16 bits."""

    def change(ds: Dataset, k: int) -> None:
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1 if high is None else high, int(signed)
        ds.PixelData = values[k].astype(np.uint16).tobytes()

    return change


def overlay(ds: Dataset, bit: int) -> None:
    """Describe an overlay in a bit of the pixels."""
    ds.add_new((0x6000, 0x0010), "US", ds.Rows)
    ds.add_new((0x6000, 0x0011), "US", ds.Columns)
    ds.add_new((0x6000, 0x0040), "CS", "G")
    ds.add_new((0x6000, 0x0100), "US", 16)
    ds.add_new((0x6000, 0x0102), "US", bit)


def compress(ds: Dataset, syntax: pydicom.uid.UID) -> None:
    """Compress a slice, all 16 bits of it."""
    bits, ds.BitsStored = ds.BitsStored, 16
    ds.compress(syntax, generate_instance_uid=False)
    ds.BitsStored = bits


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=str)
@pytest.mark.parametrize("is_described", [True, False])
def test_bits_of_an_overlay_are_not_values(tmp_path: Path, syntax: pydicom.uid.UID | None, is_described: bool) -> None:
    drawn = VALUES | (VALUES % 2 << 12)

    def change(ds: Dataset, k: int) -> None:
        stored(drawn, bits=10)(ds, k)
        if is_described:
            overlay(ds, 12)
        if syntax is not None:
            compress(ds, syntax)

    write_series(tmp_path, VALUES, change=change)
    if is_described:
        assert np.array_equal(read(tmp_path)[0], VALUES)
    else:
        assert "BitsStored 10" in refusal(tmp_path)


@pytest.mark.parametrize("is_extended", [True, False])
def test_the_sign_may_fill_the_other_bits(tmp_path: Path, is_extended: bool) -> None:
    array = VALUES.astype(np.int16) - 400
    write_series(tmp_path, VALUES, change=stored(array if is_extended else array & 0x3FF, bits=10, signed=True))
    assert np.array_equal(read(tmp_path)[0], array)


@pytest.mark.parametrize("signed", [True, False])
def test_values_in_the_upper_bits_are_shifted(tmp_path: Path, signed: bool) -> None:
    array = VALUES.astype(np.int16) - 400 * signed
    write_series(tmp_path, VALUES, change=stored((array & 0x3FF) << 6, bits=10, high=15, signed=signed))
    assert np.array_equal(read(tmp_path)[0], array)


@pytest.mark.parametrize(("high", "syntax"), [(8, None), (16, None), (11, JPEG2000Lossless)])
def test_an_impossible_high_bit_is_refused(tmp_path: Path, high: int, syntax: pydicom.uid.UID | None) -> None:
    def change(ds: Dataset, k: int) -> None:
        stored(VALUES, bits=10, high=high)(ds, k)
        if syntax is not None:
            compress(ds, syntax)

    write_series(tmp_path, VALUES, change=change)
    assert f"HighBit is {high}" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("syntax", "precision", "is_signed", "bits", "signed_by_tags", "is_refused"),
    [
        (JPEG2000Lossless, 12, True, 12, 0, True),
        (JPEG2000Lossless, 12, True, 16, 0, True),
        (JPEG2000Lossless, 12, False, 12, 1, True),
        (JPEG2000Lossless, 12, False, 16, 1, True),
        (JPEGLSLossless, 12, False, 16, 1, True),
        (JPEG2000Lossless, 12, True, 16, 1, False),
        (JPEG2000Lossless, 16, False, 12, 0, False),
        (JPEGLSLossless, 12, False, 16, 0, False),
        (JPEGLSLossless, 12, True, 12, 1, False),
    ],
)
def test_the_sign_of_compressed_pixels_must_be_clear(
    tmp_path: Path,
    syntax: pydicom.uid.UID,
    precision: int,
    is_signed: bool,
    bits: int,
    signed_by_tags: int,
    is_refused: bool,
) -> None:
    array = (VALUES.astype(np.int32) * 4 - 2000 * is_signed).astype(np.int16)

    def change(ds: Dataset, k: int) -> None:
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = precision, precision - 1, int(is_signed)
        ds.PixelData = array[k].tobytes()
        ds.compress(syntax, generate_instance_uid=False)
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, signed_by_tags

    write_series(tmp_path, VALUES, change=change)
    if is_refused:
        assert "PixelRepresentation" in refusal(tmp_path)
    else:
        assert np.array_equal(read(tmp_path)[0], array)


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_sign_that_no_value_needs_does_not_matter(tmp_path: Path, is_signed: bool) -> None:
    def change(ds: Dataset, k: int) -> None:
        ds.PixelRepresentation = int(is_signed)
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        ds.PixelRepresentation = int(not is_signed)

    write_series(tmp_path, VALUES, change=change)
    assert np.array_equal(read(tmp_path)[0], VALUES)


def test_both_orders_of_bytes_are_read(tmp_path: Path) -> None:
    for syntax in (ExplicitVRBigEndian, ImplicitVRLittleEndian, ExplicitVRLittleEndian):

        def change(ds: Dataset, k: int, syntax: pydicom.uid.UID = syntax) -> None:
            ds.file_meta.TransferSyntaxUID = syntax
            ds.PixelData = VALUES[k].astype("<u2" if syntax.is_little_endian else ">u2").tobytes()
            ds["PixelData"].VR = "OW"

        paths = write_series(tmp_path / syntax, VALUES, change=change)
        for path in paths[:2]:  # the data set alone, which begins with its image type
            body = path.read_bytes()
            first = b"\0\x08\0\x08" if not syntax.is_little_endian else b"\x08\0\x08\0"
            path.write_bytes(body[body.index(first) :])
        array, _ = read(tmp_path / syntax)
        assert np.array_equal(array, VALUES) and array.dtype.isnative


def test_float_pixels_are_read(tmp_path: Path) -> None:
    array = VALUES / np.float32(7)

    def change(ds: Dataset, k: int) -> None:
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        ds.BitsAllocated, ds.FloatPixelData = 32, array[k].astype(np.float32).tobytes()

    write_series(tmp_path, VALUES, change=change)
    assert np.array_equal(read(tmp_path)[0], array)


# --- contradictions -------------------------------------------------------------------------------


@pytest.mark.parametrize(("cut", "more"), [(2, 0), (0, 100)])
def test_pixels_of_another_length_are_refused(tmp_path: Path, cut: int, more: int) -> None:
    def change(ds: Dataset, k: int) -> None:
        ds.PixelData = ds.PixelData[cut:] + b"\1" * more

    write_series(tmp_path, VALUES, change=change)
    assert "expected 2880 for 1 frame" in refusal(tmp_path)


def test_pixels_of_no_length_are_refused_in_words(tmp_path: Path) -> None:
    write_series(tmp_path, VALUES, change=lambda ds, k: setattr(ds, "PixelData", b"" if k else ds.PixelData))
    assert "0 bytes" in refusal(tmp_path)


def test_zeros_behind_the_pixels_are_padding(tmp_path: Path) -> None:
    def change(ds: Dataset, k: int) -> None:
        ds.PixelData += bytes(200)

    write_series(tmp_path, VALUES, change=change)
    assert np.array_equal(read(tmp_path)[0], VALUES)


def test_one_byte_that_makes_the_length_even_is_padding(tmp_path: Path) -> None:
    """highdicom 0.28 writes the digit 0 there."""

    def change(ds: Dataset, k: int) -> None:
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = (VALUES[k, :3, :3] % 200).astype(np.uint8).tobytes() + b"0"
        ds.Rows, ds.Columns = 3, 3

    write_series(tmp_path, VALUES, change=change)
    assert np.array_equal(read(tmp_path)[0], VALUES[:, :3, :3] % 200)


@pytest.mark.parametrize("number", [None, 1, 3])
@pytest.mark.parametrize("is_compressed", [True, False])
def test_more_frames_than_the_header_says_are_refused(tmp_path: Path, number: int | None, is_compressed: bool) -> None:
    path = tmp_path / "one"
    write_enhanced(path, VALUES)
    ds = pydicom.dcmread(path)
    if is_compressed:
        ds.compress(RLELossless, generate_instance_uid=False)
    ds.NumberOfFrames = number
    ds.save_as(path)
    assert "one" in refusal(tmp_path)


def test_two_compressed_images_in_one_frame_are_refused(tmp_path: Path) -> None:
    def change(ds: Dataset, k: int) -> None:
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
        ds.PixelData = encapsulate([frame, frame], has_bot=False)

    write_series(tmp_path, VALUES, change=change)
    assert "2 frames" in refusal(tmp_path)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=str)
@pytest.mark.parametrize("fault", ["cut off", "turned"])
def test_a_compressed_frame_must_be_whole_and_of_its_size(tmp_path: Path, syntax: pydicom.uid.UID, fault: str) -> None:
    def change(ds: Dataset, k: int) -> None:
        ds.compress(syntax, generate_instance_uid=False)
        if fault == "turned":
            ds.Rows, ds.Columns = ds.Columns, ds.Rows
        else:
            ds.PixelData = encapsulate([next(generate_frames(ds.PixelData, number_of_frames=1))[:-40]])

    write_series(tmp_path, VALUES, change=change)
    assert ("cut off" if fault == "cut off" else "(40, 36)") in refusal(tmp_path)


def test_bytes_that_are_damaged_in_an_archive_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", VALUES)
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    body = bytearray((tmp_path / "scan.zip").read_bytes())
    body[2000] ^= 1  # a bit of a pixel, which only the archive's checksum tells
    (tmp_path / "scan.zip").write_bytes(body)
    assert "CRC" in refusal(tmp_path / "scan.zip")


def test_compressed_pixels_without_preamble_are_refused(tmp_path: Path) -> None:
    ds = header(
        generate_uid(), 5, "one", 40, 36, ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0]
    )
    ds.PixelSpacing, ds.PixelData = [1, 1], VALUES[0].tobytes()
    ds.compress(RLELossless, generate_instance_uid=False)
    path = save(ds, tmp_path / "one")
    body = path.read_bytes()
    (tmp_path / "one").write_bytes(body[body.index(b"\x08\x00\x08\x00CS") :])
    with pytest.raises(DamagedScan, match="compression"):
        read_pixels("one", lambda: path.open("rb"))
