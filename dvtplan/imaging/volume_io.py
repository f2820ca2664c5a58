"""Read and write volumes: the only adapter for SimpleITK."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dvtplan.core.errors import DvtError, WriteFailed, cannot_write, require_unicode
from dvtplan.core.files import atomic_write
from dvtplan.imaging import headers, nifti
from dvtplan.imaging.geometry import HEADER_TOLERANCE, Grid, distance_mm, nearest_axes, same_grid
from dvtplan.imaging.nifti import not_3d
from dvtplan.imaging.volume_names import GIPL, WRITTEN, has_ending

if TYPE_CHECKING:
    import SimpleITK as sitk

T = TypeVar("T")

READERS = {
    "NiftiImageIO": nifti.ENDINGS,
    "NrrdImageIO": headers.NRRD,
    "MetaImageIO": headers.META,
    "GiplImageIO": GIPL,
}
"""SimpleITK's reader -> endings, in lower case."""
_KEEP = {np.dtype(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")}
"""Number types that are returned unchanged."""
PLACE_TOLERANCE_MM, PLACE_TOLERANCE = 0.02, 0.02
"""Distance in mm, and share of the smallest voxel size, by which a written volume may be displaced: axes that are
slightly skew, as in DICOM, are written at right angles."""
NOTES = "ITK_FileNotes"
"""SimpleITK's field for a text in a header (NIfTI: descrip)."""
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
    voxels, stated = _inspect(path)
    if voxels is not None and stated is not None:
        return voxels, _header_grid(path, stated) or stated
    import SimpleITK as sitk  # slow to load, and nothing else here needs it

    try:
        with _silent(), nifti.plain_name(path) as name:
            image = sitk.ReadImage(str(name), imageIO=_reader_of(path))
    except RuntimeError as error:
        raise DvtError(_unreadable(path, error)) from error
    image = _three_dimensional(path, image)
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "c":
        raise DvtError(f"{path}: contains complex numbers, expected real numbers. Export the magnitude.")
    if array.dtype not in _KEEP:
        array = array.astype(np.float64)
    if stated is not None and array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        raise DvtError(nifti.not_finite(path, int(array.size - finite.sum()), array.size))
    return array, _agreed(path, stated, image)


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
    _write(path, mask.astype(np.uint8, copy=False), grid, notes_of(names or {}), before_move)


def notes_of(names: Mapping[str, int]) -> str:
    """Return the text that ``write_mask`` writes into a header: '1 proximal; 2 distal', in ASCII."""
    text = "; ".join(f"{value} {name}" for name, value in names.items())
    return text.encode("ascii", "replace").decode()[:MAX_NOTES]


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
    if not path.name.endswith(WRITTEN):
        raise WriteFailed(f"{path}: is not a format in which volumes are written. Use {', '.join(WRITTEN)}.")
    require_unicode(path)
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(nearest_axes(np.asarray(grid.direction))[::-1].T.ravel().tolist())
    if notes:
        image.SetMetaData(NOTES, notes)
    with atomic_write(path) as draft:
        try:
            with _silent():
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
        _require_place(path, grid, draft)
        if before_move is not None:
            before_move(draft)


def _require_place(path: Path, grid: Grid, draft: Path) -> None:
    """Refuse a written file whose voxels lie elsewhere than those of the grid, beyond rounding to float32."""
    extent = float(np.linalg.norm(np.ptp(grid.corners_mm(), axis=0)))
    allowed = max(HEADER_TOLERANCE * extent, PLACE_TOLERANCE_MM + PLACE_TOLERANCE * min(grid.spacing_mm))
    try:
        apart = distance_mm(grid, read_grid(draft))
    except DvtError as error:
        raise WriteFailed(str(error).replace(str(draft), str(path))) from error
    if apart > allowed:
        raise WriteFailed(
            f"{path}: cannot be written in this format: its voxels would lie up to {apart:.3g} mm away from "
            "those of the scan. Resample the scan onto axes at right angles, or choose another format."
        )


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a volume: also the file of voxels that belongs to a header (.mhd, .nhdr, .hdr)."""
    if has_ending(path, nifti.ENDINGS):
        return nifti.files_of(path)
    voxels = headers.voxel_file(path)
    return (path, voxels) if voxels is not None and voxels.is_file() else (path,)


def read_grid(path: str | Path) -> Grid:
    """Read the grid of a volume from its header; raises as ``read``, but does not notice missing voxels."""
    path = Path(path)
    _, stated = _inspect(path, voxels=False)
    return _header_grid(path, stated) or read(path)[1]


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in a volume's header, such as the names of segments; raises as ``read_grid``.

    The text that ``write_mask`` wrote is that of ``NOTES``, whatever the format.
    """
    _, stated = _inspect(path, voxels=False)
    if stated is not None:
        return {NOTES: nifti.description(path)}
    try:
        reader = _header_reader(path)
    except RuntimeError as error:
        raise DvtError(_unreadable(path, error)) from error
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}


def read_layers(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a 3-D volume that may have several values per voxel, such as the layers of a segmentation of 3D Slicer.

    Returns:
        The array (layers, *grid.shape), and the grid.

    Raises:
        DvtError: as ``read``.
    """
    _inspect(path)
    import SimpleITK as sitk  # slow to load, and nothing else here needs it

    try:
        with _silent(), nifti.plain_name(path) as name:
            image = sitk.ReadImage(str(name), imageIO=_reader_of(path))
    except RuntimeError as error:
        raise DvtError(_unreadable(path, error)) from error
    if image.GetDimension() != 3:
        raise DvtError(not_3d(path, image.GetSize()))
    array = sitk.GetArrayFromImage(image)
    grid = _make_grid(path, image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return (array[None] if array.ndim == 3 else np.moveaxis(array, -1, 0)), grid


def read_stated_grid(path: Path) -> Grid:
    """Read the grid that a volume's header states; as ``read_grid`` except for rounding, in a tenth of its time."""
    return _checked(path, nifti.inspect) if has_ending(path, nifti.ENDINGS) else read_grid(path)


def count_voxels(path: Path) -> int:
    """Return the number of voxels in a volume's header; raises as ``read_stated_grid``."""
    return math.prod(read_stated_grid(path).shape)


def _header_reader(path: Path) -> sitk.ImageFileReader:
    """Read a header; a RuntimeError is ITK's."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO(_reader_of(path))
    with _silent(), nifti.plain_name(path) as name:
        reader.SetFileName(str(name))
        reader.ReadImageInformation()
    return reader


def _header_grid(path: Path, stated: Grid | None) -> Grid | None:
    """Read the grid of a 3-D volume from its header; None if it has further axes of one voxel.

    Args:
        path: the file.
        stated: its grid as ``nifti`` reads it; None for other formats.
    """
    try:
        reader = _header_reader(path)
    except RuntimeError as error:
        if stated is not None and "orthonormal" in _reason(error):
            return stated
        raise DvtError(_unreadable(path, error)) from error
    size, n = reader.GetSize(), reader.GetDimension()
    if n > 3 and all(s == 1 for s in size[3:]):
        return None
    if n != 3:
        raise DvtError(not_3d(path, size))
    return _agreed(path, stated, reader)


def _agreed(path: Path, stated: Grid | None, found: sitk.Image | sitk.ImageFileReader) -> Grid:
    """Return the grid that SimpleITK found, or the one that a NIfTI header states if they differ.

    They differ where the user trusts a form of the header, and where SimpleITK takes a rounded qform.
    """
    geometry = (found.GetSize(), found.GetSpacing(), found.GetOrigin(), found.GetDirection())
    if stated is None:
        return _make_grid(path, *geometry)
    try:
        grid = _make_grid(path, *geometry)
    except DvtError:
        return stated
    return grid if same_grid(grid, stated) else stated


def _inspect(path: Path, *, voxels: bool = True) -> tuple[np.ndarray | None, Grid | None]:
    """Refuse files that SimpleITK would misread, on which it would crash, or fail with an obscure message.

    SimpleITK 2.5.7 crashes on a 5-D NIfTI file, so the header is read here first. With ``voxels`` a NIfTI file is read
    to its end.

    Returns:
        The voxels, if SimpleITK does not have to interpret them, and the grid of a NIfTI file.
    """
    require_unicode(path)
    if not has_ending(path, nifti.ENDINGS):
        _checked(path, functools.partial(headers.check, voxels=voxels))
        return None, None
    return _checked(path, nifti.read) if voxels else (None, _checked(path, nifti.inspect))


def _reader_of(path: Path) -> str:
    """Return SimpleITK's reader of the format that a file's name states, so that no other reader guesses."""
    name = path.name.lower()
    return next((reader for reader, endings in READERS.items() if name.endswith(endings)), "")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the warnings of ITK and its libraries, which write to the process's stderr, off the screen."""
    import SimpleITK as sitk

    sitk.ProcessObject_SetGlobalWarningDisplay(False)
    try:
        sys.stderr.flush()
        stderr = os.dup(2)
    except (OSError, ValueError, AttributeError):  # closed, or no stream at all
        yield
        return
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        os.close(nothing)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


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
    axes = (np.asarray(direction, float).reshape(3, 3) * np.sign(spacing)).T
    headers.require_right_angles(path, axes)
    spacing = tuple(abs(s) for s in spacing)
    rows = nearest_axes(axes)[::-1]
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
    # For damaged MetaImage files ITK appends the last system error, which concerns no file.
    informative = [line for line in lines if line not in ("Reason: No such file or directory", "Reason: Success")]
    last = informative[-1] if informative else "unknown reason"
    return re.sub(r"^(Reason: |(sitk::|ITK )ERROR: |\w+\(0x[0-9a-f]+\): )+", "", last).rstrip(".!")
