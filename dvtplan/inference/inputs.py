"""Turn an input into cases: a volume, a folder of volumes, a DICOM scan, or table stations."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dvtplan.core import console
from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural, shorten_list
from dvtplan.data.dataset import Case
from dvtplan.dicom.series import StudyContents, Volume, choose_volumes, read_study, read_volume
from dvtplan.dicom.series_files import ARCHIVE_ENDINGS
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.stitching import Stitched, stitch
from dvtplan.imaging.volume_names import GIPL, has_ending, stem
from dvtplan.inference.input_files import (
    SLICER_ENDINGS,
    is_dicom_input,
    nothing_to_read,
    report_unused_files,
    report_unused_objects,
    volume_files,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionInput:
    """Cases to predict; their files may be temporary."""

    cases: tuple[Case, ...]
    is_single: bool
    """Whether the input is one scan, so that its mask may have a name of its own."""
    stitched: Stitched | None = None
    """The stitched scan, for stations."""
    stations: tuple[tuple[str, Grid], ...] = ()
    """Names and grids of the stations, from head to foot."""
    study: StudyContents | None = None
    """Contents of the DICOM input; None for other files."""
    source_volumes: tuple[tuple[Volume, ...], ...] = ()
    """The DICOM volumes of each mask: one item for a scan, or one per station from head to foot."""
    display_names: Mapping[Path, str] = field(default_factory=dict)
    """Temporary file -> name to show to the user."""


def with_display_names(text: str, names: Mapping[Path, str]) -> str:
    """Replace the paths of temporary files in a text."""
    for path, name in names.items():
        text = text.replace(str(path), name)
    return text


@contextlib.contextmanager
def open_input(
    source: Path, channels: int, *, series: Sequence[str] | None = None, stations: Sequence[str] | None = None
) -> Iterator[PredictionInput]:
    """Find the cases of an input. Temporary files exist inside the context only.

    Args:
        source: a volume or a folder of volumes, where ``ID_0000``, ``ID_0001``, ... are the channels of a case; or
            a folder, file or ZIP archive of DICOM.
        channels: of the model.
        series: DICOM series, one per channel; None if there is a single volume.
        stations: DICOM series, or file names in the folder, that overlap and are stitched.

    Raises:
        DvtError: if the input is missing, a case lacks a channel, or one of several series must be chosen. Errors
            inside the context show display names in place of temporary files.
    """
    if stations and series:
        raise DvtError("`stations` and `series` cannot be used together. Use only one of them.")
    is_dicom = is_dicom_input(source, series=series, stations=stations)
    if stations and channels > 1:
        raise DvtError(f"{source}: the model takes {channels} channels, but `stations` needs a model of one channel.")
    if stations and not is_dicom and not source.is_dir():
        raise DvtError(f"{source}: is not a folder. Give the folder of the files that `stations` names.")
    if series and not is_dicom:
        raise DvtError(f"{source}: is not DICOM, which `series` requires. Omit `series`.")
    if not is_dicom and not stations:
        cases = tuple(find_cases(source, channels))
        report_unused_files(source, (path for case in cases for path in case.images))
        yield PredictionInput(cases=cases, is_single=source.is_file())
        return
    with tempfile.TemporaryDirectory(prefix="dvt_predict_") as scratch:
        if stations:
            opened = _stitched_input(source, stations, is_dicom, Path(scratch))
        else:
            opened = _dicom_input(source, channels, series, Path(scratch))
        try:
            yield opened
        except DvtError as error:
            raise DvtError(with_display_names(str(error), opened.display_names)) from error


def _dicom_input(source: Path, channels: int, series: Sequence[str] | None, scratch: Path) -> PredictionInput:
    """Make one case of the series of a DICOM scan."""
    if len(series or [""]) != channels and (series or channels > 1):
        raise DvtError(
            f"{source}: the model takes {plural(channels, 'channel')}. Give as many `series`, in the same order."
        )
    study, chosen = _choose_volumes(source, series or (None,))
    case_id = stem(source.absolute())
    if series and len(study.volumes) > channels:
        case_id += "_series_" + "_".join(volume.name for volume in chosen)
    names = {}
    for k, volume in enumerate(chosen):
        path = scratch / f"{case_id}_{k:04d}.mha"
        volume_io.write_image(path, *_read(study, volume))
        names[path] = f"{source}: series {volume.name}"
    case = Case(id=case_id, patient=case_id, images=tuple(names))
    return PredictionInput(
        cases=(case,), is_single=True, study=study, source_volumes=(tuple(chosen),), display_names=names
    )


def _stitched_input(source: Path, stations: Sequence[str], is_dicom: bool, scratch: Path) -> PredictionInput:
    """Make one case of the stitched stations."""
    study: StudyContents | None = None
    chosen: tuple[Volume, ...] = ()
    if is_dicom:
        study, chosen = _choose_volumes(source, stations)
        parts = [_read(study, volume) for volume in chosen]
    else:
        if len(set(stations)) < len(stations):
            raise DvtError(f"{source}: a file is named twice in `stations`. Name each once.")
        parts = [_read_station(source / name) for name in stations]
    stitched = stitch(parts, [f"{source}: {name}" for name in stations])
    names = [volume.name for volume in chosen] or list(stations)
    ordered = [(names[k], parts[k][1]) for k in stitched.order]
    gains = ", ".join(f"{name} x{gain:.3g}" for (name, _), gain in zip(ordered, stitched.gains, strict=True))
    seams = ", ".join(f"{z:.0f}" for z in stitched.seams_mm)
    console.info(f"Stitched from head to foot: {gains}; seams at z {seams} mm.")
    case_id = stem(source.absolute())
    path = scratch / f"{case_id}_0000.mha"
    volume_io.write_image(path, stitched.image, stitched.grid)
    return PredictionInput(
        cases=(Case(id=case_id, patient=case_id, images=(path,)),),
        is_single=True,
        stitched=stitched,
        stations=tuple(ordered),
        study=study,
        source_volumes=tuple((chosen[k],) for k in stitched.order) if chosen else (),
        display_names={path: f"{source}: stations {', '.join(stations)}"},
    )


def _read_station(path: Path) -> tuple[np.ndarray, Grid]:
    try:
        return volume_io.read(path)
    except DvtError as error:
        raise (DamagedScan if path.is_file() else DvtError)(str(error)) from error


def _choose_volumes(source: Path, names: Sequence[str | None]) -> tuple[StudyContents, tuple[Volume, ...]]:
    """Return the contents of a DICOM source and the volumes of these names; log the series that cannot be used."""
    study = read_study(source)
    chosen = choose_volumes(study, names)
    for line in (*study.faults, *study.skipped):
        console.info(f"Skipped: {line}")
    report_unused_objects(study)
    return study, chosen


def _read(study: StudyContents, volume: Volume) -> tuple[np.ndarray, Grid]:
    copies = len(volume.stack.copies)
    duplicates = f"; {plural(copies, 'duplicate image')} ignored" if copies else ""
    console.info(f"Series {volume.name}: {volume.title}{duplicates}")
    return read_volume(study, volume)


def find_cases(source: Path, channels: int) -> list[Case]:
    """Group the volumes of a file or folder into cases.

    Args:
        source: a volume, or a folder of volumes.
        channels: of the model, so files per case.

    Raises:
        DvtError: if there is no volume, or a case lacks a channel.
    """
    if not source.exists():
        raise DvtError(f"{source}: not found. Choose a volume or a folder of volumes as `input`.")
    if source.is_file() and source.name.lower().endswith(SLICER_ENDINGS):
        raise DvtError(f"{source}: is a segmentation of 3D Slicer, expected a scan. Choose another `input`.")
    if source.is_file() and has_ending(source, GIPL):
        raise DvtError(f"{source}: GIPL stores no direction of the axes. Export the scan as .nii.gz.")
    if source.is_file() and source.name.lower().endswith(ARCHIVE_ENDINGS):
        raise DvtError(f"{source}: is an archive that is not opened. Unpack it, or pack its files as .zip.")
    files = [source] if source.is_file() else volume_files(source)
    stems = {stem(path) for path in files}
    by_case: dict[str, list[Path]] = {}
    for path in files:
        bare = re.sub(r"_\d{4}$", "", stem(path))
        # A scan of one channel may be called scan_2019, so digits are a channel only if there is a channel 0.
        numbered = channels > 1 or f"{bare}_0000" in stems
        by_case.setdefault(bare if numbered else stem(path), []).append(path)
    if not by_case:
        raise DvtError(nothing_to_read(source))
    for case_id, paths in by_case.items():
        expected = [f"{case_id}_{i:04d}" for i in range(channels)]
        if len(paths) != channels or (channels > 1 and [stem(p) for p in paths] != expected):
            found = shorten_list([p.name for p in paths])
            if len(paths) > 1 and len({stem(p) for p in paths}) == 1:
                raise DvtError(
                    f"{source}: {found} have one name, so the scan {case_id} is ambiguous. Keep one of them."
                )
            raise DvtError(
                f"{source}: case {case_id} has {len(paths)} files ({found}), the model takes "
                f"{plural(channels, 'channel')}. Give one file per channel, named ID_0000, ID_0001, ..."
            )
    return [Case(id=case_id, patient=case_id, images=tuple(paths)) for case_id, paths in by_case.items()]


def one_line(error: DvtError, names: Mapping[Path, str]) -> str:
    """Return an error in one line, with display names."""
    return with_display_names(" ".join(str(error).splitlines()), names)


def image_names(case: Case, names: Mapping[Path, str]) -> list[str]:
    """Return the display names of a case's images."""
    return [names.get(path, path.name) for path in case.images]
