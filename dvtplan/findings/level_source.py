"""Decide which level divides a scan into proximal and distal: from a table, an option, or the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dvtplan.anatomy.landmarks import LEVEL_BELOW_KNEE_MM, Landmarks
from dvtplan.anatomy.levels import Levels
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
    """Add a note if a level lies above or below the whole scan, which is possible but often a mistake."""
    if assigned.levels is None or assigned.source == "estimated":
        return assigned
    heights = grid.corners_mm()[:, 2]
    low, high = heights.min(), heights.max()
    outside = sorted({level for level in assigned.levels.both_mm if not low <= level <= high})
    if not outside:
        return assigned
    listed = " and ".join(f"{level:g}" for level in outside)
    note = f"z {listed} mm lies outside the scan, which reaches from {low:.0f} to {high:.0f} mm"
    return replace(assigned, note=note)


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
