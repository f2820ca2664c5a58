"""Files, headers and pixels. Only pydicom."""

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
except ImportError:  # said by those who need it
    pydicom = None  # type: ignore[assignment]

PREAMBLE, MAGIC = 128, b"DICM"
LARGEST_MEMBER = 2 << 30
"""Bytes of an unpacked member of an archive; no slice or multi-frame image of a leg has more."""

NEEDED = [
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType",
    "PatientID", "StudyInstanceUID",
    "Rows", "Columns", "SamplesPerPixel", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "EchoTime",
    "DiffusionBValue", "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "AcquisitionTime",
    "StackID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence", "SegmentSequence",
]  # fmt: skip
"""What is read of every file before its series is chosen."""

SEGMENTATION = "SEG"
MR = "MR"
"""What scans are expected to be (0008,0060)."""
NO_IMAGES = (SEGMENTATION, "RTDOSE", "PR", "KO")
"""Modalities of what may have rows and columns and is no scan."""

Opener = Callable[[], BinaryIO]


def is_dicom(path: Path) -> bool:
    """Whether a path is an archive, a DICOM file, or a folder with DICOM files somewhere in it."""
    if path.is_file():
        return path.suffix.lower() == ".zip" or _begins_as_dicom(path)
    return path.is_dir() and any(_begins_as_dicom(p) for p in sorted(path.rglob("*")) if p.is_file())


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC
    except OSError:
        return False


def segment_label(segment: Any) -> str:
    return str(segment.get("SegmentLabel") or segment.get("SegmentNumber") or "").strip()


def require_pydicom() -> None:
    if pydicom is None:
        raise DvtError("Reading DICOM needs pydicom. Run pip install 'dvtplan[dicom]'.")


@contextlib.contextmanager
def open_files(source: Path) -> Iterator[list[tuple[str, Opener]]]:
    """As ``_listed``; meanwhile pydicom does not warn of values that are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with _listed(source) as files:
            yield files


@contextlib.contextmanager
def _listed(source: Path) -> Iterator[list[tuple[str, Opener]]]:
    """Every file of a folder or archive, by its name therein, and how to open it.

    Raises:
        DvtError: if the source cannot be read, or an archive is damaged, locked or a trap.
    """
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
                    f"{source}: {shorten_list(large)}: more than {LARGEST_MEMBER >> 30} GiB unpacked. "
                    "Unpack it yourself."
                )
            if any(m.flag_bits & 1 for m in members):
                raise DvtError(f"{source}: is locked by a password. Unpack it yourself.")
            # Members are never written, so that no name in the archive leads anywhere, and unpacked as far as read.
            yield [(m.filename, lambda m=m: archive.open(m)) for m in members]  # type: ignore[misc]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DamagedScan(f"{source}: cannot be read ({error}). Copy or export it again.") from error


def read_header(name: str, opener: Opener) -> Any:
    """The tags that are needed of a DICOM object; none for other files."""
    try:
        with opener() as file:
            start = file.read(PREAMBLE + len(MAGIC))
            if start[PREAMBLE:] != MAGIC:
                return None
            file.seek(0)
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=NEEDED)
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError):
        return None
    except OSError as error:
        raise DvtError(f"{name}: cannot be read ({error.strerror or error}). Check the disk.") from error


def is_image(header: Any) -> bool:
    """Whether tags are those of an image that has a place in the patient."""
    has_place = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    return has_place and "Rows" in header and "Columns" in header and header.get("Modality") not in NO_IMAGES


def read_number(header: Any) -> int:
    try:
        return int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0


def read_frames(name: str, header: Any) -> list[Frame]:
    """The images of a file.

    Raises:
        DvtError: for colour, for a mosaic, or where places are missing.
    """
    kind = [str(word).upper() for word in header.get("ImageType") or ()]
    if "MOSAIC" in kind:
        raise DvtError(f"{name}: is a mosaic, many slices in one picture. Export the slices singly (DICOM enhanced).")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DvtError(f"{name}: is a colour picture, expected one value a pixel. Choose the scan itself.")
    frames = []
    many = "PerFrameFunctionalGroupsSequence" in header
    for index in range(len(header.PerFrameFunctionalGroupsSequence) if many else 1):
        tags = Tags(header, index) if many else header
        try:
            orientation = [float(v) for v in tags.get("ImageOrientationPatient")]
            position = [float(v) for v in tags.get("ImagePositionPatient")]
            spacing = [float(v) for v in tags.get("PixelSpacing")]
            row, column = (_unit(orientation[k : k + 3]) for k in (0, 3))
            if (
                len(position) != 3
                or len(spacing) != 2
                or not np.isfinite([*position, *spacing]).all()
                or min(spacing) <= 0
            ):
                raise ValueError
        except (TypeError, ValueError):
            raise DvtError(
                f"{name}: has no place in the patient (position, orientation, pixel spacing). Export it again."
            ) from None
        frames.append(
            Frame(
                file=name,
                index=index,
                uid=str(header.get("SOPInstanceUID", "")),
                shape=(int(header.Rows), int(header.Columns)),
                position_mm=(position[0], position[1], position[2]),
                along_row=row,
                along_column=column,
                spacing_mm=(spacing[0], spacing[1]),
                slope=float(_or(tags.get("RescaleSlope"), 1.0)),
                intercept=float(_or(tags.get("RescaleIntercept"), 0.0)),
                kind="\\".join(str(word) for word in tags.get("ImageType") or kind),
                stack=str(_or(tags.get("StackID"), "")),
                echo_ms=_maybe(tags.get("EffectiveEchoTime") if many else tags.get("EchoTime")),
                b_value=_maybe(tags.get("DiffusionBValue")),
                time_point=str(
                    _or(tags.get("TemporalPositionIndex") if many else tags.get("TemporalPositionIdentifier"), "")
                ),
                acquisition=str(_or(tags.get("AcquisitionNumber"), "")),
                trigger_ms=_maybe(tags.get("TriggerTime")),
                clock=str(_or(tags.get("AcquisitionTime"), "")),
            )
        )
    return frames


class Tags:
    """Tags of one frame of a multi-frame object: its own, then those that all frames share."""

    def __init__(self, header: Any, index: int) -> None:
        shared = header.get("SharedFunctionalGroupsSequence") or [{}]
        self._groups = (header.PerFrameFunctionalGroupsSequence[index], shared[0])
        self._header = header

    def get(self, keyword: str) -> Any:
        """Its value in any of the groups, or in the object itself."""
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


def _or(value: Any, instead: Any) -> Any:
    return instead if value is None or value == "" else value


def _maybe(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def read_pixels(name: str, opener: Opener) -> np.ndarray:
    """Stored values of a file, (rows, columns) or (frames, rows, columns)."""
    try:
        with opener() as file:
            whole = pydicom.dcmread(file)
            return np.asarray(whole.pixel_array)
    except NotImplementedError as error:
        raise DvtError(f"{name}: its compression is unknown here ({error}). Export it uncompressed.") from error
    except Exception as error:  # decoders fail in their own ways
        reason, _, further = str(error).strip().partition("\n")
        lacking = re.search(r"pylibjpeg - requires (.+)", further)
        if lacking is not None:
            raise DvtError(
                f"{name}: {reason.partition(' because')[0].strip()}, which takes {lacking[1].strip()}. "
                "Run pip install 'dvtplan[dicom]', or export it uncompressed."
            ) from error
        reason = reason.rstrip(".") or type(error).__name__
        raise DamagedScan(f"{name}: its pixels cannot be read ({reason}). Copy or export it again.") from error
