"""Burden of many scans as CSV."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from dvtplan.anatomy.levels import LIMBS
from dvtplan.core import files
from dvtplan.findings.burden import Burden, measure
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.record import ANALYSED, COULD_NOT, NOT_ANALYSED, words
from dvtplan.imaging import volume_io

CHANGED = "mask changed"
"""Of a scan whose mask is not the one that was made; it was measured as it is."""

COLUMNS = ("case_id", "status", "limb", "region", "volume_ml", "pieces", "length_mm", "largest_section_mm2",
           "top_above_level_mm", "bottom_above_level_mm", "level_mm", "level_source", "level_note",
           "scan_in_words")  # fmt: skip


# --- many scans as a table ------------------------------------------------------------------------


def write_burden_table(
    masks: Mapping[str, Path],
    divisions: Mapping[str, LevelAssignment],
    path: Path,
    failed: Mapping[str, str] | None = None,
    measured: Mapping[str, Sequence[Burden]] | None = None,
    changed: Collection[str] = (),
) -> Path:
    """Measure masks and write ``path``.

    A scan without any marked voxel has its rows, of zeros. A scan that could not be analysed has one row, of its
    status and the reason, without any number.

    Args:
        masks: by case.
        divisions: of the limbs by case; cases that are missing are not divided.
        path: of the csv.
        failed: case -> why it could not be analysed.
        measured: what masks were measured already, by case; the others are read and measured.
        changed: cases whose mask is not the one that was made; their status says so.

    Raises:
        DvtError: if a mask cannot be read or the table not written.
    """
    rows: list[dict[str, object]] = []
    for case_id, mask in masks.items():
        division = divisions.get(case_id, LevelAssignment())
        known = (measured or {}).get(case_id)
        found = measure(*volume_io.read(mask), division.levels) if known is None else known
        rows += _rows(case_id, found, division, CHANGED if case_id in changed else ANALYSED)
    for case_id, reason in (failed or {}).items():
        rows.append({"case_id": case_id, "status": NOT_ANALYSED, "scan_in_words": f"{COULD_NOT} {reason}"})
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"pieces": "Int64"})  # whole also where some are missing
    files.write_text(path, table.to_csv(index=False))
    return path


def _rows(case_id: str, found: Sequence[Burden], division: LevelAssignment, status: str) -> list[dict[str, object]]:
    told = words(found)
    level_mm = (
        dict.fromkeys(LIMBS) if division.levels is None else dict(zip(LIMBS, division.levels.both_mm, strict=True))
    )
    return [
        {
            "case_id": case_id,
            "status": status,
            "limb": burden.limb,
            "region": burden.region,
            "volume_ml": round(burden.volume_ml, 3),
            "pieces": burden.pieces,
            "length_mm": round(burden.length_mm, 1),
            "largest_section_mm2": round(burden.largest_section_mm2, 1),
            "top_above_level_mm": _tenths(burden.top_mm),
            "bottom_above_level_mm": _tenths(burden.bottom_mm),
            "level_mm": _tenths(level_mm[burden.limb]),
            "level_source": division.source,
            "level_note": division.note or None,
            "scan_in_words": told,
        }
        for burden in found
    ]


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
