"""cases.csv: tables as people write them, and each fault by its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.raw_data import label_path, problems_of, table

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DvtError
from dvtplan.data.cases_table import read_cases_table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case_id\na\n", {"a": ("a", None)}),
        ("case_id,patient_id\na,\n", {"a": ("a", None)}),
        ("case_id,patient_id\na\n", {"a": ("a", None)}),
        ("\ufeffcase_id , patient_id\r\n a , P \r\n\r\n,\r\n", {"a": ("P", None)}),
        ("case_id,patient_id\na,P,\n", {"a": ("P", None)}),
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
        ("case_id,level_left_mm\na,12,5\n", "line 2: contains '5' after the last column. Write decimals with a point"),
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
