"""Steps of a reproduction study: which are done, how long the rest takes, and how to run them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phantom.cohort import Design, make_cohort

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration, plural
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace
from dvtplan.data.prediction_records import PredictionIndex
from dvtplan.models.training_run import Run
from reproduction.study import Study, is_made, require_the_same, run_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a study."""

    name: str
    done: bool
    seconds: float | None
    """Estimated duration; None if unknown, 0 if negligible."""
    run: Callable[[], None]


def steps_of(study: Study) -> list[Step]:
    """Return all steps in order, including those that are done."""
    workspace = study.workspace
    place = ["--root", str(workspace.root), "--dataset", workspace.dataset]
    planned = workspace.splits.exists()
    require_the_same(study)
    steps = []
    if study.phantom is not None:
        made = is_made(workspace, study.phantom)
        steps.append(Step(name="phantom cohort", done=made, seconds=0, run=lambda: _make_phantom(study)))
    plan = ["plan_and_preprocess", *place, "--folds", str(study.n_folds), "--preset", study.preset]
    steps.append(Step(name="plan and preprocess", done=planned, seconds=0, run=lambda: _command(plan)))
    for network in study.networks:
        for fold in study.run_folds:
            folder = workspace.fold(network, fold)
            begun = folder.checkpoint.exists()
            options = ["--resume"] if begun else study.training
            command = ["train", str(fold), *place, "--network", network, *options]
            trained = planned and _is_trained(workspace, network, fold)
            steps.append(
                Step(
                    name=f"{network}, fold {fold}" + (" (begun)" if begun and not trained else ""),
                    done=trained,
                    seconds=_seconds_left(study, network, fold),
                    run=lambda command=command: _command(command),  # type: ignore[misc]
                )
            )
    folds = ["--folds", *map(str, study.run_folds)]
    scoring = ["evaluate", *place, *folds]
    if len(study.networks) > 1:
        scoring += ["--compare", *study.networks]
    else:
        scoring += ["--network", *study.networks]
    steps.append(Step(name="Tables 1 and 2", done=False, seconds=0, run=lambda: _command(scoring)))
    report = ["report", *place, *folds, "--networks", *study.networks]
    steps.append(Step(name="report", done=False, seconds=0, run=lambda: _command(report)))
    return steps


def describe(steps: Sequence[Step]) -> str:
    """Return which steps are done and which are left, with the estimated time where it is known."""
    lines = [f"  {'done' if step.done else 'left'}  {step.name:<28}{_time_of(step)}" for step in steps]
    left = [step for step in steps if not step.done]
    known = sum(step.seconds or 0 for step in left)
    unknown = sum(step.seconds is None for step in left)
    time_left = f"about {duration(known)}" if known or not unknown else ""
    more = f"{plural(unknown, 'training')} of unknown duration until the first of that network is done"
    remaining = " and ".join(filter(None, (time_left, more if unknown else "")))
    return "\n".join([*lines, f"{len(left)} of {len(steps)} steps left: {remaining}."])


def run(steps: Callable[[], list[Step]]) -> None:
    """Run the steps that are left; read the state on disk again after each step."""
    number = 0
    while True:
        current = steps()
        if number == len(current):
            return
        step = current[number]
        number += 1
        if step.done:
            continue
        left = [s for s in current[number - 1 :] if not s.done]
        known = sum(s.seconds or 0 for s in left)
        unknown = any(s.seconds is None for s in left)
        remaining = f"; left about {duration(known)}{' and more' if unknown else ''}" if known else ""
        print(f"\n== {step.name}  (step {number} of {len(current)}{remaining})", file=sys.stderr, flush=True)
        step.run()


def _time_of(step: Step) -> str:
    if step.done or step.seconds == 0:
        return ""
    return "duration unknown" if step.seconds is None else f"about {duration(step.seconds)}"


def _is_trained(workspace: Workspace, network: str, fold: int) -> bool:
    """Return whether all epochs are done and every test case is predicted."""
    folder = workspace.fold(network, fold)
    if not (folder.run.exists() and folder.prediction_index.exists()):
        return False
    training = json_records.load(Run, folder.run, f"dvt_train {fold}")
    test = json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess").folds[fold].test
    predicted_cases = json_records.load(PredictionIndex, folder.prediction_index, f"dvt_train {fold} --resume").cases
    return training.is_finished and set(test) <= set(predicted_cases)


def _seconds_left(study: Study, network: str, fold: int) -> float | None:
    """Estimate the rest of a training: from its own epochs, else the time budget, else another fold's duration."""
    own = run_of(study.workspace, network, fold)
    if own is not None and own.epochs_done:
        return own.seconds / own.epochs_done * (own.recipe.epochs - own.epochs_done)
    if study.budget_s is not None:
        return study.budget_s
    others = [run_of(study.workspace, network, k) for k in study.run_folds]
    durations = [r.seconds / r.epochs_done * r.recipe.epochs for r in others if r is not None and r.epochs_done]
    return sum(durations) / len(durations) if durations else None


def _make_phantom(study: Study) -> None:
    root, dataset = study.workspace.root, study.workspace.dataset
    try:
        make_cohort(root, study.phantom or Design(), dataset, jobs=study.phantom_jobs, overwrite=True)
    except OSError as error:
        raise DvtError(str(error)) from error


def _command(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "dvtplan.cli", *arguments]
    status = subprocess.run(command).returncode
    if status:
        raise DvtError(f"{shlex.join(command)} ended with status {status}. Fix the error above and run this again.")
