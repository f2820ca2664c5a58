"""One run: a lever with a seed is trained, predicts the test patients, and is scored."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from compare import ours
from compare.methods import Method
from compare.settings import Setup
from compare.stages import Work

from ablation_study import levers
from ablation_study.conditions import AblationConditions
from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.planning.recipe import Recipe

MADE_BY = "ablation.py"
ADVICE = "Remove the folder, then run again."
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What is trained: ``run_settings.json``."""

    words: tuple[str, ...]
    """Options of dvt_train, without the seed."""
    recipe: Recipe


def settings_file(folder: Path) -> Path:
    """Return the file of the settings of a run."""
    return folder / "run_settings.json"


def method_file(folder: Path) -> Path:
    """Return the record of a finished run; without it the run is not finished."""
    return folder / "method.json"


def require_same_recipe(folder: Path, job: Job) -> None:
    """Refuse a folder with a training by another recipe of this name.

    Raises:
        DvtError: names the first field that differs.
    """
    path = settings_file(folder)
    if not path.exists():
        return
    earlier = json_records.load(RunSettings, path, MADE_BY, ADVICE).recipe
    now = levers.recipe_of(job.lever, job.seed)
    for one in fields(Recipe):
        before, after = getattr(earlier, one.name), getattr(now, one.name)
        if one.name != "name" and before != after:
            raise DvtError(
                f"{path}: was trained with {one.name} {before}, and {job.lever} now has {after}. Use a new folder as "
                "--out, or remove this one."
            )


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
    if not settings_file(folder).exists():
        recipe = levers.recipe_of(job.lever, job.seed)
        json_records.save(RunSettings(words=tuple(words), recipe=recipe), settings_file(folder))
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
