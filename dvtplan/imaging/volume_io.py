"""Read and write volumes: the only adapter for SimpleITK."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from dvtplan.core.errors import DvtError, WriteFailed, cannot_write
from dvtplan.core.files import atomic_write
from dvtplan.imaging import nifti
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.nifti import not_3d

T = TypeVar("T")

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
"""File endings of volumes that are read and written."""
MASK_ENDINGS = (*ENDINGS, ".hdr", ".nhdr", ".gipl", ".gipl.gz")
"""File endings of masks that other programs wrote, which are only read."""

_KEEP = {np.dtype(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")}
"""Number types that are returned unchanged."""
MAX_NOTES = 79
"""Characters of descrip in nifti1.h, without its end."""


def read(path: str | Path) -> tuple[np.ndarray, Grid]:
    """Read a 3-D scalar volume in the file's number type.

    Returns:
        The array in file order (slowest axis first) and its grid.

    Raises:
        DvtError: if the file is missing or damaged, or is not a 3-D scalar volume.
    """
    path = Path(path)
    voxels = _inspect(path)
    if voxels is not None:
        grid = _header_grid(path)
        if grid is not None and grid.shape == voxels.shape:
            return voxels, grid
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise DvtError(_unreadable(path, error)) from error
    image = _three_dimensional(path, image)
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "c":
        raise DvtError(f"{path}: contains complex numbers, expected real numbers. Export the magnitude.")
    if array.dtype not in _KEEP:
        array = array.astype(np.float64)
    grid = _make_grid(path, image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return array, grid


def write_mask(
    path: str | Path,
    mask: np.ndarray,
    grid: Grid,
    *,
    names: Mapping[str, int] | None = None,
    before_move: Callable[[Path], None] | None = None,
) -> None:
    """Write a file-order uint8 mask atomically, and read it back as a check.

    Args:
        path: the file; its ending determines the format.
        mask: shape ``grid.shape``.
        grid: the mask's grid.
        names: label -> value, written into the header as text (NIfTI: descrip, at most 79 characters).
        before_move: called with the complete temporary file before it is moved to ``path``.

    Raises:
        WriteFailed: if it cannot be written, or if the file on disk differs (full disk).
    """
    text = "; ".join(f"{value} {name}" for name, value in (names or {}).items())
    notes = text.encode("ascii", "replace").decode()[:MAX_NOTES]
    _write(path, mask.astype(np.uint8, copy=False), grid, notes, before_move)


def write_probabilities(path: str | Path, probabilities: np.ndarray, grid: Grid) -> None:
    """Write file-order probabilities as float32; otherwise as ``write_mask``."""
    _write(path, probabilities.astype(np.float32, copy=False), grid)


def write_image(path: str | Path, image: np.ndarray, grid: Grid) -> None:
    """Write a file-order image in its number type; otherwise as ``write_mask``."""
    _write(path, image, grid)


def _write(
    path: str | Path,
    array: np.ndarray,
    grid: Grid,
    notes: str = "",
    before_move: Callable[[Path], None] | None = None,
) -> None:
    path = Path(path)
    if array.shape != grid.shape:
        raise ValueError(f"array {array.shape} does not fit its grid {grid.shape}")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(np.asarray(grid.direction)[::-1].T.ravel().tolist())
    if notes:
        image.SetMetaData("ITK_FileNotes", notes)
    with atomic_write(path) as draft:
        try:
            sitk.WriteImage(image, str(draft), useCompression=True)
            del image  # at most two copies in memory
            # The NIfTI writer does not report a full disk, so the file is read back.
            back = sitk.ReadImage(str(draft))  # must outlive its view
            view = sitk.GetArrayViewFromImage(back)
            intact = view.shape == array.shape and all(map(np.array_equal, view, array))
        except RuntimeError as error:
            raise WriteFailed(cannot_write(path, _reason(error))) from error
        if not intact:
            raise WriteFailed(cannot_write(path, "it differs when read back"))
        if before_move is not None:
            before_move(draft)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a volume: for MetaImage (.mhd) also the file that its header names."""
    if path.suffix.lower() != ".mhd":
        return (path,)
    named = re.search(rb"(?m)^ElementDataFile *= *(\S[^\r\n]*)", path.read_bytes()[:100_000])
    voxels = path.with_name(named[1].decode("utf-8", "replace").strip()) if named else path
    return (path, voxels) if voxels != path and voxels.is_file() else (path,)


def read_grid(path: str | Path) -> Grid:
    """Read the grid of a volume from its header; raises as ``read``, but does not notice missing voxels."""
    path = Path(path)
    _inspect(path, voxels=False)
    return _header_grid(path) or read(path)[1]


def count_voxels(path: Path) -> int:
    """Return the number of voxels in a volume's header; raises as ``read_grid``, but takes a tenth of its time."""
    if path.name.lower().endswith(nifti.ENDINGS):
        return math.prod(_checked(path, nifti.inspect))
    return math.prod(read_grid(path).shape)


def _header_grid(path: Path) -> Grid | None:
    """Read the grid of a 3-D volume from its header; None if it has further axes of one voxel."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DvtError(_unreadable(path, error)) from error
    size, n = reader.GetSize(), reader.GetDimension()
    if n > 3 and all(s == 1 for s in size[3:]):
        return None
    if n != 3:
        raise DvtError(not_3d(path, size))
    return _make_grid(path, size, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def _inspect(path: Path, *, voxels: bool = True) -> np.ndarray | None:
    """Refuse files on which SimpleITK would crash or fail with an obscure message.

    SimpleITK 2.5.7 crashes on a 5-D NIfTI file, so the header is read here first. With ``voxels`` a NIfTI file is read
    to its end.

    Returns:
        The voxels, if SimpleITK does not have to interpret them.
    """
    if not path.name.lower().endswith(nifti.ENDINGS):
        _checked(path, _first_byte)
    elif voxels:
        return _checked(path, nifti.read)
    else:
        _checked(path, nifti.inspect)
    return None


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


def _checked(path: Path, inspect: Callable[[Path], T]) -> T:
    """Return what a function reads from a file; turn system errors into one line."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise DvtError(f"{path}: expected a volume file, found a folder. Give the file.")
        if size == 0:
            raise DvtError(f"{path}: is empty (0 bytes). Copy or export it again.")
        return inspect(path)
    except FileNotFoundError:
        raise DvtError(f"{path}: not found. Check the path.") from None
    except PermissionError:
        raise DvtError(f"{path}: no permission to read. Change its permissions, for example with chmod +r.") from None
    except OSError as error:
        raise DvtError(f"{path}: cannot be read ({error.strerror or error}). Check the disk.") from error


def _three_dimensional(path: Path, image: sitk.Image) -> sitk.Image:
    size = image.GetSize()
    if image.GetDimension() == 4 and size[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise DvtError(not_3d(path, size))
    if image.GetNumberOfComponentsPerPixel() != 1:
        n = image.GetNumberOfComponentsPerPixel()
        raise DvtError(f"{path}: has {n} values per voxel, expected 1. Save each component as a file of its own.")
    return image


def _make_grid(
    path: Path,
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    direction: tuple[float, ...],
) -> Grid:
    """Convert ITK's x, y, z with direction columns to array order with direction rows."""
    if not np.isfinite([*spacing, *origin, *direction]).all() or 0 in spacing:
        shown = [" x ".join(f"{v:g}" for v in values) for values in (spacing, origin)]
        raise DvtError(
            f"{path}: its header contains the spacing {shown[0]} mm and the origin {shown[1]} mm. Export it again."
        )
    # In a header a spacing may be negative; ITK reverses that axis when it reads the voxels.
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
    fix = "Resample it onto axes at right angles." if "orthonormal" in reason else "Export it again."
    return f"{path}: cannot be read ({reason}). {fix}"


def _reason(error: RuntimeError) -> str:
    """Return the last informative line of an ITK exception, which has a page of text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # For truncated MetaImage files ITK appends the last system error, which concerns no file.
    informative = [line for line in lines if line != "Reason: No such file or directory"]
    last = informative[-1] if informative else "unknown reason"
    return re.sub(r"^(Reason: |(sitk::|ITK )ERROR: |\w+\(0x[0-9a-f]+\): )+", "", last).rstrip(".!")


def stem(path: Path) -> str:
    """Return a file or folder name without the ending of a volume, an archive or a DICOM file."""
    found = next((e for e in (*ENDINGS, ".zip", ".dcm") if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(found)]
