"""Describe the objects of a DICOM study that hold masks: segmentation objects, and kinds that are not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dvtplan.core.text import shorten_list
from dvtplan.dicom.reader import SEGMENTATION, readable, series_number

FRAMES, SURFACES, LABEL_MAP = (f"1.2.840.10008.5.1.4.1.1.66.{kind}" for kind in (4, 5, 7))
"""SOP classes (0008,0016) of segmentations: a frame for each slice and segment, surfaces, values that are segments."""
CONTOURS = "RTSTRUCT"
"""Modality (0008,0060) of contours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """A segmentation object in a folder or archive."""

    file: str
    """Name within the folder or archive."""
    number: str
    """Number of its series."""
    title: str
    """Number, series description and segment names, for lists."""
    series_uids: tuple[str, ...]
    """The series that it refers to."""
    labels: tuple[str, ...]
    """Names of its segments."""
    algorithm: str = ""
    """Name of the algorithm that drew a segment automatically; empty if a person drew or edited all of them."""
    patient_id: str = ""
    """As in the hospital: never show it or write it into a data set."""
    frame_of_reference: str = ""
    """Frame of reference UID (0020,0052); empty if missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadMask:
    """An object with a mask of a kind that is not read, such as contours."""

    file: str
    """Name within the folder or archive."""
    title: str
    """Its kind, and the names of its structures, for lists."""


def describe_object(name: str, header: Any) -> Segmentation | UnreadMask | None:
    """Describe an object that holds a mask; None for any other object."""
    kind = str(header.get("SOPClassUID") or "")
    modality = str(header.get("Modality") or "").strip()
    if kind == SURFACES:
        return UnreadMask(file=name, title=_with_names("surfaces", map(segment_label, _segments(header))))
    if modality == SEGMENTATION or kind in (FRAMES, LABEL_MAP):
        return _segmentation(name, header)
    if modality == CONTOURS:
        names = (str(one.get("ROIName") or "").strip() for one in header.get("StructureSetROISequence") or ())
        return UnreadMask(file=name, title=_with_names("contours (RTSTRUCT)", names))
    return None


def segment_label(segment: Any) -> str:
    """Return the name of a segment, or its number if it has no name."""
    return readable(segment.get("SegmentLabel") or segment.get("SegmentNumber"))


def _with_names(kind: str, names: Any) -> str:
    listed = shorten_list([name for name in names if name])
    return f"{kind}{f' of {listed}' if listed else ''}"


def _segments(header: Any) -> Any:
    return header.get("SegmentSequence") or ()


def _segmentation(name: str, header: Any) -> Segmentation:
    segments = _segments(header)
    labels = tuple(segment_label(one) for one in segments)
    automatic = [one for one in segments if one.get("SegmentAlgorithmType") == "AUTOMATIC"]
    number = str(series_number(header))
    description = str(header.get("SeriesDescription") or "no description")
    referenced = (str(one.get("SeriesInstanceUID") or "") for one in header.get("ReferencedSeriesSequence") or ())
    return Segmentation(
        file=name,
        number=number,
        title=f"segmentation {number} ({description}): {', '.join(labels) or 'no segment'}",
        series_uids=tuple(uid for uid in referenced if uid),
        labels=labels,
        algorithm=str(automatic[0].get("SegmentAlgorithmName") or "a program") if automatic else "",
        patient_id=str(header.get("PatientID") or "").strip(),
        frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
    )
