"""A NIfTI-1 file's own bytes: what its header promises, and its voxels where nothing has to be interpreted.

SimpleITK 2.5.7 dies on a 5-D file, fills voxels that are missing and voxels that are no numbers
with zeros, and takes an axis of no length for one voxel: all but the first without a word. So every
file is read here to its end; and where its voxels stand there as plain numbers, as they nearly
always do, they are handed over, and need not be unpacked a second time.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib
import io
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvtplan.core.errors import DvtError

ENDINGS = tuple(f".{kind}{gz}" for kind in ("nii", "nia", "hdr", "img") for gz in ("", ".gz"))
"""Names that SimpleITK takes for NIfTI, in any case of letters."""


BLOCK = 1 << 20
"""Bytes that are unpacked at a time; a multiple of every voxel's size."""
GZIP_AT_MOST = 1100
"""How many times its size a gzip file can unpack to (1032, and something for its ends)."""


def inspect(path: Path) -> tuple[int, ...]:
    """Check a NIfTI file's header.

    Returns:
        Voxels along each axis, slowest first.

    Raises:
        DvtError: for anything that SimpleITK would misread in silence, or crash on.
    """
    with _unzipped(_halves(path)[0]) as file:
        return _layout(path, file.read(348)).shape


def read(path: Path) -> np.ndarray | None:
    """Check a NIfTI file, that its voxels are all there and are numbers, and read them.

    Returns:
        The voxels in file order, slowest axis first, in the file's number type and this machine's
        byte order; none where they have to be interpreted (scaled, of a rare type, of a header of
        more than three axes, in two files), which is SimpleITK's part.

    Raises:
        DvtError: for anything that SimpleITK would misread in silence, or crash on.
    """
    header, body = _halves(path)
    with _unzipped(header) as file:
        layout = _layout(path, file.read(348))
    promised = layout.length <= body.stat().st_size * GZIP_AT_MOST  # else no room is made for what cannot be there
    voxels = np.empty(layout.length if layout.plain is not None and promised else 0, np.uint8)
    with _unzipped(body) as file:
        found = len(file.read(layout.offset))
        while n := file.readinto(voxels[found - layout.offset :][:BLOCK].data):
            found += n
        bad, held = _not_finite(voxels, layout), len(voxels) > 0
        while block := file.read(BLOCK):
            bad += 0 if held else _not_finite(block[: max(0, layout.offset + layout.length - found)], layout)
            found += len(block)
    end = layout.offset + layout.length
    if found < end:
        raise DvtError(f"{body}: is cut off: expected {end} bytes, found {found}. Copy or export it again.")
    if bad and layout.fractions is not None:
        raise DvtError(not_finite(body, bad, layout.length // layout.fractions.itemsize))
    if layout.plain is None or not held:
        return None
    return voxels.view(layout.plain).reshape(layout.shape).astype(layout.plain.newbyteorder("="), copy=False)


def _not_finite(part: np.ndarray | bytes, layout: _Layout) -> int:
    """How many voxels of a part of a file are no numbers: SimpleITK makes zeros of them, without a word."""
    if layout.fractions is None:
        return 0
    numbers = np.frombuffer(part, layout.fractions, len(part) // layout.fractions.itemsize)
    return sum(int((~np.isfinite(numbers[at : at + BLOCK])).sum()) for at in range(0, len(numbers), BLOCK))


def _halves(path: Path) -> tuple[Path, Path]:
    """The files with a NIfTI volume's header and its voxels: mostly one, else a .hdr and its .img."""
    name = re.fullmatch(r"(.+)\.(?:hdr|img)(?:\.gz)?", path.name, re.IGNORECASE)
    if name is None:
        return path, path
    there = {p.name.lower(): p for p in path.parent.iterdir()}
    halves = []
    for kind in (".hdr", ".img"):
        wanted = f"{name[1]}{kind}"
        half = there.get(wanted.lower(), there.get(f"{wanted}.gz".lower()))
        if half is None:
            raise DvtError(f"{path}: its other half {wanted} is not found. Put both into one folder.")
        halves.append(half)
    return halves[0], halves[1]


@contextlib.contextmanager
def _unzipped(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file as it is after unpacking; what is wrong with its gzip data comes up as it is read."""
    with path.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    if path.name.lower().endswith(".gz") != zipped:
        said, is_it = (".gz", "is not gzip") if not zipped else ("without .gz", "is gzip")
        raise DvtError(f"{path}: is named {said} and {is_it}. Rename it or export it again.")
    unzip, damaged = unpacker()
    try:
        with unzip(path, "rb") if zipped else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, damaged):
        raise DvtError(f"{path}: gzip data are damaged or cut off. Copy or export it again.") from None


@functools.cache
def unpacker() -> tuple[Callable[..., Any], type[Exception]]:
    """What opens a gzip file, and what it raises for damaged data: Intel's library where it is installed (the extra
    "fast"), which takes about a third of zlib's time."""
    try:
        faster, errors = (importlib.import_module(f"isal.{name}") for name in ("igzip", "isal_zlib"))
    except ImportError:
        return gzip.open, zlib.error
    return faster.open, errors.error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where a NIfTI file keeps its voxels."""

    offset: int
    """Bytes before the first."""
    length: int
    """Bytes of all of them."""
    fractions: np.dtype | None
    """Their type where it can hold what is no number."""
    shape: tuple[int, ...]
    """Voxels along each axis, slowest first."""
    plain: np.dtype | None
    """Their type where they need no interpretation."""


def _layout(path: Path, head: bytes) -> _Layout:
    """What a NIfTI-1 header (NIfTI-1 standard, nifti1.h) promises, if it is one of a 3-D volume."""
    if len(head) < 348:
        raise DvtError(f"{path}: is no NIfTI file (shorter than its header). Export it again.")
    orders = {struct.unpack(order + "i", head[:4])[0]: order for order in "<>"}
    if 540 in orders:
        raise DvtError(f"{path}: is NIfTI-2, which cannot be read here. Save it as NIfTI-1 (.nii.gz).")
    if 348 not in orders:
        raise DvtError(f"{path}: is no NIfTI file (its header does not begin with 348). Export it again.")
    order = orders[348]
    dim = struct.unpack(order + "8h", head[40:56])
    if not 1 <= dim[0] <= 7:
        raise DvtError(f"{path}: its NIfTI header names {dim[0]} dimensions. Export it again.")
    shape = dim[1 : 1 + dim[0]]
    if dim[0] > 4 or any(n > 1 for n in shape[3:]) or dim[0] < 3:
        raise DvtError(not_3d(path, shape))
    spacing = struct.unpack(order + "3f", head[80:92])
    # SimpleITK takes an axis of no length for one voxel, and no spacing for 1 mm, without a word.
    if min(shape) < 1 or not all(math.isfinite(s) and s for s in spacing):
        raise DvtError(
            f"{path}: its NIfTI header names {'x'.join(map(str, shape))} voxels of "
            f"{' x '.join(f'{s:g}' for s in spacing)} mm. Mend the header or export it again."
        )
    kind, bits = struct.unpack(order + "2h", head[70:74])
    (offset,) = struct.unpack(order + "f", head[108:112])
    if not 0 <= offset < 2**31:
        raise DvtError(f"{path}: its NIfTI header places the voxels at byte {offset:g}. Export it again.")
    slope, intercept = struct.unpack(order + "2f", head[112:120])
    code = KINDS.get(kind)
    number = np.dtype(order + code) if code is not None and bits == 8 * np.dtype(code).itemsize else None
    unscaled = slope in (0, 1) and intercept == 0
    single = head[344:348] == b"n+1\0" and offset >= 348
    return _Layout(
        offset=int(offset),
        length=math.prod(shape) * bits // 8,
        fractions=number if number is not None and number.kind == "f" else None,
        shape=shape[::-1],
        plain=number if unscaled and single and dim[0] == 3 and min(spacing) > 0 else None,
    )


KINDS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
"""datatype of nifti1.h -> NumPy's name, for numbers that are kept as they are."""


def not_3d(path: Path, shape: tuple[int, ...]) -> str:
    """The one line for a file of fewer or more than three axes."""
    size = "x".join(str(n) for n in shape)
    mend = (
        "Save all slices as one volume." if len(shape) < 3 else "Save each time point, echo or channel as its own file."
    )
    return f"{path}: is {len(shape)}-D ({size}), expected 3-D. {mend}"


def not_finite(path: Path, bad: int, voxels: int) -> str:
    """The one line for voxels that are no numbers."""
    return f"{path}: {bad} of {voxels} voxels are not finite. Replace them, with 0 outside the body."
