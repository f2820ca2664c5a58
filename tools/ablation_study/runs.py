"""One run: a lever with a seed is trained, predicts the test patients, and is scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compare import ours, run_settings
from compare.methods import Method
from compare.run_settings import RunSettings
from compare.settings import Setup
from compare.stages import Work

from ablation_study import levers
from ablation_study.conditions import AblationConditions
from dvtplan.core import json_records
from dvtplan.data.paths import Workspace

MADE_BY = "ablation.py"
CHECKPOINT_BYTES = 130_000_000
"""Size of a checkpoint with averaged weights; nothing else of a run is large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A lever and a seed."""

    lever: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder in ``--out``."""
        return f"{self.lever}/seed_{self.seed}"


def method_file(folder: Path) -> Path:
    """Return the record of a finished run; without it the run is not finished."""
    return folder / "method.json"


def require_same_recipe(folder: Path, job: Job) -> None:
    """Refuse a folder with a training by another recipe of this name.

    Raises:
        DvtError: names the first field that differs.
    """
    run_settings.require_same_recipe(folder, job.lever, levers.recipe_of(job.lever, job.seed))


def work(
    setup: Setup, job: Job, tested: Workspace, conditions: AblationConditions, *, remove_checkpoint: bool
) -> Work[Method]:
    """Yield the commands of a run; save and return its record.

    Args:
        setup: with the test cases in its fold.
        job: of the run.
        tested: the data set of the test cases.
        conditions: of all runs.
        remove_checkpoint: remove it in the end.
    """
    folder, words = setup.folder(job.name), levers.words_of(job.lever)
    run_settings.save_once(folder, RunSettings(words=tuple(words), recipe=levers.recipe_of(job.lever, job.seed)))
    method = yield from ours.work(setup, job.name, [*words, "--seed", str(job.seed)], conditions.precision)
    masks = ["--reference", str(setup.test_labels), "--predictions", str(setup.predictions(job.name))]
    place = ["--root", str(tested.root), "--dataset", tested.dataset, "-o", str(folder / "scores")]
    how = ["--prediction-values", conditions.values, "--jobs", "1"]
    yield ours.command(setup, job.name, "evaluate", ["evaluate", *masks, *place, *how])
    json_records.save(method, method_file(folder))
    if remove_checkpoint:
        own = Workspace(folder, setup.workspace.dataset)
        own.fold(ours.NETWORK, setup.fold.index).checkpoint.unlink(missing_ok=True)
    return method
