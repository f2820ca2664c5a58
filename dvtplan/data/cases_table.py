"""cases.csv: patients and levels."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DvtError

LEVEL_COLUMNS = ("level_left_mm", "level_right_mm")
CASES_COLUMNS = ("case_id", "patient_id", *LEVEL_COLUMNS, "midline_mm")


def read_cases_table(path: Path) -> dict[str, tuple[str, Levels | None]]:
    """Read ``cases.csv``: case id -> patient and levels.

    Columns: case_id, and optionally patient_id, level_left_mm, level_right_mm, midline_mm (LPS
    coordinates in mm). An empty patient is the case itself; without any level there are none.
    Further columns and empty lines are left alone.

    Raises:
        DvtError: every fault of the file, a line each.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="", skipinitialspace=True, strict=True)
            table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            header = [name for name in table.fieldnames if name in CASES_COLUMNS]
            rows = [(table.line_num, row) for row in table]
    except FileNotFoundError as error:
        raise DvtError(f"{path}: not found. Name a table with the columns {', '.join(CASES_COLUMNS)}.") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DvtError(f"{path}: is no readable table ({error}). Save it as comma-separated text in UTF-8.") from error
    if "case_id" not in header or len(set(header)) < len(header):
        raise DvtError(
            f"{path}: expected the columns {', '.join(CASES_COLUMNS)}, each once and case_id at least; "
            f"found {', '.join(table.fieldnames) or 'none'}. Mend its first line."
        )
    faults: list[str] = []
    cases: dict[str, tuple[str, Levels | None]] = {}
    for line, row in rows:
        # A value beyond the header would silently belong to another column than it seems to.
        beyond = [value for value in row.pop(None, []) if value.strip()]
        if beyond:
            faults.append(
                f"{path}, line {line}: holds {beyond[0]!r} beyond the last column. Write decimals with a point, "
                "or name the column."
            )
            continue
        values = {name: value.strip() for name, value in row.items()}
        if not any(values.values()):
            continue
        case_id = values["case_id"]
        if not case_id or case_id in cases:
            what = f"{case_id} stands twice" if case_id else "case_id is empty"
            faults.append(f"{path}, line {line}: {what}. Keep one row per case.")
            continue
        try:
            cases[case_id] = (values.get("patient_id") or case_id, _levels(values))
        except ValueError as error:
            faults.append(f"{path}, line {line}: {error}. Give millimetres, or leave it empty.")
    if faults:
        raise DvtError("\n".join(faults))
    return cases


def _levels(row: Mapping[str, str]) -> Levels | None:
    left, right, midline = (_millimetres(row, name) for name in (*LEVEL_COLUMNS, "midline_mm"))
    if left is None and right is None:
        return None
    return Levels(left_mm=left, right_mm=right, midline_mm=midline)


def _millimetres(row: Mapping[str, str], name: str) -> float | None:
    text = row.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"{name} is {text!r}, expected a number")
    return value
