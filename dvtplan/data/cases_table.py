"""cases.csv: the patient and the levels of each case."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DvtError, cannot_read

FILE_NAME = "cases.csv"
LEVEL_COLUMNS = ("level_left_mm", "level_right_mm")
CASES_COLUMNS = ("case_id", "patient_id", *LEVEL_COLUMNS, "midline_mm")


class CaseDetails(NamedTuple):
    """One row of ``cases.csv``."""

    patient: str
    levels: Levels | None


def read_cases_table(path: Path) -> dict[str, CaseDetails]:
    """Read ``cases.csv``.

    Columns: case_id, and optionally patient_id, level_left_mm, level_right_mm, midline_mm (LPS coordinates in mm).
    Without patient_id each case is its own patient. Other columns and empty lines are ignored.

    Returns:
        Case -> patient and levels (None if the row has no level).

    Raises:
        DvtError: with every fault of the file, one line each.
    """
    cases, faults = survey_cases_table(path)
    if faults:
        raise DvtError("\n".join(faults))
    return cases


def survey_cases_table(path: Path) -> tuple[dict[str, CaseDetails], list[str]]:
    """Read ``cases.csv`` as ``read_cases_table``, but return the faults of its rows instead of raising them.

    Raises:
        DvtError: if the file is not such a table.
    """
    faults: list[str] = []
    cases: dict[str, CaseDetails] = {}
    for line, row in _read_rows(path):
        # A value without a column would shift the values after it to wrong columns.
        extra = [value for value in row.pop(None, []) if value.strip()]
        if extra:
            faults.append(
                f"{path}, line {line}: contains {extra[0]!r} after the last column. Write decimals with a point, "
                "or add a column name."
            )
            continue
        values = {name: (value or "").strip() for name, value in row.items()}
        if not any(values.values()):
            continue
        absent = [name for name, value in row.items() if value is None]
        if absent and any(values.get(name) for name in (*LEVEL_COLUMNS, "midline_mm")):
            faults.append(
                f"{path}, line {line}: has {len(row) - len(absent)} values for {len(row)} columns, so a value may be "
                "in the wrong column. Write one comma for each empty value."
            )
            continue
        case_id = values["case_id"]
        if not case_id or case_id in cases:
            fault = f"{case_id} occurs twice" if case_id else "case_id is empty"
            faults.append(f"{path}, line {line}: {fault}. Keep one row per case.")
            continue
        try:
            cases[case_id] = CaseDetails(values.get("patient_id") or case_id, _levels(values))
        except ValueError as error:
            faults.append(f"{path}, line {line}: {error}. Give millimetres, or leave it empty.")
            cases[case_id] = CaseDetails(values.get("patient_id") or case_id, None)
    return cases, faults


def _read_rows(path: Path) -> list[tuple[int, dict[Any, Any]]]:
    """Read the rows with their line numbers; values without a column are under None."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True, strict=True)
            table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            header = [name for name in table.fieldnames if name in CASES_COLUMNS]
            rows = [(table.line_num, row) for row in table]
    except FileNotFoundError as error:
        raise DvtError(f"{path}: not found. Give a table with the columns {', '.join(CASES_COLUMNS)}.") from error
    except OSError as error:
        raise DvtError(cannot_read(path, error)) from error
    except (ValueError, csv.Error) as error:
        raise DvtError(f"{path}: is not a readable table. Save it as comma-separated text in UTF-8.") from error
    if "case_id" not in header or len(set(header)) < len(header):
        semicolons = table.fieldnames and ";" in table.fieldnames[0]
        action = "Save it with commas, not semicolons." if semicolons else "Fix its first line."
        raise DvtError(
            f"{path}: expected the columns {', '.join(CASES_COLUMNS)}, each once and at least case_id; "
            f"found {', '.join(table.fieldnames) or 'none'}. {action}"
        )
    return rows


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
