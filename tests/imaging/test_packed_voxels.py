"""Compressed voxels of NRRD and MetaImage: as many as the header describes, or refused."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io

ARRAY = np.random.default_rng(0).integers(0, 999, (12, 30, 40)).astype(np.int16)
WHOLE = ARRAY.tobytes()
DAMAGED = bytearray(zlib.compress(WHOLE))
DAMAGED[5000] ^= 255
META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = True
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 2 5
DimSize = 40 30 12
ElementType = MET_SHORT
"""
NRRD = """NRRD0005
type: int16
dimension: 3
space: LPS
sizes: 40 30 12
space directions: (1,0,0) (0,2,0) (0,0,5)
kinds: domain domain domain
endian: little
encoding: gzip
"""


def meta(path: Path, packed: bytes, size: int | None, *, is_local: bool) -> Path:
    head = META + ("" if size is None else f"CompressedDataSize = {size}\n")
    if is_local:
        path.write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + packed)
    else:
        path.with_suffix(".zraw").write_bytes(packed)
        path.write_text(f"{head}ElementDataFile = {path.stem}.zraw\n")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DvtError) as caught:
        volume_io.read(path)
    message = str(caught.value)
    assert path.stem in message and "\n" not in message
    return message


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
@pytest.mark.parametrize("is_local", [True, False])
def test_compressed_meta_images_are_read(tmp_path: Path, is_local: bool, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(WHOLE)
    path = meta(tmp_path / "i.mhd", packed, len(packed), is_local=is_local)
    assert np.array_equal(volume_io.read(path)[0], ARRAY)


@pytest.mark.parametrize("is_local", [True, False])
@pytest.mark.parametrize(
    ("packed", "lacks"),
    [(zlib.compress(WHOLE[:-500]), 0), (zlib.compress(WHOLE + bytes(500)), 0), (zlib.compress(WHOLE), 900),
     (bytes(DAMAGED), 0)],
    ids=["short", "long", "size", "damaged"],
)  # fmt: skip
def test_meta_images_of_another_length_are_refused(tmp_path: Path, is_local: bool, packed: bytes, lacks: int) -> None:
    path = meta(tmp_path / "i.mhd", packed, len(packed) - lacks, is_local=is_local)
    refusal(path)
    assert volume_io.read_grid(path).shape == ARRAY.shape


def test_the_size_of_compressed_voxels_is_needed_only_within_the_header_s_file(tmp_path: Path) -> None:
    packed = zlib.compress(WHOLE)
    assert "CompressedDataSize" in refusal(meta(tmp_path / "i.mha", packed, None, is_local=True))
    assert np.array_equal(volume_io.read(meta(tmp_path / "i.mhd", packed, None, is_local=False))[0], ARRAY)


@pytest.mark.parametrize(
    ("parts", "is_sound"),
    [((WHOLE,), True), ((WHOLE[:900], WHOLE[900:]), True), ((WHOLE, bytes(500)), False), ((WHOLE[:-2],), False)],
    ids=["whole", "members", "long", "short"],
)
def test_compressed_nrrd_has_the_length_of_its_header(tmp_path: Path, parts: tuple[bytes, ...], is_sound: bool) -> None:
    path = tmp_path / "i.nrrd"
    path.write_bytes(f"{NRRD}\n".encode() + b"".join(map(gzip.compress, parts)))
    if is_sound:
        assert np.array_equal(volume_io.read(path)[0], ARRAY)
    else:
        refusal(path)


def test_a_long_of_meta_image_has_four_bytes(tmp_path: Path) -> None:
    head = META.replace("MET_SHORT", "MET_LONG").replace("CompressedData = True\n", "")
    for name, kind in (("a.mha", "<i4"), ("b.mha", "<i8")):
        (tmp_path / name).write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + ARRAY.astype(kind).tobytes())
    assert np.array_equal(volume_io.read(tmp_path / "a.mha")[0], ARRAY)
    refusal(tmp_path / "b.mha")
