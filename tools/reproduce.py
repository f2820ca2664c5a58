"""The paper's study, step by step: what is done is not done again, what is left is told with its time.

Every step is a command of the package, started as a user would start it; its results on disk tell whether it
is done, so the study may be stopped and started at any point.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from make_phantom import at_least, dataset_name
from phantom.cohort import description_of, make_cohort
from phantom.difficulty import DIFFICULTIES
from phantom.grid import SCALES

from dvtplan import artifacts
from dvtplan.cli.options import seconds
from dvtplan.errors import DvtError, how_many
from dvtplan.journal import duration
from dvtplan.recipes import RECIPES
from dvtplan.records import Plan, Predicted, Run, Splits
from dvtplan.workspace import Workspace

NETWORKS = ("gn_unet", "unet", "segnet", "gcn")
"""Those of the paper's Table 2, its own first."""
FOLDS = 8
"""As in the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is to be reproduced, and where."""

    workspace: Workspace
    phantom: dict[str, Any] | None
    """Arguments of ``make_cohort``; none for a data set that is there."""
    n_folds: int
    run_folds: tuple[int, ...]
    """Which of them."""
    networks: tuple[str, ...]
    recipe: str
    epochs: int | None
    """Of every training; none for the recipe's, or what a time budget holds."""
    budget_s: float | None
    """Time budget of a fold; none where epochs decide."""
    preset: str

    @property
    def training(self) -> list[str]:
        """Options of every training that begins."""
        told = ["--recipe", self.recipe]
        told += [] if self.epochs is None else ["--epochs", str(self.epochs)]
        return told + ([] if self.budget_s is None else ["--time-budget", f"{self.budget_s:g}s"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a study."""

    name: str
    done: bool
    seconds: float | None
    """How long it will take; none where nothing tells yet, 0 for what takes next to nothing."""
    run: Callable[[], None]


def steps_of(study: Study) -> list[Step]:
    """All steps in order, those that are done among them."""
    workspace = study.workspace
    place = ["--root", str(workspace.root), "--dataset", workspace.dataset]
    planned = workspace.splits.exists()
    _require_the_same(study)
    steps = []
    if study.phantom is not None:
        made = _is_made(workspace, study.phantom)
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
    """What is done and what is left, with the time where it is known."""
    lines = [f"  {'done' if step.done else 'left'}  {step.name:<28}{_time_of(step)}" for step in steps]
    left = [step for step in steps if not step.done]
    known = sum(step.seconds or 0 for step in left)
    unknown = sum(step.seconds is None for step in left)
    time_left = f"about {duration(known)}" if known or not unknown else ""
    more = f"{how_many(unknown, 'training')} whose time the first of its network will tell" if unknown else ""
    told = " and ".join(filter(None, (time_left, more)))
    return "\n".join([*lines, f"{len(left)} of {len(steps)} steps left: {told}."])


def run(steps: Callable[[], list[Step]]) -> None:
    """Do what is left; after each step look anew at what is on disk."""
    behind = 0
    while True:
        now = steps()
        if behind == len(now):
            return
        step = now[behind]
        behind += 1
        if step.done:
            continue
        left = [s for s in now[behind - 1 :] if not s.done]
        known = sum(s.seconds or 0 for s in left)
        unknown = any(s.seconds is None for s in left)
        told = f"; left about {duration(known)}{' and more' if unknown else ''}" if known else ""
        print(f"\n== {step.name}  (step {behind} of {len(now)}{told})", file=sys.stderr, flush=True)
        step.run()


def _time_of(step: Step) -> str:
    if step.done or step.seconds == 0:
        return ""
    return "time not known yet" if step.seconds is None else f"about {duration(step.seconds)}"


def _is_made(workspace: Workspace, phantom: dict[str, Any]) -> bool:
    """Whether the phantom is there, and the one that is asked for."""
    path = workspace.raw / "dataset.json"
    if not path.exists():
        return False
    wanted = description_of(phantom["scale"], phantom["difficulty"], phantom["seed"]), phantom["cases"]
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DvtError(f"{path}: is no readable description of a data set ({error}). Remove it, or mend it.") from error
    found = content.get("description"), content.get("numTraining")
    if found != wanted:
        raise DvtError(
            f"{path}: expected {wanted[1]} cases, {wanted[0]!r}; found {found[1]}, {found[0]!r}. Give the options of "
            "that study, another --root, or --own-data."
        )
    return True


def _require_the_same(study: Study) -> None:
    """Refuse to go on with what was planned or trained by other options: its tables would be of no one study.

    Raises:
        DvtError: naming the file, what it holds and what was asked for.
    """
    workspace = study.workspace
    remedy = "Give the options of that study, or another --root."
    if workspace.plan.exists():
        preset = artifacts.load(Plan, workspace.plan, "dvt_plan_and_preprocess").preset
        if preset != study.preset:
            raise DvtError(f"{workspace.plan}: expected --preset {study.preset}, found {preset}. {remedy}")
    if workspace.splits.exists() and not workspace.own_splits.exists():
        found = len(artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess").folds)
        if found != study.n_folds:
            raise DvtError(f"{workspace.splits}: expected --folds {study.n_folds}, found {found}. {remedy}")
    wanted = RECIPES[study.recipe]
    for network in study.networks:
        for fold in study.run_folds:
            run = _run_of(workspace, network, fold)
            if run is None:
                continue
            epochs = study.epochs or (run.recipe.epochs if study.budget_s is not None else wanted.epochs)
            asked = replace(wanted, name=run.recipe.name, target=run.recipe.target, epochs=epochs)
            if run.recipe != asked:
                raise DvtError(
                    f"{workspace.fold(network, fold).run}: expected --recipe {study.recipe} with "
                    f"{how_many(epochs, 'epoch')}, found {run.recipe.name} with {how_many(run.recipe.epochs, 'epoch')}."
                    f" {remedy}"
                )


def _is_trained(workspace: Workspace, network: str, fold: int) -> bool:
    """Whether all epochs are behind it and every test case is predicted."""
    folder = workspace.fold(network, fold)
    if not (folder.run.exists() and folder.ledger.exists()):
        return False
    training = artifacts.load(Run, folder.run, f"dvt_train {fold}")
    test = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess").folds[fold].test
    vouched = artifacts.load(Predicted, folder.ledger, f"dvt_train {fold} --resume").cases
    return training.epochs_done == training.recipe.epochs and set(test) <= set(vouched)


def _seconds_left(study: Study, network: str, fold: int) -> float | None:
    """Of a training: the rest of what was begun, else the budget, else what another fold of it took."""
    own = _run_of(study.workspace, network, fold)
    if own is not None and own.epochs_done:
        return own.seconds / own.epochs_done * (own.recipe.epochs - own.epochs_done)
    if study.budget_s is not None:
        return study.budget_s
    others = [_run_of(study.workspace, network, k) for k in study.run_folds]
    paces = [r.seconds / r.epochs_done * r.recipe.epochs for r in others if r is not None and r.epochs_done]
    return sum(paces) / len(paces) if paces else None


def _run_of(workspace: Workspace, network: str, fold: int) -> Run | None:
    path = workspace.fold(network, fold).run
    return artifacts.load(Run, path, f"dvt_train {fold}") if path.exists() else None


def _make_phantom(study: Study) -> None:
    root, dataset = study.workspace.root, study.workspace.dataset
    try:
        make_cohort(root, dataset, **study.phantom or {}, overwrite=True)
    except OSError as error:
        raise DvtError(str(error)) from error


def _command(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "dvtplan.cli", *arguments]
    status = subprocess.run(command).returncode
    if status:
        raise DvtError(f"{shlex.join(command)} ended with status {status}. Mend what it says and run this again.")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description="Redo the study of Huang 2019: networks, folds, tables, figures; on phantoms or on your data.",
        epilog="example: bash tools/reproduce.sh --scale tiny --run-folds 0 1 --time-budget 3m",
        allow_abbrev=False,
    )
    parser.add_argument("--root", type=Path, default=Path("reproduction"), help="folder of the study")
    parser.add_argument(
        "--dataset", type=dataset_name, default="Phantom", help="a data set under the root, or a new phantom"
    )
    parser.add_argument("--own-data", action="store_true", help="the data set is there already; make no phantom")
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="of the phantom")
    parser.add_argument("--cases", type=at_least(1), help="of the phantom; default: 16 at tiny, else the scale's")
    parser.add_argument("--seed", type=at_least(0), default=2019, help="of the phantom")
    parser.add_argument("--difficulty", choices=DIFFICULTIES, default="default", help="of the phantom")
    parser.add_argument("--jobs", type=at_least(1), default=2, help="processes that make phantoms")
    parser.add_argument("--preset", choices=("auto", "paper"), default="auto", help="how the plan is made")
    parser.add_argument("--folds", type=at_least(2), help=f"into how many; default: {FOLDS}, or 4 below 24 phantoms")
    parser.add_argument("--run-folds", type=at_least(0), nargs="+", metavar="FOLD", help="which of them; default: all")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="the first is compared with each other")
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="quick", help="'paper' wants a GPU")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=at_least(1), help="of every training; default: the recipe's")
    length.add_argument("--time-budget", type=seconds, metavar="TIME", help="of every training: 90s, 20m, 8h")
    parser.add_argument("--dry-run", action="store_true", help="only tell what is left and how long it will take")
    options = parser.parse_args(arguments)

    cases = options.cases or (16 if options.scale == "tiny" else SCALES[options.scale].cases)
    n_folds = options.folds or (min(4, cases) if not options.own_data and cases < 24 else FOLDS)
    run_folds = tuple(sorted(set(options.run_folds))) if options.run_folds else tuple(range(n_folds))
    if run_folds[-1] >= n_folds:
        parser.error(f"--run-folds {run_folds[-1]}: there are the folds 0 to {n_folds - 1}")
    if not options.own_data and n_folds > cases:
        parser.error(f"--folds {n_folds}: there are only {cases} patients to divide")
    from dvtplan.networks import NETWORKS as KNOWN  # loads PyTorch, which --help need not wait for

    unknown = sorted(set(options.networks) - set(KNOWN))
    if unknown or len(set(options.networks)) < len(options.networks):
        wrong = f"no such network: {', '.join(unknown)}" if unknown else "a network is named twice"
        parser.error(f"--networks: {wrong}; choose among {', '.join(KNOWN)}")
    phantom = {name: getattr(options, name) for name in ("scale", "seed", "difficulty", "jobs")} | {"cases": cases}
    study = Study(
        workspace=Workspace(options.root, options.dataset),
        phantom=None if options.own_data else phantom,
        n_folds=n_folds,
        run_folds=run_folds,
        networks=tuple(options.networks),
        recipe=options.recipe,
        epochs=options.epochs,
        budget_s=options.time_budget,
        preset=options.preset,
    )
    begin = time.monotonic()
    try:
        print(describe(steps_of(study)), file=sys.stderr)
        if not options.dry_run:
            run(lambda: steps_of(study))
            print(
                f"The study stands in {study.workspace.root}, after {duration(time.monotonic() - begin)}.",
                file=sys.stderr,
            )
    except DvtError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nreproduce: interrupted; run it again and it goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
