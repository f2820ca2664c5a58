"""What was found on scans, as a table: a row for each scan, limb and region, with its thrombus burden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dvtplan import artifacts, volumes
from dvtplan.burden import LIMBS, category, measure
from dvtplan.landmarks import LEVEL_BELOW_KNEE_MM, Landmarks
from dvtplan.records import Levels

COLUMNS = ("case_id", "limb", "region", "volume_ml", "pieces", "length_mm", "largest_section_mm2",
           "top_above_level_mm", "bottom_above_level_mm", "level_mm", "level_source", "level_note",
           "in_words")  # fmt: skip

SOURCES = ("table", "given", "estimated", "none")
"""Who says where the levels are: a table of cases, the command line, the image; or nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The levels of one scan and who says so."""

    levels: Levels | None = None
    source: str = "none"
    """One of ``SOURCES``."""
    note: str = ""
    """What a reader of the table should know of them; empty where there is nothing to say."""

    def __post_init__(self) -> None:
        if self.source not in SOURCES or (self.levels is None) != (self.source == "none"):
            raise ValueError(f"levels {self.levels} cannot come from {self.source!r}")


def divide(
    names: Sequence[str],
    table: Mapping[str, Levels | None],
    given: Levels | None,
    found: Mapping[str, Landmarks],
) -> dict[str, Division]:
    """Decide how each scan is divided.

    Args:
        names: of the scans.
        table: levels by scan, which come first.
        given: levels of all other scans; they come second.
        found: what was found in the images of others; where nothing was, the scan is not divided.
    """
    return {name: _division(table.get(name), given, found.get(name)) for name in names}


def _division(told: Levels | None, given: Levels | None, found: Landmarks | None) -> Division:
    if told is not None:
        return Division(levels=told, source="table")
    if given is not None:
        return Division(levels=given, source="given")
    if found is None:
        return Division()
    if found.levels is None:
        return Division(note=found.text)
    how = f"the level is {LEVEL_BELOW_KNEE_MM:g} mm below, as in most people"
    alone = found.left.level_mm is None or found.right.level_mm is None
    return Division(
        levels=found.levels,
        source="estimated",
        note=f"{found.text}; {how}{', and that of one limb serves both' if alone else ''}",
    )


def write(masks: Mapping[str, Path], divisions: Mapping[str, Division], path: Path) -> Path:
    """Measure masks and write ``path``.

    A scan without any marked voxel has its rows, of zeros: a scan that could not be analysed has none.

    Args:
        masks: by case.
        divisions: of the limbs by case; cases that are missing are not divided.
        path: of the csv.

    Raises:
        DvtError: if a mask cannot be read or the table not written.
    """
    rows = [row for case_id, mask in masks.items() for row in _rows(case_id, mask, divisions.get(case_id, Division()))]
    artifacts.write_text(path, pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False))
    return path


def _rows(case_id: str, path: Path, division: Division) -> Sequence[dict[str, object]]:
    mask, grid = volumes.read(path)
    found = measure(mask, grid, division.levels)
    words = category(found)
    level_mm = (
        dict.fromkeys(LIMBS) if division.levels is None else dict(zip(LIMBS, division.levels.both_mm, strict=True))
    )
    return [
        {
            "case_id": case_id,
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
            "in_words": words,
        }
        for burden in found
    ]


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
