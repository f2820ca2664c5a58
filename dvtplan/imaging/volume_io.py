"""Volumes on disk: the only door to SimpleITK."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from dvtplan.core.errors import DvtError, WriteFailed
from dvtplan.core.files import atomic_write
from dvtplan.imaging import nifti
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.nifti import not_3d

T = TypeVar("T")

_KEEP = {np.dtype(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")}
NOTES_AT_MOST = 79
"""Characters that descrip of nifti1.h holds, and its end."""


def read(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a 3-D scalar volume in the file's own number type.

    Returns:
        The array in file order (slowest axis first) and its grid.

    Raises:
        DvtError: if the file is missing, damaged, or no 3-D scalar volume.
    """
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
        raise DvtError(f"{path}: holds complex numbers, expected real ones. Export the magnitude.")
    if array.dtype not in _KEEP:
        array = array.astype(np.float64)
    grid = _make_grid(path, image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return array, grid


def write_mask(
    path: Path,
    mask: np.ndarray,
    grid: Grid,
    *,
    names: Mapping[str, int] | None = None,
    noted: Callable[[Path], None] | None = None,
) -> None:
    """Write a file-order uint8 mask on a grid, whole or not at all, and read it back to be sure.

    Args:
        path: of the mask; its ending says the format.
        mask: in the order of the grid.
        grid: where it lies.
        names: name -> value, as words into the header (of NIfTI: descrip, of 80 characters).
        noted: is given the draft once it is whole, before it takes the place of what is at ``path``.

    Raises:
        DvtError: if it cannot be written, or what stands on disk differs (a full disk).
    """
    words = "; ".join(f"{value} {name}" for name, value in (names or {}).items())
    told = words.encode("ascii", "replace").decode()[:NOTES_AT_MOST]
    _write(path, mask.astype(np.uint8, copy=False), grid, told, noted)


def write_probabilities(path: Path, probabilities: np.ndarray, grid: Grid) -> None:
    """Write file-order float32 probabilities on a grid; otherwise as ``write_mask``."""
    _write(path, probabilities.astype(np.float32, copy=False), grid)


def write_image(path: Path, image: np.ndarray, grid: Grid) -> None:
    """Write a file-order image in its own number type; otherwise as ``write_mask``."""
    _write(path, image, grid)


def _write(
    path: Path, array: np.ndarray, grid: Grid, words: str = "", noted: Callable[[Path], None] | None = None
) -> None:
    if array.shape != grid.shape:
        raise ValueError(f"array {array.shape} does not fit its grid {grid.shape}")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(np.asarray(grid.direction)[::-1].T.ravel().tolist())
    if words:
        image.SetMetaData("ITK_FileNotes", words)
    with atomic_write(path) as draft:
        try:
            sitk.WriteImage(image, str(draft), useCompression=True)
            del image  # two of the volume are enough to have in memory
            # NIfTI's writer does not report a full disk, so only reading back tells.
            back = sitk.ReadImage(str(draft))  # a view lives no longer than its image
            view = sitk.GetArrayViewFromImage(back)
            intact = view.shape == array.shape and all(map(np.array_equal, view, array))
        except RuntimeError as error:
            raise WriteFailed(f"{path}: cannot be written ({_reason(error)}). Free space, then run again.") from error
        if not intact:
            raise WriteFailed(f"{path}: what was written does not read back the same. Free space, then run again.")
        if noted is not None:
            noted(draft)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a volume consists of: of MetaImage (.mhd) also the one that its header names."""
    if path.suffix.lower() != ".mhd":
        return (path,)
    named = re.search(rb"(?m)^ElementDataFile *= *(\S[^\r\n]*)", path.read_bytes()[:100_000])
    voxels = path.with_name(named[1].decode("utf-8", "replace").strip()) if named else path
    return (path, voxels) if voxels != path and voxels.is_file() else (path,)


def read_grid(path: Path) -> Grid:
    """The grid of a volume from its header alone; raises as ``read``, but cannot see missing voxels."""
    _inspect(path, voxels=False)
    return _header_grid(path) or read(path)[1]


def count_voxels(path: Path) -> int:
    """How many voxels a volume's header promises; raises as ``read_grid``, and takes a tenth of its time."""
    if path.name.lower().endswith(nifti.ENDINGS):
        return math.prod(_told(path, nifti.inspect))
    return math.prod(read_grid(path).shape)


def _header_grid(path: Path) -> Grid | None:
    """The grid of a 3-D volume as its header tells; none where it has further axes of one voxel."""
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
    """Refuse, from the first bytes, what would make SimpleITK fail in obscure words or crash.

    A 5-D NIfTI file kills the process inside SimpleITK 2.5.7, so the header is read here first.
    With ``voxels``, a NIfTI file is also read to its end, to see that all of them are there, and
    they are handed back where SimpleITK would only read them once more.
    """
    if not path.name.lower().endswith(nifti.ENDINGS):
        _told(path, _first_byte)
    elif voxels:
        return _told(path, nifti.read)
    else:
        _told(path, nifti.inspect)
    return None


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


def _told(path: Path, look: Callable[[Path], T]) -> T:
    """What a look at a file gives; what hinders it in one line."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise DvtError(f"{path}: expected a volume file, found a folder. Name the file.")
        if size == 0:
            raise DvtError(f"{path}: is empty (0 bytes). Copy or export it again.")
        return look(path)
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
        raise DvtError(f"{path}: has {n} values a voxel, expected 1. Save each component as a file of its own.")
    return image


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


ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
"""Of volumes that are looked for in a folder."""


def stem(path: Path) -> str:
    """A file's or folder's name without the ending of a volume or an archive."""
    found = next((e for e in (*ENDINGS, ".zip", ".dcm") if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(found)]
