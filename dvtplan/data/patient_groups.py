"""Groups of patients by a column of ``cases.csv``, such as centre, scanner or sex."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data import cases_table
from dvtplan.data.cases_table import CASES_COLUMNS, NO_VALUE, survey_cases_table

NO_GROUP = "(none)"
"""Group of the patients without a value in the column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientGroups:
    """The group of each patient."""

    column: str
    """Of ``cases.csv``."""
    group_of: dict[str, str]
    """Patient -> value of the column; ``NO_GROUP`` without a value."""

    @property
    def names(self) -> tuple[str, ...]:
        """The groups in natural order ('centre 2' before 'centre 10'), ``NO_GROUP`` last."""
        return tuple(sorted(set(self.group_of.values()), key=lambda name: (name == NO_GROUP, _natural(name))))

    @property
    def ungrouped(self) -> tuple[str, ...]:
        """The patients without a value."""
        return tuple(sorted(patient for patient, group in self.group_of.items() if group == NO_GROUP))


def read_patient_groups(table: Path, column: str, patient_of: Mapping[str, str], parameter: str) -> PatientGroups:
    """Read the group of each patient from a column of ``cases.csv``.

    A value in one of a patient's cases is enough. Words such as NA count as no value.

    Args:
        table: ``cases.csv``.
        column: any of its columns that the pipeline itself does not use.
        patient_of: case -> patient; only these cases are grouped.
        parameter: that names the column, for messages.

    Raises:
        DvtError: if the table or the column does not exist, or the cases of a patient have different values.
    """
    if not cases_table.is_there(table):
        raise DvtError(f"{table}: not found. `{parameter}={column}` needs it, with the columns case_id and {column}.")
    read = survey_cases_table(table)
    if read.faults:
        raise DvtError("\n".join(read.faults))
    usable = [name for name in read.columns if name and name not in CASES_COLUMNS]
    if usable.count(column) != 1:
        fault = f"has several columns {column}" if column in usable else f"has no column {column} that groups patients"
        others = sorted(set(usable) - {column})
        there = f"columns to choose from: {shorten_list(others)}" if others else "no column describes patients"
        raise DvtError(f"{table}: {fault}; {there}. Change `{parameter}`, or the first line of the table.")
    values: dict[str, dict[str, str]] = {}
    for case_id, patient in patient_of.items():
        mine = values.setdefault(patient, {})
        value = read.others.get(case_id, {}).get(column, "")
        if value and value.casefold() not in NO_VALUE:
            mine.setdefault(value, case_id)
    faults = [
        f"{table}: the patient {patient} has different values of {column}: "
        f"{', '.join(f'{value} ({case_id})' for value, case_id in mine.items())}. Give all its cases the same."
        for patient, mine in values.items()
        if len(mine) > 1
    ]
    if faults:
        raise DvtError("\n".join(faults))
    return PatientGroups(column=column, group_of={p: next(iter(mine), NO_GROUP) for p, mine in values.items()})


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts the numbers in a name by size."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part) if i % 2 else 0, "" if i % 2 else part) for i, part in enumerate(parts)] + [(0, name)]
