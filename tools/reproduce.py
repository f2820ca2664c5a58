"""Reproduce the paper's study step by step: skip steps that are done, and show the time of those that are left.

Every step is a command of the package. Its results on disk show whether it is done, so the study can be stopped and
started again at any time.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from arguments import at_least, dataset_name, print_error
from phantom.cohort import Design
from phantom.difficulty import DIFFICULTIES
from phantom.grid import SCALES
from reproduction.steps import describe, run, steps_of
from reproduction.study import FOLDS, NETWORKS, Study

from dvtplan.cli.arguments import seconds
from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration
from dvtplan.data.paths import Workspace, open_workspace
from dvtplan.planning.recipe import RECIPES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Reproduce the study of Huang 2019 (networks, folds, tables, figures) on phantoms or your data.",
        epilog="example: bash tools/reproduce.sh --run-folds 0 1 --recipe paper --time-budget 3m",
        allow_abbrev=False,
    )
    parser.add_argument("--root", type=Path, default=Path("reproduction"), help="folder of the study")
    parser.add_argument(
        "--dataset", type=dataset_name, default="Phantom", help="an existing data set, or name of a new phantom"
    )
    parser.add_argument("--own-data", action="store_true", help="use an existing data set; make no phantom")
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="scale of the phantom")
    parser.add_argument("--cases", type=at_least(1), help="phantom patients; default: 16 at tiny, else of the scale")
    parser.add_argument("--seed", type=at_least(0), default=2019, help="seed of the phantom")
    parser.add_argument("--difficulty", choices=DIFFICULTIES, default="default", help="difficulty of the phantom")
    parser.add_argument("--jobs", type=at_least(1), default=2, help="processes that make phantoms")
    parser.add_argument("--preset", choices=("auto", "paper"), default="auto", help="preset of the plan")
    parser.add_argument(
        "--folds", type=at_least(2), help=f"number of folds; default: {FOLDS}, or 4 with fewer than 24 phantoms"
    )
    parser.add_argument("--run-folds", type=at_least(0), nargs="+", metavar="FOLD", help="folds to train; default: all")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="the first is compared with each of the others")
    parser.add_argument(
        "--recipe", choices=tuple(RECIPES), default="paper",
        help="recipe of every training (default: paper); without a GPU give a --time-budget",
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=at_least(1), help="epochs of every training; default: those of the recipe")
    length.add_argument("--time-budget", type=seconds, metavar="TIME", help="time of every training: 90s, 20m, 8h")
    parser.add_argument("--dry-run", action="store_true", help="only show which steps are left and their duration")
    return parser


def _study(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Study:
    """Return the study of the options; an invalid combination ends the program with exit status 2."""
    cases = options.cases or (16 if options.scale == "tiny" else SCALES[options.scale].cases)
    n_folds = options.folds or (min(4, cases) if not options.own_data and cases < 24 else FOLDS)
    run_folds = tuple(sorted(set(options.run_folds))) if options.run_folds else tuple(range(n_folds))
    if run_folds[-1] >= n_folds:
        parser.error(f"--run-folds {run_folds[-1]}: the folds are 0 to {n_folds - 1}")
    if not options.own_data and n_folds > cases:
        parser.error(f"--folds {n_folds}: there are only {cases} patients")
    from dvtplan.models.networks.registry import NETWORKS as KNOWN  # loads PyTorch, which --help need not wait for

    unknown = sorted(set(options.networks) - set(KNOWN))
    if unknown or len(set(options.networks)) < len(options.networks):
        wrong = f"unknown network {', '.join(unknown)}" if unknown else "a network is named twice"
        parser.error(f"--networks: {wrong}; choose from {', '.join(KNOWN)}")
    phantom = Design(scale=options.scale, cases=cases, seed=options.seed, difficulty=options.difficulty)
    return Study(
        workspace=Workspace(options.root, options.dataset),
        phantom=None if options.own_data else phantom,
        phantom_jobs=options.jobs,
        n_folds=n_folds,
        run_folds=run_folds,
        networks=tuple(options.networks),
        recipe=options.recipe,
        epochs=options.epochs,
        budget_s=options.time_budget,
        preset=options.preset,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    study = _study(parser, options)
    begin = time.monotonic()
    try:
        if options.own_data:
            open_workspace(options.root, options.dataset)
        print(describe(steps_of(study)), file=sys.stderr)
        if not options.dry_run:
            run(lambda: steps_of(study))
            print(
                f"The study is complete in {study.workspace.root} ({duration(time.monotonic() - begin)}).",
                file=sys.stderr,
            )
    except DvtError as error:
        print_error("reproduce", error)
        return 1
    except KeyboardInterrupt:
        print("\nreproduce: interrupted. Run it again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
