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

from dvtplan.core.console import progress
from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural
from dvtplan.dicom import slice_sorting
from dvtplan.dicom.frame_tags import read_frames
from dvtplan.dicom.mask_objects import Segmentation, UnreadMask, describe_object
from dvtplan.dicom.pixels import read_pixels
from dvtplan.dicom.reader import (
    MR,
    DamagedFile,
    is_image,
    open_files,
    read_all_tags,
    read_header,
    require_pydicom,
    series_number,
)
from dvtplan.dicom.slice_sorting import Stack
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
    patient_id: str = ""
    """As in the hospital: never show it or write it into a data set."""
    modality: str = ""
    """Modality (0008,0060), such as MR or CT; empty if missing."""
    frame_of_reference: str = ""
    """Frame of reference UID (0020,0052); empty if missing."""

    @property
    def grid(self) -> Grid:
        """Return the grid; axes: image, row, column."""
        return self.stack.grid


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyContents:
    """Contents of a folder or archive."""

    source: Path
    volumes: tuple[Volume, ...]
    faults: tuple[str, ...]
    """One line for each series that cannot be read as a volume."""
    skipped: tuple[str, ...]
    """One line for each series that is not a volume, such as a localizer."""
    segmentations: tuple[Segmentation, ...] = ()
    unread_masks: tuple[UnreadMask, ...] = ()
    """Objects with masks of a kind that is not read."""
    damaged: tuple[str, ...] = ()
    """One line for each damaged file whose series is unknown. It may be a slice of any volume."""


def read_study(source: str | Path) -> StudyContents:
    """List the volumes and segmentation objects of a folder, archive or file.

    Raises:
        DvtError: if pydicom is not installed, or the source has no DICOM image.
    """
    require_pydicom()
    source = Path(source)
    all_series, masks, damaged = _group_by_series(source)
    segmentations = [one for one in masks if isinstance(one, Segmentation)]
    if not all_series and not masks and damaged:
        raise DamagedScan(_damage(source, damaged))
    if not all_series and not masks:
        raise DvtError(f"{source}: contains no DICOM image. Give the folder that the scanner or archive exported.")
    known = {str(entries[0][1].get("SeriesInstanceUID") or "") for entries in all_series} - {""}
    volumes: list[Volume] = []
    faults: list[str] = []
    skipped: list[str] = []
    for name, entries in zip(_series_names(all_series), all_series, strict=True):
        header = entries[0][1]
        description = _description(header)
        label = f"series {name} ({description})"
        broken = [one for one in damaged if one.series_uid and one.series_uid == header.get("SeriesInstanceUID")]
        if broken:
            faults.append(_damage(f"{source}: {label}", broken))
            continue
        try:
            frames = [frame for file, one in entries for frame in read_frames(file, one)]
            found = slice_sorting.sort_into_volumes(frames, f"{source}: {label}")
        except DvtError as error:
            faults.append(str(error))
            continue
        if not found.stacks:
            skipped.append(f"{label}: {plural(len(frames), 'image')}, not a volume")
        faults += found.faults
        volumes += [_volume(name + stack.letter, description, header, stack) for stack in found.stacks]
    faults += [_damage(source, [one]) for one in damaged if one.series_uid and one.series_uid not in known]
    return StudyContents(
        source=source,
        volumes=tuple(volumes),
        faults=tuple(faults),
        skipped=tuple(skipped),
        segmentations=tuple(sorted(segmentations, key=lambda one: (one.number, one.file))),
        unread_masks=tuple(one for one in masks if isinstance(one, UnreadMask)),
        damaged=tuple(_damage(source, [one]) for one in damaged if not one.series_uid),
    )


def _damage(label: str | Path, files: Sequence[DamagedFile]) -> str:
    """Return one line about damaged files."""
    first, *others = files
    return f"{label}: {first}" + (f" {plural(len(others), 'more file')} damaged." if others else "")


def _group_by_series(
    source: Path,
) -> tuple[list[list[tuple[str, Any]]], list[Segmentation | UnreadMask], list[DamagedFile]]:
    """Return the (file name, header) pairs of each series, by series number; objects with masks; damaged files."""
    by_uid: dict[str, list[tuple[str, Any]]] = {}
    masks: list[Segmentation | UnreadMask] = []
    damaged: list[DamagedFile] = []
    endings: set[str] = set()
    with open_files(source) as files:
        for name, opener in progress(files, "Read headers", leave=False):
            try:
                header = read_header(name, opener)
            except DamagedFile as error:
                damaged.append(error)
                continue
            if header is None:
                continue
            endings.add(_ending(name))
            mask = describe_object(name, header)
            if mask is not None:
                masks.append(mask)
            elif is_image(header):
                by_uid.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((name, header))
    # An empty file is taken for a damaged slice if it is called like a DICOM file.
    damaged = [one for one in damaged if one.certain or _ending(one.name) in endings]
    return sorted(by_uid.values(), key=lambda entries: series_number(entries[0][1])), masks, damaged


def _ending(name: str) -> str:
    """Return the ending of a file name; a number, as in 1.2.3 or IM.0007, is none."""
    ending = Path(name).suffix.lower()
    return "" if ending[1:].isdecimal() else ending


def _series_names(all_series: Sequence[list[tuple[str, Any]]]) -> list[str]:
    """Return the number of each series; series that share one are numbered (5-1, 5-2)."""
    numbers = [series_number(entries[0][1]) for entries in all_series]
    totals, seen, names = Counter(numbers), Counter[int](), []
    for number in numbers:
        seen[number] += 1
        names.append(f"{number}-{seen[number]}" if totals[number] > 1 else f"{number}")
    return names


def _description(header: Any) -> str:
    """Return the series description, with the modality if it is not MR."""
    text = str(header.get("SeriesDescription") or "").strip()
    if text.lower() in ("", "none"):  # some exports write the word
        text = "no description"
    modality = _modality(header)
    return text if modality in ("", MR) else f"{modality}, {text}"


def _modality(header: Any) -> str:
    return str(header.get("Modality") or "").strip()


def _volume(name: str, description: str, header: Any, stack: Stack) -> Volume:
    return Volume(
        name=name,
        title=f"{description}{f', {stack.title}' if stack.title else ''}: {slice_sorting.describe(stack)}",
        stack=stack,
        series_uid=str(header.get("SeriesInstanceUID", "")),
        patient_id=str(header.get("PatientID") or "").strip(),
        modality=_modality(header),
        frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
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
    return volumes


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
    matching = [] if wanted is None else [volume for volume in study.volumes if _matches(wanted, volume)]
    if len(matching) == 1:
        return matching[0]
    if not study.volumes and study.faults:
        raise DamagedScan("\n".join(study.faults))
    raise DvtError("\n".join([*study.faults, f"{study.source}: {_why_not_chosen(study, wanted, matching)}"]))


def _why_not_chosen(study: StudyContents, wanted: str | None, matching: Sequence[Volume]) -> str:
    if not study.volumes:
        masks = [*(one.title for one in study.segmentations), *(one.title for one in study.unread_masks)]
        found = "; ".join([*study.skipped, *masks])
        return f"contains no volume ({found}). Give the folder or archive with all images of a series."
    if wanted is None and len(study.volumes) == 1:
        return f"one other volume can be read: {list_volumes(study.volumes)}. Choose it with `series`."
    if wanted is None:
        patients = len({volume.patient_id for volume in study.volumes})
        of = f" of {patients} patients" if patients > 1 else ""
        return f"contains several volumes{of}. Choose with `series`: {list_volumes(study.volumes, files=patients > 1)}."
    if matching:
        return f"contains several volumes that match {wanted}. Choose one of: {list_volumes(matching, files=True)}."
    return f"contains no volume {wanted}. Choose one of: {list_volumes(study.volumes)}."


def list_volumes(volumes: Iterable[Volume], *, files: bool = False) -> str:
    """Return the names and titles of volumes in one line; ``files`` adds the first file of each."""
    return "; ".join(
        f"{volume.name} ({volume.title}{f', file {volume.stack.frames[0].file}' if files else ''})"
        for volume in volumes
    )


def _matches(wanted: str, volume: Volume) -> bool:
    """Return whether a volume has this series number, or its title contains a text or a pattern with ``*``."""
    pattern = wanted.strip().lower()
    if not pattern or pattern.isdecimal():
        return bool(pattern) and re.match(r"-?\d+", volume.name)[0] == pattern  # type: ignore[index]
    return fnmatch.fnmatchcase(volume.title.lower(), f"*{pattern.replace('[', '[[]')}*")


def read_volume(study: StudyContents, volume: Volume) -> tuple[np.ndarray, Grid]:
    """Read the voxels of a volume, rescaled as its files specify, in the order of its grid.

    Returns:
        The stored number type (such as int16) if nothing has to be rescaled, else float32; and the grid.

    Raises:
        DvtError: if a file is damaged or its compression is not supported.
    """
    frames = volume.stack.frames
    stored = all(frame.slope == 1 and frame.intercept == 0 for frame in frames)
    array: np.ndarray | None = None
    with open_files(study.source) as files:
        openers = dict(files)
        slice_of = {(frame.file, frame.index): k for k, frame in enumerate(frames)}
        for name in progress(list(dict.fromkeys(frame.file for frame in frames)), "Read", leave=False):
            pixels = read_pixels(f"{study.source}: {name}", openers[name])
            pixels = pixels[None] if pixels.ndim == 2 else pixels
            for index, image in enumerate(pixels):
                k = slice_of.get((name, index))
                if k is None:
                    continue
                if image.shape != frames[k].shape:
                    raise DamagedScan(
                        f"{study.source}: {frames[k].name}: {image.shape} pixels, expected {frames[k].shape}. "
                        "Export it again."
                    )
                if array is None:
                    array = np.empty(volume.grid.shape, image.dtype if stored else np.float32)
                array[k] = image if stored else image * np.float64(frames[k].slope) + frames[k].intercept
    if array is None:
        raise DamagedScan(f"{study.source}: series {volume.name} has no pixels. Export it again.")
    return array, volume.grid


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
