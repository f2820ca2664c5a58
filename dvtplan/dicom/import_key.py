"""Key file of an import, which links pseudonyms to DICOM identities, and the table of masks."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from dvtplan.core.errors import DvtError, cannot_read
from dvtplan.core.files import write_text
from dvtplan.core.text import shorten_list
from dvtplan.dicom.import_options import ImportOptions
from dvtplan.imaging.volume_names import stem

TABLE_COLUMNS = ("folder", "mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One row of the key: identity of a case. It stays in the hospital, outside the data set."""

    case_id: str
    patient_id: str
    """Pseudonym."""
    dicom_patient_id: str
    """PatientID (0010,0020); empty if the folder identifies the patient."""
    series: str
    """Series UID of each channel, with its letter if the series has several volumes."""
    source: str
    """Imported folder or archive."""
    mask: str
    """Origin of the mask; empty without a mask."""


def next_number(word: str, taken: set[str]) -> str:
    """Return the name after the highest number taken, so that no number is used twice."""
    numbers = [int(m[1]) for name in taken if (m := re.fullmatch(rf"{word}_(\d+)", name))]
    return f"{word}_{max(numbers, default=0) + 1:03d}"


def folder_name(source: str | Path) -> str:
    """Return the name of a case that is named after its folder or archive."""
    return re.sub(r"[^\w.-]+", "_", stem(Path(source).absolute()))


def require_same_way(rows: Sequence[KeyRow], folder: Path, options: ImportOptions) -> None:
    """Refuse options that name cases, or tell patients apart, in another way than the earlier imports did.

    Raises:
        DvtError: with the option.
    """
    numbered = [r.case_id for r in rows if re.fullmatch(r"case_\d+", r.case_id) and r.case_id != folder_name(r.source)]
    named = [r.case_id for r in rows if not re.fullmatch(r"case_\d+", r.case_id)]
    if options.keep_names and numbered:
        raise DvtError(
            f"{folder}: its cases are numbered ({shorten_list(numbered)}), but `keep_names` names cases after their "
            "folders. Omit `keep_names`, or choose another `output`."
        )
    if named and not options.keep_names:
        raise DvtError(
            f"{folder}: its cases are named after their folders ({shorten_list(named)}). Give `keep_names` again, or "
            "choose another `output`."
        )
    if options.patient_by == "folder" and any(row.dicom_patient_id for row in rows):
        raise DvtError(
            f"{folder}: its patients are identified by their PatientID, but `patient_by='folder'` is given. Omit it, "
            "or choose another `output`."
        )


def require_same_patient(source: Path, tag: str, known: KeyRow | None, rows: Sequence[KeyRow]) -> None:
    """Refuse a scan whose patient cannot be compared with those of the earlier imports.

    Args:
        source: the scan.
        tag: its PatientID; empty if it has none, or the folder identifies the patient.
        known: its row, if it was imported before.
        rows: of the key.

    Raises:
        DvtError: if earlier imports took no PatientID, or another one.
    """
    if tag and rows and not any(row.dicom_patient_id for row in rows):
        raise DvtError(
            f"{source}: has a PatientID, but no earlier scan of the data set has one in its key. Give "
            "`patient_by='folder'` again, or choose another `output`."
        )
    if known is not None and known.dicom_patient_id != tag:
        raise DvtError(
            f"{source}: was imported as {known.case_id} with another PatientID. Correct the key, or choose another "
            "`output`."
        )


def csv_text(lines: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def read_key(path: Path) -> list[KeyRow]:
    """Read the rows of a key; empty if the file does not exist.

    Raises:
        DvtError: if the file is not a key.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
        if any(value is None for row in rows for value in row.values()):
            raise ValueError("a row has too few values")
        return [KeyRow(**row) for row in rows]
    except OSError as error:
        raise DvtError(cannot_read(path, error, "Check the path and permissions.")) from error
    except (ValueError, TypeError, csv.Error) as error:
        raise DvtError(f"{path}: is not the key file of an import. Give another file as `key`.") from error


def write_key(path: Path, rows: Sequence[KeyRow]) -> None:
    """Write a key, readable only by its owner."""
    columns = [field.name for field in fields(KeyRow)]
    ordered = sorted(rows, key=lambda row: row.case_id)
    write_text(path, csv_text([columns, *([getattr(row, name) for name in columns] for row in ordered)]))
    with contextlib.suppress(OSError):  # file systems without owners
        path.chmod(0o600)


def read_mask_table(path: str | Path) -> dict[str, str]:
    """Read a table of masks as input -> mask.

    Raises:
        DvtError: if the file is not such a table, or lists an input twice.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[value.strip() for value in row] for row in csv.reader(file, strict=True) if any(row)]
    except OSError as error:
        raise DvtError(cannot_read(path, error, "Check the path and permissions.")) from error
    except (ValueError, csv.Error) as error:
        raise DvtError(f"{path}: is not a readable table. Save it as comma-separated text in UTF-8.") from error
    if not rows or tuple(rows[0]) != TABLE_COLUMNS or any(len(row) != 2 or not all(row) for row in rows):
        raise DvtError(
            f"{path}: expected the columns {', '.join(TABLE_COLUMNS)} with a value in every row. Correct the table."
        )
    folders = [folder for folder, _ in rows[1:]]
    repeated = sorted({folder for folder in folders if folders.count(folder) > 1})
    if repeated:
        raise DvtError(f"{path}: lists {shorten_list(repeated)} twice. Keep one row for each folder.")
    return dict(rows[1:])
