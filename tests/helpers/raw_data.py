"""Edit a small raw data set, and read its problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dvtplan.core.errors import DatasetProblems
from dvtplan.data.dataset import discover


def problems_of(folder: Path) -> list[str]:
    """Return all problems of a data set, without the folder's name."""
    with pytest.raises(DatasetProblems) as caught:
        discover(folder)
    assert all("\n" not in line and line.endswith(".") for line in caught.value.problems)
    assert f"{len(caught.value.problems)} problem" in str(caught.value)
    return [line.removeprefix(f"{folder}/") for line in caught.value.problems]


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of ``dataset.json``; None removes one."""
    path = folder / "dataset.json"
    body = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in body.items() if v is not None}))


def image_path(folder: Path, case: str = "a", channel: int = 0) -> Path:
    """Return the path of a case's channel."""
    return folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"


def label_path(folder: Path, case: str = "a") -> Path:
    """Return the path of a case's label."""
    return folder / "labelsTr" / f"{case}.nii.gz"


def table(folder: Path, text: str | bytes) -> Path:
    """Write ``cases.csv``."""
    path = folder / "cases.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
