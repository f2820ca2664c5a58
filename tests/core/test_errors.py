"""Messages about files that cannot be read or written."""

from __future__ import annotations

import errno
from pathlib import Path

from dvtplan.core.errors import cannot_read


def test_a_failed_read_names_the_file_the_reason_and_what_to_do() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "elsewhere")
    assert cannot_read(Path("a.csv"), error) == "a.csv: cannot be read (Permission denied). Fix the permissions."
    assert cannot_read(Path("a.csv"), OSError("no reason"), "Look.") == "a.csv: cannot be read (no reason). Look."
