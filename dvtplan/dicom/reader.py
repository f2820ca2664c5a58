"""Read DICOM files, headers and pixels. The only module that uses pydicom (extra `dicom`)."""

from __future__ import annotations

import contextlib
import re
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural, shorten_list
from dvtplan.dicom.frame import Frame

try:
    import pydicom
except ImportError:  # require_pydicom reports it
    pydicom = None  # type: ignore[assignment]

PREAMBLE, MAGIC = 128, b"DICM"
START = 2048
"""Bytes at the start of a file that tell whether it is DICOM."""
STANDARD_UID = b"1.2.840.10008."
"""Start of every UID of the standard, such as the SOP class of an image."""
FIRST_ELEMENTS = (0x0000, 0x0001, 0x0002, 0x0005, 0x0008, 0x0012, 0x0013, 0x0014, 0x0016, 0x0018)
"""Elements of group 0002 or 0008 with which a file without preamble may begin."""
PIXEL_ELEMENTS = (0x0008, 0x0009, 0x0010)
"""Elements of group 7FE0 that contain pixels."""
DIRECTORY, DIRECTORY_CLASS = "DICOMDIR", "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax of which pydicom unpacks the whole data set first."""
LARGEST_MEMBER = 2 << 30
"""Bytes of an unpacked file of an archive. No image of a leg is larger."""

HEADER_KEYWORDS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType",
    "PatientID", "StudyInstanceUID",
    "Rows", "Columns", "SamplesPerPixel", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "EchoTime",
    "DiffusionBValue", "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "AcquisitionTime",
    "StackID", "InstanceNumber", "NumberOfFrames", "ImagesInAcquisition", "NumberOfSlices",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence", "SegmentSequence",
    "SOPClassUID", "FrameOfReferenceUID", "StructureSetROISequence",
]  # fmt: skip
"""Tags that are read from every file before a series is chosen."""

SEGMENTATION = "SEG"
MR = "MR"
"""Expected modality (0008,0060) of scans."""
OTHER_MODALITIES = (SEGMENTATION, "RTDOSE", "PR", "KO")
"""Modalities of objects that may have rows and columns, but are not scans."""

UNIT_TOLERANCE = 2e-3
"""Allowed deviation of the length of a direction from 1, as from rounding to three decimals."""

Opener = Callable[[], BinaryIO]
Vector = tuple[float, float, float]


class DamagedFile(DamagedScan):
    """A file that is DICOM, or probably was, but cannot be read to its end."""

    def __init__(self, name: str, reason: str, *, series_uid: str = "", certain: bool = True) -> None:
        """Describe the damage.

        Args:
            name: of the file within its folder or archive.
            reason: the damage, as a predicate.
            series_uid: of the series that the file belongs to; empty if it cannot be read any more.
            certain: the file is DICOM. Otherwise it may be any other file: it is empty, or holds only zeros.
        """
        super().__init__(f"{name}: {reason}. Copy or export it again, or remove it if it is not part of the scan.")
        self.name, self.reason, self.series_uid, self.certain = name, reason, series_uid, certain

    def __reduce__(self) -> tuple[Any, ...]:
        """Allow pickling, so that the error can leave a worker process."""
        return type(self), (self.name, self.reason), {"series_uid": self.series_uid, "certain": self.certain}


def is_dicom(path: str | Path) -> bool:
    """Return whether a path is a ZIP archive, a DICOM file, or a folder with DICOM files at any depth."""
    path = Path(path)
    if path.is_file():
        return path.suffix.lower() == ".zip" or _is_dicom_file(path)
    return path.is_dir() and any(_is_dicom_file(p) for p in sorted(path.rglob("*")) if p.is_file())


def _is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _starts_like_dicom(file.read(START))
    except OSError:
        return False


def _starts_like_dicom(start: bytes) -> bool:
    """Return whether a file has the preamble of DICOM, or is a data set without preamble."""
    return start[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC or (_has_first_element(start) and STANDARD_UID in start)


def _has_first_element(start: bytes) -> bool:
    """Return whether bytes begin with an element of group 0002 or 0008: a data set without preamble."""
    if len(start) < 8:
        return False
    little, big = struct.unpack_from("<HH", start), struct.unpack_from(">HH", start)
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    implicit = struct.unpack_from("<I", start, 4)[0] <= 64
    return any(
        group in (0x0002, 0x0008) and element in FIRST_ELEMENTS and valid
        for (group, element), valid in ((little, explicit or implicit), (big, explicit))
    )


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
        archive = zipfile.ZipFile(source)
    except Exception as error:  # damaged directories fail in many ways
        raise DamagedScan(f"{source}: cannot be read ({_reason(error)}). Copy or export it again.") from error
    with archive:
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
        names = _unique([m.filename for m in members])
        yield [
            (name, lambda m=m: archive.open(m))  # type: ignore[misc]
            for name, m in zip(names, members, strict=True)
        ]


def _unique(names: Sequence[str]) -> list[str]:
    """Number the names that occur several times, as of two folders that were flattened into one archive."""
    seen: Counter[str] = Counter()
    taken, unique = set(names), []
    for name in names:
        seen[name] += 1
        numbered = name
        while seen[name] > 1 and numbered in taken:
            numbered = f"{name} ({seen[name]})"
            seen[name] += numbered in taken
        taken.add(numbered)
        unique.append(numbered)
    return unique


def _reason(error: Exception) -> str:
    """Return the first line of an error, or its type if it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def read_header(name: str, opener: Opener) -> Any:
    """Read the tags ``HEADER_KEYWORDS`` of a DICOM file, with or without preamble; None for any other file.

    Args:
        name: of the file within its folder or archive.
        opener: opens it.

    Raises:
        DamagedFile: if it is DICOM, or may be, but ends before its pixels or cannot be read.
        DvtError: if the disk or the permissions do not allow to read it.
    """
    is_directory = Path(name).name.upper() == DIRECTORY
    try:
        with opener() as file:
            start = file.read(START)
            if is_directory or not _starts_like_dicom(start):
                if not is_directory:
                    _require_other_content(name, start)
                return None
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=HEADER_KEYWORDS)
            has_pixels = header.file_meta.get("TransferSyntaxUID") == DEFLATED or _is_at_pixels(file)
            uid = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    except DvtError:
        raise
    except OSError as error:
        raise DvtError(f"{name}: cannot be read ({error.strerror or error}). Check the disk.") from error
    except Exception as error:  # damaged bytes make pydicom and zipfile fail in many ways
        raise DamagedFile(name, f"is damaged ({_reason(error)})") from error
    if uid == DIRECTORY_CLASS:
        return None
    if not has_pixels and (not uid or _is_image_class(uid)):
        raise DamagedFile(name, "ends before its pixels, so it is cut off", series_uid=_whole_series_uid(header))
    return header


def read_all_tags(name: str, opener: Opener) -> Any:
    """Read all tags of a DICOM file except the pixels.

    Raises:
        DamagedScan: if it cannot be read.
    """
    try:
        with opener() as file:
            return pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except Exception as error:  # damaged bytes make pydicom and zipfile fail in many ways
        raise DamagedScan(f"{name}: cannot be read ({_reason(error)}). Copy or export it again.") from error


def _require_other_content(name: str, start: bytes) -> None:
    """Raise a DamagedFile for a file that may have been DICOM. Hidden files are not."""
    if Path(name).name.startswith("."):
        return
    if not start:
        raise DamagedFile(name, "is empty", certain=False)
    if not any(start[: PREAMBLE + len(MAGIC)]):
        raise DamagedFile(name, "holds only zeros where DICOM begins", certain=False)
    if _has_first_element(start):
        raise DamagedFile(name, "begins like DICOM, but names no class of DICOM objects", certain=False)


def _is_at_pixels(file: BinaryIO) -> bool:
    """Return whether a file continues with an element of pixels."""
    tag = file.read(4)
    return tag in {struct.pack(order, 0x7FE0, element) for order in ("<HH", ">HH") for element in PIXEL_ELEMENTS}


def _is_image_class(uid: str) -> bool:
    """Return whether the objects of a SOP class of the standard contain pixels."""
    words = pydicom.uid.UID(uid).name
    return "Image Storage" in words or words in ("Segmentation Storage", "RT Dose Storage", "Parametric Map Storage")


def _whole_series_uid(header: Any) -> str:
    """Return the series UID, or an empty text if the file ends within it."""
    element = header.get_item("SeriesInstanceUID")
    value = getattr(element, "value", None)
    if not isinstance(value, bytes) or len(value) < element.length:
        return ""
    return str(header.get("SeriesInstanceUID") or "")


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
        DvtError: for colour images, for a mosaic, if positions are missing, or rows or columns have no unit vectors.
    """
    image_type = [str(word).upper() for word in header.get("ImageType") or ()]
    if "MOSAIC" in image_type:
        raise DvtError(f"{name}: is a mosaic, many slices in one image. Export single slices or enhanced DICOM.")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DvtError(f"{name}: is a colour image, expected one value per pixel. Choose the scan itself.")
    is_multi_frame = "PerFrameFunctionalGroupsSequence" in header
    count = len(header.PerFrameFunctionalGroupsSequence) if is_multi_frame else 1
    if (_int_or_none(header.get("NumberOfFrames")) or 0) > count:
        raise DamagedScan(
            f"{name}: contains {header.NumberOfFrames} frames, but {plural(count, 'position')}. Export it again, or as "
            "single images."
        )
    if not is_multi_frame:
        return [_frame(name, 0, header, header, multi_frame=False)]
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
        frames_in_file=len(header.PerFrameFunctionalGroupsSequence) if multi_frame else 1,
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
        number=_int_or_none(header.get("InstanceNumber")),
        declared_images=_int_or_none(header.get("ImagesInAcquisition")),
        declared_slices=_int_or_none(header.get("NumberOfSlices")),
    )


def _geometry(name: str, tags: Any) -> tuple[Vector, Vector, Vector, tuple[float, float]]:
    """Read position, unit vectors along a row and along a column, and pixel spacing.

    Raises:
        DvtError: if one is missing or invalid.
    """
    x, y, z = _numbers(name, tags, "ImagePositionPatient", 3)
    orientation = _numbers(name, tags, "ImageOrientationPatient", 6)
    between_rows, between_columns = _numbers(name, tags, "PixelSpacing", 2)
    if min(between_rows, between_columns) <= 0:
        raise DvtError(
            f"{name}: PixelSpacing is {between_rows:g}, {between_columns:g}, expected lengths in mm. Export it again."
        )
    row, column = (_unit(name, orientation[k : k + 3]) for k in (0, 3))
    return (x, y, z), row, column, (between_rows, between_columns)


def _numbers(name: str, tags: Any, keyword: str, count: int) -> list[float]:
    """Read a tag that has several numbers.

    Raises:
        DvtError: if it is missing, or has other values.
    """
    value = tags.get(keyword)
    words = [] if value is None or value == "" else [value] if isinstance(value, str) else value
    try:
        numbers = [float(one) for one in words]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == count and np.isfinite(numbers).all():
        return numbers
    if value is None or value == "":
        raise DvtError(
            f"{name}: has no {keyword}, so its place in the patient is unknown. Export it again with this tag, or "
            "remove the file if it is not part of the scan."
        )
    raise DvtError(f"{name}: {keyword} is {value}, expected {count} numbers. Export it again.")


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


def _unit(name: str, vector: Sequence[float]) -> Vector:
    """Return a direction with its length made 1 to the last digit.

    Raises:
        DvtError: if its length differs from 1 by more than rounding.
    """
    length = float(np.linalg.norm(vector))
    if abs(length - 1) > UNIT_TOLERANCE:
        raise DvtError(
            f"{name}: a direction of ImageOrientationPatient has the length {length:.4g}, expected 1. Export it again."
        )
    return (vector[0] / length, vector[1] / length, vector[2] / length)


def _or(value: Any, default: Any) -> Any:
    return default if value is None or value == "" else value


def _float_or_none(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _int_or_none(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def read_pixels(name: str, opener: Opener) -> np.ndarray:
    """Read the stored values of a file, (rows, columns) or (frames, rows, columns).

    Raises:
        DvtError: if the file is damaged, its compression is not supported, or a decoder is not installed.
    """
    try:
        with opener() as file:
            header = pydicom.dcmread(file, force=True)
        _complete_transfer_syntax(name, header)
        return np.asarray(header.pixel_array)
    except DvtError:
        raise
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


def _complete_transfer_syntax(name: str, header: Any) -> None:
    """Add the transfer syntax that a data set without preamble was found to have.

    Raises:
        DamagedScan: if its pixels are compressed, in a way that nothing states.
    """
    if "TransferSyntaxUID" in header.file_meta:
        return
    if header["PixelData"].is_undefined_length:
        raise DamagedScan(f"{name}: does not name the compression of its pixels. Export it uncompressed.")
    implicit, little = header.original_encoding
    plain = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.TransferSyntaxUID = plain if little else pydicom.uid.ExplicitVRBigEndian
