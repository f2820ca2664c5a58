"""Where the levels of a scan come from, and whether they fit it."""

from __future__ import annotations

from pathlib import Path

from dvtplan.anatomy.levels import Levels
from dvtplan.findings.level_source import LevelAssignment, assign_levels, note_outside, table_warnings
from dvtplan.imaging.geometry import Grid

GRID = Grid(
    shape=(5, 100, 40),
    spacing_mm=(5.0, 2.0, 2.0),
    origin_mm=(0.0, 0.0, 50.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""Its rows lie at z 50 to -148 mm, its columns at x 0 to 78 mm."""


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


def test_a_midline_outside_the_scan_gets_a_note() -> None:
    for midline, outside in ((0.0, False), (78.0, False), (78.5, True), (-0.5, True)):
        assigned = LevelAssignment(levels=Levels(left_mm=0.0, midline_mm=midline), source="table")
        note = note_outside(assigned, GRID).note
        assert note == (f"midline x {midline:g} mm lies outside the scan, which reaches from 0 to 78 mm" * outside)
    both = LevelAssignment(levels=Levels(left_mm=51.0, midline_mm=79.0), source="table")
    assert "z 51 mm" in note_outside(both, GRID).note and "midline x 79 mm" in note_outside(both, GRID).note


def test_scans_without_a_row_and_rows_without_a_scan_are_named() -> None:
    path, folder = Path("levels.csv"), Path("in")
    scans = [("leg_001",), ("leg_002", "mask")]
    assert table_warnings(path, ["leg_001", "mask"], scans, source=folder, given=False) == []
    missing, unknown = table_warnings(path, ["leg_001", "leg_02"], scans, source=folder, given=True)
    assert "levels.csv: has no row for leg_002." in missing and "`level`" in missing
    assert "in for the rows leg_02." in unknown
    assert len(table_warnings(path, ["leg_001", "leg_02"], scans, source=None, given=True)) == 1
    many = [(f"leg_{k}",) for k in range(10)]
    assert "leg_7 and 2 more." in table_warnings(path, [], many, source=folder, given=False)[0]
