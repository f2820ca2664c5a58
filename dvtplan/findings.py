"""What was found on scans, as a table: a row for each scan, limb and region, with its thrombus burden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dvtplan import artifacts, volumes
from dvtplan.burden import category, measure
from dvtplan.records import Levels

COLUMNS = ("case_id", "limb", "region", "volume_ml", "pieces", "length_mm", "largest_section_mm2",
           "top_above_level_mm", "bottom_above_level_mm", "in_words")  # fmt: skip


def write(masks: Mapping[str, Path], levels: Mapping[str, Levels | None], path: Path) -> Path:
    """Measure masks and write ``path``.

    A scan without any marked voxel has its rows, of zeros: a scan that could not be analysed has none.

    Args:
        masks: by case.
        levels: of the limbs by case; cases that are missing, or have none, are not divided.
        path: of the csv.

    Raises:
        DvtError: if a mask cannot be read or the table not written.
    """
    rows = [row for case_id, mask in masks.items() for row in _rows(case_id, mask, levels.get(case_id))]
    artifacts.write_text(path, pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False))
    return path


def _rows(case_id: str, path: Path, levels: Levels | None) -> Sequence[dict[str, object]]:
    mask, grid = volumes.read(path)
    found = measure(mask, grid, levels)
    words = category(found)
    return [
        {
            "case_id": case_id,
            "limb": burden.limb,
            "region": burden.region,
            "volume_ml": round(burden.volume_ml, 3),
            "pieces": burden.pieces,
            "length_mm": round(burden.length_mm, 1),
            "largest_section_mm2": round(burden.largest_section_mm2, 1),
            "top_above_level_mm": None if burden.top_mm is None else round(burden.top_mm, 1),
            "bottom_above_level_mm": None if burden.bottom_mm is None else round(burden.bottom_mm, 1),
            "in_words": words,
        }
        for burden in found
    ]
