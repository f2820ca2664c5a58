"""Check the headers of NRRD, MetaImage and GIPL files before SimpleITK reads them.

Where such a header does not state the voxel size, or states it in another unit, SimpleITK 2.5.7 takes 1 mm without a
message. Axes that are not at right angles would lose their angle in every NIfTI file that is written for them.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.imaging import packed_voxels
from dvtplan.imaging.geometry import HEADER_TOLERANCE
from dvtplan.imaging.nifti import ENDINGS as NIFTI
from dvtplan.imaging.nifti import not_3d
from dvtplan.imaging.volume_names import GIPL

NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")
LONGEST = 1 << 20
"""Bytes in which a text header must end."""
SPACES = {"left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las"}
"""Coordinates of NRRD (field "space") that say where left is."""
SIZES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4, "FLOAT": 4,
         "LONG_LONG": 8, "ULONG_LONG": 8, "DOUBLE": 8}  # fmt: skip
"""ElementType of MetaImage, without MET_ -> bytes."""
NRRD_SIZES = {name: size for names, size in (
    ("signed char;int8;int8_t;uchar;unsigned char;uint8;uint8_t", 1),
    ("short;short int;signed short;signed short int;int16;int16_t", 2),
    ("ushort;unsigned short;unsigned short int;uint16;uint16_t", 2),
    ("int;signed int;int32;int32_t;uint;unsigned int;uint32;uint32_t;float", 4),
    ("longlong;long long;int64;int64_t;ulonglong;unsigned long long;uint64;uint64_t;double", 8),
) for name in names.split(";")}  # fmt: skip
"""Type of NRRD -> bytes."""
ENCODINGS = ("raw", "gzip", "gz", "ascii", "text", "txt", "hex")
"""Encodings of NRRD that are read."""
AXES = ("TransformMatrix", "Rotation", "Orientation")
ORIGIN = ("Offset", "Position", "Origin")
"""Names of one field of MetaImage."""


def check(path: Path, *, voxels: bool = True) -> None:
    """Refuse a file whose header does not say how large its voxels are and how they lie.

    Args:
        path: the file.
        voxels: unpack compressed voxels, and refuse those that are fewer or more than the header describes.

    Raises:
        DvtError: with the field at fault; also for a format that does not store them, such as TIFF.
    """
    name = path.name.lower()
    if name.endswith(NRRD):
        _check_nrrd(path, voxels)
    elif name.endswith(META):
        _check_meta(path, voxels)
    elif name.endswith(GIPL):
        _check_gipl(path)
    else:
        raise DvtError(
            f"{path}: is not a supported volume format, which states the size and direction of voxels "
            f"({', '.join((*NIFTI[:2], *NRRD, *META))}). Export it as .nii.gz."
        )


def voxel_file(path: Path) -> Path | None:
    """Return the file of voxels that a header names, which may be missing; None for a volume in one file."""
    name = path.name.lower()
    if not name.endswith((*NRRD, *META)):
        return None
    with contextlib.suppress(DvtError, OSError):
        fields, _ = _nrrd_fields(path) if name.endswith(NRRD) else _meta_fields(path)
        named = fields.get("data file") if name.endswith(NRRD) else fields.get("ElementDataFile")
        return None if named is None or named.upper() == "LOCAL" else path.parent / named
    return None


def require_right_angles(path: Path, axes: np.ndarray) -> None:
    """Refuse axes that are not three unit vectors at right angles; one axis per row.

    Raises:
        DvtError: with the angle or the lengths that were found.
    """
    lengths = np.linalg.norm(axes, axis=1)
    if not np.isfinite(axes).all() or np.abs(lengths - 1).max() > HEADER_TOLERANCE:
        raise DvtError(
            f"{path}: its axes have the lengths {', '.join(f'{n:.6g}' for n in lengths)}, expected 1. Fix the "
            "direction in its header or export it again."
        )
    skew = float(np.abs(axes @ axes.T - np.eye(3)).max())
    if skew > HEADER_TOLERANCE:
        raise DvtError(
            f"{path}: its axes enclose {math.degrees(math.acos(min(skew, 1.0))):.4g} degrees, expected 90. Resample it "
            "onto axes at right angles."
        )


def _numbers(path: Path, field: str, text: str) -> list[float]:
    """Parse the numbers of a field."""
    try:
        return [float(word) for word in re.split(r"[\s,]+", text.strip())]
    except ValueError:
        raise DvtError(f"{path}: {field} is {text!r}, expected numbers. Export it again.") from None


def _shape(path: Path, field: str, text: str) -> tuple[int, ...]:
    """Parse the numbers of voxels."""
    numbers = _numbers(path, field, text)
    if not all(math.isfinite(n) and n >= 1 and n == int(n) for n in numbers):
        raise DvtError(f"{path}: {field} is {text}, expected whole numbers above 0. Fix the header or export it again.")
    return tuple(int(n) for n in numbers)


def _require_sizes(path: Path, field: str, sizes: Sequence[float]) -> None:
    if len(sizes) < 3 or not all(math.isfinite(size) and size > 0 for size in sizes[:3]):
        shown = " x ".join(f"{size:g}" for size in sizes)
        raise DvtError(f"{path}: {field} is {shown} mm, expected three sizes above 0. Fix the header.")


def _require_voxels(path: Path, named: str | None, header: int, needed: int) -> None:
    """Refuse missing voxels, and more voxels than the header describes.

    Args:
        path: file of the header.
        named: file of the voxels; None or LOCAL if they follow the header.
        header: length of the header in bytes.
        needed: bytes of the voxels; 0 if unknown.

    Raises:
        DvtError: if the voxels are missing or truncated, lie in several files, or are too many.
    """
    if named is None or named.upper() == "LOCAL":
        _require_length(path, header, needed)
        return
    if named.upper().startswith("LIST") or "%" in named:
        raise DvtError(f"{path}: its voxels lie in several files ({named}). Save it as one file, such as .nii.gz.")
    voxels = path.parent / named
    if not voxels.is_file():
        raise DvtError(f"{path}: its file of voxels {named} was not found. Put both files into one folder.")
    _require_length(voxels, 0, needed)


def _require_length(path: Path, header: int, needed: int) -> None:
    found, expected = path.stat().st_size, header + needed
    if found < expected:
        raise DvtError(f"{path}: is truncated: expected {expected} bytes, found {found}. Copy or export it again.")
    if needed and found > expected:  # slices that the header omits, or voxels that are shifted
        raise DvtError(f"{path}: has {found} bytes, but its header describes {expected}. Export it again.")


# --- NRRD -----------------------------------------------------------------------------------------


def _nrrd_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of an NRRD header and its length in bytes.

    Raises:
        DvtError: if it is not NRRD, or a field occurs twice with different values.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST)
    if not re.match(rb"NRRD000\d\r?\n", head):
        raise DvtError(f"{path}: is not an NRRD file (it does not begin with NRRD). Export it again.")
    end = re.search(rb"\r?\n\r?\n", head)
    text = (head[: end.start()] if end else head).decode("utf-8", "replace")
    # Field names ignore case; "key:=value" is a comment for other programs.
    found = re.findall(r"(?m)^([^#:\n][^:\n]*):[ \t]+([^\r\n]*)", text)
    fields = [(name.strip().lower().replace("datafile", "data file"), value.strip()) for name, value in found]
    return _unique(path, fields), end.end() if end else len(head)


def _unique(path: Path, found: Sequence[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in found:
        if fields.setdefault(name, value) != value:
            raise DvtError(
                f"{path}: its header has {name} twice, {fields[name]} and {value}. Fix the header or export it again."
            )
    return fields


def _check_nrrd(path: Path, unpack: bool) -> None:
    fields, length = _nrrd_fields(path)
    space = fields.get("space")
    if space is None or space.lower().removesuffix("-time").removesuffix("t") not in SPACES:
        given = f"the space {space}" if space else "no space"
        raise DvtError(
            f"{path}: its header has {given}, so the direction of its axes is unknown; expected "
            "left-posterior-superior, right-anterior-superior or left-anterior-superior. Fix the header."
        )
    vectors = [
        _numbers(path, "space directions", vector)
        for vector in re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))
    ]
    axes = [vector for vector in vectors if not all(map(math.isnan, vector))]
    if len(axes) != 3 or any(len(axis) != 3 for axis in axes):
        given = fields.get("space directions", "no space directions")
        raise DvtError(f"{path}: its header has {given}, expected three vectors (space directions). Fix the header.")
    steps = np.array(axes)
    sizes = np.linalg.norm(steps, axis=1)
    _require_sizes(path, "the length of its space directions", sizes.tolist())
    require_right_angles(path, steps / sizes[:, None])
    for field in ("space units", "units"):
        units = re.findall(r'"([^"]*)"', fields.get(field, ""))
        if wrong := [unit for unit in units if unit.lower() not in ("", "mm", "millimeter", "millimetre")]:
            raise DvtError(f"{path}: its header gives sizes in {wrong[0]} ({field}), expected mm. Export it in mm.")
    if (encoding := fields.get("encoding", "").lower()) not in ENCODINGS:
        raise DvtError(f"{path}: its voxels are encoded as {encoding}, which is not supported. Save them as gzip.")
    each = NRRD_SIZES.get(fields.get("type", "").lower(), 0)
    needed = each * math.prod(_shape(path, "sizes", fields.get("sizes", "")))
    if {"line skip", "byte skip"} & set(fields):
        needed = 0
    _require_voxels(path, fields.get("data file"), length, needed if encoding == "raw" else 0)
    if unpack and needed and encoding in ("gzip", "gz"):
        packed_voxels.require_length(voxel_file(path) or path, 0 if voxel_file(path) else length, None, needed)


# --- MetaImage ------------------------------------------------------------------------------------


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a MetaImage header and its length in bytes.

    Raises:
        DvtError: if it is not MetaImage, or a field occurs twice with different values.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST)
    end = re.search(rb"(?m)^\s*ElementDataFile\s*[=:][^\n]*(\n|\Z)", head)
    if end is None:
        raise DvtError(f"{path}: is not a MetaImage file (ElementDataFile is missing). Export it again.")
    text = head[: end.end()].decode("utf-8", "replace")
    found = re.findall(r"(?m)^\s*(\w+)\s*[=:][ \t]*([^\r\n]*)", text)
    return _unique(path, [(name, value.strip()) for name, value in found]), end.end()


def _check_meta(path: Path, unpack: bool) -> None:
    fields, length = _meta_fields(path)
    shape = _shape(path, "DimSize", fields.get("DimSize", ""))
    if fields.get("NDims", str(len(shape))) != str(len(shape)):
        raise DvtError(f"{path}: NDims is {fields['NDims']}, but DimSize {fields['DimSize']}. Export it again.")
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 1):
        raise DvtError(not_3d(path, shape))
    if (spacing := fields.get("ElementSpacing")) is None:
        raise DvtError(f"{path}: its header has no ElementSpacing, so the voxel size is unknown. Export it again.")
    _require_sizes(path, "ElementSpacing", _numbers(path, "ElementSpacing", spacing))
    if (unit := fields.get("DistanceUnits", "mm").lower()) not in ("mm", "?", ""):
        raise DvtError(f"{path}: its header gives sizes in {unit} (DistanceUnits), expected mm. Export it in mm.")
    scale = _one_of(path, fields, ("ElementToIntensityFunctionSlope",), [1.0])
    shift = _one_of(path, fields, ("ElementToIntensityFunctionOffset",), [0.0])
    if scale != [1.0] or shift != [0.0]:
        raise DvtError(
            f"{path}: its header scales the voxels by {scale[0]:g} and adds {shift[0]:g} (ElementToIntensityFunction), "
            "which is not supported. Export it without scaling."
        )
    n = len(shape)
    matrix = _one_of(path, fields, AXES, np.eye(n).ravel().tolist())
    origin = _one_of(path, fields, ORIGIN, [0.0] * n)
    if len(matrix) != n * n or len(origin) != n:
        raise DvtError(f"{path}: its header has a direction or origin of another dimension. Export it again.")
    require_right_angles(path, np.array(matrix).reshape(n, n)[:3, :3])
    _check_meta_voxels(path, fields, length, math.prod(shape), unpack)


def _one_of(path: Path, fields: Mapping[str, str], names: Sequence[str], default: list[float]) -> list[float]:
    """Return the numbers of a field that has several names; the names must not contradict each other."""
    found = [(name, _numbers(path, name, fields[name])) for name in names if name in fields]
    if found and any(values != found[0][1] for _, values in found):
        raise DvtError(f"{path}: {' and '.join(name for name, _ in found)} differ. Fix the header.")
    return found[0][1] if found else default


def _is_true(text: str) -> bool:
    """Return a yes-or-no field of MetaImage, as ITK reads it."""
    return text[:1].lower() in ("t", "1")


def _check_meta_voxels(path: Path, fields: Mapping[str, str], header: int, voxels: int, unpack: bool) -> None:
    """Refuse voxels that are fewer or more than the header describes; the length is unknown if they are text."""
    orders = {_is_true(fields[name]) for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB") if name in fields}
    if len(orders) > 1:
        raise DvtError(f"{path}: BinaryDataByteOrderMSB and ElementByteOrderMSB differ. Fix the header.")
    is_packed = _is_true(fields.get("CompressedData", "False"))
    is_binary = _is_true(fields.get("BinaryData", "True")) and fields.get("HeaderSize", "0") == "0"
    each = SIZES.get(fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY"), 0)
    channels = fields.get("ElementNumberOfChannels", "1")
    needed = voxels * each * (int(channels) if channels.isdecimal() else 1) if is_binary else 0
    _require_voxels(path, fields["ElementDataFile"], header, 0 if is_packed else needed)
    if not is_packed:
        return
    (size,) = _numbers(path, "CompressedDataSize", fields.get("CompressedDataSize", "0"))
    file = voxel_file(path)
    if size <= 0 and file is None:  # SimpleITK would read other bytes
        raise DvtError(f"{path}: its voxels are compressed, but its header has no CompressedDataSize. Export it again.")
    if unpack and needed:
        packed_voxels.require_length(file or path, 0 if file else header, int(size) or None, needed)


# --- GIPL -----------------------------------------------------------------------------------------


def _check_gipl(path: Path) -> None:
    try:
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
            head = file.read(256)
    except (EOFError, gzip.BadGzipFile):
        raise DvtError(f"{path}: gzip data are damaged or truncated. Copy or export it again.") from None
    if len(head) < 256:
        raise DvtError(f"{path}: is not a GIPL file (shorter than its header). Export it again.")
    _require_sizes(path, "the size of its voxels", struct.unpack(">3f", head[10:22]))
