"""Masks in other programs' words: DICOM segmentation objects, and what ITK-SNAP calls the values.

The only door to highdicom, which writes the objects and comes with the extra `dicom`. They are read without it, by
where their frames say that they lie.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dvtplan import __version__
from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.files import atomic_write
from dvtplan.core.text import plural, shorten_list
from dvtplan.dicom import series
from dvtplan.dicom.reader import (
    InvalidDicomError,
    Tags,
    open_files,
    pydicom,
    read_frames,
    read_pixels,
    require_pydicom,
    segment_label,
)
from dvtplan.dicom.series import Segmentation, StudyContents, Volume, headers
from dvtplan.dicom.slice_sorting import ROUNDING_MM, UNEVEN, Frame
from dvtplan.imaging.geometry import Grid

CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
THROMBUS = ("396339007", "SCT", "Thrombus")
OTHER = (("85756007", "SCT", "Tissue"), ("85756007", "SCT", "Tissue"))
"""Category and type of a class whose name does not say that it is thrombus: nothing is claimed of it."""
VEINS = {
    "": ("122774002", "SCT", "Structure of vein of lower extremity"),
    "iliac": ("244411005", "SCT", "Iliac vein"),
    "femoral": ("83419000", "SCT", "Femoral vein"),
    "popliteal": ("56849005", "SCT", "Popliteal Vein"),
    "proximal": ("122774002", "SCT", "Structure of vein of lower extremity"),
    "distal": ("122774002", "SCT", "Structure of vein of lower extremity"),
}
"""Where thrombus of a class lies, by what its name says besides (SNOMED CT, as in DICOM's context groups)."""
SIDES = {"proximal": ("40415009", "SCT", "Proximal"), "distal": ("46053002", "SCT", "Distal")}
CLOT = ("thrombus", "thrombosis", "thrombi", "clot", "dvt", "lesion")
"""Words that mean thrombus in the name of a class."""
FAMILY = ("123110", "DCM", "Artificial Intelligence")

SERIES_NUMBER = 1000
"""What is added to the number of a series for the number of the object's."""
MANUFACTURER = "dvtplan"
"""What objects name as their manufacturer."""
NOTE = "Research use only, not for diagnosis"
COLOURS = ((224, 49, 49), (51, 122, 204), (240, 173, 26), (46, 160, 92), (148, 87, 190), (18, 178, 178))
"""Of the classes in turn; red, green, blue."""

DEMOGRAPHY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip
"""What an object copies from its source, and what an anonymizer may have removed: it may be empty, not missing."""


def colour(index: int) -> tuple[int, int, int]:
    """Red, green and blue of the k-th class, from 0."""
    return COLOURS[index % len(COLOURS)]


# --- written --------------------------------------------------------------------------------------


def import_highdicom() -> ModuleType:
    """The package that writes segmentation objects.

    Raises:
        DvtError: if it is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise DvtError("Writing DICOM segmentations needs highdicom. Run pip install 'dvtplan[dicom]'.") from error
    return highdicom


def write_segmentation(
    path: Path,
    mask: np.ndarray,
    found: StudyContents,
    shown: Sequence[Volume],
    classes: Mapping[str, int],
    *,
    model: str = "",
    corrected: bool = False,
) -> None:
    """Write a mask as a binary DICOM segmentation object, a segment a class, and read it back to be sure.

    It belongs to the study, the frame of reference and the images of the series that it was made from, and each frame
    has the place of its image. A mask without any marked voxel has all frames, which say so.

    Args:
        path: of the object.
        mask: in the order of the volume's grid.
        found: where the series is.
        shown: the volumes that the mask was made from, on one grid; it is drawn on the first.
        classes: name -> value in the mask; segments are numbered in this order.
        model: which one made it, for the record.
        corrected: somebody has changed the mask since; its segments are then semi-automatic.

    Raises:
        DvtError: if the series lacks what an object needs, the folder of images is gone, or the disk is full.
    """
    if mask.shape != shown[0].grid.shape:
        raise ValueError(f"mask {mask.shape} does not fit its series {shown[0].grid.shape}")
    highdicom = import_highdicom()
    label = f"{found.source}: series {shown[0].name}"
    numbered = np.zeros(mask.shape, np.uint8)
    for number, value in enumerate(classes.values(), start=1):
        numbered[mask == value] = number
    sources = _sources(found, shown[0])
    if not all(one.get("FrameOfReferenceUID") for one in sources):
        raise DvtError(
            f"{label}: its images name no frame of reference, so nothing can be placed upon them. Export it again, "
            "or leave dicom-seg away."
        )
    others = [one for volume in shown[1:] for one in _sources(found, volume)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on values of the source that are not ours to mend
            made = highdicom.seg.Segmentation(
                source_images=sources if _is_single(sources) else sources[:1],
                further_source_images=[
                    one
                    for one in (others if _is_single(sources) else [*sources[1:], *others])
                    if one.StudyInstanceUID == sources[0].StudyInstanceUID
                ],
                pixel_array=numbered,
                segmentation_type="BINARY",
                segment_descriptions=[
                    _description(highdicom, number, name, model, corrected)
                    for number, name in enumerate(classes, start=1)
                ],
                omit_empty_frames=bool(numbered.any()),
                series_instance_uid=highdicom.UID(),
                series_number=SERIES_NUMBER + (int(re.sub(r"\D", "", shown[0].name) or 0)),
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                manufacturer_model_name="dvtplan",
                software_versions=__version__,
                device_serial_number=model or "0",
                content_label="THROMBUS",
                content_description=NOTE,
                series_description=f"dvtplan {__version__}: {NOTE}"[:64],
                **({} if _is_single(sources) else _planes(highdicom, shown[0])),
            )
            with atomic_write(path) as draft:
                made.save_as(draft)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DvtError(
            f"{label}: no segmentation can be made of its images ({reason}). Export it again, or leave dicom-seg away."
        ) from error
    _check(path, numbered, shown[0].grid)


def _check(path: Path, numbered: np.ndarray, grid: Grid) -> None:
    """Read an object back by where its frames lie."""
    back = series.find(path)
    names, frames = marked_frames(back, back.segmentations[0])
    if not np.array_equal(_place_frames(frames, {number: number for number in names}, grid, str(path)), numbered):
        path.unlink(missing_ok=True)
        raise DvtError(f"{path}: what was written does not read back the same. Free space, then run again.")


def _sources(found: StudyContents, volume: Volume) -> list[Any]:
    """The tags of a volume's images, in order, with what an object copies from them."""
    names = list(dict.fromkeys(frame.file for frame in volume.stack.frames))
    headers = series.headers(found, names)
    sources = [headers[name] for name in names]
    first = volume.stack.frames[0]
    for one in sources:
        for keyword in DEMOGRAPHY:
            if keyword not in one:
                setattr(one, keyword, "")
        if "PerFrameFunctionalGroupsSequence" not in one:
            # Images of one volume may differ in the last digits of their directions.
            one.ImageOrientationPatient = sources[0].ImageOrientationPatient
            continue
        # What every frame has of its own may as well be shared, where one volume is made of them.
        own = one.PerFrameFunctionalGroupsSequence[first.index]
        if not one.get("SharedFunctionalGroupsSequence"):
            one.SharedFunctionalGroupsSequence = [type(own)()]
        shared = one.SharedFunctionalGroupsSequence[0]
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            if keyword not in shared and keyword in own:
                setattr(shared, keyword, own[keyword].value)
    return sources


def _is_single(sources: Sequence[Any]) -> bool:
    """Whether every image is an object of its own."""
    return "PerFrameFunctionalGroupsSequence" not in sources[0]


def _planes(highdicom: ModuleType, volume: Volume) -> dict[str, Any]:
    """The places of the frames of a multi-frame object, which may stand there in any order, among others."""
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


def _description(highdicom: ModuleType, number: int, name: str, model: str, corrected: bool) -> Any:
    """What a segment is, in words and codes."""

    def code(triple: tuple[str, str, str]) -> Any:
        return highdicom.sr.CodedConcept(*triple)

    place = _place(name)
    category, kind = OTHER if place is None else (CATEGORY, THROMBUS)
    made = highdicom.seg.SegmentDescription(
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
        primary_anatomic_structures=None if place is None else [code(VEINS[place])],
        display_color=highdicom.color.CIELabColor.from_rgb(*colour(number - 1)),
    )
    made.SegmentDescription = NOTE
    if place in SIDES:
        made.PrimaryAnatomicStructureSequence[0].PrimaryAnatomicStructureModifierSequence = [code(SIDES[place])]
    return made


def _place(name: str) -> str | None:
    """Where the thrombus of a class lies, as ``VEINS`` has it; none for what is no thrombus, or not known to be."""
    words = re.findall(r"[a-z]+", name.lower())
    rest = [word for word in words if word not in CLOT]
    if len(rest) > 1 or not words or (rest and rest[0] not in VEINS):
        return "" if len(rest) < len(words) else None
    return rest[0] if rest else ""


# --- read -----------------------------------------------------------------------------------------


def read_segmentation(
    found: StudyContents, segmentation: Segmentation, grid: Grid, classes: Mapping[str, int]
) -> np.ndarray:
    """A segmentation object's mask on a grid whose voxels its own are; nothing is resampled.

    Args:
        found: where it is.
        segmentation: which one.
        grid: of the image that it belongs to.
        classes: name -> value. Segments are known by their names, in small or capital letters; where there is
            one class and one segment, that is it.

    Returns:
        uint8, in the order of the grid; 0 where no frame is.

    Raises:
        DvtError: if it holds other segments, its voxels are not the grid's, or segments overlap.
    """
    label = f"{found.source}: {segmentation.file}"
    names, frames = marked_frames(found, segmentation)
    known = {name.lower(): value for name, value in classes.items()}
    values = {number: known[name.lower()] for number, name in names.items() if name.lower() in known}
    if len(classes) == 1 and len(names) == 1 and not values:
        ((number, name),) = names.items()
        ((own, value),) = classes.items()
        console.info(f"{label}: its segment {name} is taken for {own}.")
        values = {number: value}
    unknown = [name for number, name in names.items() if number not in values]
    if unknown or not names:
        raise DvtError(
            f"{label}: holds the segments {shorten_list(list(names.values())) or 'none'}; the data set's labels are "
            f"{shorten_list(list(classes))}. Name its segments as labels, or rename them."
        )
    return _place_frames(frames, values, grid, label)


def _place_frames(frames: Sequence[MarkedFrame], values: Mapping[int, int], grid: Grid, label: str) -> np.ndarray:
    """Frames on a grid: each marked pixel becomes the voxel that lies where it says that it lies."""
    mask = np.zeros(grid.shape, np.uint8)
    to_index = np.linalg.inv(grid.steps_mm)
    tolerance_mm = ROUNDING_MM + UNEVEN * max(grid.spacing_mm)  # as far as the images themselves may lie off
    overlapping = 0
    for marked in frames:
        frame, pixels = marked.frame, marked.pixels
        steps = np.array([frame.along_column, frame.along_row]) * np.array(frame.spacing_mm)[:, None] @ to_index
        start = grid.index_of(np.asarray(frame.position_mm))
        whole_steps, whole_start = np.rint(steps), np.rint(start)
        corners = (np.array(frame.shape) - 1) * [[0, 0], [0, 1], [1, 0], [1, 1]]
        off = start - whole_start + corners @ (steps - whole_steps)
        apart_mm = float(np.linalg.norm(off @ grid.steps_mm, axis=1).max())
        axes = np.abs(whole_steps)
        if apart_mm > tolerance_mm or (axes.sum(axis=1) != 1).any() or (axes.sum(axis=0) > 1).any():
            raise DvtError(
                f"{label}: frame {frame.index + 1} is not drawn on the voxels of the series (up to {apart_mm:.3g} mm "
                f"away, tolerance {tolerance_mm:.2g} mm). Export it on the series' own grid."
            )
        for number, value in values.items():
            here = pixels == number if marked.segment is None else pixels
            if marked.segment not in (None, number):
                continue
            index = (whole_start + np.argwhere(here) @ whole_steps).astype(int)
            if len(index) == 0:
                continue
            if index.min() < 0 or (index >= grid.shape).any():
                raise DvtError(
                    f"{label}: frame {frame.index + 1} marks voxels outside of the series. Export it on the series' "
                    "own grid."
                )
            place = tuple(index.T)
            overlapping += int(((mask[place] != 0) & (mask[place] != value)).sum())
            mask[place] = value
    if overlapping:
        raise DvtError(
            f"{label}: {plural(overlapping, 'voxel')} {'belongs' if overlapping == 1 else 'belong'} to several "
            "segments; a data set holds one label a voxel. Draw them apart."
        )
    return mask


def algorithm_of(path: Path) -> tuple[str, set[str]]:
    """Who made a segmentation object (0008,0070) and how its segments were drawn (0062,0008); empty for other files."""
    require_pydicom()
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Manufacturer", "SegmentSequence"])
        kinds = {str(one.get("SegmentAlgorithmType") or "") for one in header.get("SegmentSequence") or ()}
    except (InvalidDicomError, EOFError, OSError, ValueError, KeyError, AttributeError):
        return "", set()
    return str(header.get("Manufacturer") or ""), kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedFrame:
    """One frame of a segmentation object."""

    frame: Frame
    segment: int | None
    """Which segment it shows; none where its values are the segments' numbers."""
    pixels: np.ndarray
    """(rows, columns): whether a pixel belongs to the segment, or the number of the one that it belongs to."""


def marked_frames(found: StudyContents, segmentation: Segmentation) -> tuple[dict[int, str], list[MarkedFrame]]:
    """What a segmentation object holds: the names of its segments by number, and its frames.

    Fractional segments count from half of their largest value on.

    Raises:
        DvtError: if it is damaged, or a frame has no place or segment.
    """
    name = segmentation.file
    header = headers(found, [name])[name]
    with open_files(found.source) as files:
        pixels = read_pixels(f"{found.source}: {name}", dict(files)[name])
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    placed = read_frames(f"{found.source}: {name}", header)
    if len(placed) != len(pixels) or any(one.shape != pixels.shape[1:] for one in placed):
        raise DvtError(f"{found.source}: {name}: places {len(placed)} frames and holds {len(pixels)}. Export it again.")
    kind = str(header.get("SegmentationType", "BINARY"))
    half = float(header.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0.5
    made = []
    for frame, one in zip(placed, pixels, strict=True):
        segment = None if kind == "LABELMAP" else Tags(header, frame.index).get("ReferencedSegmentNumber")
        if kind != "LABELMAP" and segment is None:
            raise DvtError(f"{found.source}: {frame.name}: belongs to no segment. Export it again.")
        made.append(
            MarkedFrame(
                frame=frame,
                segment=None if segment is None else int(segment),
                pixels=one if kind == "LABELMAP" else one >= half,
            )
        )
    return {int(one.SegmentNumber): segment_label(one) for one in header.get("SegmentSequence") or ()}, made
