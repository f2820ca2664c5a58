"""The mask of a stitched scan back to its stations."""

from __future__ import annotations

import contextlib
from pathlib import Path

from dvtplan.core import console, json_records
from dvtplan.core.digests import sha256
from dvtplan.core.errors import DvtError
from dvtplan.data import prediction_log
from dvtplan.data.prediction_log import Composition
from dvtplan.imaging import volume_io
from dvtplan.imaging.stitching import to_station
from dvtplan.imaging.volume_io import stem
from dvtplan.inference.inputs import PredictionInput


def write_stations(mask: Path, given: PredictionInput, *, overwrite: bool = False) -> list[Path]:
    """The part of a composed scan's mask that each station shows, on its own grid, and how it was composed.

    A station's mask that was changed by hand is kept, with a warning, unless it is to be overwritten.

    Returns:
        A mask per station, named ``MASK_station_NAME.nii.gz``, and ``MASK_stations.json``.
    """
    if given.composed is None:
        raise ValueError("nothing was composed")
    values, grid = volume_io.read(mask)
    made, known = given.composed, prediction_log.written(mask.parent)
    table = mask.with_name(f"{stem(mask)}_stations.json")
    written, digests = [], dict[str, str]()
    with contextlib.suppress(DvtError):
        digests |= json_records.load(Composition, table, "").masks
    for name, station in given.stations:
        path = mask.with_name(f"{stem(mask)}_station_{stem(Path(name))}.nii.gz")
        written.append(path)
        if path.exists() and not overwrite and prediction_log.is_changed(path, known.get(path.name, ())):
            console.warn(f"{path}: was changed since it was made, or comes from elsewhere: it is kept.")
            continue
        volume_io.write_mask(path, to_station(values, grid, station), station)
        digests[path.name] = sha256(path)
        about = Composition(
            stations_from_head_to_foot=tuple(name for name, _ in given.stations),
            gains=tuple(made.gains),
            seams_lps_z_mm=tuple(made.seams_mm),
            masks=dict(digests),
        )
        json_records.save(about, table)
    return [*written, *([table] if table.exists() else [])]
