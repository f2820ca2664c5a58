"""Find the files of each series of a folder or archive: which belong together, and which belong to none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvtplan.core.console import progress
from dvtplan.core.text import plural, shorten_list
from dvtplan.dicom.directory import read_directory
from dvtplan.dicom.image_groups import MIN_SLICES
from dvtplan.dicom.mask_objects import Segmentation, UnreadMask, describe_object
from dvtplan.dicom.reader import (
    DamagedFile,
    is_directory,
    is_image,
    missing_tags,
    open_files,
    read_header,
    series_number,
    tag_value,
)

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
"""Endings in lower case that only DICOM files have. Most exports give none."""

ARCHIVE_ENDINGS = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".iso")
"""Endings of archives in lower case, which may hold a scan or a mask."""

Entry = tuple[str, Any]
"""File name and header."""

IDENTITY = (
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
)
"""Tags that all images of a series share. Anonymizers empty the UID, or give several series the same one."""

FRAME_OF_REFERENCE = "FrameOfReferenceUID"
"""Tag of the coordinates: positions in different ones cannot be compared."""
INTERRUPTED = (".part", ".partial", ".filepart", ".crdownload", ".download", ".tmp")
"""Endings that programs give to files until they are complete."""
PRIVATE = "PatientID"
"""The tag whose value is never shown."""
CROSSED = 0.5
"""Difference of absolute cosines between images of different planes."""
CONCATENATION = ("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber")
"""Tags of one of several files that a multi-frame object is divided into."""
INSTANCES = "NumberOfSeriesRelatedInstances"
"""Tag with the number of files of a series in the archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFiles:
    """The images of one series."""

    entries: tuple[Entry, ...]
    fault: str = ""
    """Why the series cannot be read, whatever its images contain; empty if nothing is wrong so far."""
    notes: tuple[str, ...] = ()
    """What the user should know: images of the series without a place, or hints that files are missing."""
    is_uid_shared: bool = False
    """Whether another series has the same series UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFiles:
    """The files of a folder or archive."""

    series: tuple[SeriesFiles, ...]
    """By series number."""
    masks: tuple[Segmentation | UnreadMask, ...]
    damaged: tuple[DamagedFile, ...]
    unplaced: tuple[str, ...]
    """One line for each series of images without a place in the patient, such as screenshots."""
    archives: tuple[str, ...] = ()
    """Archives within the folder or archive, which are not read."""


@dataclass(slots=True)
class _Headers:
    """The headers of a folder or archive, by kind of file."""

    images: list[Entry] = field(default_factory=list)
    unplaced: list[Entry] = field(default_factory=list)
    """Images without a place in the patient."""
    masks: list[Segmentation | UnreadMask] = field(default_factory=list)
    damaged: list[DamagedFile] = field(default_factory=list)
    endings: set[str] = field(default_factory=lambda: {*DICOM_ENDINGS, *INTERRUPTED})
    """Of the names of DICOM files. An empty file that is called like one is taken for a damaged slice."""
    listed: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """What a DICOMDIR lists."""
    archives: list[str] = field(default_factory=list)


def find_files(source: Path) -> StudyFiles:
    """Read the header of every file, and group the images by series.

    Raises:
        DvtError: if the source cannot be read.
    """
    found = _read_headers(source)
    groups = sorted(
        _by_identity(found.images), key=lambda group: (series_number(group[0][1]), min(name for name, _ in group))
    )
    alone = [entry for entry in found.unplaced if not any(_lacks_place(entry, group[0]) for group in groups)]
    present = {_value(entry, "SOPInstanceUID") for entry in (*found.images, *found.unplaced)}
    return StudyFiles(
        series=tuple(
            SeriesFiles(
                entries=tuple(group),
                fault=_fault(group, groups, found.unplaced)
                or _not_copied(found.listed.get(_uid(group[0]), {}), present)
                or _missing_part(group),
                notes=_notes(group, [entry for entry in found.unplaced if _uid(entry) == _uid(group[0]) != ""]),
                is_uid_shared=sum(_uid(other[0]) == _uid(group[0]) for other in groups) > 1,
            )
            for group in groups
        ),
        masks=tuple(found.masks),
        damaged=tuple(one for one in found.damaged if one.certain or _is_called_like_an_image(one.name, found)),
        unplaced=tuple(_unplaced_line(group) for group in _by_identity(alone)),
        archives=tuple(found.archives),
    )


def _read_headers(source: Path) -> _Headers:
    found = _Headers()
    with open_files(source) as files:
        for name, opener in progress(files, "Read headers", leave=False):
            if is_directory(name):
                found.listed |= read_directory(name, opener)
            try:
                header = read_header(name, opener)
            except DamagedFile as error:
                header = None
                if not _is_archive(name):
                    found.damaged.append(error)
            if header is None:
                found.archives += [name] if _is_archive(name) else []
                continue
            found.endings.add(_ending(name))
            mask = describe_object(name, header)
            if mask is not None:
                found.masks.append(mask)
            elif is_image(header):
                found.images.append((name, header))
            elif missing_tags(header):
                found.unplaced.append((name, header))
    return found


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_ENDINGS)


def _ending(name: str) -> str:
    """Return the ending of a file name; a number, as in 1.2.3 or IM.0007, is none."""
    ending = Path(name).suffix.lower()
    return "" if ending[1:].isdecimal() else ending


def _is_called_like_an_image(name: str, found: _Headers) -> bool:
    """Return whether a file has the ending of an image. If it has none, and all images have numbers in their names, so
    must it: LOCKFILE and VERSION lie on many media, and are often empty."""
    ending = _ending(name)
    images = [*found.images, *found.unplaced]
    are_numbered = bool(images) and all(_has_digit(image) for image, _ in images)
    return ending in found.endings and (ending != "" or not are_numbered or _has_digit(name))


def _has_digit(name: str) -> bool:
    return any(map(str.isdecimal, Path(name).name))


def _value(entry: Entry, keyword: str) -> str:
    return str(entry[1].get(keyword) or "").strip()


def _uid(entry: Entry) -> str:
    return _value(entry, IDENTITY[0])


def _by_identity(entries: Sequence[Entry]) -> list[list[Entry]]:
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(_value(entry, keyword) for keyword in IDENTITY), []).append(entry)
    return [part for group in groups.values() for part in _by_frame_of_reference(group)]


def _by_frame_of_reference(group: list[Entry]) -> list[list[Entry]]:
    """Divide images by their coordinates. These tell nothing if each image has others, as anonymizers write them."""
    parts: dict[str, list[Entry]] = {}
    for entry in group:
        parts.setdefault(_value(entry, FRAME_OF_REFERENCE), []).append(entry)
    return [group] if len(parts.keys() - {""}) < 2 or len(parts) == len(group) else list(parts.values())


def _fault(group: Sequence[Entry], groups: Sequence[list[Entry]], unplaced: Sequence[Entry]) -> str:
    """Return why a series cannot be read: files that belong to it may be missing from it."""
    for entry in unplaced:
        if _lacks_place(entry, group[0]):
            return (
                f"{entry[0]}: has no {missing_tags(entry[1])[0]}, so its place in the series is unknown. Export it "
                "again with this tag, or remove the file if it is not part of the scan."
            )
    for other in groups:
        if other is group or min(_count(group), _count(other)) >= MIN_SLICES or _are_crossed(group[0], other[0]):
            continue
        differs = tuple(keyword for keyword in IDENTITY if _value(group[0], keyword) != _value(other[0], keyword))
        few, many = sorted((group, other), key=_count)
        uids = {_uid(group[0]), _uid(other[0])}
        is_named = all(_value(group[0], keyword) for keyword in ("SeriesNumber", "SeriesDescription"))
        if (len(uids) == 1 and "" not in uids) or (differs == IDENTITY[:1] and ("" in uids or is_named)):
            word = differs[0] if differs else FRAME_OF_REFERENCE
            found, expected = (_value(entries[0], word) or "empty" for entries in (few, many))
            values = "" if word == PRIVATE else f" ({found} against {expected})"
            return (
                f"{few[0][0]}: its {word} differs from that of {many[0][0]}{values}, so it is unknown whether "
                "they are one series. Export the series again."
            )
    return ""


def _are_crossed(one: Entry, other: Entry) -> bool:
    """Return whether two images state orientations that no volume has together, as of a localizer in three planes."""
    axes = [tag_value(header, "ImageOrientationPatient") for _, header in (one, other)]
    try:
        return any(abs(abs(float(a)) - abs(float(b))) > CROSSED for a, b in zip(*axes, strict=True))
    except (TypeError, ValueError):  # missing, as in multi-frame objects, or damaged
        return False


def _not_copied(listed: Mapping[str, str], present: Collection[str]) -> str:
    """Return that a DICOMDIR lists images of a series that are not there, if others of it are."""
    missing = [file for uid, file in listed.items() if uid not in present]
    if not missing or len(missing) == len(listed):
        return ""
    return (
        f"DICOMDIR lists {plural(len(missing), 'image')} of it that are not there: {shorten_list(missing)}. Copy the "
        "complete folder, or remove DICOMDIR if it is out of date."
    )


def _missing_part(group: Sequence[Entry]) -> str:
    """Return that a multi-frame object was divided into several files, and not all are there."""
    parts: dict[str, set[str]] = {}
    totals: dict[str, int] = {}
    for entry in group:
        uid, number, total = (_value(entry, word) for word in CONCATENATION)
        if uid and number and total.isdecimal():
            parts.setdefault(uid, set()).add(number)
            totals[uid] = int(total)
    short = next((uid for uid in parts if len(parts[uid]) < totals[uid]), None)
    if short is None:
        return ""
    return (
        f"its frames are divided into {plural(totals[short], 'file')} (InConcatenationTotalNumber), but "
        f"{len(parts[short])} found. Export the complete series again."
    )


def _notes(group: Sequence[Entry], unplaced: Sequence[Entry]) -> tuple[str, ...]:
    """Return what the user should know about the files of a series.

    Args:
        group: its images.
        unplaced: images without a place that have its series UID.
    """
    notes = [f"{name} has no {missing_tags(header)[0]} and is not part of a volume" for name, header in unplaced]
    found = len(group) + len(unplaced)
    declared = max((int(n) for one in group if (n := _value(one, INSTANCES)).isdecimal()), default=0)
    if declared > found:
        notes.append(f"{INSTANCES} is {declared}, but {plural(found, 'file')} found: check that none is missing")
    return tuple(notes)


def _lacks_place(entry: Entry, other: Entry) -> bool:
    """Return whether an image without a place is of the same series and kind as one with a place."""
    alike = [keyword for keyword in (*IDENTITY, "SOPClassUID") if _value(entry, keyword) == _value(other, keyword)]
    return IDENTITY[0] in alike and "SOPClassUID" in alike and (bool(_uid(entry)) or len(alike) == len(IDENTITY) + 1)


def _count(entries: Sequence[Entry]) -> int:
    """Return the number of images in files."""
    return sum(len(header.get("PerFrameFunctionalGroupsSequence") or [None]) for _, header in entries)


def _unplaced_line(entries: Sequence[Entry]) -> str:
    name, header = entries[0]
    description = _value(entries[0], "SeriesDescription") or "no description"
    return (
        f"series {series_number(header)} ({description}): {plural(len(entries), 'image')} without "
        f"{missing_tags(header)[0]}, such as {name}"
    )
