"""Check NIfTI-1 files byte by byte, and read their voxels if these are plain numbers.

SimpleITK 2.5.7 crashes on 5-D files. Without a message it replaces missing voxels and NaN by 0 and reads an axis of
length 0 as one voxel. So this module reads every file to its end. Plain voxels, the usual case, are returned, so that
they are unpacked only once.
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
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.imaging import nifti_forms
from dvtplan.imaging.geometry import Grid

ENDINGS = tuple(f".{kind}{gz}" for kind in ("nii", "nia", "hdr", "img") for gz in ("", ".gz"))
"""Endings that SimpleITK reads as NIfTI, in upper or lower case."""

BLOCK = 1 << 20
"""Bytes to unpack at a time; a multiple of the size of every voxel type."""
GZIP_AT_MOST = 1100
"""Largest expansion of a gzip file (1032, and a margin for its ends)."""


def inspect(path: Path) -> Grid:
    """Check a NIfTI file's header and return the grid of its first three axes.

    Raises:
        DvtError: for a header that SimpleITK would misread or crash on, or that contradicts itself.
    """
    with _unzipped(_halves(path)[0]) as file:
        return _layout(path, file.read(348)).grid


def description(path: Path) -> str:
    """Read the text in a NIfTI header (descrip); raises as ``inspect`` where the file cannot be read."""
    with _unzipped(_halves(path)[0]) as file:
        return file.read(348)[148:228].partition(b"\0")[0].decode("ascii", "replace").strip()


def read(path: Path) -> tuple[np.ndarray | None, Grid]:
    """Check that a NIfTI file is complete and its voxels are finite, and read the voxels.

    Returns:
        The voxels in file order, slowest axis first, in the file's number type and this machine's byte order. None if
        SimpleITK must interpret them: scaled, of a rare type, with more than three axes, or in two files. And the grid.

    Raises:
        DvtError: for a file that SimpleITK would misread or crash on.
    """
    header, body = _halves(path)
    with _unzipped(header) as file:
        layout = _layout(path, file.read(348))
    promised = (
        layout.length <= body.stat().st_size * GZIP_AT_MOST
    )  # otherwise no memory is reserved for impossible sizes
    voxels = np.empty(layout.length if layout.plain is not None and promised else 0, np.uint8)
    with _unzipped(body) as file:
        found = len(file.read(layout.offset))
        while n := file.readinto(voxels[found - layout.offset :][:BLOCK].data):
            found += n
        bad, is_complete = _not_finite(voxels, layout), len(voxels) > 0
        while block := file.read(BLOCK):
            bad += 0 if is_complete else _not_finite(block[: max(0, layout.offset + layout.length - found)], layout)
            found += len(block)
    end = layout.offset + layout.length
    if found < end:
        raise DvtError(f"{body}: is truncated: expected {end} bytes, found {found}. Copy or export it again.")
    if found > end:  # slices that the header omits, or voxels that are shifted
        raise DvtError(f"{body}: has {found} bytes, but its header describes {end}. Export it again.")
    if bad and layout.fractions is not None:
        raise DvtError(not_finite(body, bad, layout.length // layout.fractions.itemsize))
    if layout.plain is None or not is_complete:
        return None, layout.grid
    plain = voxels.view(layout.plain).reshape(layout.shape)
    return plain.astype(layout.plain.newbyteorder("="), copy=False), layout.grid


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a volume: usually one, otherwise the existing ones of a .hdr and its .img."""
    try:
        return tuple(dict.fromkeys(_halves(path)))
    except (DvtError, OSError):
        return (path,)


def _not_finite(part: np.ndarray | bytes, layout: _Layout) -> int:
    """Count the voxels in a part of a file that are not finite; SimpleITK would replace them by 0."""
    if layout.fractions is None:
        return 0
    numbers = np.frombuffer(part, layout.fractions, len(part) // layout.fractions.itemsize)
    return sum(int((~np.isfinite(numbers[at : at + BLOCK])).sum()) for at in range(0, len(numbers), BLOCK))


def _halves(path: Path) -> tuple[Path, Path]:
    """Return the files of a volume's header and voxels: usually one file, otherwise a .hdr and its .img."""
    name = re.fullmatch(r"(.+)\.(?:hdr|img)(?:\.gz)?", path.name, re.IGNORECASE)
    if name is None:
        return path, path
    files = {p.name.lower(): p for p in path.parent.iterdir()}
    halves = []
    for kind in (".hdr", ".img"):
        wanted = f"{name[1]}{kind}"
        half = files.get(wanted.lower(), files.get(f"{wanted}.gz".lower()))
        if half is None:
            raise DvtError(f"{path}: its other half {wanted} was not found. Put both files into one folder.")
        halves.append(half)
    return halves[0], halves[1]


@contextlib.contextmanager
def plain_name(path: Path) -> Iterator[Path]:
    """Yield a path of a file whose ending SimpleITK knows: NIfTI endings that mix upper and lower case get a link."""
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(e)), "")
    if path.name.endswith((ending, ending.upper())):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="dvtplan_read_") as folder:
        for file in files_of(path):
            Path(folder, file.name.lower()).symlink_to(file.resolve())
        yield Path(folder, path.name.lower())


@contextlib.contextmanager
def _unzipped(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file, unpacked if it is gzip; faults of the gzip data are raised while it is read."""
    with path.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    if path.name.lower().endswith(".gz") != zipped:
        fault = "is gzip, but its name does not end in .gz" if zipped else "is not gzip, but its name ends in .gz"
        raise DvtError(f"{path}: {fault}. Rename it or export it again.")
    unzip, damaged = unpacker()
    try:
        with unzip(path, "rb") if zipped else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, damaged):
        raise DvtError(f"{path}: gzip data are damaged or truncated. Copy or export it again.") from None


@functools.cache
def unpacker() -> tuple[Callable[..., Any], type[Exception]]:
    """Return the function that opens a gzip file, and its exception for damaged data.

    Intel's library, if installed (extra "fast"), takes about a third of zlib's time.
    """
    try:
        faster, errors = (importlib.import_module(f"isal.{name}") for name in ("igzip", "isal_zlib"))
    except ImportError:
        return gzip.open, zlib.error
    return faster.open, errors.error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Position and type of the voxels in a NIfTI file."""

    offset: int
    """Bytes before the first voxel."""
    length: int
    """Bytes of all voxels."""
    fractions: np.dtype | None
    """Number type if it can represent NaN, otherwise None."""
    shape: tuple[int, ...]
    """Voxels along each axis, slowest first."""
    plain: np.dtype | None
    """Number type if the voxels are plain numbers, otherwise None."""
    grid: Grid
    """Of the first three axes."""


def _layout(path: Path, head: bytes) -> _Layout:
    """Parse the NIfTI-1 header (nifti1.h) of a 3-D volume.

    Raises:
        DvtError: if it is not the header of a 3-D volume.
    """
    if len(head) < 348:
        raise DvtError(f"{path}: is not a NIfTI file (shorter than its header). Export it again.")
    orders = {struct.unpack(order + "i", head[:4])[0]: order for order in "<>"}
    if 540 in orders:
        raise DvtError(f"{path}: is NIfTI-2, which is not supported. Save it as NIfTI-1 (.nii.gz).")
    if 348 not in orders:
        raise DvtError(f"{path}: is not a NIfTI file (its header does not begin with 348). Export it again.")
    order = orders[348]
    dim = struct.unpack(order + "8h", head[40:56])
    if not 1 <= dim[0] <= 7:
        raise DvtError(f"{path}: its NIfTI header lists {dim[0]} dimensions. Export it again.")
    shape = dim[1 : 1 + dim[0]]
    if dim[0] > 4 or any(n > 1 for n in shape[3:]) or dim[0] < 3:
        raise DvtError(not_3d(path, shape))
    # SimpleITK would silently read an axis of length 0 as one voxel.
    if min(shape) < 1:
        raise DvtError(
            f"{path}: its NIfTI header lists {'x'.join(map(str, shape))} voxels. Fix the header or export it again."
        )
    if head[344:348] not in (SINGLE, b"ni1\0"):
        raise DvtError(
            f"{path}: is Analyze 7.5, not NIfTI, so the direction of its axes is unknown. Export it as .nii.gz."
        )
    kind, bits = struct.unpack(order + "2h", head[70:74])
    (offset,) = struct.unpack(order + "f", head[108:112])
    if not 0 <= offset < 2**31:
        raise DvtError(f"{path}: its NIfTI header places the voxels at byte {offset:g}. Export it again.")
    if bits != BITS.get(kind):
        raise DvtError(
            f"{path}: its NIfTI header has voxels of type {kind} in {bits} bits (datatype, bitpix), expected "
            f"{BITS.get(kind, 'a type of nifti1.h')}. Export it again."
        )
    number = np.dtype(order + KINDS[kind]) if kind in KINDS else None
    unscaled = _is_unscaled(path, *struct.unpack(order + "2f", head[112:120]))
    single = head[344:348] == SINGLE and offset >= 348
    return _Layout(
        offset=int(offset),
        length=math.prod(shape) * bits // 8,
        fractions=number if number is not None and number.kind == "f" else None,
        shape=shape[::-1],
        plain=number if unscaled and single and dim[0] == 3 else None,
        grid=nifti_forms.grid(path, order, head, shape),
    )


def _is_unscaled(path: Path, slope: float, intercept: float) -> bool:
    # With a slope of 0 nothing is scaled (nifti1.h), but SimpleITK adds the intercept.
    if not (math.isfinite(slope) and math.isfinite(intercept)) or (slope == 0 and intercept != 0):
        raise DvtError(
            f"{path}: its NIfTI header scales the voxels by {slope:g} and adds {intercept:g} (scl_slope, scl_inter), "
            "which programs read differently. Fix the header or export it again."
        )
    return slope in (0, 1) and intercept == 0


SINGLE = b"n+1\0"
"""Magic of a NIfTI-1 file that holds header and voxels."""
KINDS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
"""datatype of nifti1.h -> NumPy type, for types that are read without SimpleITK."""
BITS = {kind: 8 * np.dtype(code).itemsize for kind, code in KINDS.items()} | {
    1: 1, 32: 64, 128: 24, 1024: 64, 1280: 64, 1536: 128, 1792: 128, 2048: 256, 2304: 32,
}  # fmt: skip
"""datatype of nifti1.h -> bits of a voxel (bitpix)."""


def not_3d(path: Path, shape: tuple[int, ...]) -> str:
    """Return the message for a file that is not 3-D."""
    size = "x".join(str(n) for n in shape)
    fix = "Save all slices as one volume" if len(shape) < 3 else "Save each time point, echo or channel as its own file"
    return f"{path}: is {len(shape)}-D ({size}), expected 3-D. {fix}."


def not_finite(path: Path, bad: int, voxels: int) -> str:
    """Return the message for voxels that are not finite."""
    return f"{path}: {bad} of {voxels} voxels are not finite. Replace them, for example by 0 outside the body."
