"""Distinguish masks that predictions wrote from edited or foreign masks, which are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

from dvtplan.core import json_records
from dvtplan.core.digests import combine_digests, files_digest
from dvtplan.core.errors import DvtError, MaskEdited
from dvtplan.data import mask_files
from dvtplan.data.paths import prediction_index, prediction_indexes
from dvtplan.data.prediction_records import MADE_BY, PredictionIndex, PredictionRecord, StitchingRecord
from dvtplan.imaging.volume_names import stem


def known_digests(folder: Path) -> dict[str, set[str]]:
    """Return the digests of all masks that predictions wrote into a folder.

    Args:
        folder: of the masks. Indexes that cannot be read are skipped.

    Returns:
        File name of a mask -> digests (``digests.files_digest``), by whatever model.
    """
    known: dict[str, set[str]] = {}
    for path in prediction_indexes(folder):
        with contextlib.suppress(DvtError):
            add_known_digests(known, json_records.load(PredictionIndex, path, MADE_BY))
    return known


def add_known_digests(known: dict[str, set[str]], index: PredictionIndex) -> None:
    """Add the digests that one index lists."""
    for case_id, digest in (*index.masks.items(), *index.others.items()):
        known.setdefault(mask_files.mask_name(case_id), set()).add(digest)


def edited_masks(masks: Collection[Path]) -> set[Path]:
    """Return the masks that exist and that no prediction wrote."""
    known = {folder: known_digests(folder) for folder in {mask.parent for mask in masks}}
    return {mask for mask in masks if is_edited(mask, known[mask.parent])}


def is_edited(mask: Path, known: Mapping[str, Collection[str]]) -> bool:
    """Return whether a mask exists that no prediction wrote.

    Args:
        mask: may be missing.
        known: ``known_digests`` of its folder.
    """
    return mask.exists() and files_digest((mask,)) not in {*known.get(mask.name, ()), *_own_records(mask)}


def _own_records(mask: Path) -> set[str]:
    """Digests of this mask listed in its own run record or in its stations record."""
    digests = set()
    with contextlib.suppress(DvtError):
        single = json_records.load(PredictionRecord, mask_files.single_record_path(mask), MADE_BY)
        digests |= {case.mask_digest for case in single.cases.values() if case.mask == mask.name}
    stitched, station, _ = stem(mask).rpartition(mask_files.STATION)
    with contextlib.suppress(DvtError):
        table = mask_files.stations_path(mask.with_name(stitched if station else mask.name))
        digests |= {json_records.load(StitchingRecord, table, MADE_BY).masks.get(mask.name, "")}
    return {combine_digests([digest]) for digest in digests if digest}


def require_unedited(folder: Path) -> None:
    """Refuse to write masks into a fold's folder in which a mask was edited.

    Raises:
        MaskEdited: names an edited mask. Without an index nothing is known of the masks, and nothing is refused.
    """
    edited = sorted(edited_masks(list(folder.glob("*.nii.gz")))) if prediction_index(folder).exists() else []
    if edited:
        raise MaskEdited(
            f"{edited[0]}: was edited or comes from elsewhere, and would be replaced. Move it out of this folder; "
            "`evaluate` scores your own masks with `reference` and `predictions`."
        )


def remove_predicted(folder: Path) -> None:
    """Remove the masks in a folder that predictions wrote; edited masks and those from elsewhere are kept."""
    known = known_digests(folder)
    for mask in sorted(folder.glob("*.nii.gz")):
        if mask.name in known:
            remove_mask(mask, known)


def remove_mask(mask: Path, known: Mapping[str, Collection[str]]) -> list[Path]:
    """Remove a mask and the masks of its stations, since the scan cannot be analysed any more.

    Args:
        mask: may be missing.
        known: ``known_digests`` of its folder.

    Returns:
        Edited masks, which are kept.
    """
    kept = []
    for path in (mask, *mask_files.existing_station_masks(mask)):
        if is_edited(path, known):
            kept.append(path)
        else:
            path.unlink(missing_ok=True)
    return kept
