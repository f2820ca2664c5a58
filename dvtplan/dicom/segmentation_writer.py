"""Write masks as DICOM segmentation objects. The only module that uses highdicom (extra `dicom`)."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dvtplan import __version__
from dvtplan.core.errors import DvtError
from dvtplan.core.files import atomic_write
from dvtplan.dicom import series
from dvtplan.dicom.segmentation_reader import place_frames, read_segment_frames
from dvtplan.dicom.segmentation_source import UTF_8, source_images
from dvtplan.dicom.series import StudyContents, Volume
from dvtplan.imaging.geometry import Grid

CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
THROMBUS = ("396339007", "SCT", "Thrombus")
OTHER = (("85756007", "SCT", "Tissue"), ("85756007", "SCT", "Tissue"))
"""Category and type of a class whose name does not mean thrombus."""
VEINS = {
    "": ("122774002", "SCT", "Structure of vein of lower extremity"),
    "iliac": ("244411005", "SCT", "Iliac vein"),
    "femoral": ("83419000", "SCT", "Femoral vein"),
    "popliteal": ("56849005", "SCT", "Popliteal Vein"),
    "proximal": ("122774002", "SCT", "Structure of vein of lower extremity"),
    "distal": ("122774002", "SCT", "Structure of vein of lower extremity"),
}
"""Word in the name of a class -> vein that contains the thrombus (SNOMED CT, as in DICOM's context groups)."""
SIDES = {"proximal": ("40415009", "SCT", "Proximal"), "distal": ("46053002", "SCT", "Distal")}
CLOT = ("thrombus", "thrombosis", "thrombi", "clot", "dvt", "lesion")
"""Words in the name of a class that mean thrombus."""
FAMILY = ("123110", "DCM", "Artificial Intelligence")

SERIES_NUMBER = 1000
"""Added to the number of the source series to number the series of the object."""
MANUFACTURER = "dvtplan"
"""Manufacturer (0008,0070) of the objects."""
NOTE = "Research use only, not for diagnosis"
COLOURS = ((224, 49, 49), (51, 122, 204), (240, 173, 26), (46, 160, 92), (148, 87, 190), (18, 178, 178))
"""Red, green, blue of the classes; they repeat."""

IDENTITY = ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID")
"""Keywords whose values must be those of the source when an object is read back."""


def class_colour(index: int) -> tuple[int, int, int]:
    """Return red, green and blue of a class, counted from 0."""
    return COLOURS[index % len(COLOURS)]


def import_highdicom() -> ModuleType:
    """Import the package that writes segmentation objects.

    Raises:
        DvtError: if it is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise DvtError("Writing DICOM segmentations needs highdicom. Run pip install 'dvtplan[dicom]'.") from error
    return highdicom


def write_segmentation(
    path: str | Path,
    mask: np.ndarray,
    study: StudyContents,
    volumes: Sequence[Volume],
    classes: Mapping[str, int],
    *,
    model: str = "",
    corrected: bool = False,
) -> None:
    """Write a mask as a binary DICOM segmentation object with one segment per class, and read it back to verify it.

    The object belongs to the study, frame of reference and images of its series. Each frame has the position of its
    image. The object of an empty mask has all frames, all empty.

    Args:
        path: of the object.
        mask: with the shape of the volumes' grid.
        study: contains the volumes.
        volumes: the volumes that the mask was made from, on one grid; the object refers its frames to the first.
        classes: name -> value in the mask; segments are numbered in this order.
        model: name of the model, for the record.
        corrected: the mask was edited; its segments are then semi-automatic.

    Raises:
        DvtError: if the series lacks required tags, its folder was removed, or the disk is full.
    """
    if mask.shape != volumes[0].grid.shape:
        raise ValueError(f"mask {mask.shape} does not fit its series {volumes[0].grid.shape}")
    path = Path(path)
    highdicom = import_highdicom()
    label = f"{study.source}: series {volumes[0].name}"
    numbered = np.zeros(mask.shape, np.uint8)
    for number, value in enumerate(classes.values(), start=1):
        numbered[mask == value] = number
    images = [source_images(study, volume) for volume in volumes]
    with _explained(label), atomic_write(path) as draft:
        segments = [_segment(highdicom, number, name, model, corrected) for number, name in enumerate(classes, start=1)]
        _build(highdicom, numbered, images, volumes[0], segments, model).save_as(draft)
    _verify(path, numbered, volumes[0].grid, images[0][0])


def require_source(study: StudyContents, volumes: Sequence[Volume], classes: Mapping[str, int]) -> None:
    """Check before long work that a mask of a series can be written as an object, by building one of one voxel.

    Args:
        study: contains the volumes.
        volumes: as for ``write_segmentation``.
        classes: name -> value in the mask.

    Raises:
        DvtError: if the series lacks required tags.
    """
    highdicom = import_highdicom()
    images = [source_images(study, volume) for volume in volumes]
    numbered = np.zeros(volumes[0].grid.shape, np.uint8)
    numbered[0, 0, 0] = 1
    with _explained(f"{study.source}: series {volumes[0].name}"):
        segments = [_segment(highdicom, number, name, "", False) for number, name in enumerate(classes, start=1)]
        _build(highdicom, numbered, images, volumes[0], segments, "").save_as(io.BytesIO())


@contextlib.contextmanager
def _explained(label: str) -> Iterator[None]:
    """Turn the errors of highdicom and pydicom about tags of a series into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values of the source, which the user cannot fix
            yield
    except (ValueError, TypeError, AttributeError, KeyError, LookupError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise DvtError(
            f"{label}: its images cannot carry a DICOM segmentation ({reason}). Export it again, or omit dicom-seg."
        ) from error


def _build(
    highdicom: ModuleType,
    numbered: np.ndarray,
    images: Sequence[list[Any]],
    volume: Volume,
    segments: Sequence[Any],
    model: str,
) -> Any:
    """Build the object from segment numbers, the source images of each volume, and the first volume."""
    sources, *others = images
    single = _is_single_frame(sources)
    further = [*([] if single else sources[1:]), *(one for images_of in others for one in images_of)]
    made = highdicom.seg.Segmentation(
        source_images=sources if single else sources[:1],
        further_source_images=[one for one in further if one.StudyInstanceUID == sources[0].StudyInstanceUID],
        pixel_array=numbered,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        omit_empty_frames=bool(numbered.any()),
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER + (int(re.sub(r"\D", "", volume.name) or 0)),
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name="dvtplan",
        software_versions=__version__,
        specific_character_set=UTF_8,
        device_serial_number=model or "0",
        content_label="THROMBUS",
        content_description=NOTE,
        series_description=f"dvtplan {__version__}: {NOTE}"[:64],
        **({} if single else _frame_geometry(highdicom, volume)),
    )
    if -(-int(made.NumberOfFrames) * made.Rows * made.Columns // 8) % 2:
        made.PixelData = made.PixelData[:-1] + b"\0"  # highdicom 0.28 pads with the digit 0
    return made


def _verify(path: Path, numbered: np.ndarray, grid: Grid, source: Any) -> None:
    """Read an object back by the positions of its frames; remove it if it differs.

    Raises:
        DvtError: if the mask or the patient differs from what was to be written.
    """
    study = series.read_study(path)
    names, frames = read_segment_frames(study, study.segmentations[0])
    (tags,) = series.read_tags(study, [path.name]).values()
    is_same = all(str(tags.get(keyword) or "") == str(source.get(keyword) or "") for keyword in IDENTITY)
    mask = place_frames(frames, {number: number for number in names}, grid, str(path))
    if not is_same or not np.array_equal(mask, numbered):
        path.unlink(missing_ok=True)
        raise DvtError(
            f"{path}: differs from the mask when read back, and was removed. Free disk space, then run again."
        )


def _is_single_frame(sources: Sequence[Any]) -> bool:
    return "PerFrameFunctionalGroupsSequence" not in sources[0]


def _frame_geometry(highdicom: ModuleType, volume: Volume) -> dict[str, Any]:
    """Return the positions of a volume's frames. In a multi-frame object they have any order, with others between."""
    first = volume.stack.frames[0]
    return {
        "plane_positions": [
            highdicom.PlanePositionSequence("PATIENT", [float(v) for v in frame.position_mm])
            for frame in volume.stack.frames
        ],
        "plane_orientation": highdicom.PlaneOrientationSequence(
            "PATIENT", [float(v) for v in (*first.along_row, *first.along_column)]
        ),
        "pixel_measures": highdicom.PixelMeasuresSequence(
            pixel_spacing=list(first.spacing_mm), slice_thickness=volume.grid.spacing_mm[0]
        ),
    }


def _segment(highdicom: ModuleType, number: int, name: str, model: str, corrected: bool) -> Any:
    """Describe a segment in words and codes."""

    def code(triple: tuple[str, str, str]) -> Any:
        return highdicom.sr.CodedConcept(*triple)

    vein = vein_of_class(name)
    category, kind = OTHER if vein is None else (CATEGORY, THROMBUS)
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=code(category),
        segmented_property_type=code(kind),
        algorithm_type="SEMIAUTOMATIC" if corrected else "AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="dvtplan",
            family=code(FAMILY),
            version=__version__,
            parameters={"model": model} if model else None,
        ),
        primary_anatomic_structures=None if vein is None else [code(VEINS[vein])],
        display_color=highdicom.color.CIELabColor.from_rgb(*class_colour(number - 1)),
    )
    segment.SegmentDescription = NOTE
    if vein in SIDES:
        segment.PrimaryAnatomicStructureSequence[0].PrimaryAnatomicStructureModifierSequence = [code(SIDES[vein])]
    return segment


def vein_of_class(name: str) -> str | None:
    """Return the vein that the name of a class states, as a key of ``VEINS``; None if it does not mean thrombus."""
    words = re.findall(r"[a-z]+", name.lower())
    rest = [word for word in words if word not in CLOT]
    if len(rest) > 1 or not words or (rest and rest[0] not in VEINS):
        return "" if len(rest) < len(words) else None
    return rest[0] if rest else ""
