"""Read DICOM files, headers and pixels. The only module that uses pydicom (extra `dicom`)."""

from __future__ import annotations

import contextlib
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import shorten_list
from dvtplan.dicom.slice_sorting import Frame

try:
    import pydicom
    from pydicom.errors import InvalidDicomError
except ImportError:  # require_pydicom reports it
    pydicom = None  # type: ignore[assignment]

PREAMBLE, MAGIC = 128, b"DICM"
LARGEST_MEMBER = 2 << 30
"""Bytes of an unpacked file of an archive. No image of a leg is larger."""

HEADER_KEYWORDS = [
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType",
    "PatientID", "StudyInstanceUID",
    "Rows", "Columns", "SamplesPerPixel", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "EchoTime",
    "DiffusionBValue", "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "AcquisitionTime",
    "StackID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence", "SegmentSequence",
    "SOPClassUID", "FrameOfReferenceUID", "StructureSetROISequence",
]  # fmt: skip
"""Tags that are read from every file before a series is chosen."""

SEGMENTATION = "SEG"
MR = "MR"
"""Expected modality (0008,0060) of scans."""
OTHER_MODALITIES = (SEGMENTATION, "RTDOSE", "PR", "KO")
"""Modalities of objects that may have rows and columns, but are not scans."""

Opener = Callable[[], BinaryIO]
Vector = tuple[float, float, float]


def is_dicom(path: str | Path) -> bool:
    """Return whether a path is a ZIP archive, a DICOM file, or a folder with DICOM files at any depth."""
    path = Path(path)
    if path.is_file():
        return path.suffix.lower() == ".zip" or _has_dicom_magic(path)
    return path.is_dir() and any(_has_dicom_magic(p) for p in sorted(path.rglob("*")) if p.is_file())


def _has_dicom_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC
    except OSError:
        return False


def segment_label(segment: Any) -> str:
    """Return the name of a segment, or its number if it has no name."""
    return str(segment.get("SegmentLabel") or segment.get("SegmentNumber") or "").strip()


def require_pydicom() -> None:
    """Raise a DvtError if pydicom is not installed."""
    if pydicom is None:
        raise DvtError("Reading DICOM needs pydicom. Run pip install 'dvtplan[dicom]'.")


@contextlib.contextmanager
def open_files(source: Path) -> Iterator[list[tuple[str, Opener]]]:
    """List every file of a folder or archive as (name within it, function that opens it).

    Meanwhile pydicom does not warn of invalid values, which the user cannot fix.

    Raises:
        DvtError: if the source cannot be read, or an archive is damaged, encrypted or unsafe.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with _list_files(source) as files:
            yield files


@contextlib.contextmanager
def _list_files(source: Path) -> Iterator[list[tuple[str, Opener]]]:
    if source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.is_file())
        yield [(str(p.relative_to(source)), lambda p=p: p.open("rb")) for p in paths]  # type: ignore[misc]
        return
    if source.suffix.lower() != ".zip":
        yield [(source.name, lambda: source.open("rb"))]
        return
    try:
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            large = [m.filename for m in members if m.file_size > LARGEST_MEMBER]
            if large:
                raise DvtError(
                    f"{source}: {shorten_list(large)}: larger than {LARGEST_MEMBER >> 30} GiB unpacked. Unpack the "
                    "archive first."
                )
            if any(m.flag_bits & 1 for m in members):
                raise DvtError(f"{source}: is protected by a password. Unpack the archive first.")
            # Files are unpacked in memory only, so a path in the archive can never write outside a folder.
            yield [(m.filename, lambda m=m: archive.open(m)) for m in members]  # type: ignore[misc]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DamagedScan(f"{source}: cannot be read ({error}). Copy or export it again.") from error


def read_header(name: str, opener: Opener) -> Any:
    """Read the tags ``HEADER_KEYWORDS`` of a DICOM file; None for any other file."""
    try:
        with opener() as file:
            start = file.read(PREAMBLE + len(MAGIC))
            if start[PREAMBLE:] != MAGIC:
                return None
            file.seek(0)
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=HEADER_KEYWORDS)
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError):
        return None
    except OSError as error:
        raise DvtError(f"{name}: cannot be read ({error.strerror or error}). Check the disk.") from error


def is_image(header: Any) -> bool:
    """Return whether a header is of an image with a position in the patient."""
    has_position = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    return has_position and "Rows" in header and "Columns" in header and header.get("Modality") not in OTHER_MODALITIES


def series_number(header: Any) -> int:
    """Return the series number, or 0 if it is missing."""
    try:
        return int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0


def read_frames(name: str, header: Any) -> list[Frame]:
    """Read the positions and properties of the images in a file.

    Args:
        name: of the file, for messages.
        header: its tags.

    Raises:
        DvtError: for colour images, for a mosaic, or if positions are missing.
    """
    image_type = [str(word).upper() for word in header.get("ImageType") or ()]
    if "MOSAIC" in image_type:
        raise DvtError(f"{name}: is a mosaic, many slices in one image. Export single slices or enhanced DICOM.")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DvtError(f"{name}: is a colour image, expected one value per pixel. Choose the scan itself.")
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [_frame(name, 0, header, header, multi_frame=False)]
    count = len(header.PerFrameFunctionalGroupsSequence)
    return [_frame(name, k, header, FrameTags(header, k), multi_frame=True) for k in range(count)]


def _frame(name: str, index: int, header: Any, tags: Any, *, multi_frame: bool) -> Frame:
    """Read one image.

    Args:
        name: of the file.
        index: of the frame.
        header: tags of the file.
        tags: tags of the frame, by ``get(keyword)``.
    """
    position, row, column, spacing = _geometry(name, tags)
    if multi_frame:
        echo_time, time_point = tags.get("EffectiveEchoTime"), tags.get("TemporalPositionIndex")
    else:
        echo_time, time_point = tags.get("EchoTime"), tags.get("TemporalPositionIdentifier")
    return Frame(
        file=name,
        index=index,
        uid=str(header.get("SOPInstanceUID", "")),
        shape=(int(header.Rows), int(header.Columns)),
        position_mm=position,
        along_row=row,
        along_column=column,
        spacing_mm=spacing,
        slope=float(_or(tags.get("RescaleSlope"), 1.0)),
        intercept=float(_or(tags.get("RescaleIntercept"), 0.0)),
        image_type="\\".join(str(word) for word in tags.get("ImageType") or header.get("ImageType") or ()),
        stack=str(_or(tags.get("StackID"), "")),
        echo_ms=_float_or_none(echo_time),
        b_value=_float_or_none(tags.get("DiffusionBValue")),
        time_point=str(_or(time_point, "")),
        acquisition=str(_or(tags.get("AcquisitionNumber"), "")),
        trigger_ms=_float_or_none(tags.get("TriggerTime")),
        acquisition_time=str(_or(tags.get("AcquisitionTime"), "")),
    )


def _geometry(name: str, tags: Any) -> tuple[Vector, Vector, Vector, tuple[float, float]]:
    """Read position, unit vectors along a row and along a column, and pixel spacing.

    Raises:
        DvtError: if one is missing or invalid.
    """
    try:
        orientation = [float(v) for v in tags.get("ImageOrientationPatient")]
        x, y, z = (float(v) for v in tags.get("ImagePositionPatient"))
        between_rows, between_columns = (float(v) for v in tags.get("PixelSpacing"))
        row, column = (_unit(orientation[k : k + 3]) for k in (0, 3))
        if not np.isfinite([x, y, z, between_rows, between_columns]).all() or min(between_rows, between_columns) <= 0:
            raise ValueError
    except (TypeError, ValueError):
        raise DvtError(f"{name}: has no valid position, orientation and pixel spacing. Export it again.") from None
    return (x, y, z), row, column, (between_rows, between_columns)


class FrameTags:
    """Tags of one frame of a multi-frame object: its own, else those shared by all frames."""

    def __init__(self, header: Any, index: int) -> None:
        shared = header.get("SharedFunctionalGroupsSequence") or [{}]
        self._groups = (header.PerFrameFunctionalGroupsSequence[index], shared[0])
        self._header = header

    def get(self, keyword: str) -> Any:
        """Return a value from the functional groups, else from the object itself; None if it is missing."""
        name = "FrameType" if keyword == "ImageType" else keyword
        for group in self._groups:
            for element in group or ():
                if element.VR == "SQ" and len(element.value) and name in element.value[0]:
                    return element.value[0].get(name)
        return self._header.get(keyword)


def _unit(vector: Sequence[float]) -> tuple[float, float, float]:
    length = float(np.linalg.norm(vector))
    if len(vector) != 3 or not 0.9 < length < 1.1:
        raise ValueError(f"not a direction: {vector}")
    return (vector[0] / length, vector[1] / length, vector[2] / length)


def _or(value: Any, default: Any) -> Any:
    return default if value is None or value == "" else value


def _float_or_none(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def read_pixels(name: str, opener: Opener) -> np.ndarray:
    """Read the stored values of a file, (rows, columns) or (frames, rows, columns).

    Raises:
        DvtError: if the file is damaged, its compression is not supported, or a decoder is not installed.
    """
    try:
        with opener() as file:
            return np.asarray(pydicom.dcmread(file).pixel_array)
    except NotImplementedError as error:
        raise DvtError(f"{name}: its compression is not supported ({error}). Export it uncompressed.") from error
    except Exception as error:  # decoders fail in their own ways
        reason, _, details = str(error).strip().partition("\n")
        missing = re.search(r"pylibjpeg - requires (.+)", details)
        if missing is not None:
            raise DvtError(
                f"{name}: {reason.partition(' because')[0].strip()}, which requires {missing[1].strip()}. "
                "Run pip install 'dvtplan[dicom]', or export it uncompressed."
            ) from error
        reason = reason.rstrip(".") or type(error).__name__
        raise DamagedScan(f"{name}: its pixels cannot be read ({reason}). Copy or export it again.") from error
