"""Tell which files of an input are the scan: volumes or DICOM; name the files that are not used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.files import walk_files
from dvtplan.core.text import plural, shorten_list
from dvtplan.dicom import mask_search, reader
from dvtplan.dicom.series import StudyContents
from dvtplan.imaging import volume_io
from dvtplan.imaging.volume_names import ENDINGS, NOT_IMAGES, is_hidden

SLICER_ENDINGS = tuple(f".seg{ending}" for ending in (".nrrd", ".nhdr"))
"""File endings of segmentations of 3D Slicer, which are not scans."""


def volume_files(source: Path) -> list[Path]:
    """Return the volume files of a folder; for a volume file, itself. Segmentations of 3D Slicer are not among them."""
    if source.is_file():
        return [source] if _is_volume(source) else []
    if not source.is_dir():
        return []
    return sorted(path for path in source.iterdir() if _is_volume(path))


def _is_volume(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(ENDINGS) and not name.endswith(SLICER_ENDINGS) and not is_hidden(name)


def nothing_to_read(source: Path) -> str:
    """Return the message for a folder without a scan: name what is there instead."""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(source.iterdir())]
    shown = [name for name in names if not is_hidden(name.rstrip("/"))]
    found = f"only {shorten_list(shown)}" if shown else "no file at all"
    return (
        f"{source}: contains no volume ({', '.join(ENDINGS)}) and no DICOM image, {found}. Choose the folder or file "
        "of the scan as `input`, and unpack what is packed."
    )


def is_dicom_input(source: Path, *, series: Sequence[str] | None, stations: Sequence[str] | None) -> bool:
    """Return whether the scan of an input is its DICOM images. Otherwise it is its volumes.

    A folder may hold both, such as a series with its mask. DICOM images next to the volumes, or named by ``series`` or
    ``stations``, are the scan then. If they lie in sub-folders only, either may be meant.

    Raises:
        DvtError: if either may be meant.
    """
    volumes = volume_files(source)
    if not volumes or source.is_file():
        return not volumes and reader.is_dicom(source)
    if stations and all((source / name).is_file() for name in stations):
        return False
    image = _first_image(source)
    if image is None:
        return False
    if not series and not stations and image.parent != source:
        names = shorten_list([path.name for path in volumes])
        raise DvtError(
            f"{source}: contains both volumes ({names}) and a folder with DICOM images ({image.parent}), expected one "
            "of them. Give the folder or file of the scan as `input`."
        )
    return True


def _first_image(source: Path) -> Path | None:
    """Return a DICOM image of a folder, if possible one that lies in no sub-folder; None without an image."""
    paths = sorted(walk_files(source), key=lambda path: path.parent != source)
    for path in paths:
        if path.name.lower().endswith((*ENDINGS, *NOT_IMAGES)) or not reader.is_dicom(path):
            continue
        try:
            header = reader.read_header(path.name, lambda path=path: path.open("rb"))  # type: ignore[misc]
        except DvtError:  # reported when the study is read
            return path
        if header is not None and reader.is_image(header):
            return path
    return None


def report_unused_objects(study: StudyContents) -> None:
    """Name the masks and volumes that lie next to the DICOM images of an input."""
    volumes = mask_search.other_files(study.source)
    objects = [*(one.file for one in study.segmentations), *(one.file for one in study.unread_masks)]
    if volumes:
        console.warn(
            f"{study.source}: the scan is its DICOM images, so {shorten_list([*volumes, *objects])} "
            f"{'is' if len(volumes) + len(objects) == 1 else 'are'} not used."
        )
    elif objects:
        console.info(f"{study.source}: masks are not used: {shorten_list(objects)}.")


def report_unused_files(source: Path, used: Iterable[Path]) -> None:
    """Name the files and folders next to the volumes of an input that are not used."""
    if not source.is_dir():
        return
    names = {file for path in used for file in volume_io.files_of(path)}
    unused = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in sorted(source.iterdir())
        if path not in names
        and not is_hidden(path.name)
        and not path.name.lower().endswith(NOT_IMAGES)
        and not any(path.glob("predictions*.json"))  # masks of an earlier run
    ]
    if unused:
        console.warn(f"{source}: {plural(len(unused), 'entry', 'entries')} not used: {shorten_list(unused)}.")
