"""What is given to be predicted: a volume, a folder of them, a scan in DICOM, table stations; all become cases."""

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
from dvtplan.core.text import plural
from dvtplan.data.dataset import Case
from dvtplan.dicom import reader
from dvtplan.dicom.series import StudyContents, Volume, choose_volume, read_study, read_volume
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.stitching import Stitched, stitch
from dvtplan.imaging.volume_io import ENDINGS, stem


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionInput:
    """Cases to predict; their files may lie in a folder that goes again."""

    cases: tuple[Case, ...]
    one: bool
    """Whether one scan was named, whose mask may be given a name."""
    composed: Stitched | None = None
    """How stations were put together, where there are any."""
    stations: tuple[tuple[str, Grid], ...] = ()
    """Their names and grids, from head to foot."""
    found: StudyContents | None = None
    """What the DICOM holds that it comes from; none for other files."""
    shown: tuple[tuple[Volume, ...], ...] = ()
    """Of DICOM, the volumes that a mask shows: of the scan, or of each station from head to foot."""
    spoken: Mapping[Path, str] = field(default_factory=dict)
    """Files that go again -> what the user knows them as."""


def with_display_names(said: str, spoken: Mapping[Path, str]) -> str:
    """A text that names files, with the names that the user knows."""
    for path, name in spoken.items():
        said = said.replace(str(path), name)
    return said


@contextlib.contextmanager
def open_input(
    source: Path, channels: int, *, series: Sequence[str] | None = None, stations: Sequence[str] | None = None
) -> Iterator[PredictionInput]:
    """Find what a path holds.

    Args:
        source: a volume or a folder of volumes, where ``ID_0000``, ``ID_0001``, ... are channels of one
            case; or a folder, file or ZIP archive of DICOM.
        channels: of the model.
        series: of DICOM, which volumes are the channels; none where one volume is there.
        stations: DICOM series, or names of files in the folder, that overlap and are to be composed.

    Raises:
        DvtError: if nothing is there, a case lacks a channel, or several series are there and none is named.
            What is raised while cases are open and speaks of their files, speaks of the source instead.
    """
    is_dicom = not volume_files(source) and reader.is_dicom(source)
    if stations and (series or channels > 1):
        raise DvtError(f"{source}: --stations goes with a model of one channel, and without --series.")
    if series and not is_dicom:
        raise DvtError(f"{source}: is no DICOM, and --series chooses a DICOM series. Leave it away.")
    if not is_dicom and not stations:
        yield PredictionInput(cases=tuple(find_cases(source, channels)), one=source.is_file())
        return
    with tempfile.TemporaryDirectory(prefix="dvt_predict_") as scratch:
        if stations:
            given = _composed(source, stations, is_dicom, Path(scratch))
        else:
            given = _channels(source, channels, series, Path(scratch))
        try:
            yield given
        except DvtError as error:
            raise DvtError(with_display_names(str(error), given.spoken)) from error


def _channels(source: Path, channels: int, series: Sequence[str] | None, scratch: Path) -> PredictionInput:
    """Series of a scan in DICOM as the channels of one case."""
    if len(series or [""]) != channels and (series or channels > 1):
        raise DvtError(
            f"{source}: the model takes {plural(channels, 'channel')}. Give as many --series, in their order."
        )
    found, chosen = _look(source, series or (None,))
    case_id = stem(source.absolute())
    if series and len(found.volumes) > channels:
        case_id += "_series_" + "_".join(volume.name for volume in chosen)
    spoken = {}
    for k, volume in enumerate(chosen):
        path = scratch / f"{case_id}_{k:04d}.mha"
        volume_io.write_image(path, *_voxels(found, volume))
        spoken[path] = f"{source}: series {volume.name}"
    case = Case(id=case_id, patient=case_id, images=tuple(spoken))
    return PredictionInput(cases=(case,), one=True, found=found, shown=(tuple(chosen),), spoken=spoken)


def _composed(source: Path, stations: Sequence[str], is_dicom: bool, scratch: Path) -> PredictionInput:
    """Stations as one case of one volume."""
    found, chosen = None, list[Volume]()
    if is_dicom:
        found, chosen = _look(source, stations)
        parts = [_voxels(found, volume) for volume in chosen]
    else:
        parts = [_station(source / name) for name in stations]
    made = stitch(parts, [f"{source}: {name}" for name in stations])
    names = [volume.name for volume in chosen] or list(stations)
    ordered = [(names[k], parts[k][1]) for k in made.order]
    gains = ", ".join(f"{name} x{gain:.3g}" for (name, _), gain in zip(ordered, made.gains, strict=True))
    console.info(f"Composed from head to foot: {gains}; seams at z {', '.join(f'{z:.0f}' for z in made.seams_mm)} mm.")
    case_id = stem(source.absolute())
    path = scratch / f"{case_id}_0000.mha"
    volume_io.write_image(path, made.image, made.grid)
    return PredictionInput(
        cases=(Case(id=case_id, patient=case_id, images=(path,)),),
        one=True,
        composed=made,
        stations=tuple(ordered),
        found=found,
        shown=tuple((chosen[k],) for k in made.order) if chosen else (),
        spoken={path: f"{source}: the stations {', '.join(stations)}"},
    )


def _station(path: Path) -> tuple[np.ndarray, Grid]:
    try:
        return volume_io.read(path)
    except DvtError as error:
        raise (DamagedScan if path.is_file() else DvtError)(str(error)) from error


def _look(source: Path, names: Sequence[str | None]) -> tuple[StudyContents, list[Volume]]:
    """What a source holds, and the volumes of some names; tells what else is there and cannot be taken."""
    found = read_study(source)
    chosen = [choose_volume(found, name) for name in names]
    for line in (*found.faults, *found.skipped):
        console.info(f"Left out: {line}")
    return found, chosen


def _voxels(found: StudyContents, volume: Volume) -> tuple[np.ndarray, Grid]:
    twice = (
        f"; {plural(volume.stack.copies, 'image')} of the series there twice, taken once" if volume.stack.copies else ""
    )
    console.info(f"Series {volume.name}: {volume.title}{twice}")
    return read_volume(found, volume)


def volume_files(source: Path) -> list[Path]:
    """The volume files of a folder, or a file that is one."""
    if source.is_file():
        return [source] if source.name.endswith(ENDINGS) else []
    if not source.is_dir():
        return []
    return sorted(p for p in source.iterdir() if p.name.endswith(ENDINGS) and not p.name.startswith("."))


def find_cases(source: Path, channels: int) -> list[Case]:
    """The cases that a file or a folder holds, channels joined.

    Raises:
        DvtError: if nothing is there, or a case lacks a channel.
    """
    if not source.exists():
        raise DvtError(f"{source}: not found. Name a volume, or a folder of volumes, as -i.")
    listed = [source] if source.is_file() else volume_files(source)
    stems = {stem(path) for path in listed}
    by_case: dict[str, list[Path]] = {}
    for path in listed:
        bare = re.sub(r"_\d{4}$", "", stem(path))
        # A scan of one channel may be called scan_2019: digits count where there is a channel 0.
        numbered = channels > 1 or f"{bare}_0000" in stems
        by_case.setdefault(bare if numbered else stem(path), []).append(path)
    if not by_case:
        raise DvtError(f"{source}: holds no volume ({', '.join(ENDINGS)}). Name another folder as -i.")
    for case_id, paths in by_case.items():
        expected = [f"{case_id}_{i:04d}" for i in range(channels)]
        if len(paths) != channels or (channels > 1 and [stem(p) for p in paths] != expected):
            names = ", ".join(p.name for p in paths)
            raise DvtError(
                f"{source}: case {case_id} has {len(paths)} files ({names}), the model takes {channels} channels. "
                "Give one file per channel, named ID_0000, ID_0001, ..."
            )
    return [Case(id=case_id, patient=case_id, images=tuple(paths)) for case_id, paths in by_case.items()]


def one_line(error: DvtError, spoken: Mapping[Path, str]) -> str:
    """What hindered, with files called as the user knows them."""
    return with_display_names(" ".join(str(error).splitlines()), spoken)


def image_names(case: Case, spoken: Mapping[Path, str]) -> list[str]:
    """Of a case's images, as the user knows them."""
    return [spoken.get(path, path.name) for path in case.images]
