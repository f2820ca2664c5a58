"""What a NIfTI-1 file's own bytes say, read before SimpleITK is let near it.

SimpleITK 2.5.7 dies on a 5-D file, fills voxels that are missing and voxels that are no numbers
with zeros, and takes an axis of no length for one voxel: all but the first without a word.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.errors import DvtError

ENDINGS = tuple(f".{kind}{gz}" for kind in ("nii", "nia", "hdr", "img") for gz in ("", ".gz"))
"""Names that SimpleITK takes for NIfTI, in any case of letters."""


def inspect(path: Path, *, voxels: bool) -> None:
    """Check a NIfTI file's header and, if asked, that its voxels are all there and are numbers.

    Raises:
        DvtError: for anything that SimpleITK would misread in silence, or crash on.
    """
    header, body = _halves(path)
    with _unzipped(header) as file:
        layout = _layout(path, file.read(348))
    if voxels:
        with _unzipped(body) as file:
            _inspect_voxels(body, file, layout)


def _inspect_voxels(path: Path, file: io.BufferedIOBase, layout: _Layout) -> None:
    """Refuse voxels that are missing or no numbers: SimpleITK makes zeros of both, without a word."""
    found, bad = len(file.read(layout.offset)), 0
    end = layout.offset + layout.length
    while block := file.read(1 << 22):
        if layout.fractions is not None:
            part = block[: max(0, end - found)]
            whole = len(part) // layout.fractions.itemsize
            bad += whole - int(np.isfinite(np.frombuffer(part, layout.fractions, whole)).sum())
        found += len(block)
    if found < end:
        raise DvtError(f"{path}: is cut off: expected {end} bytes, found {found}. Copy or export it again.")
    if bad and layout.fractions is not None:
        raise DvtError(not_finite(path, bad, layout.length // layout.fractions.itemsize))


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
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DvtError(f"{path}: gzip data are damaged or cut off. Copy or export it again.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where a NIfTI file keeps its voxels."""

    offset: int
    """Bytes before the first."""
    length: int
    """Bytes of all of them."""
    fractions: np.dtype | None
    """Their type where it can hold what is no number."""


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
    fractions = {16: "f4", 64: "f8"}.get(kind)  # DT_FLOAT32, DT_FLOAT64
    return _Layout(
        offset=int(offset),
        length=math.prod(shape) * bits // 8,
        fractions=np.dtype(order + fractions) if fractions else None,
    )


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
