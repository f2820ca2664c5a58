"""Volumes on disk: the only door to SimpleITK."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from dvtplan.artifacts import whole_file
from dvtplan.errors import DvtError
from dvtplan.geometry import Grid, Reorientation

NIFTI_ENDINGS = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz")
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
        raise DvtError(f"{path}: cannot be read ({_reason(error)}). Export it again.") from error
    image = _three_dimensional(path, image)
    array = sitk.GetArrayFromImage(image)
    if array.dtype not in _KEEP:
        array = array.astype(np.float64)
    return array, _grid(image)


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
            raise DvtError(
                f"{path}: cannot be written ({_reason(error)}). Free space, then run again."
            ) from error
        if not intact:
            raise DvtError(
                f"{path}: what was written does not read back the same. Free space, then run again."
            )


def write_like(path: Path, mask_SHW: np.ndarray, grid: Grid, order: Reorientation) -> None:
    """Write a slice-order mask in the file order of the image that it belongs to."""
    write_mask(path, np.ascontiguousarray(order.undo(mask_SHW)), grid)


def read_grid(path: Path) -> Grid:
    """The grid of a volume from its header alone; raises as ``read``."""
    _inspect(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DvtError(f"{path}: cannot be read ({_reason(error)}). Export it again.") from error
    size, n = reader.GetSize(), reader.GetDimension()
    if n > 3 and all(s == 1 for s in size[3:]):
        return read(path)[1]
    if n != 3:
        raise DvtError(_not_3d(path, size))
    return _make_grid(size, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def _inspect(path: Path) -> None:
    """Refuse, from the first bytes, what would make SimpleITK fail in obscure words or crash.

    A 5-D NIfTI file kills the process inside SimpleITK 2.5.7, so the header is read here first.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise DvtError(f"{path}: expected a volume file, found a folder. Name the file.")
        if size == 0:
            raise DvtError(f"{path}: is empty (0 bytes). Copy or export it again.")
        if path.name.endswith(NIFTI_ENDINGS):
            _inspect_nifti(path)
        else:
            with path.open("rb") as file:
                file.read(1)
    except FileNotFoundError:
        raise DvtError(f"{path}: not found. Check the path.") from None
    except PermissionError:
        raise DvtError(
            f"{path}: no permission to read. Change its permissions, for example with chmod +r."
        ) from None
    except OSError as error:
        raise DvtError(f"{path}: cannot be read ({error.strerror or error}). Check the disk.") from error


def _inspect_nifti(path: Path) -> None:
    """Check a NIfTI file's header, and that all of its voxels are there.

    SimpleITK reads a cut-off file without a word and fills what is missing with zeros.
    """
    with path.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    if path.name.endswith(".gz") and not zipped:
        raise DvtError(f"{path}: is named .gz and is not gzip. Rename it or export it again.")
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            head = file.read(352)
            expected = 0 if path.name.endswith((".img", ".img.gz")) else _nifti_bytes(path, head)
            length = len(head)
            while block := file.read(1 << 22):
                length += len(block)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DvtError(f"{path}: gzip data are damaged or cut off. Copy or export it again.") from None
    if length < expected and not path.name.endswith(".hdr"):
        raise DvtError(
            f"{path}: is cut off: expected {expected} bytes, found {length}. Copy or export it again."
        )


def _nifti_bytes(path: Path, head: bytes) -> int:
    """The length that a NIfTI-1 header (NIfTI-1 standard, nifti1.h) promises for its file."""
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
    (bits,), (offset,) = struct.unpack(order + "h", head[72:74]), struct.unpack(order + "f", head[108:112])
    return int(offset) + math.prod(shape) * bits // 8


def _three_dimensional(path: Path, image: sitk.Image) -> sitk.Image:
    size = image.GetSize()
    if image.GetDimension() == 4 and size[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise DvtError(_not_3d(path, size))
    if image.GetNumberOfComponentsPerPixel() != 1:
        n = image.GetNumberOfComponentsPerPixel()
        raise DvtError(
            f"{path}: has {n} values a voxel, expected 1. Save each component as a file of its own."
        )
    return image


def _not_3d(path: Path, shape: tuple[int, ...]) -> str:
    size = "x".join(str(n) for n in shape)
    return f"{path}: is {len(shape)}-D ({size}), expected 3-D. Save each time point, echo or channel as its own file."


def _grid(image: sitk.Image) -> Grid:
    return _make_grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def _make_grid(
    size: tuple[int, ...], spacing: tuple[float, ...], origin: tuple[float, ...], direction: tuple[float, ...]
) -> Grid:
    """ITK's x, y, z with direction columns -> array order with direction rows."""
    columns = np.asarray(direction, float).reshape(3, 3)
    rows = columns.T[::-1]
    return Grid(
        shape=(size[2], size[1], size[0]),
        spacing_mm=(spacing[2], spacing[1], spacing[0]),
        origin_mm=(origin[0], origin[1], origin[2]),
        direction=tuple((float(r[0]), float(r[1]), float(r[2])) for r in rows),
    )


def _reason(error: RuntimeError) -> str:
    """The last telling line of an ITK exception, which comes as a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("Reason:").strip().rstrip(".") if lines else "unknown reason"
