"""Decide which level divides a scan into proximal and distal: from a table, an option, or the image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dvtplan.anatomy.landmarks import LEVEL_BELOW_KNEE_MM, Landmarks
from dvtplan.anatomy.levels import Levels
from dvtplan.core.text import shorten_list
from dvtplan.imaging.geometry import Grid

LEVEL_SOURCES = {
    "table": "from a table",
    "given": "set by the user",
    "estimated": "estimated from the image",
    "none": "of unknown origin",
}
"""Source of a level, as in the tables -> in words. The sources are the table of cases, an option, and the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelAssignment:
    """The levels of one scan and where they come from."""

    levels: Levels | None = None
    source: str = "none"
    """A key of ``LEVEL_SOURCES``."""
    note: str = ""
    """What a reader should know about the levels; may be empty."""

    def __post_init__(self) -> None:
        if self.source not in LEVEL_SOURCES or (self.levels is None) != (self.source == "none"):
            raise ValueError(f"levels {self.levels} cannot come from {self.source!r}")


def note_outside(assigned: LevelAssignment, grid: Grid) -> LevelAssignment:
    """Add a note if a level or the midline lies outside the whole scan, which is possible but often a mistake."""
    levels = assigned.levels
    if levels is None or assigned.source == "estimated":
        return assigned
    corners = grid.corners_mm()
    midline = [] if levels.midline_mm is None else [levels.midline_mm]
    notes = [_outside("z", levels.both_mm, corners[:, 2]), _outside("midline x", midline, corners[:, 0])]
    note = "; ".join(filter(None, notes))
    return replace(assigned, note=note) if note else assigned


def _outside(name: str, values: Sequence[float], extent: np.ndarray) -> str:
    """Name the values that lie outside the extent of a scan; empty if there are none."""
    low, high = extent.min(), extent.max()
    outside = sorted({value for value in values if not low <= value <= high})
    if not outside:
        return ""
    listed = " and ".join(f"{value:g}" for value in outside)
    return f"{name} {listed} mm lies outside the scan, which reaches from {low:.0f} to {high:.0f} mm"


def table_warnings(
    path: Path, table: Collection[str], scans: Sequence[Collection[str]], *, source: Path | None, given: bool
) -> list[str]:
    """Warn of scans without a row in a table of levels, and of rows without a scan.

    Args:
        path: of the table.
        table: its cases.
        scans: the names under which each scan may be listed, the first for the message.
        source: the folder of the scans; None if the table may list others, and rows without a scan are ordinary.
        given: an option gives the level of scans without a row; otherwise it is estimated.
    """
    lines = []
    missing = [next(iter(names)) for names in scans if not set(names) & set(table)]
    if missing:
        origin = "taken from `level`" if given else "estimated from the image"
        lines.append(f"{path}: has no row for {shorten_list(missing)}. The level is {origin}.")
    unknown = sorted(set(table) - {name for names in scans for name in names})
    if unknown and source is not None:
        lines.append(f"{path}: no scan in {source} for the rows {shorten_list(unknown)}. Check case_id.")
    return lines


def assign_levels(
    names: Sequence[str],
    table: Mapping[str, Levels | None],
    given: Levels | None,
    estimated: Mapping[str, Landmarks],
) -> dict[str, LevelAssignment]:
    """Choose the levels of each scan.

    Args:
        names: of the scans.
        table: levels by scan; first choice.
        given: levels of all other scans; second choice.
        estimated: knees found in the images; third choice. A scan without a knee is not divided.
    """
    return {name: _assign(table.get(name), given, estimated.get(name)) for name in names}


def _assign(listed: Levels | None, given: Levels | None, estimated: Landmarks | None) -> LevelAssignment:
    if listed is not None:
        return LevelAssignment(levels=listed, source="table")
    if given is not None:
        return LevelAssignment(levels=given, source="given")
    if estimated is None:
        return LevelAssignment()
    if estimated.levels is None:
        return LevelAssignment(note=estimated.text)
    offset = f"the level is assumed {LEVEL_BELOW_KNEE_MM:g} mm below it"
    only_one = estimated.left.level_mm is None or estimated.right.level_mm is None
    shared = "; the level of one limb is used for both" if only_one else ""
    return LevelAssignment(levels=estimated.levels, source="estimated", note=f"{estimated.text}; {offset}{shared}")
