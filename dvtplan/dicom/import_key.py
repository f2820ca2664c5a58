"""The key file: pseudonym to DICOM identity."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from dvtplan.core.errors import DvtError
from dvtplan.core.files import write_text
from dvtplan.core.text import shorten_list

TABLE_COLUMNS = ("folder", "mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One row of the key: who a case is. It belongs to the hospital, not to the data set."""

    case_id: str
    patient_id: str
    """The pseudonym."""
    dicom_patient_id: str
    """The tag itself; empty where the folder stands for the patient."""
    series: str
    """UIDs of the series, one for each channel, each with its letter where the series holds several volumes."""
    source: str
    """The folder or archive that was imported."""
    mask: str
    """Where the mask came from; empty where there is none."""


def next_number(word: str, taken: set[str]) -> str:
    """The first free name after the last of its kind: a number is never given twice."""
    numbers = [int(m[1]) for name in taken if (m := re.fullmatch(rf"{word}_(\d+)", name))]
    return f"{word}_{max(numbers, default=0) + 1:03d}"


def write_rows(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def read_key(path: Path) -> list[KeyRow]:
    """The rows of a key; none where there is no file.

    Raises:
        DvtError: if it is no key.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [KeyRow(**row) for row in csv.DictReader(file, strict=True)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DvtError(f"{path}: is no key of an import ({error}). Name another --key.") from error


def write_key(path: Path, rows: Sequence[KeyRow]) -> None:
    columns = [field.name for field in fields(KeyRow)]
    ordered = sorted(rows, key=lambda row: row.case_id)
    write_text(path, write_rows([columns, *([getattr(row, name) for name in columns] for row in ordered)]))
    with contextlib.suppress(OSError):  # where files have no owner
        path.chmod(0o600)


def read_table(path: Path) -> dict[str, str]:
    """Input -> its mask, as the table of ``--masks`` names them.

    Raises:
        DvtError: if it is no such table, or names an input twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[value.strip() for value in row] for row in csv.reader(file, strict=True) if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise DvtError(f"{path}: is no readable table ({error}). Save it as comma-separated text in UTF-8.") from error
    if not rows or tuple(rows[0]) != TABLE_COLUMNS or any(len(row) != 2 or not all(row) for row in rows):
        raise DvtError(f"{path}: expected the columns {', '.join(TABLE_COLUMNS)}, both filled in every row. Mend it.")
    made = dict(rows[1:])
    if len(made) < len(rows) - 1:
        twice = sorted({folder for folder, _ in rows[1:] if [f for f, _ in rows[1:]].count(folder) > 1})
        raise DvtError(f"{path}: names {shorten_list(twice)} twice. Keep one row each.")
    return made
