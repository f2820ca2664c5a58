"""Groups of patients by a column of cases.csv."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvtplan.core.errors import DvtError
from dvtplan.data.cases_table import survey_cases_table
from dvtplan.data.patient_groups import NO_GROUP, PatientGroups, read_patient_groups

PATIENTS = {"a1": "A", "a2": "A", "b": "B", "c": "C"}
"""Case -> patient; patient A has two cases."""
SOUND = "case_id,patient_id,centre,sex\na1,A,site 10,F\na2,A,,F\nb,B,site 2,NA\nc,C,NA,M\n"


def groups(folder: Path, text: str | None, column: str = "centre") -> PatientGroups:
    path = folder / "cases.csv"
    if text is not None:
        path.write_text(text)
    return read_patient_groups(path, column, PATIENTS, "by")


def refused(folder: Path, text: str | None, column: str = "centre") -> str:
    with pytest.raises(DvtError) as caught:
        groups(folder, text, column)
    (line,) = str(caught.value).splitlines()
    assert str(folder / "cases.csv") in line
    return line


def test_a_patient_has_the_value_of_any_case_and_na_is_no_value(tmp_path: Path) -> None:
    found = groups(tmp_path, SOUND)
    assert found.group_of == {"A": "site 10", "B": "site 2", "C": NO_GROUP}
    assert found.ungrouped == ("C",)
    assert found.names == ("site 2", "site 10", NO_GROUP)


def test_only_the_given_cases_are_grouped(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(SOUND)
    found = read_patient_groups(tmp_path / "cases.csv", "sex", {"a2": "A", "new": "new"}, "by")
    assert found.group_of == {"A": "F", "new": NO_GROUP}


def test_different_values_of_one_patient_are_refused(tmp_path: Path) -> None:
    line = refused(tmp_path, SOUND.replace("a2,A,,", "a2,A,site 3,"))
    assert "patient A" in line and "site 10 (a1), site 3 (a2)" in line


def test_a_column_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    line = refused(tmp_path, SOUND, "center")
    assert "no column center" in line and "centre, sex" in line and "`by`" in line
    assert "no column describes patients" in refused(tmp_path, "case_id,patient_id\na1,A\n")


def test_a_column_of_the_pipeline_does_not_group(tmp_path: Path) -> None:
    assert "no column patient_id" in refused(tmp_path, SOUND, "patient_id")


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    assert "several columns centre" in refused(tmp_path, "case_id,centre,centre\na1,1,2\n")


def test_without_a_table_the_message_names_it(tmp_path: Path) -> None:
    assert "not found" in refused(tmp_path, None)


def test_columns_that_group_patients_are_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,centre,Scanner,sex\na,1,X,F\nb,1,X,M\nc,2,Y,M\n")
    assert survey_cases_table(tmp_path / "cases.csv").warnings == ()
