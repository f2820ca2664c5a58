"""Find the mask of a series in its folder or archive, and name what lies there and is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.dicom.frame_tags import named_damage
from dvtplan.dicom.import_options import ImportOptions
from dvtplan.dicom.mask_objects import Segmentation
from dvtplan.dicom.reader import open_files
from dvtplan.dicom.segmentation_reader import misplaced, source_images
from dvtplan.dicom.series import StudyContents, Volume, read_tags
from dvtplan.dicom.series_files import ARCHIVE_ENDINGS
from dvtplan.dicom.slice_grid import POSITION_TOLERANCE_MM
from dvtplan.imaging.geometry import same_grid
from dvtplan.imaging.volume_names import MASK_ENDINGS, has_ending, is_hidden, stem

SLICER_ENDING = ".seg"
"""3D Slicer ends the names of its segmentations with this and the ending of a volume."""
UNREAD_ENDINGS = (".vtm", ".vtp", ".vtk", ".stl", ".obj", ".ply", ".mrb", ".mgz", ".mgh", ".mnc", ".mat", ".npy",
                  ".npz", ".h5", ".tif", ".tiff")  # fmt: skip
"""File endings of masks that are not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMask:
    """The mask of a series."""

    mask: Path | Segmentation | None
    """None without a mask."""
    unused: tuple[str, ...]
    """Everything else that may be a mask, each with the reason why it is not used."""


def find_mask(
    path: Path,
    study: StudyContents,
    volumes: Sequence[Volume],
    options: ImportOptions,
    mask_table: Mapping[str, str],
) -> FoundMask:
    """Find the mask that the table or the options name, else the only mask of the series.

    Args:
        path: folder or archive of the study.
        study: its contents.
        volumes: the series that the mask belongs to.
        options: of the import.
        mask_table: input -> mask file or number of a segmentation object, as ``options.masks`` lists them.

    Raises:
        DvtError: if the named mask is missing, or there are several.
    """
    reasons = {one.file: _why_not(one, study, volumes) for one in study.segmentations}
    objects = [one for one in study.segmentations if not reasons[one.file]]
    others = other_files(path)
    files = _mask_files(path, others)
    mask = _choose(path, objects, files, volumes, options, mask_table, [r for r in reasons.values() if r])
    unused = [reasons[one.file] or f"{one.file} is not chosen" for one in study.segmentations if one != mask]
    unused += [f"{one.file}: {one.title} are not read" for one in study.unread_masks]
    unused += [f"{_within(file, path)} is not chosen" for file in files if file != mask]
    unused += _unread_files(path, others)
    return FoundMask(mask=mask, unused=tuple(unused))


def mask_table_keys(path: Path) -> tuple[str, ...]:
    """Return the names under which a table of masks may list an input."""
    return str(path), path.name, stem(path)


def unused_line(path: Path, unused: Sequence[str]) -> str:
    """Return one line that names what lies in an input and is not used."""
    return f"{path}: not used: {shorten_list(unused, '; ')}."


def other_files(source: Path) -> list[str]:
    """Return the names of the files within a DICOM folder or archive that end like volumes or masks, hidden ones not
    included."""
    if source.is_file() and source.suffix.lower() != ".zip":
        return []
    with open_files(source) as files:
        names = [name for name, _ in files]
    endings = (*MASK_ENDINGS, *UNREAD_ENDINGS, *ARCHIVE_ENDINGS)
    return [name for name in names if has_ending(Path(name), endings) and not is_hidden(Path(name).name)]


def _choose(
    path: Path,
    objects: Sequence[Segmentation],
    files: Sequence[Path],
    volumes: Sequence[Volume],
    options: ImportOptions,
    mask_table: Mapping[str, str],
    reasons: Sequence[str],
) -> Path | Segmentation | None:
    entry = next((mask_table[k] for k in mask_table_keys(path) if k in mask_table), None)
    if entry is not None and options.masks is not None:
        return _mask_of_table(entry, objects, Path(options.masks), path, reasons)
    if options.segmentation is not None:
        return _choose_segmentation(options.segmentation, objects, path, volumes[0], reasons)
    if len(objects) + len(files) > 1:
        names = "; ".join([*(one.title for one in objects), *map(str, files)])
        raise DvtError(
            f"{path}: has several masks for series {volumes[0].name}: {names}. Choose a segmentation object with "
            "`segmentation`, or list the file in the table of `masks`."
        )
    return (*objects, *files, None)[0]


def _mask_of_table(
    entry: str, objects: Sequence[Segmentation], table: Path, path: Path, reasons: Sequence[str]
) -> Path | Segmentation:
    file = table.parent / entry
    named = [one for one in objects if (path / one.file).resolve() == file.resolve() or one.file == entry]
    numbered = [one for one in objects if one.number == entry]
    if named or (len(numbered) == 1 and not file.exists()):
        return (named or numbered)[0]
    if not file.is_file():
        others = f" Not used: {shorten_list(reasons, '; ')}." if reasons else ""
        raise DvtError(
            f"{file.absolute()}: not found, but {table} lists {entry} as the mask of {path.name}; paths begin at the "
            f"folder of the table. Correct the table.{others}"
        )
    return file


def _choose_segmentation(
    wanted: str, objects: Sequence[Segmentation], path: Path, volume: Volume, reasons: Sequence[str]
) -> Segmentation:
    pattern = wanted.lower()
    matching = [one for one in objects if pattern == one.number or pattern in one.title.lower()]
    if len(matching) == 1:
        return matching[0]
    count = "several segmentation objects" if matching else "no segmentation object"
    listed = "; ".join(one.title for one in matching or objects)
    others = f" Not used: {shorten_list(reasons, '; ')}." if reasons and not matching else ""
    raise DvtError(
        f"{path}: {count} of series {volume.name} match `segmentation` {wanted}. Choose one of: "
        f"{listed or '(none)'}.{others}"
    )


# --- segmentation objects -------------------------------------------------------------------------


def _why_not(one: Segmentation, study: StudyContents, volumes: Sequence[Volume]) -> str:
    """Return why a segmentation object is not a mask of the chosen series; empty if it is."""
    first = volumes[0]
    if one.patient_id and first.patient_id and one.patient_id != first.patient_id:
        return f"{one.file} is of another patient than series {first.name}"
    if {volume.series_uid for volume in volumes} & set(one.series_uids):
        if one.frame_of_reference and first.frame_of_reference not in ("", one.frame_of_reference):
            console.warn(
                f"{study.source}: {one.file} refers to series {first.name}, but has another frame of reference. Check "
                "that its mask fits."
            )
        return ""
    others = [volume.name for volume in study.volumes if volume.series_uid in one.series_uids]
    if others:
        return f"{one.file} refers to series {shorten_list(others)}"
    if one.series_uids:
        return f"{one.file} refers to a series that is not there"
    return _why_not_by_position(one, study, volumes)


def _why_not_by_position(one: Segmentation, study: StudyContents, volumes: Sequence[Volume]) -> str:
    """As ``_why_not`` for an object that refers to no series: it must lie on the voxels of the chosen series only."""
    first = volumes[0]
    start = f"{one.file} refers to no series"
    if not one.frame_of_reference or one.frame_of_reference != first.frame_of_reference:
        return f"{start}, and does not have the frame of reference of series {first.name}"
    header = read_tags(study, [one.file])[one.file]
    fault = misplaced(study, one, header, first.grid)
    if fault:
        return f"{start}, and {fault}"
    with named_damage(f"{study.source}: {one.file}"):
        named = source_images(header)
    if named and not named <= {frame.uid for volume in volumes for frame in volume.stack.frames}:
        return f"{start}, but to images that are not those of series {first.name}"
    alike = [
        volume.name
        for volume in study.volumes
        if volume not in volumes and same_grid(volume.grid, first.grid, POSITION_TOLERANCE_MM)
    ]
    if alike and not named:
        return f"{start}, and series {shorten_list(alike)} has the same voxels as series {first.name}"
    console.info(
        f"{study.source}: {one.file} refers to no series, and is used because its frames lie on the voxels of series "
        f"{first.name} in the same frame of reference."
    )
    return ""


# --- files ----------------------------------------------------------------------------------------


def _mask_files(path: Path, others: Sequence[str]) -> list[Path]:
    """Return the volume files in a folder, and those next to it with its name."""
    inside = [path / name for name in others if has_ending(Path(name), MASK_ENDINGS)] if path.is_dir() else []
    absolute = path.absolute()
    try:
        names = sorted(entry.name for entry in absolute.parent.iterdir() if entry.name.startswith(stem(absolute)))
    except OSError:  # the folder above may be closed to this user
        names = []
    beside = [absolute.with_name(name) for name in names if mask_stem(name) == stem(absolute)]
    return inside + [file for file in beside if file.is_file()]


def mask_stem(name: str) -> str | None:
    """Return the name of a volume file without its ending; None for any other file."""
    ending = next((e for e in sorted(MASK_ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), None)
    return None if ending is None else name[: -len(ending)].removesuffix(SLICER_ENDING)


def _unread_files(path: Path, others: Sequence[str]) -> list[str]:
    """Return the files that may be masks but are not read: of other formats, and volumes within an archive."""
    kinds = [
        *([] if path.is_dir() else [(MASK_ENDINGS, "lies in the archive")]),
        (ARCHIVE_ENDINGS, "is an archive of its own"),
        (UNREAD_ENDINGS, "is of a format that is not read"),
    ]
    return [f"{name} {why}" for endings, why in kinds for name in others if has_ending(Path(name), endings)]


def _within(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
