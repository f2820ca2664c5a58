"""Messages about files that cannot be read or written."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from dvtplan.core.errors import InvalidValue, cannot_read, require_whole


def test_a_failed_read_names_the_file_the_reason_and_what_to_do() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "elsewhere")
    assert cannot_read(Path("a.csv"), error) == "a.csv: cannot be read (Permission denied). Fix the permissions."
    assert cannot_read(Path("a.csv"), OSError("no reason"), "Look.") == "a.csv: cannot be read (no reason). Look."


@pytest.mark.parametrize("value", ["x", "2", 1, -1, 2.0, True, None, [3]])
def test_a_number_that_cannot_be_is_refused_in_one_line(value: object) -> None:
    with pytest.raises(InvalidValue, match=r"`folds=.*expected a whole number from 2") as caught:
        require_whole("folds", value, 2)
    assert "\n" not in str(caught.value)
    require_whole("folds", 2, 2)
    require_whole("folds", np.int64(3), 2)
    require_whole("folds", None, 2, optional=True)
