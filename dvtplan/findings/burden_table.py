"""Write the thrombus burden of many scans as CSV."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from dvtplan.anatomy.levels import LIMBS
from dvtplan.core import console, files
from dvtplan.core.errors import DvtError
from dvtplan.findings.burden import Burden, measure
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.record import ANALYSED, COULD_NOT, NOT_ANALYSED, result_in_words
from dvtplan.imaging import volume_io

CHANGED = "mask changed"
"""Status of a scan whose mask was edited. The mask is measured as it is."""

COLUMNS = ("case_id", "status", "limb", "region", "volume_ml", "components", "length_mm", "largest_section_mm2",
           "top_above_level_mm", "bottom_above_level_mm", "level_mm", "level_source", "level_note",
           "scan_in_words")  # fmt: skip


def require_replaceable(path: Path) -> None:
    """Refuse to replace a file that is not a burden table of an earlier run; check that it can be written.

    Raises:
        DvtError: if another file is there.
        WriteFailed: if it cannot be written.
    """
    if path.suffix.lower() != ".csv":
        raise DvtError(f"{path}: is not the name of a table. Choose a `burden` that ends in .csv.")
    files.require_writable(path)
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline(200)
    if first.strip() and not first.startswith(",".join(COLUMNS[:4])):
        raise DvtError(f"{path}: is not a burden table of an earlier run and is kept. Choose another `burden`.")


def write_burden_table(
    masks: Mapping[str, Path],
    levels: Mapping[str, LevelAssignment],
    path: Path,
    failed: Mapping[str, str] | None = None,
    measured: Mapping[str, Sequence[Burden]] | None = None,
    edited: Collection[str] = (),
) -> Path:
    """Measure masks and write the table.

    A scan with an empty mask has rows of zeros. A scan that could not be analysed has one row with its status and the
    reason, without numbers.

    Args:
        masks: by case.
        levels: by case; missing cases are not divided.
        path: of the CSV file.
        failed: case -> why it could not be analysed.
        measured: case -> known burden; the other masks are read and measured.
        edited: cases whose mask was edited.

    Raises:
        DvtError: if a mask cannot be read, or the table cannot be written.
    """
    rows: list[dict[str, object]] = []
    for case_id, mask in masks.items():
        assigned = levels.get(case_id, LevelAssignment())
        known = (measured or {}).get(case_id)
        burdens = measure(*volume_io.read(mask), assigned.levels) if known is None else known
        rows += _rows(case_id, burdens, assigned, CHANGED if case_id in edited else ANALYSED)
    for case_id, reason in (failed or {}).items():
        in_words = f"{COULD_NOT} {console.translated(reason)}"
        rows.append({"case_id": case_id, "status": NOT_ANALYSED, "scan_in_words": in_words})
    # Integers, although some are missing.
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"components": "Int64"})
    files.write_text(path, table.to_csv(index=False))
    return path


def _rows(case_id: str, burdens: Sequence[Burden], assigned: LevelAssignment, status: str) -> list[dict[str, object]]:
    in_words = result_in_words(burdens, edited=status == CHANGED)
    level_mm = (
        dict.fromkeys(LIMBS) if assigned.levels is None else dict(zip(LIMBS, assigned.levels.both_mm, strict=True))
    )
    return [
        {
            "case_id": case_id,
            "status": status,
            "limb": burden.limb,
            "region": burden.region,
            "volume_ml": round(burden.volume_ml, 3),
            "components": burden.components,
            "length_mm": round(burden.length_mm, 1),
            "largest_section_mm2": round(burden.largest_section_mm2, 1),
            "top_above_level_mm": _tenths(burden.top_mm),
            "bottom_above_level_mm": _tenths(burden.bottom_mm),
            "level_mm": _tenths(level_mm[burden.limb]),
            "level_source": assigned.source,
            "level_note": assigned.note or None,
            "scan_in_words": in_words,
        }
        for burden in burdens
    ]


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
