"""Where the levels of a scan come from, and whether they fit it."""

from __future__ import annotations

from dvtplan.anatomy.levels import Levels
from dvtplan.findings.level_source import LevelAssignment, assign_levels, note_outside
from dvtplan.imaging.geometry import Grid

GRID = Grid(
    shape=(5, 100, 40),
    spacing_mm=(5.0, 2.0, 2.0),
    origin_mm=(0.0, 0.0, 50.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""Its rows lie at z 50 to -148 mm."""


def test_a_table_goes_before_an_option() -> None:
    listed, given = Levels(left_mm=1.0), Levels(left_mm=2.0)
    found = assign_levels(["a", "b"], {"a": listed, "b": None}, given, {})
    assert [(one.levels, one.source) for one in found.values()] == [(listed, "table"), (given, "given")]
    assert assign_levels(["a"], {}, None, {}) == {"a": LevelAssignment()}


def test_a_level_outside_the_scan_gets_a_note() -> None:
    for left, right, words in (
        (50, -148, None),
        (51, 0, "z 51 mm"),
        (-149, -149, "z -149 mm"),
        (60, -150, "-150 and 60"),
    ):
        assigned = LevelAssignment(levels=Levels(left_mm=left, right_mm=right), source="given")
        note = note_outside(assigned, GRID).note
        assert (words in note and "-148 to 50 mm" in note) if words else note == ""


def test_an_unknown_or_estimated_level_keeps_its_own_note() -> None:
    estimated = LevelAssignment(levels=Levels(left_mm=900.0), source="estimated", note="knee found")
    assert note_outside(estimated, GRID) == estimated
    assert note_outside(LevelAssignment(), GRID) == LevelAssignment()
