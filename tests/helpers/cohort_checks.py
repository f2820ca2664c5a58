"""Check phantom cohorts by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from check_phantom import main

CASES = 8
"""Number of cases of the cohort that the tests check."""


def first_case(folder: Path, **changes: object) -> int:
    """Change the metadata of the first case, check it, and return the exit status."""
    if changes:
        path = folder / "metadata" / "leg_001.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return main(["--root", str(folder.parents[1]), "--cases", "1"])


def assert_one_line(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """Check that the error is one line, after those of tqdm, and that standard output is empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("check_phantom: ")]
    assert all(part in line for part in parts)
    assert captured.err.endswith(line + "\n") and "Traceback" not in captured.err
