"""Table 1 with moved levels, on masks of a few voxels."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from dvtplan.anatomy.levels import Levels
from dvtplan.evaluation import level_sensitivity
from dvtplan.evaluation.level_sensitivity import SHIFTS_MM, count_shifted, shifted, summarize_shifts
from dvtplan.imaging.geometry import Grid

COLUMN = Grid(
    shape=(6, 1, 1),
    spacing_mm=(10.0, 10.0, 10.0),
    origin_mm=(0.0, 0.0, 25.0),
    direction=((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)
"""Voxels of 1 mL at z 25, 15, 5, -5, -15 and -25 mm."""

TRUTH = np.array([1, 1, 1, 1, 1, 0], np.uint8).reshape(6, 1, 1)
PREDICTION = np.array([0, 1, 1, 0, 1, 1], np.uint8).reshape(6, 1, 1)

EXPECTED = {
    -20.0: ((3, 0, 2), (0, 1, 0)),
    -10.0: ((2, 0, 2), (1, 1, 0)),
    0.0: ((2, 0, 1), (1, 1, 1)),
    10.0: ((1, 0, 1), (2, 1, 1)),
    20.0: ((0, 0, 1), (3, 1, 1)),
}
"""Shift -> tp, fp, fn of proximal and of distal, with the level at 0."""


def rows_of(case_id: str, patient_id: str, levels: Levels) -> pd.DataFrame:
    return pd.DataFrame(count_shifted(TRUTH, PREDICTION, COLUMN, levels)).assign(case_id=case_id, patient_id=patient_id)


def test_each_place_of_the_level_has_its_counts() -> None:
    found: dict[float, list[tuple[int, ...]]] = {}
    for row in count_shifted(TRUTH, PREDICTION, COLUMN, Levels(left_mm=0.0)):
        found.setdefault(row["shift_mm"], []).append((row["tp"], row["fp"], row["fn"]))
        assert row["truth_ml"] == row["tp"] + row["fn"] and row["predicted_ml"] == row["tp"] + row["fp"]
    assert found == {shift: list(both) for shift, both in EXPECTED.items()}


def test_each_limb_moves_and_the_midline_stays() -> None:
    assert shifted(Levels(left_mm=1.0, midline_mm=3.0), -10) == Levels(left_mm=-9.0, midline_mm=3.0)
    assert shifted(Levels(left_mm=1.0, right_mm=2.0), 20) == Levels(left_mm=21.0, right_mm=22.0)


def test_scores_are_by_patient_with_truth() -> None:
    """Two scans of one patient are pooled; with the level 20 mm lower nobody has distal truth."""
    rows = pd.concat([rows_of("a", "P", Levels(left_mm=0.0)), rows_of("b", "P", Levels(left_mm=0.0))])
    lines = {(line.region, line.shift_mm): line for line in summarize_shifts(rows).lines}
    assert list(lines) == [(region, shift) for region in ("proximal", "distal") for shift in SHIFTS_MM]
    middle = lines["proximal", 0.0]
    assert (middle.patients, middle.scores["dsc"].n) == (1, 1)
    assert middle.scores["dsc"].mean == pytest.approx(2 * 4 / (2 * 4 + 2))
    assert lines["proximal", 20.0].scores["dsc"].mean == 0
    lowest = lines["distal", -20.0]
    assert (lowest.patients, lowest.scores["dsc"].n) == (1, 0)


def test_the_table_is_printed_and_written() -> None:
    table = summarize_shifts(rows_of("a", "P", Levels(left_mm=0.0)), notes=("Scored: all.",))
    text = level_sensitivity.to_text(table)
    assert "proximal  -20 mm          1  0.75 ± n/a  1.00 ± n/a  0.60 ± n/a\n" in text
    assert "          0 mm            1  0.80 ± n/a" in text and text.endswith("\nScored: all.\n")
    written = pd.read_csv(io.StringIO(level_sensitivity.to_csv(table)))
    assert len(written) == 2 * 5 * 3
    one = written[(written["region"] == "distal") & (written["shift_mm"] == 20) & (written["score"] == "recall")]
    assert one["mean"].item() == 3 / 4 and one["patients"].item() == 1
