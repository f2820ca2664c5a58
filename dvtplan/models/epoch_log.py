"""``epochs.csv``: one row for each finished epoch of a training.

In a time budget the last epoch may be partial, and the learning rate may change within an epoch. A row contains that of
the last step.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvtplan.core.errors import DvtError
from dvtplan.core.files import write_text


def read_epochs(path: Path, before: int) -> list[dict[str, Any]]:
    """Read the rows of ``epochs.csv`` whose epoch is below ``before``; an empty list if there is no file.

    Raises:
        DvtError: if the file is not such a table.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row["epoch"]) < before]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DvtError(f"{path}: is not a table of epochs ({error!r}). Move it away, then run again.") from error


def write_epochs(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``epochs.csv`` atomically; all rows must have the keys of the first."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())
