"""cases.csv: tables as people write them, and each fault by its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.datasets import tiny_dataset
from helpers.raw_data import label_path, problems_of, table

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DvtError
from dvtplan.data.cases_table import read_cases_table, survey_cases_table
from dvtplan.data.dataset import discover

PATIENT_COLUMNS = ("Patientennummer", "PATIENTEN-ID", "Código paciente", "ID_Paziente", "Numéro du sujet", "patiënt",
                   "pacjent_nr", "Probandennummer", "study_pid", "StudyPatientID", "患者ID")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case_id\na\n", {"a": ("a", None)}),
        ("case_id,patient_id\na,\n", {"a": ("a", None)}),
        ("\ufeffcase_id , patient_id\r\n a , P \r\n\r\n,\r\n", {"a": ("P", None)}),
        ('"case_id","patient_id"\n"a","P"\n', {"a": ("P", None)}),
        ("case_id,patient_id\na,e\u0301\nb,\u00e9\n", {"a": ("\u00e9", None), "b": ("\u00e9", None)}),
        ("case_id,patient_id\na,\u200bP\u00a01\ufe0f\nb,P 1 \n", {"a": ("P 1", None), "b": ("P 1", None)}),
        ("case_id,patient_id,\na,P,\n", {"a": ("P", None)}),
        ("case_id,note,patient_id\na,\"1, 2\",007\n", {"a": ("007", None)}),
        (",case_id,,patient_id\n0,a,,P\n", {"a": ("P", None)}),
        ("patient_id,case_id,midline_mm\nP,a,3\n", {"a": ("P", None)}),
        ("case_id,level_left_mm\na,-1e2\n", {"a": ("a", Levels(left_mm=-100.0))}),
        ("case_id,level_right_mm,midline_mm\na,0,3\n", {"a": ("a", Levels(right_mm=0.0, midline_mm=3.0))}),
        ("case_id\n", {}),
    ],
)  # fmt: skip
def test_tables_as_people_and_spreadsheets_write_them(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    assert read_cases_table(table(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"found none\. Fix its first line\."),
        ("patient_id\nP\n", "at least case_id; found patient_id"),
        ("case_id;patient_id\na;P\n", "at least case_id; found case_id;patient_id"),
        ("case_id,case_id\na,b\n", "each once and at least case_id"),
        ("case_id\na\n\na\n", "line 4: a occurs twice. Keep one row per case."),
        ("case_id,patient_id\n,P\n", "line 2: case_id is empty. Keep one row per case."),
        ("case_id,level_left_mm\na,high\n", "line 2: level_left_mm is 'high', expected a number. Give millimetres"),
        ("case_id,level_right_mm\na,nan\n", "level_right_mm is 'nan', expected a number"),
        ("case_id,midline_mm,level_left_mm\na,inf,1\n", "midline_mm is 'inf', expected a number"),
        ("case_id,level_left_mm\na,12,5\n", "line 2: has 3 values for 2 columns. Write decimals with a point"),
        ("case_id,patient_id\na\n", "line 2: has 1 values for 2 columns"),
        ("case_id,patient_id,level_left_mm,level_right_mm,midline_mm\np0,A,15,5,,\n", "line 2: has 6 values for 5"),
        ("case_id\tpatient_id\na\tP\n", "with commas between the columns, not tabs"),
        ("case_id,patient\na,P\n", "the column 'patient' is not known. Name it patient_id"),
        ("case_id,Patient ID\na,P\n", "the column 'Patient ID' is not known. Name it patient_id"),
        ("case_id,subject\na,P\n", "Name it patient_id"),
        ("case_id,patient_name\na,P\n", "Name it patient_id"),
        ("case_id,Patienten-Nr.\na,P\n", "Name it patient_id"),
        ("case_id,MRN\na,P\n", "Name it patient_id"),
        *((f"case_id,{name}\na,P\n", "Name it patient_id") for name in PATIENT_COLUMNS),
        ("case_id,left_level_mm\na,1\n", "Name it level_left_mm"),
        ("case_id,patient_id\na,NA\nb,NA\nc,P\n", "the patient_id of a, b is 'NA'"),
        ("case_id,Level-left\na,1\n", "Name it level_left_mm"),
        ("case_id,patient_id,patient_id\u200b\na,P,Q\n", "each once and at least case_id"),
        ("case_id,level_left_mm\na,1_5\n", "level_left_mm is '1_5', expected a number"),
        ("case_id\na\na\u200b\n", "line 3: a occurs twice"),
        ('case_id\n"a\n', "is not a readable table"),
        (b"case_id\n\xe9\n", "is not a readable table"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_by_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DvtError, match=message) as caught:
        read_cases_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_all_faults_of_a_table_are_reported_with_those_of_the_files(raw: Path) -> None:
    table(raw, "case_id,level_left_mm\na,x\na,1\nb,y\nz,1\n")
    label_path(raw, "b").unlink()
    assert [line.split(":")[0] for line in problems_of(raw)] == [
        "labelsTr/b.nii.gz",
        "cases.csv, line 2",
        "cases.csv, line 3",
        "cases.csv, line 4",
        "cases.csv",
    ]


def test_a_table_with_semicolons_is_explained(raw: Path) -> None:
    table(raw, "case_id;level_left_mm\na;1\n")
    (line,) = problems_of(raw)
    assert "found case_id;level_left_mm" in line and "semicolons" in line


def test_a_row_without_files_is_named(raw: Path) -> None:
    table(raw, "case_id\nz\n")
    assert problems_of(raw) == ["cases.csv: lists the case z, which has no image. Remove the row or add the files."]


def test_a_row_with_levels_but_too_few_values_is_refused(tmp_path: Path) -> None:
    """The right level would be read from another column."""
    path = table(tmp_path, "case_id,patient_id,level_left_mm,level_right_mm,midline_mm\na,p,-162.8,-3.6\n")
    with pytest.raises(DvtError, match=r"line 2: has 4 values for 5 columns"):
        read_cases_table(path)


def test_what_is_probably_a_mistake_is_a_warning_in_one_line(tmp_path: Path) -> None:
    text = '"case_id","patient_id","midline_mm","note"\n"a","p1",3,x\n"b","P1",,\n'
    found = survey_cases_table(table(tmp_path, text))
    assert found.faults == ()
    columns, midline, patients = found.warnings
    assert "the columns note are not used" in columns
    assert "midline_mm" in midline and ": a." in midline
    assert "p1" in patients and "P1" in patients and "case" in patients
    (missing,) = found.without_row(["a", "b", "c"])
    assert "no row for c" in missing


def test_columns_about_patients_and_single_words_for_a_missing_patient_are_allowed(tmp_path: Path) -> None:
    read = survey_cases_table(table(tmp_path, "case_id,patient_id,patient_age,pat\na,NA,50,1\nb,-,60,2\n"))
    assert read.faults == () and {case_id: case.patient for case_id, case in read.cases.items()} == {
        "a": "NA",
        "b": "-",
    }


def test_warnings_are_printed_where_a_table_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_cases_table(table(tmp_path, "case_id,midline_mm\na,3\n"), ["a", "b"])
    shown = capsys.readouterr().err
    assert "midline_mm is not used" in shown and "no row for b" in shown


def test_a_link_without_a_target_is_not_a_data_set_without_a_table(raw: Path) -> None:
    (raw / "cases.csv").symlink_to(raw / "gone.csv")
    (line,) = problems_of(raw)
    assert line.startswith("cases.csv: not found")


def test_names_of_files_and_rows_are_one_in_any_unicode_form(tmp_path: Path) -> None:
    decomposed, composed = "e\u0301", "\u00e9"
    folder = tiny_dataset(tmp_path / "DVT", (decomposed, "b"))
    label_path(folder, decomposed).rename(label_path(folder, composed))
    table(folder, f"case_id,patient_id\n{composed},P\nb,P\n")
    assert [(case.id, case.patient) for case in discover(folder).cases] == [("b", "P"), (composed, "P")]


def test_a_column_that_may_name_the_patients_is_a_warning_if_every_case_is_its_own_patient(tmp_path: Path) -> None:
    """Unique texts, numbers with decimals and constants name no patients, and neither does what describes a patient."""
    columns = "case_id,Akte,Haus,TSH,Code,patient_sex,Patientenalter"
    text = f"{columns}\na,17,K,1.5,u,F,5\nb,17,K,1.5,v,F,5\nc,18,K,2,w,M,6\n"
    (line,) = survey_cases_table(table(tmp_path, text)).warnings
    assert "of its own" in line and "'Akte'" in line and line.count("'") == 2 and "patient_id" in line
    empty = "case_id,patient_id,Akte\na,,17\nb,,17\nc,,18\n"
    (line,) = survey_cases_table(table(tmp_path, empty)).warnings
    assert "'Akte'" in line
    (line,) = survey_cases_table(table(tmp_path, empty.replace(",,", ",P,"))).warnings
    assert "of its own" not in line


@pytest.mark.parametrize("column", ["hospital_number", "hospital_id", "clinicId", "Site-No.", "centre code"])
def test_the_numbers_of_a_hospital_may_name_its_patients(tmp_path: Path, column: str) -> None:
    text = f"case_id,{column},hospital\na_1,4711,K\na_2,4711,K\nb_1,4712,L\n"
    (line,) = survey_cases_table(table(tmp_path, text)).warnings
    assert f"If {column!r} names the patients" in line and "hospital are" not in line
