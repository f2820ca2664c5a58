"""The key file of an import."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvtplan.core.errors import DvtError
from dvtplan.dicom.import_key import KeyRow, read_key, write_key

ROW = KeyRow(case_id="c", patient_id="p", dicom_patient_id="", series="1.2", source="a, b", mask="")


def test_a_key_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_key(tmp_path / "key.csv", [ROW])
    assert read_key(tmp_path / "key.csv") == [ROW] and read_key(tmp_path / "none.csv") == []


@pytest.mark.parametrize("change", [("case_id,", ""), ("1.2,", ""), ("1.2,", "1.2,3,4,"), (",", ";")])
def test_a_table_that_is_not_a_key_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "key.csv"
    write_key(path, [ROW])
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DvtError, match=r"key.csv: is not the key file"):
        read_key(path)


def test_a_key_that_cannot_be_opened_is_not_called_another_file(tmp_path: Path) -> None:
    with pytest.raises(DvtError, match=r"cannot be read \(Is a directory\)"):
        read_key(tmp_path)
