"""List the volumes of a DICOM folder or archive, choose one, and read its voxels.

Series are identified by their tags and images by their positions, never by file names.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvtplan.core import console
from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural, shorten_list
from dvtplan.dicom import slice_grid, slice_sorting
from dvtplan.dicom.frame import Frame
from dvtplan.dicom.frame_tags import read_frames
from dvtplan.dicom.mask_objects import Segmentation, UnreadMask
from dvtplan.dicom.reader import (
    MR,
    DamagedFile,
    is_image,
    open_files,
    read_all_tags,
    read_header,
    readable,
    require_pydicom,
    series_number,
)
from dvtplan.dicom.series_files import SeriesFiles, StudyFiles, find_files
from dvtplan.dicom.slice_sorting import Stack
from dvtplan.dicom.volume_reader import read_stack
from dvtplan.imaging.geometry import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume in a folder or archive."""

    name: str
    """Series number, as 5-1 and 5-2 if two series share it, with a letter if the series has several volumes.
    ``choose_volumes`` takes it."""
    title: str
    """Series description, orientation, matrix and spacing, for lists."""
    stack: Stack
    series_uid: str = ""
    series_key: str = ""
    """Identifies the series across studies: its UID, or that of an image if the series has no UID of its own."""
    patient_id: str = ""
    """As in the hospital: never show it or write it into a data set."""
    modality: str = ""
    """Modality (0008,0060), such as MR or CT; empty if missing."""
    frame_of_reference: str = ""
    """Frame of reference UID (0020,0052); empty if missing."""
    notes: tuple[str, ...] = ()
    """What the user should know: images of the series in no volume, or hints that images are missing."""

    @property
    def grid(self) -> Grid:
        """Return the grid; axes: image, row, column."""
        return self.stack.grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a series, or a volume of it, cannot be read."""

    text: str
    """One line."""
    series: str = ""
    """Number of the series, as 5-1 if another shares it; empty if unknown."""
    title: str = ""
    """Description of the series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyContents:
    """Contents of a folder or archive."""

    source: Path
    volumes: tuple[Volume, ...]
    series_faults: tuple[Fault, ...]
    """The series and volumes that cannot be read."""
    skipped: tuple[str, ...]
    """One line for each series that is not a volume, such as a localizer."""
    segmentations: tuple[Segmentation, ...] = ()
    unread_masks: tuple[UnreadMask, ...] = ()
    """Objects with masks of a kind that is not read."""
    damaged: tuple[str, ...] = ()
    """One line for each damaged file whose series is unknown. It may be a slice of any volume."""

    @property
    def faults(self) -> tuple[str, ...]:
        """Return one line for each series or volume that cannot be read."""
        return tuple(fault.text for fault in self.series_faults)


def read_study(source: str | Path) -> StudyContents:
    """List the volumes and segmentation objects of a folder, archive or file.

    Raises:
        DvtError: if pydicom is not installed, or the source has no DICOM image.
    """
    require_pydicom()
    source = Path(source)
    found = find_files(source)
    _require_images(source, found)
    known = {_series_uid(files.entries[0][1]) for files in found.series} - {""}
    lost = [one for one in found.damaged if one.series_uid and one.series_uid not in known]
    volumes: list[Volume] = []
    faults: list[Fault] = [Fault(text=_damage(source, [one])) for one in lost]
    skipped: list[str] = []
    alone: list[tuple[str, str, Frame]] = []
    for name, files in zip(_series_names(found.series), found.series, strict=True):
        header = files.entries[0][1]
        title = _description(header)
        label = f"{source}: series {name} ({title})"
        broken = [one for one in found.damaged if one.series_uid and one.series_uid == _series_uid(header)]
        try:
            if broken or files.fault:
                raise DvtError(_damage(label, broken) if broken else f"{label}: {files.fault}")
            frames = [frame for file, one in files.entries for frame in read_frames(file, one)]
            of_series = slice_sorting.sort_into_volumes(frames, label)
        except DvtError as error:
            text = str(error) if str(source) in str(error) else f"{label}: {error}"
            faults.append(Fault(series=name, title=title, text=text))
            continue
        if not of_series.stacks:
            skipped.append(f"series {name} ({title}): {plural(len(frames), 'image')}, not a volume")
            alone += [(name, _patient(header), frame) for frame in frames]
        faults += [Fault(series=name, title=title, text=text) for text in of_series.faults]
        volumes += [_volume(name + stack.letter, title, files, stack) for stack in of_series.stacks]
    short = {volume.name: fault for volume in volumes if (fault := _lost_slice(source, volume, alone)) is not None}
    faults += short.values()
    segmentations = [one for one in found.masks if isinstance(one, Segmentation)]
    return StudyContents(
        source=source,
        volumes=tuple(volume for volume in volumes if volume.name not in short),
        series_faults=tuple(faults),
        skipped=(*skipped, *found.unplaced),
        segmentations=tuple(sorted(segmentations, key=lambda one: (one.number, one.file))),
        unread_masks=tuple(one for one in found.masks if isinstance(one, UnreadMask)),
        damaged=tuple(_damage(source, [one]) for one in found.damaged if not one.series_uid),
    )


def _lost_slice(source: Path, volume: Volume, alone: Sequence[tuple[str, str, Frame]]) -> Fault | None:
    """Return a fault if an image of another series is the slice before or after a volume.

    Args:
        source: folder or archive.
        volume: may lack a slice.
        alone: series, patient and image of every image that is in no volume.
    """
    for name, patient, frame in alone:
        if patient == volume.patient_id and slice_grid.continues(frame, volume.grid):
            text = (
                f"{source}: {frame.name} is the next slice of series {volume.name} by its place, but its tags are "
                f"those of series {name}. Export the series again, or remove the file if it is not part of the scan."
            )
            return Fault(series=volume.name, title=volume.title, text=text)
    return None


def _require_images(source: Path, found: StudyFiles) -> None:
    """Raise a DvtError if a source contains nothing to list."""
    if found.series or found.masks:
        return
    if found.damaged:
        raise DamagedScan(_damage(source, found.damaged))
    if found.unplaced:
        raise DvtError(
            f"{source}: contains no image with a place in the patient ({shorten_list(found.unplaced)}). Export the "
            "original images of the scanner."
        )
    if found.archives:
        raise DvtError(
            f"{source}: contains no DICOM image, only packed files ({shorten_list(found.archives)}). Unpack them first."
        )
    raise DvtError(f"{source}: contains no DICOM image. Give the folder that the scanner or archive exported.")


def _damage(label: str | Path, files: Sequence[DamagedFile]) -> str:
    """Return one line about damaged files."""
    first, *others = files
    return f"{label}: {first}" + (f" {plural(len(others), 'more file')} damaged." if others else "")


def _series_names(series: Sequence[SeriesFiles]) -> list[str]:
    """Return the number of each series; series that share one are numbered (5-1, 5-2)."""
    numbers = [series_number(files.entries[0][1]) for files in series]
    totals, seen, names = Counter(numbers), Counter[int](), []
    for number in numbers:
        seen[number] += 1
        names.append(f"{number}-{seen[number]}" if totals[number] > 1 else f"{number}")
    return names


def _series_uid(header: Any) -> str:
    return str(header.get("SeriesInstanceUID") or "").strip()


def _description(header: Any) -> str:
    """Return the series description, with the modality if it is not MR."""
    text = readable(header.get("SeriesDescription"))
    if text.lower() in ("", "none"):  # some exports write the word
        text = "no description"
    modality = _modality(header)
    return text if modality in ("", MR) else f"{modality}, {text}"


def _patient(header: Any) -> str:
    return str(header.get("PatientID") or "").strip()


def _modality(header: Any) -> str:
    return str(header.get("Modality") or "").strip()


def _volume(name: str, description: str, files: SeriesFiles, stack: Stack) -> Volume:
    header = files.entries[0][1]
    uid = _series_uid(header)
    return Volume(
        name=name,
        title=f"{description}{f', {stack.title}' if stack.title else ''}: {slice_sorting.describe(stack)}",
        stack=stack,
        series_uid=uid,
        series_key=uid if uid and not files.is_uid_shared else min(frame.uid for frame in stack.frames),
        patient_id=_patient(header),
        modality=_modality(header),
        frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
        notes=(*stack.notes, *files.notes),
    )


def read_study_ids(source: str | Path) -> tuple[str, str]:
    """Return patient ID and study UID of the first DICOM image of a folder, archive or file; empty if there is none.

    Raises:
        DvtError: if pydicom is not installed, or the source cannot be read.
    """
    require_pydicom()
    with open_files(Path(source)) as files:
        for name, opener in files:
            try:
                header = read_header(name, opener)
            except DamagedFile:
                continue
            if header is not None and is_image(header):
                return str(header.get("PatientID") or "").strip(), str(header.get("StudyInstanceUID") or "")
    return "", ""


def choose_volumes(study: StudyContents, wanted: Sequence[str | None]) -> tuple[Volume, ...]:
    """Return volumes that belong together: the channels or the stations of one scan.

    Args:
        study: contents to choose from.
        wanted: for each volume its name or a part of its title, as for ``choose_volume``.

    Raises:
        DvtError: if one is missing or ambiguous, two are the same, or they are of different patients.
    """
    volumes = tuple(choose_volume(study, name) for name in wanted)
    repeated = next((v for v, n in Counter(v.name for v in volumes).items() if n > 1), None)
    if repeated is not None:
        raise DvtError(
            f"{study.source}: series {repeated} is used several times. Choose different volumes as `series` or "
            f"`stations`: {list_volumes(study.volumes)}."
        )
    if len({v.patient_id for v in volumes}) > 1:
        raise DvtError(
            f"{study.source}: the chosen volumes are of different patients. Choose volumes of one patient: "
            f"{list_volumes(study.volumes, files=True)}."
        )
    if _patients(study) > 1:
        console.warn(
            f"{study.source}: contains volumes of {_patients(study)} patients. Check that you mean these: "
            f"{list_volumes(volumes, files=True)}."
        )
    return volumes


def _patients(study: StudyContents) -> int:
    return len({volume.patient_id for volume in study.volumes})


def choose_volume(study: StudyContents, wanted: str | None) -> Volume:
    """Return the volume of a name, or the only volume.

    Args:
        study: contents to choose from.
        wanted: name of the volume, or part of its title in upper or lower case, with ``*`` for any text; None for the
            only volume.

    Raises:
        DvtError: with a list of the volumes, if several or none match.
    """
    if study.damaged:
        more = f" {plural(len(study.damaged) - 1, 'more file')} damaged." if len(study.damaged) > 1 else ""
        raise DamagedScan(study.damaged[0] + more)
    if wanted is None and len(study.volumes) == 1 and not study.faults:
        return study.volumes[0]
    for volume in study.volumes:
        if volume.name == wanted:
            return volume
    matching = [] if wanted is None else [one for one in study.volumes if _matches(wanted, one.name, one.title)]
    # A faulty series that matches too may be the one that is meant.
    faulty = [one.text for one in study.series_faults if wanted and _matches(wanted, one.series, one.title)]
    if len(matching) == 1 and not faulty:
        return matching[0]
    if not study.volumes and study.faults:
        raise DamagedScan("\n".join(study.faults))
    faults = faulty or study.faults
    raise DvtError("\n".join([*faults, f"{study.source}: {_why_not_chosen(study, wanted, matching)}"]))


def _why_not_chosen(study: StudyContents, wanted: str | None, matching: Sequence[Volume]) -> str:
    if not study.volumes:
        masks = [*(one.title for one in study.segmentations), *(one.title for one in study.unread_masks)]
        found = "; ".join([*study.skipped, *masks])
        return f"contains no volume ({found}). Give the folder or archive with all images of a series."
    if wanted is None and len(study.volumes) == 1:
        return f"one other volume can be read: {list_volumes(study.volumes)}. Choose it with `series`."
    patients = _patients(study)
    of = f" of {patients} patients" if patients > 1 else ""
    listed = list_volumes(study.volumes, files=patients > 1)
    if wanted is None:
        return f"contains several volumes{of}. Choose with `series`: {listed}."
    if len(matching) == 1:
        return f"one other volume matches {wanted}: {list_volumes(matching)}. Choose it by this name with `series`."
    if matching:
        return f"contains several volumes that match {wanted}. Choose one of: {list_volumes(matching, files=True)}."
    return f"contains no volume {wanted}. Choose one of: {listed}."


def list_volumes(volumes: Iterable[Volume], *, files: bool = False) -> str:
    """Return the names and titles of volumes in one line; ``files`` adds the first file of each."""
    return "; ".join(
        f"{volume.name} ({volume.title}{f', file {volume.stack.frames[0].file}' if files else ''})"
        for volume in volumes
    )


def _matches(wanted: str, name: str, title: str) -> bool:
    """Return whether a series has this number, or its title contains a text or a pattern with ``*``."""
    pattern = wanted.strip().lower()
    if not pattern or pattern.isdecimal():
        number = re.match(r"-?\d+", name)
        return bool(pattern) and number is not None and number[0] == pattern
    return fnmatch.fnmatchcase(title.lower(), f"*{pattern.replace('[', '[[]')}*")


def read_volume(study: StudyContents, volume: Volume) -> tuple[np.ndarray, Grid]:
    """Read the voxels of a volume, rescaled as its files specify, in the order of its grid.

    Returns:
        The array, in a number type as ``volume_reader.read_stack`` describes; and the grid.

    Raises:
        DvtError: if a file is damaged, its compression is not supported, or it does not fill its slices exactly.
    """
    label = f"{study.source}: series {volume.name}"
    for note in volume.notes:
        console.warn(f"{label}: {note}.")
    return read_stack(study.source, volume.stack, label), volume.grid


def read_tags(study: StudyContents, names: Iterable[str]) -> dict[str, Any]:
    """Read all tags except the pixels of some files, by file name.

    Raises:
        DvtError: if one cannot be read.
    """
    require_pydicom()
    tags = {}
    with open_files(study.source) as files:
        openers = dict(files)
        for name in names:
            tags[name] = read_all_tags(f"{study.source}: {name}", openers[name])
    return tags
