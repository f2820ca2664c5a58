"""Parameters of a reproduction study, and checks that earlier results in its folder belong to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace

from phantom.cohort import Design

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace
from dvtplan.models.training_run import Run
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import RECIPES, Recipe

NETWORKS = ("gn_unet", "unet", "segnet", "gcn")
"""Networks of the paper's Table 2; the first is the paper's own."""
FOLDS = 8
"""Number of folds in the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What to reproduce, and where."""

    workspace: Workspace
    phantom: Design | None
    """The phantom patients; None for an existing data set."""
    phantom_jobs: int
    """Processes that make phantoms."""
    n_folds: int
    run_folds: tuple[int, ...]
    """Folds to train."""
    networks: tuple[str, ...]
    recipe: str
    epochs: int | None
    """Epochs of every training; None for those of the recipe or of a time budget."""
    budget_s: float | None
    """Time budget of a fold in seconds; None if epochs decide."""
    preset: str

    @property
    def training(self) -> list[str]:
        """Command-line options of a new training."""
        options = ["--recipe", self.recipe]
        options += [] if self.epochs is None else ["--epochs", str(self.epochs)]
        return options + ([] if self.budget_s is None else ["--time-budget", f"{self.budget_s:g}s"])


def is_made(workspace: Workspace, phantom: Design) -> bool:
    """Return whether the phantom exists.

    Raises:
        DvtError: if the data set cannot be read, or is another phantom.
    """
    path = workspace.raw / "dataset.json"
    if not path.exists():
        return False
    wanted = phantom.description, phantom.count
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DvtError(f"{path}: is not a readable description of a data set ({error}). Remove or fix it.") from error
    found = content.get("description"), content.get("numTraining")
    if found != wanted:
        raise DvtError(
            f"{path}: expected {wanted[1]} cases, {wanted[0]!r}; found {found[1]}, {found[0]!r}. Use the options of "
            "that study, another --root, or --own-data."
        )
    return True


def require_the_same(study: Study) -> None:
    """Check that earlier results have the same options, because tables must not mix studies.

    Raises:
        DvtError: if a file was made with other options.
    """
    workspace = study.workspace
    remedy = "Use the options of that study, or another --root."
    if workspace.plan.exists():
        preset = json_records.load(Plan, workspace.plan, "dvt_plan_and_preprocess").preset
        if preset != study.preset:
            raise DvtError(f"{workspace.plan}: expected --preset {study.preset}, found {preset}. {remedy}")
    if workspace.splits.exists() and not workspace.user_splits.exists():
        found = len(json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess").folds)
        if found != study.n_folds:
            raise DvtError(f"{workspace.splits}: expected --folds {study.n_folds}, found {found}. {remedy}")
    for network in study.networks:
        for fold in study.run_folds:
            run = run_of(workspace, network, fold)
            if run is not None:
                _require_same_training(study, run, f"{workspace.fold(network, fold).run}: expected ", remedy)


def _require_same_training(study: Study, run: Run, expected: str, remedy: str) -> None:
    """Check that a fold was trained by the recipe and the time budget of the study.

    Args:
        study: with the options of this command.
        run: of the fold.
        expected: begin of the message.
        remedy: end of the message.

    Raises:
        DvtError: if not.
    """
    wanted = RECIPES[study.recipe]
    epochs = study.epochs or (run.recipe.epochs if study.budget_s is not None else wanted.epochs)
    decided = {one.name: getattr(run.recipe, one.name) for one in fields(wanted) if _is_open(wanted, one.name)}
    if run.recipe != replace(wanted, **{**decided, "epochs": epochs}):
        raise DvtError(
            f"{expected}--recipe {study.recipe} with {plural(epochs, 'epoch')}, found {run.recipe.name} with "
            f"{plural(run.recipe.epochs, 'epoch')}. {remedy}"
        )
    budget_s = None if run.schedule is None else run.schedule.budget_s
    if budget_s != study.budget_s:
        raise DvtError(f"{expected}{_budget(study.budget_s)}, found {_budget(budget_s)}. {remedy}")


def _budget(seconds: float | None) -> str:
    return "no --time-budget" if seconds is None else f"--time-budget {seconds:g}s"


def _is_open(recipe: Recipe, name: str) -> bool:
    """Return whether the training decides a field of a recipe."""
    return name in ("name", "target", "patch") or getattr(recipe, name) == "auto"


def run_of(workspace: Workspace, network: str, fold: int) -> Run | None:
    """Return the record of a training; None if it has not started."""
    path = workspace.fold(network, fold).run
    return json_records.load(Run, path, f"dvt_train {fold}") if path.exists() else None
