"""Volumes written by hand, and how a volume is refused."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def write_volume(
    path: Path,
    array: np.ndarray,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    direction: Sequence[float] = IDENTITY,
) -> Path:
    """Write a (z, y, x) array; spacing, origin and direction as ITK has them: x, y, z, columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path), path.name.endswith(".gz"))
    return path


def nifti_bytes(
    shape: Sequence[int],
    *,
    order: str = "<",
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    offset: float = 352.0,
    corner: Sequence[float] = (0.0, 0.0, 0.0),
    data: np.ndarray | None = None,
) -> bytes:
    """A NIfTI-1 file of float32 made by hand (nifti1.h), for what no writer would write.

    ``shape`` and ``spacing`` are in the file's order, x first; ``corner`` is the RAS position of the
    first voxel; ``data`` is in memory order, z y x, and counts up from 0 where it is not given.
    """
    head = bytearray(352)
    struct.pack_into(f"{order}i", head, 0, 348)
    struct.pack_into(f"{order}8h", head, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into(f"{order}2h", head, 70, 16, 32)  # float32, 32 bits
    struct.pack_into(f"{order}8f", head, 76, 1.0, *spacing, 1.0, 1.0, 1.0, 1.0)
    struct.pack_into(f"{order}2f", head, 108, offset, 1.0)
    struct.pack_into(f"{order}2h", head, 252, 0, 1)  # no qform, an sform
    for axis in range(3):
        row = [spacing[axis] if a == axis else 0.0 for a in range(3)]
        struct.pack_into(f"{order}4f", head, 280 + 16 * axis, *row, corner[axis])
    head[344:348] = b"n+1\0"
    if data is None:
        data = np.arange(max(1, int(np.prod(shape))))
    return bytes(head) + data.astype(f"{order}f4").tobytes()


def put(path: Path, content: bytes) -> Path:
    """Write bytes, with gzip if the name ends in .gz."""
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def refused(path: Path) -> str:
    """Return the error for a file without its name: one line, the same from the header and from the voxels."""
    with pytest.raises(DvtError) as caught:
        volume_io.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message.endswith(".")
    return message.removeprefix(f"{path}: ")


def move_qform(path: Path, by_mm: float = 100.0) -> Path:
    """Move the qform of a NIfTI file in x, to the right of its sform; both forms are set."""
    packed = path.read_bytes()
    is_zipped = packed[:2] == b"\x1f\x8b"
    whole = bytearray(gzip.decompress(packed) if is_zipped else packed)
    struct.pack_into("<2h", whole, 252, 1, 1)
    (x,) = struct.unpack_from("<f", whole, 268)
    struct.pack_into("<f", whole, 268, x + by_mm)
    path.write_bytes(gzip.compress(whole) if is_zipped else bytes(whole))
    return path
