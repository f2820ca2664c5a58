"""Short trainings of a small data set, and what they write."""

from __future__ import annotations

import csv
from pathlib import Path

from dvtplan.core import json_records
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models.training_run import Run
from dvtplan.planning.recipe import Recipe
from dvtplan.training.job import TrainingOptions

TINY = Recipe(name="tiny", epochs=4, width=4, norm_groups=2)
"""Twelve training slices of 32x32, so six steps an epoch, and both drops of the learning rate."""
CPU = TrainingOptions(device="cpu", workers=0)


class Stop(BaseException):
    """Ends a training as an interrupt does."""


def rows(folder: FoldFolder) -> list[dict[str, str]]:
    """Read the table of epochs."""
    with folder.epochs.open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(folder: FoldFolder) -> list[dict[str, str]]:
    """Read the table of epochs without what depends on the clock."""
    return [{k: row[k] for k in ("epoch", "loss", "learning_rate")} for row in rows(folder)]


def load_run(folder: FoldFolder) -> Run:
    """Read the record of a training."""
    return json_records.load(Run, folder.run, "dvt_train")


def link(workspace: Workspace, root: Path) -> Workspace:
    """Return a workspace with the same raw and preprocessed data and results of its own."""
    for name in ("datasets_raw", "datasets_preprocessed"):
        (root / name).symlink_to(workspace.root / name)
    return Workspace(root, workspace.dataset)
