"""Position and size of the voxels in a NIfTI-1 header, which may state them twice: as sform and as qform.

Programs differ in which form they read: SimpleITK takes the sizes from pixdim and may take either form, nibabel takes
the sform alone. So a header whose forms contradict each other or pixdim is refused, unless the user trusts one form.
"""

from __future__ import annotations

import contextlib
import functools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.core import shared_settings
from dvtplan.core.errors import DvtError
from dvtplan.core.text import show
from dvtplan.imaging.geometry import HEADER_TOLERANCE, HEADER_TOLERANCE_MM, Grid, nearest_axes

FORMS = ("sform", "qform")
"""What ``trusting`` takes."""
FORM_CODES = range(1, 6)
"""Codes of a form that is set (nifti1.h); 0: not set."""
UNITS_MM = {1: 1000.0, 3: 0.001}
"""Unit of length in xyzt_units -> mm, for metres and micrometres. Any other code means mm."""
PLAUSIBLE_MM = (0.01, 100.0)
"""Voxel sizes in mm of a file in metres or micrometres; others show that the unit is wrong."""
QUATERNION_ERROR = 4e-7
"""Rounding of b² + c² + d² in float32, and 1e-7, below which nifti1_io.c takes a² as 0."""


@contextlib.contextmanager
def trusting(form: str | None) -> Iterator[None]:
    """Read contradictory headers by one form inside the context, also in worker processes; None changes nothing.

    Raises:
        DvtError: for an unknown form.
    """
    if form is not None and form not in FORMS:
        raise DvtError(f"`trust={form}`: not a valid choice. Choose from {', '.join(FORMS)}.")
    with shared_settings.using("trust", form):
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """The fields of a NIfTI-1 header that say where its voxels lie."""

    path: Path
    shape: np.ndarray
    """Voxels along x, y, z."""
    unit: int
    """Code of the unit of length; all lengths here are in mm."""
    qfac: float
    sizes: np.ndarray
    """pixdim along x, y, z."""
    codes: dict[str, int]
    quaternion: np.ndarray
    """b, c, d."""
    offset: np.ndarray
    sform: np.ndarray
    """Three rows (x, y, z, offset), RAS."""


def grid(path: Path, order: str, head: bytes, shape: tuple[int, ...]) -> Grid:
    """Return the grid of a NIfTI-1 file, from its sform if set, otherwise from its qform.

    Args:
        path: for messages.
        order: byte order, "<" or ">".
        head: the header, 348 bytes.
        shape: voxels along each axis, x first.

    Raises:
        DvtError: if the header has neither form, or contradicts itself and no form is trusted.
    """
    with contextlib.suppress(DvtError):  # its message names another file
        return _cached(order, head[76:92] + head[123:124] + head[252:328], shape, shared_settings.value("trust"))
    return _read(path, order, head, shape)


@functools.lru_cache(maxsize=64)
def _cached(order: str, fields: bytes, shape: tuple[int, ...], trusted: str | None) -> Grid:
    """Return the grid that follows from these fields of a header; the files of a case share them."""
    head = bytes(76) + fields[:16] + bytes(31) + fields[16:17] + bytes(128) + fields[17:] + bytes(20)
    return _read(Path(), order, head, shape)


def _read(path: Path, order: str, head: bytes, shape: tuple[int, ...]) -> Grid:
    unit = head[123] & 7
    mm = UNITS_MM.get(unit, 1.0)
    numbers = np.frombuffer(head, np.dtype(f"{order}f4"), 18, 256).astype(float)
    pixdim = np.frombuffer(head, np.dtype(f"{order}f4"), 4, 76).astype(float)
    codes = struct.unpack(f"{order}2h", head[252:256])
    header = _Header(
        path=path,
        shape=np.array(shape[:3]),
        unit=unit,
        qfac=float(pixdim[0]),
        sizes=pixdim[1:] * mm,
        codes={"qform": codes[0], "sform": codes[1]},
        quaternion=numbers[:3],
        offset=numbers[3:6] * mm,
        sform=numbers[6:].reshape(3, 4) * mm,
    )
    trusted = shared_settings.value("trust")
    used = trusted if trusted is not None and header.codes[trusted] in FORM_CODES else None
    faults = _faults(header)
    if faults and (used is None or used in (form for form, _ in faults)):
        # The fault of a trusted form is the only one that matters.
        fault = next(text for form, text in faults if used in (None, form))
        advice = _advice(header, [form for form, _ in faults])
        raise DvtError(f"{path}: {fault}. {advice}")
    return _to_grid(header, used if faults else None)


def _advice(header: _Header, faulty: list[str]) -> str:
    """Return what to do about a faulty header: name the forms that can be trusted."""
    usable = [form for form in FORMS if form not in faulty and header.codes[form] in FORM_CODES]
    if not usable or shared_settings.value("trust") is not None:
        return "Fix the header or export it again."
    choices = " or ".join(f"`trust={form}`" for form in usable)
    return f"Fix the header, or set {choices} if you know that it is right."


def _faults(header: _Header) -> list[tuple[str, str]]:
    """Return the faults of a header, each with the form that it makes unusable; "both" if either may be right."""
    found = []
    is_set = {form: header.codes[form] in FORM_CODES for form in FORMS}
    if not any(is_set.values()):
        codes = f"sform_code {header.codes['sform']}, qform_code {header.codes['qform']}"
        fault = f"its header sets neither sform nor qform ({codes}), so the direction of its axes is unknown"
        return [("sform", fault), ("qform", fault)]
    if is_set["sform"] and (fault := _sform_fault(header)):
        found.append(("sform", fault))
    sizes = header.sizes
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        found.append(("qform", f"its header has the pixdim {show(sizes)}, expected sizes above 0"))
    elif is_set["qform"] and (fault := _qform_fault(header)):
        found.append(("qform", fault))
    if found or not is_set["sform"]:
        return found
    norms = np.linalg.norm(header.sform[:, :3], axis=0)
    if (np.abs(norms / sizes - 1) > HEADER_TOLERANCE).any():
        return [("both", f"its sform has voxels of {show(norms)}, but its pixdim {show(sizes)}")]
    if is_set["qform"] and (fault := _difference(header)):
        return [("both", fault)]
    return []


def _sform_fault(header: _Header) -> str:
    steps = header.sform[:, :3]
    norms = np.linalg.norm(steps, axis=0)
    if not np.isfinite(header.sform).all() or not (norms > 0).all():
        return f"its sform has the rows {'; '.join(map(show, header.sform))}, expected finite axes"
    cosines = (steps / norms).T @ (steps / norms)
    skew = np.abs(cosines - np.eye(3)).max()
    if skew > HEADER_TOLERANCE:
        angle = math.degrees(math.acos(min(1.0, skew)))
        return f"the axes of its sform enclose {angle:.4g} degrees, expected 90 (resample it onto axes at right angles)"
    return ""


def _qform_fault(header: _Header) -> str:
    if not np.isfinite([*header.quaternion, *header.offset]).all():
        return f"its qform has the quaternion {show(header.quaternion)} and the offset {show(header.offset)}"
    if (square := float(header.quaternion @ header.quaternion)) > 1 + HEADER_TOLERANCE:
        return f"its qform has the quaternion {show(header.quaternion)} of length {math.sqrt(square):.6g}, expected 1"
    # qfac 0 counts as 1 (nifti1.h); for -3, programs differ.
    if header.qfac not in (-1, 0, 1):
        return f"its header has the qfac (pixdim[0]) {header.qfac:g}, expected 1 or -1"
    return ""


def _difference(header: _Header) -> str:
    """Return how sform and qform differ, or nothing if that is rounding."""
    sform, qform = header.sform, _qform(header)
    shift = float(np.linalg.norm(sform[:, 3] - qform[:, 3]))
    ends = np.array(np.meshgrid(*((0, n - 1) for n in header.shape))).reshape(3, -1)
    turned = float(np.linalg.norm((sform - qform)[:, :3] @ ends, axis=0).max())
    extent = float(np.linalg.norm(header.shape * header.sizes))
    allowed = max(HEADER_TOLERANCE_MM, (HEADER_TOLERANCE + _quaternion_angle(header)) * extent)
    if shift <= HEADER_TOLERANCE_MM and turned <= allowed:
        return ""
    mirrored = np.linalg.det(sform[:, :3]) * np.linalg.det(qform[:, :3]) < 0
    what = "are mirrored" if mirrored else f"lie up to {shift + turned:.3g} mm apart"
    return (
        f"its sform and qform {what}: axes {_axes(sform)} and origin {show(sform[:, 3])} against {_axes(qform)} and "
        f"{show(qform[:, 3])}"
    )


def _quaternion_angle(header: _Header) -> float:
    """Return the error in radians of a rotation whose quaternion has no component a, only 1 - b² - c² - d²."""
    square = max(0.0, 1 - float(header.quaternion @ header.quaternion))
    return 2 * (math.sqrt(square + QUATERNION_ERROR) - math.sqrt(square))


def _qform(header: _Header) -> np.ndarray:
    """Return the rows of the qform, as ``nifti_quatern_to_mat44`` of nifti1_io.c."""
    b, c, d = header.quaternion
    square = 1 - (b * b + c * c + d * d)
    if square < 1e-7:
        b, c, d = np.array([b, c, d]) / math.sqrt(b * b + c * c + d * d)
        square = 0.0
    a = math.sqrt(square)
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
    ])  # fmt: skip
    sizes = header.sizes * (1, 1, -1 if header.qfac < 0 else 1)
    return np.column_stack([rotation * sizes, header.offset])


def _to_grid(header: _Header, trusted: str | None) -> Grid:
    """Return the grid by a form; without a trusted one by the sform if set, with the sizes in pixdim as in ITK."""
    form = trusted or ("sform" if header.codes["sform"] in FORM_CODES else "qform")
    rows = header.sform if form == "sform" else _qform(header)
    steps = rows[:, :3].T
    norms = np.linalg.norm(steps, axis=1)
    sizes = norms if trusted == "sform" else header.sizes
    if header.unit in UNITS_MM and not all(PLAUSIBLE_MM[0] <= size <= PLAUSIBLE_MM[1] for size in sizes):
        name = "metres" if header.unit == 1 else "micrometres"
        raise DvtError(
            f"{header.path}: its header gives sizes in {name} (xyzt_units), so voxels of {show(sizes)} mm; expected "
            f"{PLAUSIBLE_MM[0]:g} to {PLAUSIBLE_MM[1]:g} mm. Fix the unit or export it again."
        )
    lps = np.array([-1.0, -1.0, 1.0])
    axes = nearest_axes(steps / norms[:, None] * lps)[::-1]
    z, y, x = sizes[::-1].tolist()
    origin = (rows[:, 3] * lps).tolist()
    return Grid(
        shape=(int(header.shape[2]), int(header.shape[1]), int(header.shape[0])),
        spacing_mm=(z, y, x),
        origin_mm=(origin[0], origin[1], origin[2]),
        direction=tuple((float(r[0]), float(r[1]), float(r[2])) for r in axes),
    )


def _axes(rows: np.ndarray) -> str:
    """Return the directions of the axes as letters, x first, such as RAS."""
    letters = ("RL", "AP", "SI")
    largest = np.abs(rows[:, :3]).argmax(axis=0)
    return "".join(letters[k][int(rows[k, axis] < 0)] for axis, k in enumerate(largest))
