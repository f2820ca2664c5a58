"""Level sensitivity: Table 1 again with all levels moved up and down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dvtplan.anatomy import regions
from dvtplan.anatomy.levels import PROXIMAL_DISTAL, Levels
from dvtplan.evaluation import confusion, table1, table_text
from dvtplan.evaluation.summary_statistics import INTERVAL_RULE, Summary, summarize
from dvtplan.imaging.geometry import Grid

if TYPE_CHECKING:
    import pandas as pd

SHIFTS_MM = (-20.0, -10.0, 0.0, 10.0, 20.0)
"""Shifts of the levels; up is positive. The division of the popliteal artery varies by 12 to 20 mm (SD) between limbs
(Barut 2009)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One region with one shift of the levels."""

    shift_mm: float
    region: str
    scores: dict[str, Summary]
    """A summary per key of ``table1.SCORES``, over the patients with truth in the region."""
    patients: int
    """Number of patients with and without truth in the region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSensitivity:
    """Table 1 by the rule level, once for each shift."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def count_shifted(truth: np.ndarray, predicted: np.ndarray, grid: Grid, levels: Levels) -> list[dict[str, Any]]:
    """Count the voxels of one case in both regions, for each shift of the levels.

    Args:
        truth: any array order, shape ``grid.shape``; every value but 0 is thrombus.
        predicted: likewise.
        grid: of both masks.
        levels: before any shift.

    Returns:
        Rows with shift_mm, region and ``table1.COUNTS``.
    """
    rows = []
    for shift_mm in SHIFTS_MM:
        moved = shifted(levels, shift_mm)
        truth_map, predicted_map = (regions.by_level(mask, grid, moved) for mask in (truth, predicted))
        *by_region, _ = confusion.count_voxels(truth_map, predicted_map, len(PROXIMAL_DISTAL))
        for region, counted in zip(PROXIMAL_DISTAL, by_region, strict=True):
            rows.append(
                {
                    "shift_mm": shift_mm,
                    "region": region,
                    **counted._asdict(),
                    "truth_ml": counted.truth * grid.voxel_ml,
                    "predicted_ml": counted.predicted * grid.voxel_ml,
                    "false_positive_ml": counted.fp * grid.voxel_ml,
                }
            )
    return rows


def shifted(levels: Levels, shift_mm: float) -> Levels:
    """Move both levels along LPS z."""
    left, right = (None if z is None else z + shift_mm for z in (levels.left_mm, levels.right_mm))
    return replace(levels, left_mm=left, right_mm=right)


def summarize_shifts(rows: pd.DataFrame, *, notes: Sequence[str] = ()) -> LevelSensitivity:
    """Summarize the scores by patient for each region and shift.

    Args:
        rows: those of ``count_shifted``, with case_id and patient_id.
        notes: on the masks and the levels.
    """
    lines = []
    for region in PROXIMAL_DISTAL:
        for shift_mm in SHIFTS_MM:
            pooled = table1.by_patient(rows[(rows["region"] == region) & (rows["shift_mm"] == shift_mm)])
            counted = pooled[pooled["counted"]]
            scores = {score: summarize(counted[score]) for score in table1.SCORES}
            lines.append(Line(shift_mm=shift_mm, region=region, scores=scores, patients=len(pooled)))
    return LevelSensitivity(lines=tuple(lines), notes=tuple(notes))


def to_csv(table: LevelSensitivity) -> str:
    """Format one line per (region, shift, score) in full precision; undefined numbers are empty."""
    lines = [
        {
            "region": line.region,
            "shift_mm": line.shift_mm,
            "score": score,
            **{name: getattr(summary, name) for name in Summary.__dataclass_fields__},
            "patients": line.patients,
            "interval": INTERVAL_RULE,
        }
        for line in table.lines
        for score, summary in line.scores.items()
    ]
    import pandas as pd

    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def to_text(table: LevelSensitivity) -> str:
    """Format mean and SD by region, from the lowest level to the highest, for a terminal."""
    header = ("", "level moved by", "n", *table1.SCORES.values())
    body = [
        (
            line.region if line.shift_mm == SHIFTS_MM[0] else "",
            f"{line.shift_mm:+g} mm" if line.shift_mm else "0 mm",
            str(line.scores["dsc"].n),
            *(table_text.mean_sd(s.mean, s.sd) for s in line.scores.values()),
        )
        for line in table.lines
    ]
    title = "Level sensitivity. Table 1 by the rule level with all levels moved (up is positive): mean ± SD by patient."
    return table_text.text_table(title, [header, *body], table.notes)
