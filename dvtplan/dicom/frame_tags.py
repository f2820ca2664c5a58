"""Read the tags of each image in a DICOM file: where it lies, how its values are scaled, what it shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural
from dvtplan.dicom.frame import Frame
from dvtplan.dicom.reader import SEGMENTATION, reason_of, tag_value

Vector = tuple[float, float, float]

GROUPS = {
    "PixelSpacing": ("PixelMeasuresSequence",),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "ImagePositionPatient": ("PlanePositionSequence",),
    "RescaleSlope": ("PixelValueTransformationSequence",),
    "RescaleIntercept": ("PixelValueTransformationSequence",),
    "FrameType": (
        "MRImageFrameTypeSequence",
        "CTImageFrameTypeSequence",
        "PETFrameTypeSequence",
        "ParametricMapFrameTypeSequence",
    ),
    "EffectiveEchoTime": ("MREchoSequence",),
    "DiffusionBValue": ("MRDiffusionSequence",),
    "InversionTimes": ("MRModifierSequence",),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence",),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence",),
    "StackID": ("FrameContentSequence",),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "FrameAcquisitionNumber": ("FrameContentSequence",),
    "FrameAcquisitionDateTime": ("FrameContentSequence",),
    "NominalCardiacTriggerDelayTime": ("CardiacSynchronizationSequence",),
    "ReferencedSegmentNumber": ("SegmentIdentificationSequence",),
}
"""Keyword -> the functional groups of the standard that contain it. Private groups may repeat it with other meaning."""
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
"""The tags that state where an image lies."""
UNIT_TOLERANCE = 2e-3
"""Allowed deviation of the length of a direction from 1, as from rounding to three decimals."""
OBLIQUE = 0.7
"""Largest cosine between rows and columns for which an image has a plane. The grid is checked more strictly."""
FARTHEST_MM = 1e5
"""Distance of an image from the origin that no scanner reaches."""
GREY = "MONOCHROME2"
"""Photometric interpretation (0028,0004) in which larger values are brighter."""


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
            for sequence in GROUPS.get(name, ()):
                items = group.get(sequence)
                if items and name in items[0]:
                    return tag_value(items[0], name)
        return tag_value(self._header, keyword)

    def items(self, sequence: str) -> Any:
        """Return the items of a functional group, of the frame itself if it has them."""
        return next((found for group in self._groups if (found := group.get(sequence))), ())


def read_frames(name: str, header: Any) -> list[Frame]:
    """Read the positions and properties of the images in a file.

    Args:
        name: of the file, for messages.
        header: its tags.

    Raises:
        DvtError: for colour or inverted images, for a mosaic, for values that only a table can translate, or if a
            position or a scale is missing or is not a number.
    """
    with named_damage(name):
        if header.get("Modality") != SEGMENTATION:
            _require_grey_values(name, header)
        is_multi_frame = "PerFrameFunctionalGroupsSequence" in header
        count = len(header.PerFrameFunctionalGroupsSequence) if is_multi_frame else 1
        if (_int_or_none(header.get("NumberOfFrames")) or 0) > count:
            raise DamagedScan(
                f"{name}: NumberOfFrames is {header.NumberOfFrames}, but it has {plural(count, 'position')}. Export "
                "it again, or as single images."
            )
        if not is_multi_frame:
            return [_frame(name, 0, header, header, multi_frame=False)]
        return [_frame(name, k, header, FrameTags(header, k), multi_frame=True) for k in range(count)]


@contextlib.contextmanager
def named_damage(name: str) -> Iterator[None]:
    """Turn every error of damaged tags inside the context into one line that names a file.

    Raises:
        DamagedScan: in place of any error that is not a DvtError.
    """
    try:
        yield
    except (DvtError, MemoryError):
        raise
    except Exception as error:  # damaged tags fail in many ways
        raise DamagedScan(f"{name}: has damaged tags ({reason_of(error)}). Copy or export it again.") from error


def _require_grey_values(name: str, header: Any) -> None:
    """Raise a DvtError unless larger values of an image are brighter, and one number is one grey value."""
    if "MOSAIC" in _words(header.get("ImageType")):
        raise DvtError(f"{name}: is a mosaic, many slices in one image. Export single slices or enhanced DICOM.")
    kind = str(header.get("PhotometricInterpretation") or GREY).strip().upper()
    samples = header.get("SamplesPerPixel")
    if samples not in (None, "", 1) or kind.startswith(("RGB", "YBR", "PALETTE")):
        found = "palette colour" if kind.startswith("PALETTE") else f"{samples} values"
        raise DvtError(f"{name}: is a colour image ({found}), expected one value per pixel. Choose the scan itself.")
    presentation = str(header.get("PixelPresentation") or "MONOCHROME").strip().upper()
    if presentation != "MONOCHROME":
        raise DvtError(f"{name}: PixelPresentation is {presentation}, expected MONOCHROME. Choose the scan itself.")
    inverse = str(header.get("PresentationLUTShape") or "").strip().upper() == "INVERSE"
    if kind != GREY or inverse:
        found = f"PhotometricInterpretation is {kind}" if kind != GREY else "PresentationLUTShape is INVERSE"
        raise DvtError(f"{name}: may show inverted grey values ({found}), expected {GREY}. Export it as {GREY}.")
    if header.get("ModalityLUTSequence"):
        raise DvtError(
            f"{name}: its values are translated by a table (ModalityLUTSequence), expected RescaleSlope and "
            "RescaleIntercept. Export it without the table."
        )


def _frame(name: str, index: int, header: Any, tags: Any, *, multi_frame: bool) -> Frame:
    """Read one image.

    Args:
        name: of the file.
        index: of the frame.
        header: tags of the file.
        tags: tags of the frame, by ``get(keyword)``.
    """
    label = f"{name}, frame {index + 1}" if multi_frame else name
    position, row, column, spacing = _geometry(label, tags)
    slope, intercept = _scale(label, tags)
    rows, columns = (_size(label, header, keyword) for keyword in ("Rows", "Columns"))
    return Frame(
        file=name,
        index=index,
        frames_in_file=len(header.PerFrameFunctionalGroupsSequence) if multi_frame else 1,
        uid=str(header.get("SOPInstanceUID", "")),
        shape=(rows, columns),
        position_mm=position,
        along_row=row,
        along_column=column,
        spacing_mm=spacing,
        slope=slope,
        intercept=intercept,
        image_type="\\".join(_words(tags.get("ImageType")) or _words(header.get("ImageType"))),
        stack=str(_or(tags.get("StackID"), "")),
        echo_ms=_float_or_none(tags.get("EffectiveEchoTime" if multi_frame else "EchoTime")),
        b_value=_float_or_none(tags.get("DiffusionBValue")),
        inversion_ms=_float_or_none(tags.get("InversionTimes" if multi_frame else "InversionTime")),
        flip_degrees=_float_or_none(tags.get("FlipAngle")),
        repetition_ms=_float_or_none(tags.get("RepetitionTime")),
        time_point=str(_or(tags.get("TemporalPositionIndex" if multi_frame else "TemporalPositionIdentifier"), "")),
        acquisition=str(_or(tags.get("FrameAcquisitionNumber"), _or(tags.get("AcquisitionNumber"), ""))),
        trigger_ms=_float_or_none(_or(tags.get("NominalCardiacTriggerDelayTime"), tags.get("TriggerTime"))),
        acquisition_time=str(_or(tags.get("FrameAcquisitionDateTime"), _or(tags.get("AcquisitionTime"), ""))),
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
    if max(abs(x), abs(y), abs(z)) > FARTHEST_MM:
        raise DvtError(f"{name}: ImagePositionPatient is {x:g}, {y:g}, {z:g}, expected mm. Export it again.")
    if not 0 < min(between_rows, between_columns) <= max(between_rows, between_columns) < FARTHEST_MM:
        raise DvtError(
            f"{name}: PixelSpacing is {between_rows:g}, {between_columns:g}, expected lengths in mm. Export it again."
        )
    row, column = (_unit(name, orientation[k : k + 3]) for k in (0, 3))
    if abs(np.dot(row, column)) > OBLIQUE:
        raise DvtError(
            f"{name}: rows and columns have nearly the same direction in ImageOrientationPatient, expected 90 degrees. "
            "Export it again."
        )
    return (x, y, z), row, column, (between_rows, between_columns)


def _size(name: str, header: Any, keyword: str) -> int:
    """Read a number of pixels.

    Raises:
        DvtError: if it is not positive.
    """
    (size,) = _numbers(name, header, keyword, 1)
    if size < 1:
        raise DvtError(f"{name}: {keyword} is {size:g}, expected at least 1. Export it again.")
    return int(size)


def _scale(name: str, tags: Any) -> tuple[float, float]:
    """Read slope and intercept of the values: 1 and 0 if they are missing.

    Raises:
        DvtError: if one is not a number, the slope is 0, or only a mapping to real-world values has a scale.
    """
    slope, intercept = (
        _numbers(name, tags, keyword, 1)[0] if _or(tags.get(keyword), None) is not None else None
        for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    if slope == 0:
        raise DvtError(f"{name}: RescaleSlope is 0, expected another number. Export it again.")
    if slope is None and _is_mapped(tags):
        raise DvtError(
            f"{name}: has a RealWorldValueMappingSequence but no RescaleSlope, so the scale of its values is unclear. "
            "Export it with RescaleSlope and RescaleIntercept, or without the mapping."
        )
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _is_mapped(tags: Any) -> bool:
    """Return whether a mapping changes stored values to others."""
    sequence = "RealWorldValueMappingSequence"
    mappings = tags.items(sequence) if isinstance(tags, FrameTags) else tags.get(sequence)
    return any(
        (tag_value(one, "RealWorldValueSlope"), tag_value(one, "RealWorldValueIntercept")) != (1, 0)
        for one in mappings or ()
    )


def _numbers(name: str, tags: Any, keyword: str, count: int) -> list[float]:
    """Read the numbers of a tag.

    Raises:
        DvtError: if it is missing, has another count, or other values.
    """
    value = tags.get(keyword)
    is_missing = value is None or value == ""
    words = [] if is_missing else value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    try:
        numbers = [float(one) for one in words]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == count and np.isfinite(numbers).all():
        return numbers
    if is_missing and keyword in PLACE:
        raise DvtError(
            f"{name}: has no {keyword}, so its place in the patient is unknown. Export it again with this tag, or "
            "remove the file if it is not part of the scan."
        )
    found = "missing" if is_missing else str(value)[:60]
    raise DvtError(f"{name}: {keyword} is {found}, expected {plural(count, 'number')}. Export it again.")


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


def _words(value: Any) -> list[str]:
    """Return the values of a tag of words, in upper case."""
    if value is None or value == "":
        return []
    return [str(word).strip().upper() for word in ([value] if isinstance(value, str) else value)]


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
