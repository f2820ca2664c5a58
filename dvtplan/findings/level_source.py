"""Who says where a level is: table, option, image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dvtplan.anatomy.landmarks import LEVEL_BELOW_KNEE_MM, Landmarks
from dvtplan.anatomy.levels import Levels

LEVEL_SOURCES = {
    "table": "from a table", "given": "given", "estimated": "estimated from the image", "none": "of unknown origin"
}  # fmt: skip
"""Source of levels, as tables call it -> in words: a table of cases, the command line, the image; or nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelAssignment:
    """The levels of one scan and who says so."""

    levels: Levels | None = None
    source: str = "none"
    """One of ``SAID_BY``."""
    note: str = ""
    """What a reader of the table should know of them; empty where there is nothing to say."""

    def __post_init__(self) -> None:
        if self.source not in LEVEL_SOURCES or (self.levels is None) != (self.source == "none"):
            raise ValueError(f"levels {self.levels} cannot come from {self.source!r}")


def assign_levels(
    names: Sequence[str],
    table: Mapping[str, Levels | None],
    given: Levels | None,
    found: Mapping[str, Landmarks],
) -> dict[str, LevelAssignment]:
    """Decide how each scan is divided.

    Args:
        names: of the scans.
        table: levels by scan, which come first.
        given: levels of all other scans; they come second.
        found: what was found in the images of others; where nothing was, the scan is not divided.
    """
    return {name: _division(table.get(name), given, found.get(name)) for name in names}


def _division(told: Levels | None, given: Levels | None, found: Landmarks | None) -> LevelAssignment:
    if told is not None:
        return LevelAssignment(levels=told, source="table")
    if given is not None:
        return LevelAssignment(levels=given, source="given")
    if found is None:
        return LevelAssignment()
    if found.levels is None:
        return LevelAssignment(note=found.text)
    how = f"the level is {LEVEL_BELOW_KNEE_MM:g} mm below, as in most people"
    alone = found.left.level_mm is None or found.right.level_mm is None
    return LevelAssignment(
        levels=found.levels,
        source="estimated",
        note=f"{found.text}; {how}{', and that of one limb serves both' if alone else ''}",
    )
