"""Volumes on disk: the only door to SimpleITK."""

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
import SimpleITK as sitk

from dvtplan.artifacts import whole_file
from dvtplan.errors import DvtError
from dvtplan.geometry import Grid, Reorientation

NIFTI_ENDINGS = tuple(f".{kind}{gz}" for kind in ("nii", "nia", "hdr", "img") for gz in ("", ".gz"))
"""Names that SimpleITK takes for NIfTI, in any case of letters."""
_KEEP = {np.dtype(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")}


def read(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a 3-D scalar volume in the file's own number type.

    Returns:
        The array in file order (slowest axis first) and its grid.

    Raises:
        DvtError: if the file is missing, damaged, or no 3-D scalar volume.
    """
    _inspect(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise DvtError(_unreadable(path, error)) from error
    image = _three_dimensional(path, image)
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "c":
        raise DvtError(f"{path}: holds complex numbers, expected real ones. Export the magnitude.")
    if array.dtype not in _KEEP:
        array = array.astype(np.float64)
    grid = _make_grid(path, image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return array, grid


def write_mask(path: Path, mask: np.ndarray, grid: Grid) -> None:
    """Write a file-order uint8 mask on a grid, whole or not at all, and read it back to be sure.

    Raises:
        DvtError: if it cannot be written, or what stands on disk differs (a full disk).
    """
    _write(path, mask.astype(np.uint8, copy=False), grid)


def write_probabilities(path: Path, probabilities: np.ndarray, grid: Grid) -> None:
    """Write file-order float32 probabilities on a grid; otherwise as ``write_mask``."""
    _write(path, probabilities.astype(np.float32, copy=False), grid)


def _write(path: Path, array: np.ndarray, grid: Grid) -> None:
    if array.shape != grid.shape:
        raise ValueError(f"array {array.shape} does not fit its grid {grid.shape}")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(np.asarray(grid.direction)[::-1].T.ravel().tolist())
    with whole_file(path) as draft:
        try:
            sitk.WriteImage(image, str(draft), useCompression=True)
            # NIfTI's writer does not report a full disk, so only reading back tells.
            back = sitk.ReadImage(str(draft))  # a view lives no longer than its image
            intact = np.array_equal(sitk.GetArrayViewFromImage(back), array)
        except RuntimeError as error:
            raise DvtError(f"{path}: cannot be written ({_reason(error)}). Free space, then run again.") from error
        if not intact:
            raise DvtError(f"{path}: what was written does not read back the same. Free space, then run again.")


def write_like(path: Path, mask_SHW: np.ndarray, grid: Grid, order: Reorientation) -> None:
    """Write a slice-order mask in the file order of the image that it belongs to."""
    write_mask(path, np.ascontiguousarray(order.undo(mask_SHW)), grid)


def read_grid(path: Path) -> Grid:
    """The grid of a volume from its header alone; raises as ``read``, but cannot see missing voxels."""
    _inspect(path, voxels=False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DvtError(_unreadable(path, error)) from error
    size, n = reader.GetSize(), reader.GetDimension()
    if n > 3 and all(s == 1 for s in size[3:]):
        return read(path)[1]
    if n != 3:
        raise DvtError(_not_3d(path, size))
    return _make_grid(path, size, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def _inspect(path: Path, *, voxels: bool = True) -> None:
    """Refuse, from the first bytes, what would make SimpleITK fail in obscure words or crash.

    A 5-D NIfTI file kills the process inside SimpleITK 2.5.7, so the header is read here first.
    With ``voxels``, a NIfTI file is also read to its end to see that all of them are there.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise DvtError(f"{path}: expected a volume file, found a folder. Name the file.")
        if size == 0:
            raise DvtError(f"{path}: is empty (0 bytes). Copy or export it again.")
        if path.name.lower().endswith(NIFTI_ENDINGS):
            _inspect_nifti(path, voxels)
        else:
            with path.open("rb") as file:
                file.read(1)
    except FileNotFoundError:
        raise DvtError(f"{path}: not found. Check the path.") from None
    except PermissionError:
        raise DvtError(f"{path}: no permission to read. Change its permissions, for example with chmod +r.") from None
    except OSError as error:
        raise DvtError(f"{path}: cannot be read ({error.strerror or error}). Check the disk.") from error


def _inspect_nifti(path: Path, voxels: bool) -> None:
    """Check a NIfTI file's header and, if asked, its voxels."""
    header, body = _nifti_halves(path)
    with _unzipped(header) as file:
        layout = _nifti_layout(path, file.read(348))
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


def not_finite(path: Path, bad: int, voxels: int) -> str:
    """The one line for voxels that are no numbers."""
    return f"{path}: {bad} of {voxels} voxels are not finite. Replace them, with 0 outside the body."


def _nifti_halves(path: Path) -> tuple[Path, Path]:
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


def _nifti_layout(path: Path, head: bytes) -> _Layout:
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
        raise DvtError(_not_3d(path, shape))
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


def _three_dimensional(path: Path, image: sitk.Image) -> sitk.Image:
    size = image.GetSize()
    if image.GetDimension() == 4 and size[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise DvtError(_not_3d(path, size))
    if image.GetNumberOfComponentsPerPixel() != 1:
        n = image.GetNumberOfComponentsPerPixel()
        raise DvtError(f"{path}: has {n} values a voxel, expected 1. Save each component as a file of its own.")
    return image


def _not_3d(path: Path, shape: tuple[int, ...]) -> str:
    size = "x".join(str(n) for n in shape)
    mend = (
        "Save all slices as one volume." if len(shape) < 3 else "Save each time point, echo or channel as its own file."
    )
    return f"{path}: is {len(shape)}-D ({size}), expected 3-D. {mend}"


def _make_grid(
    path: Path,
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    direction: tuple[float, ...],
) -> Grid:
    """ITK's x, y, z with direction columns -> array order with direction rows."""
    if not np.isfinite([*spacing, *origin, *direction]).all() or 0 in spacing:
        shown = [" x ".join(f"{v:g}" for v in values) for values in (spacing, origin)]
        raise DvtError(
            f"{path}: its header gives the spacing {shown[0]} mm and the origin {shown[1]} mm. Export it again."
        )
    # A header alone may count backwards along an axis; ITK turns that axis when it reads the voxels.
    columns = np.asarray(direction, float).reshape(3, 3) * np.sign(spacing)
    spacing = tuple(abs(s) for s in spacing)
    rows = columns.T[::-1]
    return Grid(
        shape=(size[2], size[1], size[0]),
        spacing_mm=(spacing[2], spacing[1], spacing[0]),
        origin_mm=(origin[0], origin[1], origin[2]),
        direction=tuple((float(r[0]), float(r[1]), float(r[2])) for r in rows),
    )


def _unreadable(path: Path, error: RuntimeError) -> str:
    reason = _reason(error)
    mend = "Resample it onto axes at right angles." if "orthonormal" in reason else "Export it again."
    return f"{path}: cannot be read ({reason}). {mend}"


def _reason(error: RuntimeError) -> str:
    """The last telling line of an ITK exception, which comes as a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # MetaImage files that are cut off come with the last error of the system, which is of no file.
    telling = [line for line in lines if line != "Reason: No such file or directory"]
    last = telling[-1] if telling else "unknown reason"
    return re.sub(r"^(Reason: |(sitk::|ITK )ERROR: |\w+\(0x[0-9a-f]+\): )+", "", last).rstrip(".!")
