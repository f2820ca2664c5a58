"""Map the mask of a stitched scan back to its stations."""

from __future__ import annotations

import contextlib
from pathlib import Path

from dvtplan.core import console, json_records
from dvtplan.core.digests import sha256
from dvtplan.core.errors import DvtError
from dvtplan.data.edited_masks import is_edited, known_digests
from dvtplan.data.mask_files import station_mask_path, stations_path
from dvtplan.data.prediction_records import MADE_BY, StitchingRecord
from dvtplan.imaging import volume_io
from dvtplan.imaging.stitching import to_station
from dvtplan.inference.inputs import PredictionInput


def write_stations(mask: Path, source: PredictionInput, *, overwrite: bool = False) -> list[Path]:
    """Write the mask of each station on its own grid, and how the scan was stitched.

    Args:
        mask: of the stitched scan.
        source: the input.
        overwrite: replace edited masks of stations, which are otherwise kept with a warning.

    Returns:
        A mask per station, ``MASK_station_NAME.nii.gz``, and ``MASK_stations.json``.

    Raises:
        DvtError: if a file cannot be written.
    """
    if source.stitched is None:
        raise ValueError("the input has no stations")
    values, grid = volume_io.read(mask)
    known, table = known_digests(mask.parent), stations_path(mask)
    written, digests = [], dict[str, str]()
    with contextlib.suppress(DvtError):
        digests |= json_records.load(StitchingRecord, table, MADE_BY).masks
    for name, station in source.stations:
        path = station_mask_path(mask, name)
        written.append(path)
        if not overwrite and is_edited(path, known):
            console.warn(f"{path}: was edited or comes from elsewhere and is kept.")
            continue
        volume_io.write_mask(path, to_station(values, grid, station), station)
        digests[path.name] = sha256(path)
        record = StitchingRecord(
            stations_from_head_to_foot=tuple(name for name, _ in source.stations),
            gains=tuple(source.stitched.gains),
            seams_lps_z_mm=tuple(source.stitched.seams_mm),
            masks=dict(digests),
        )
        json_records.save(record, table)
    return [*written, *([table] if table.exists() else [])]
