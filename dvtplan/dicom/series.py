"""DICOM folders and archives: the only door to pydicom, which comes with the extra `dicom`.

Series are found by their tags and images by their positions; the names of files say nothing.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvtplan.core.console import progress
from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural
from dvtplan.dicom import slice_sorting
from dvtplan.dicom.reader import (
    MR,
    SEGMENTATION,
    InvalidDicomError,
    is_image,
    open_files,
    pydicom,
    read_frames,
    read_header,
    read_number,
    read_pixels,
    require_pydicom,
    segment_label,
)
from dvtplan.dicom.slice_sorting import Stack
from dvtplan.imaging.geometry import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume that a folder or archive holds."""

    name: str
    """What --series calls it: the series' number, and a letter where it holds several volumes."""
    title: str
    """Description, kind, matrix and spacing, for a list."""
    stack: Stack
    series_uid: str = ""
    study_uid: str = ""
    patient_id: str = ""
    """As the hospital has it: it is not to be shown, nor written into a data set."""
    modality: str = ""
    """As in DICOM, such as MR or CT; empty where it is not told."""

    @property
    def grid(self) -> Grid:
        """Where it lies; axes: image, row, column."""
        return self.stack.grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """A segmentation object that a folder or archive holds: somebody's masks."""

    file: str
    """Name within the folder or archive."""
    number: str
    """Of its series."""
    title: str
    series_uids: tuple[str, ...]
    """Of the series that it says its masks belong to."""
    labels: tuple[str, ...]
    """Names of its segments."""
    made_by: str = ""
    """The program that drew it, where no person had a hand in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyContents:
    """What a folder or archive holds."""

    source: Path
    volumes: tuple[Volume, ...]
    faults: tuple[str, ...]
    """A line for each series that is no volume that may be read."""
    left_out: tuple[str, ...]
    """A line for each series that is none, such as a localizer."""
    segmentations: tuple[Segmentation, ...] = ()


def find(source: Path) -> StudyContents:
    """List the volumes of a folder, an archive, or a file.

    Raises:
        DvtError: if pydicom is not installed, or nothing there is a DICOM image.
    """
    require_pydicom()
    series: dict[str, list[Any]] = {}
    segmentations: list[Segmentation] = []
    with open_files(source) as files:
        for name, opener in progress(files, "Look", leave=False):
            header = read_header(name, opener)
            if header is not None and header.get("Modality") == SEGMENTATION:
                segmentations.append(_segmentation(name, header))
            elif header is not None and is_image(header):
                series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((name, header))
    if not series and not segmentations:
        raise DvtError(f"{source}: holds no DICOM image. Name the folder that the scanner or the archive has written.")
    volumes: list[Volume] = []
    faults: list[str] = []
    left_out: list[str] = []
    taken: dict[str, int] = {}
    for files_of in sorted(series.values(), key=lambda entries: read_number(entries[0][1])):
        header = files_of[0][1]
        number = str(read_number(header))
        taken[number] = taken.get(number, 0) + 1
        number += "'" * (taken[number] - 1)  # another series of the same number
        said = str(header.get("SeriesDescription") or "").strip()
        said = said if said.lower() not in ("", "none") else "no description"  # the word is what some exports put there
        modality = str(header.get("Modality") or "").strip()
        if modality not in ("", MR):
            said = f"{modality}, {said}"
        label = f"series {number} ({said})"
        try:
            frames = [frame for name, one in files_of for frame in read_frames(name, one)]
            made = slice_sorting.sort_into_volumes(frames, f"{source}: {label}")
        except DvtError as error:
            faults.append(str(error))
            continue
        if not made:
            left_out.append(f"{label}: {plural(len(frames), 'image')}, no volume")
        for k, stack in enumerate(made):
            letter = chr(ord("a") + k) if len(made) > 1 else ""
            kind = f"{said}{f', {stack.title}' if stack.title else ''}: {slice_sorting.describe(stack)}"
            volumes.append(
                Volume(
                    name=number + letter,
                    title=kind,
                    stack=stack,
                    series_uid=str(header.get("SeriesInstanceUID", "")),
                    study_uid=str(header.get("StudyInstanceUID", "")),
                    patient_id=str(header.get("PatientID") or "").strip(),
                    modality=modality,
                )
            )
    return StudyContents(
        source=source,
        volumes=tuple(volumes),
        faults=tuple(faults),
        left_out=tuple(left_out),
        segmentations=tuple(sorted(segmentations, key=lambda one: (one.number, one.file))),
    )


def study_of(source: Path) -> tuple[str, str]:
    """Patient id and study UID of the first DICOM image of a folder, archive or file; empty where there is none.

    Raises:
        DvtError: if pydicom is not installed, or the source cannot be read.
    """
    require_pydicom()
    with open_files(source) as files:
        for name, opener in files:
            header = read_header(name, opener)
            if header is not None and is_image(header):
                return str(header.get("PatientID") or "").strip(), str(header.get("StudyInstanceUID") or "")
    return "", ""


def choose(found: StudyContents, wanted: str | None) -> Volume:
    """The volume that is wanted, or the only one.

    Args:
        found: what is there.
        wanted: its name; or part of its title, in small or capital letters, with ``*`` for anything.

    Raises:
        DvtError: with a list of what is there, where there are several or the wanted one is not.
    """
    listed = "; ".join(f"--series {v.name}: {v.title}" for v in found.volumes)
    if wanted is None and len(found.volumes) == 1 and not found.faults:
        return found.volumes[0]
    for volume in found.volumes:
        if volume.name == wanted:
            return volume
    alike = [] if wanted is None else [v for v in found.volumes if _is_part(wanted, v.title)]
    if len(alike) == 1:
        return alike[0]
    if not found.volumes:
        others = "; ".join([*found.left_out, *(one.title for one in found.segmentations)])
        if found.faults:
            raise DamagedScan("\n".join(found.faults))
        raise DvtError(f"{found.source}: holds no volume ({others}).")
    if wanted is None and len(found.volumes) == 1:
        raise DvtError(
            "\n".join([*found.faults, f"{found.source}: besides holds {listed}. Name it to leave the rest."])
        )
    what = "holds several volumes"
    if wanted is not None:
        what += f" that {wanted} may mean"
        listed = "; ".join(f"--series {v.name}: {v.title}" for v in alike or found.volumes)
    if wanted is not None and not alike:
        what = f"holds no volume {wanted}"
    raise DvtError("\n".join([*found.faults, f"{found.source}: {what}. Choose one of: {listed}."]))


def _is_part(wanted: str, title: str) -> bool:
    """Whether words, or a pattern with ``*``, occur in a title. A number alone is the name of a series."""
    bare = wanted.strip().lower()
    return not bare.isdecimal() and bool(bare) and fnmatch.fnmatchcase(title.lower(), f"*{bare.replace('[', '[[]')}*")


def read_volume(found: StudyContents, volume: Volume) -> tuple[np.ndarray, Grid]:
    """The voxels of a volume, rescaled as its files say, in the order of its grid.

    Returns:
        int16, uint16 or what the files hold where nothing is to be rescaled, else float32; and the grid.

    Raises:
        DvtError: if a file is damaged or its compression is unknown here.
    """
    frames = volume.stack.frames
    plain = all(frame.slope == 1 and frame.intercept == 0 for frame in frames)
    array: np.ndarray | None = None
    with open_files(found.source) as files:
        openers = dict(files)
        place = {(frame.file, frame.index): k for k, frame in enumerate(frames)}
        for name in progress(list(dict.fromkeys(frame.file for frame in frames)), "Read", leave=False):
            pixels = read_pixels(f"{found.source}: {name}", openers[name])
            pixels = pixels[None] if pixels.ndim == 2 else pixels
            for index, one in enumerate(pixels):
                k = place.get((name, index))
                if k is None:
                    continue
                if one.shape != frames[k].shape:
                    raise DamagedScan(f"{found.source}: {frames[k].name}: {one.shape} pixels for {frames[k].shape}.")
                if array is None:
                    array = np.empty(volume.grid.shape, one.dtype if plain else np.float32)
                array[k] = one if plain else one * np.float64(frames[k].slope) + frames[k].intercept
    if array is None:
        raise DamagedScan(f"{found.source}: series {volume.name} has no pixels. Export it again.")
    return array, volume.grid


def headers(found: StudyContents, names: Iterable[str]) -> dict[str, Any]:
    """All tags but the pixels of some of the files, by their names.

    Raises:
        DvtError: if one cannot be read.
    """
    require_pydicom()
    made = {}
    with open_files(found.source) as files:
        openers = dict(files)
        for name in names:
            try:
                with openers[name]() as file:
                    made[name] = pydicom.dcmread(file, stop_before_pixels=True)
            except (InvalidDicomError, EOFError, OSError, KeyError, ValueError) as error:
                raise DvtError(f"{found.source}: {name}: cannot be read ({error}). Copy or export it again.") from error
    return made


def _segmentation(name: str, header: Any) -> Segmentation:
    labels = tuple(segment_label(one) for one in header.get("SegmentSequence") or ())
    number = str(read_number(header))
    said = str(header.get("SeriesDescription") or "no description")
    return Segmentation(
        file=name,
        number=number,
        title=f"segmentation {number} ({said}): {', '.join(labels) or 'no segment'}",
        series_uids=tuple(
            str(one.get("SeriesInstanceUID", "")) for one in header.get("ReferencedSeriesSequence") or ()
        ),
        labels=labels,
        made_by=_made_by(header.get("SegmentSequence") or ()),
    )


def _made_by(segments: Sequence[Any]) -> str:
    """The program that drew any of the segments without a person."""
    drawn = [one for one in segments if one.get("SegmentAlgorithmType") == "AUTOMATIC"]
    return str(drawn[0].get("SegmentAlgorithmName") or "a program") if drawn else ""
