"""cases.csv: the patient and the levels of each case."""

from __future__ import annotations

import csv
import math
import os
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dvtplan.anatomy.levels import Levels
from dvtplan.core import console
from dvtplan.core.errors import DvtError, cannot_read
from dvtplan.core.text import shorten_list
from dvtplan.data.names import same_names, visible
from dvtplan.imaging.geometry import Grid

FILE_NAME = "cases.csv"
LEVEL_COLUMNS = ("level_left_mm", "level_right_mm")
CASES_COLUMNS = ("case_id", "patient_id", *LEVEL_COLUMNS, "midline_mm")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_PATIENT_COLUMN = re.compile(
    r"(patient|patients|patienten|pat|subject|subjects|participant|person)"
    r"(id|ids|identifier|no|nr|num|number|nummer|name|names|code|key|uid)?|pid|mrn|probandid|probandennummer"
)
"""Columns of other programs that name patients, in small letters and without signs."""
_PATIENT_TOKENS = frozenset({"pid", "mrn", "pat", "person", "persona"})
"""Words that mean a patient only if they stand alone."""
_PATIENT_WORDS = ("patient", "pacient", "pazient", "pacjent", "subject", "sujet", "sujeit", "soggett", "proband",
                  "participant", "пациент", "患者", "病人", "환자")  # fmt: skip
"""Beginnings of words for a patient in several languages."""
_ATTRIBUTES = re.compile(
    r"subjectiv.*|inpatient.*|outpatient.*|(patient\w*)?(age|edad|eta|alter|sex|sexe|sexo|sesso|gender|genero|geschlecht|"
    r"birth\w*|dob|geburt\w*|weight|gewicht|peso|poids|height|size|groe?sse|taille|bmi|position|lage|notes?|notiz(en)?|"
    r"comments?|kommentar|remarks?|bemerkung|date|datum|group|type|class|count|history|status)"
)
"""Words in names of columns that describe a patient and name none, also with a word for a patient before them."""
_GROUPS = re.compile(
    r"cent(re|er)s?|sites?|hospitals?|clinics?|scanners?|vendors?|manufacturers?|fieldstrength|sex|gender"
)
"""Words in names of columns that group patients: they are no mistake of a user who gives them."""
_NUMBERS = re.compile(
    r"ids?|identifiers?|uid|no|nos|nr|num|numbers?|nummer|numero|codes?|keys?|mrn|pid|ref|records?|files?|akte"
)
"""Words of columns that number something: a hospital's number may be the number that it gives a patient."""
NO_VALUE = frozenset({"na", "n/a", "#n/a", "<na>", "nan", "none", "null", "nil", "-", "--", "?", ".", "unknown"})
"""What other programs write for a missing value, in small letters."""


class CaseDetails(NamedTuple):
    """One row of ``cases.csv``."""

    patient: str
    levels: Levels | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CasesTable:
    """A ``cases.csv`` as it was read."""

    path: Path
    columns: tuple[str, ...]
    cases: dict[str, CaseDetails]
    """By case. Names are composed (NFC) and have no invisible characters."""
    others: dict[str, dict[str, str]]
    """By case: the values of the columns that the pipeline does not use, such as centre or sex; text."""
    faults: tuple[str, ...]
    """What is wrong in the rows, one line each."""
    warnings: tuple[str, ...]
    """What is allowed but probably a mistake, one line each."""

    def without_row(self, case_ids: Collection[str]) -> tuple[str, ...]:
        """Warn of cases that the table does not list, each of which counts as a patient of its own."""
        missing = sorted(set(case_ids) - set(self.cases)) if self.cases else []
        if not missing:
            return ()
        return (f"{self.path}: has no row for {shorten_list(missing)}. Each counts as a patient of its own.",)


def is_there(path: Path) -> bool:
    """Return whether a table exists, also as a link without a target, which reading it reports."""
    return os.path.lexists(path)


def read_cases_table(path: Path, case_ids: Collection[str] = ()) -> dict[str, CaseDetails]:
    """Read ``cases.csv``, and print its warnings, also of those ``case_ids`` that it does not list.

    Columns: case_id, and optionally patient_id, level_left_mm, level_right_mm, midline_mm (LPS coordinates in mm).
    Without patient_id each case is its own patient. Other columns may group patients (``patient_groups``). Empty lines
    are ignored.

    Returns:
        Case -> patient and levels (None if the row has no level).

    Raises:
        DvtError: with every fault of the file, one line each.
    """
    table = survey_cases_table(path)
    if table.faults:
        raise DvtError("\n".join(table.faults))
    for line in (*table.warnings, *table.without_row(case_ids)):
        console.warn(line)
    return table.cases


def survey_cases_table(path: Path) -> CasesTable:
    """Read ``cases.csv`` as ``read_cases_table``, but return the faults of its rows and its warnings.

    Raises:
        DvtError: if the file is not such a table.
    """
    columns, rows = _read_rows(path)
    faults: list[str] = []
    unused: list[str] = []
    cases: dict[str, CaseDetails] = {}
    for line, row in rows:
        if not any(row):
            continue
        where = f"{path}, line {line}"
        if len(row) != len(columns):
            # A decimal comma, or a comma that was left out, moves the values after it to wrong columns.
            faults.append(
                f"{where}: has {len(row)} values for {len(columns)} columns. Write decimals with a point, "
                "and one comma for each empty value."
            )
            continue
        values = dict(zip(columns, row, strict=True))
        case_id = values["case_id"]
        if not case_id or case_id in cases:
            fault = f"{case_id} occurs twice" if case_id else "case_id is empty"
            faults.append(f"{where}: {fault}. Keep one row per case.")
            continue
        levels = None
        try:
            levels = _levels(values)
        except ValueError as error:
            faults.append(f"{where}: {error}. Give millimetres with a decimal point, or leave it empty.")
        cases[case_id] = CaseDetails(values.get("patient_id") or case_id, levels)
        if values.get("midline_mm") and levels is None:
            unused.append(case_id)
    faults += _missing_patients(path, cases)
    repeating = []
    if all(case.patient == case_id for case_id, case in cases.items()):
        repeating = _repeating(columns, [row for _, row in rows if len(row) == len(columns)])
    warnings = _warnings(path, columns, cases, unused, repeating)
    return CasesTable(
        path=path,
        columns=tuple(columns),
        cases=cases,
        others=_other_values(columns, [row for _, row in rows]),
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def _other_values(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, dict[str, str]]:
    """Return case -> the values of its columns that the pipeline does not use; faulty rows are left out."""
    found = {}
    for row in rows:
        if len(row) == len(columns):
            values = dict(zip(columns, row, strict=True))
            found[values["case_id"]] = {name: value for name, value in values.items() if name not in CASES_COLUMNS}
    return found


def level_warnings(case_id: str, levels: Levels | None, grid: Grid) -> tuple[str, ...]:
    """Warn of levels above or below the whole scan and of a midline next to it: possible, but often a mistake."""
    if levels is None:
        return ()
    (left, _, low), (right, _, high) = (ends(grid.corners_mm(), axis=0) for ends in (np.min, np.max))
    values = {f"level_{limb}_mm": (getattr(levels, f"{limb}_mm"), low, high) for limb in levels.outside(low, high)}
    if levels.midline_mm is not None and not left <= levels.midline_mm <= right:
        values["midline_mm"] = (levels.midline_mm, left, right)
    return tuple(
        f"{FILE_NAME}: {case_id}: {column} {value:g} lies outside the volume ({first:.0f} to {last:.0f} mm). "
        "Check its sign and origin."
        for column, (value, first, last) in values.items()
    )


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read the names of the columns, and the values of each row with its line number."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            columns = [visible(name) for name in next(reader, [])]
            rows = [(reader.line_num, [visible(value) for value in row]) for row in reader]
    except FileNotFoundError as error:
        raise DvtError(f"{path}: not found. Give a table with the columns {', '.join(CASES_COLUMNS)}.") from error
    except OSError as error:
        raise DvtError(cannot_read(path, error)) from error
    except (ValueError, csv.Error) as error:
        raise DvtError(f"{path}: is not a readable table. Save it as comma-separated text in UTF-8.") from error
    _require_columns(path, columns)
    return columns, rows


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    known = [name for name in columns if name in CASES_COLUMNS]
    if "case_id" in columns and len(set(known)) == len(known):
        meant = {name: meaning for name in columns if (meaning := _meaning(name)) and meaning not in columns}
        for name, meaning in meant.items():
            raise DvtError(f"{path}: the column {name!r} is not known. Name it {meaning}, or remove it.")
        return
    separator = "semicolons" if any(";" in name for name in columns) else ""
    if not separator and len(columns) == 1 and " " in columns[0]:
        separator = "tabs or spaces"
    action = "Fix its first line."
    if separator:
        action = f"Save it with commas between the columns, not {separator}, and with decimal points."
    raise DvtError(
        f"{path}: expected the columns {', '.join(CASES_COLUMNS)}, each once and at least case_id; "
        f"found {shorten_list(columns) or 'none'}. {action}"
    )


def _meaning(name: str) -> str:
    """Return the known column that an unknown one probably is; empty if there is none."""
    if name in CASES_COLUMNS:
        return ""
    bare = "".join(c for c in name.casefold() if c.isalnum())
    if _PATIENT_COLUMN.fullmatch(bare) or _names_patients(name):
        return "patient_id"
    if {"level", "left"} <= (words := set(re.split(r"[\W_]+", name.casefold()))):
        return "level_left_mm"
    if {"level", "right"} <= words:
        return "level_right_mm"
    return next((known for known in CASES_COLUMNS if bare in (known.replace("_", ""), known[:-3].replace("_", ""))), "")


def _names_patients(name: str) -> bool:
    """Return whether the name of a column has a word for a patient, in any case and with or without accents."""
    tokens = _tokens(name)
    if _describes(tokens):
        return False
    words = [unicodedata.normalize("NFKD", word) for word in _PATIENT_WORDS]
    return not _PATIENT_TOKENS.isdisjoint(tokens) or any(word in "".join(tokens) for word in words)


def _tokens(name: str) -> list[str]:
    """Return the words of a name in small letters without accents: 'StudyPatient-Nr.' has three."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    plain = "".join(c for c in unicodedata.normalize("NFKD", spaced.casefold()) if not unicodedata.combining(c))
    return [token for token in re.split(r"[\W_]+", plain) if token]


def _describes(tokens: Sequence[str]) -> bool:
    return any(_ATTRIBUTES.fullmatch(token) for token in tokens)


def _groups(name: str) -> bool:
    """Return whether a column groups patients by its name, and does not number them: 'hospital', not 'hospital_no'."""
    tokens = _tokens(name)
    return any(map(_GROUPS.fullmatch, tokens)) and not any(map(_NUMBERS.fullmatch, tokens))


def _repeating(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the unused columns that may name patients: text or whole numbers, some of which occur in several rows."""
    found = []
    for column, name in enumerate(columns):
        values = [row[column] for row in rows if row[column]]
        different = set(values)
        if (
            name
            and name not in CASES_COLUMNS
            and not _describes(_tokens(name))
            and not _groups(name)
            and 1 < len(different) < len(values)
            and not any(_NUMBER.fullmatch(value) and not value.isdecimal() for value in different)
        ):
            found.append(name)
    return found


def _missing_patients(path: Path, cases: Mapping[str, CaseDetails]) -> list[str]:
    """Refuse words for a missing value that would make several cases one patient."""
    groups: dict[str, list[str]] = {}
    for case_id, case in cases.items():
        if case.patient.casefold() in NO_VALUE:
            groups.setdefault(case.patient, []).append(case_id)
    return [
        f"{path}: the patient_id of {shorten_list(case_ids)} is {patient!r}, which would be one patient. Name the "
        "patients, or leave it empty: then each case is its own patient."
        for patient, case_ids in groups.items()
        if len(case_ids) > 1
    ]


def _warnings(
    path: Path,
    columns: Sequence[str],
    cases: Mapping[str, CaseDetails],
    unused: Sequence[str],
    repeating: Sequence[str],
) -> list[str]:
    found = []
    others = [name for name in columns if name and name not in CASES_COLUMNS and not _groups(name)]
    if others:
        advice = ""
        if repeating:
            advice = (
                f" Every case counts as a patient of its own. If {' or '.join(map(repr, repeating[:8]))} names the "
                "patients, call it patient_id: else one patient may be in training and test."
            )
        found.append(
            f"{path}: the columns {shorten_list(others)} are not used, except by `by` and `folds_by`; known columns "
            f"are {', '.join(CASES_COLUMNS)}.{advice}"
        )
    if unused:
        found.append(f"{path}: midline_mm is not used without a level: {shorten_list(unused)}. Give a level, too.")
    for group in same_names(case.patient for case in cases.values()):
        found.append(
            f"{path}: the patients {shorten_list(group)} differ only in case. Write one name if they are one patient."
        )
    return found


def _levels(row: Mapping[str, str]) -> Levels | None:
    left, right, midline = (_millimetres(row, name) for name in (*LEVEL_COLUMNS, "midline_mm"))
    if left is None and right is None:
        return None
    return Levels(left_mm=left, right_mm=right, midline_mm=midline)


def _millimetres(row: Mapping[str, str], name: str) -> float | None:
    text = row.get(name, "")
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"{name} is {text!r}, expected a number")
    return float(text)
