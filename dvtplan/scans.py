"""What is given to be predicted: a volume, a folder of them, a scan in DICOM, table stations; all become cases."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dvtplan import artifacts, dicom, journal, ledger, volumes
from dvtplan.dicom import Found, Volume
from dvtplan.errors import DamagedScan, DvtError, how_many
from dvtplan.geometry import Grid
from dvtplan.records import Case, Composition
from dvtplan.stations import Composed, compose, give_back
from dvtplan.workspace import ENDINGS, stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Cases to predict; their files may lie in a folder that goes again."""

    cases: tuple[Case, ...]
    one: bool
    """Whether one scan was named, whose mask may be given a name."""
    composed: Composed | None = None
    """How stations were put together, where there are any."""
    stations: tuple[tuple[str, Grid], ...] = ()
    """Their names and grids, from head to foot."""
    found: Found | None = None
    """What the DICOM holds that it comes from; none for other files."""
    shown: tuple[tuple[Volume, ...], ...] = ()
    """Of DICOM, the volumes that a mask shows: of the scan, or of each station from head to foot."""
    spoken: Mapping[Path, str] = field(default_factory=dict)
    """Files that go again -> what the user knows them as."""


def spoken_of(said: str, spoken: Mapping[Path, str]) -> str:
    """A text that names files, with the names that the user knows."""
    for path, name in spoken.items():
        said = said.replace(str(path), name)
    return said


@contextlib.contextmanager
def opened(
    source: Path, channels: int, *, series: Sequence[str] | None = None, stations: Sequence[str] | None = None
) -> Iterator[Given]:
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
    is_dicom = not volume_files(source) and dicom.is_dicom(source)
    if stations and (series or channels > 1):
        raise DvtError(f"{source}: --stations goes with a model of one channel, and without --series.")
    if series and not is_dicom:
        raise DvtError(f"{source}: is no DICOM, and --series chooses a DICOM series. Leave it away.")
    if not is_dicom and not stations:
        yield Given(cases=tuple(find_cases(source, channels)), one=source.is_file())
        return
    with tempfile.TemporaryDirectory(prefix="dvt_predict_") as scratch:
        if stations:
            given = _composed(source, stations, is_dicom, Path(scratch))
        else:
            given = _channels(source, channels, series, Path(scratch))
        try:
            yield given
        except DvtError as error:
            raise DvtError(spoken_of(str(error), given.spoken)) from error


def _channels(source: Path, channels: int, series: Sequence[str] | None, scratch: Path) -> Given:
    """Series of a scan in DICOM as the channels of one case."""
    if len(series or [""]) != channels and (series or channels > 1):
        raise DvtError(
            f"{source}: the model takes {how_many(channels, 'channel')}. Give as many --series, in their order."
        )
    found, chosen = _look(source, series or (None,))
    case_id = stem(source.absolute())
    if series and len(found.volumes) > channels:
        case_id += "_series_" + "_".join(volume.name for volume in chosen)
    spoken = {}
    for k, volume in enumerate(chosen):
        path = scratch / f"{case_id}_{k:04d}.mha"
        volumes.write_image(path, *_voxels(found, volume))
        spoken[path] = f"{source}: series {volume.name}"
    case = Case(id=case_id, patient=case_id, images=tuple(spoken))
    return Given(cases=(case,), one=True, found=found, shown=(tuple(chosen),), spoken=spoken)


def _composed(source: Path, stations: Sequence[str], is_dicom: bool, scratch: Path) -> Given:
    """Stations as one case of one volume."""
    found, chosen = None, list[Volume]()
    if is_dicom:
        found, chosen = _look(source, stations)
        parts = [_voxels(found, volume) for volume in chosen]
    else:
        parts = [_station(source / name) for name in stations]
    made = compose(parts, [f"{source}: {name}" for name in stations])
    names = [volume.name for volume in chosen] or list(stations)
    ordered = [(names[k], parts[k][1]) for k in made.order]
    gains = ", ".join(f"{name} x{gain:.3g}" for (name, _), gain in zip(ordered, made.gains, strict=True))
    journal.note(f"Composed from head to foot: {gains}; seams at z {', '.join(f'{z:.0f}' for z in made.seams_mm)} mm.")
    case_id = stem(source.absolute())
    path = scratch / f"{case_id}_0000.mha"
    volumes.write_image(path, made.image, made.grid)
    return Given(
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
        return volumes.read(path)
    except DvtError as error:
        raise (DamagedScan if path.is_file() else DvtError)(str(error)) from error


def write_stations(mask: Path, given: Given, *, overwrite: bool = False) -> list[Path]:
    """The part of a composed scan's mask that each station shows, on its own grid, and how it was composed.

    A station's mask that was changed by hand is kept, with a warning, unless it is to be overwritten.

    Returns:
        A mask per station, named ``MASK_station_NAME.nii.gz``, and ``MASK_stations.json``.
    """
    if given.composed is None:
        raise ValueError("nothing was composed")
    values, grid = volumes.read(mask)
    made, known = given.composed, ledger.written(mask.parent)
    table = mask.with_name(f"{stem(mask)}_stations.json")
    written, digests = [], dict[str, str]()
    with contextlib.suppress(DvtError):
        digests |= artifacts.load(Composition, table, "").masks
    for name, station in given.stations:
        path = mask.with_name(f"{stem(mask)}_station_{stem(Path(name))}.nii.gz")
        written.append(path)
        if path.exists() and not overwrite and ledger.is_changed(path, known.get(path.name, ())):
            journal.warn(f"{path}: was changed since it was made, or comes from elsewhere: it is kept.")
            continue
        volumes.write_mask(path, give_back(values, grid, station), station)
        digests[path.name] = artifacts.sha256(path)
        about = Composition(
            stations_from_head_to_foot=tuple(name for name, _ in given.stations),
            gains=tuple(made.gains),
            seams_lps_z_mm=tuple(made.seams_mm),
            masks=dict(digests),
        )
        artifacts.save(about, table)
    return [*written, *([table] if table.exists() else [])]


def levels_path(mask: Path) -> Path:
    """Where what was found of a scan's knees lies, beside its mask."""
    return mask.with_name(f"{stem(mask)}_levels.json")


def _look(source: Path, names: Sequence[str | None]) -> tuple[Found, list[Volume]]:
    """What a source holds, and the volumes of some names; tells what else is there and cannot be taken."""
    found = dicom.find(source)
    chosen = [dicom.choose(found, name) for name in names]
    for line in (*found.faults, *found.left_out):
        journal.note(f"Left out: {line}")
    return found, chosen


def _voxels(found: Found, volume: Volume) -> tuple[np.ndarray, Grid]:
    twice = (
        f"; {how_many(volume.stack.copies, 'image')} of the series there twice, taken once"
        if volume.stack.copies
        else ""
    )
    journal.note(f"Series {volume.name}: {volume.title}{twice}")
    return dicom.read(found, volume)


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
