"""Preprocess a tiny data set, and edit its plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.datasets import tiny_dataset

from dvtplan.data.paths import Workspace
from dvtplan.planning.preprocess import Preprocessed, PreprocessOptions, plan_and_preprocess


def run(root: Path, **options: Any) -> Preprocessed:
    """Plan and preprocess with two folds, in one process."""
    return plan_and_preprocess(root, options=PreprocessOptions(**{"folds": 2, "jobs": 1, **options}))


def tiny_workspace(root: Path, cases: Sequence[str] = ("a", "b", "c", "d"), **kinds: Any) -> Workspace:
    """Write a tiny raw data set ``DVT`` under a root; arguments as in ``tiny_dataset``."""
    tiny_dataset(root / "datasets_raw" / "DVT", cases, **kinds)
    return Workspace(root, "DVT")


def stamps(place: Workspace) -> dict[str, int]:
    """Return when each file of the preprocessed slices was written."""
    return {
        str(p.relative_to(place.preprocessed)): p.stat().st_mtime_ns
        for p in place.preprocessed.glob("*/*")
        if p.is_file()
    }


def edit_plan(place: Workspace, **changes: Any) -> None:
    """Change fields of ``plan.json``, as by hand."""
    body = json.loads(place.plan.read_text())
    place.plan.write_text(json.dumps({**body, **changes}))
