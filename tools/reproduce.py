"""The paper's study, step by step: what is done is not done again, what is left is told with its time.

Every step is a command of the package, started as a user would start it; its results on disk tell whether it
is done, so the study may be stopped and started at any point.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from arguments import at_least, dataset_name
from phantom.difficulty import DIFFICULTIES
from phantom.grid import SCALES
from reproduction.steps import describe, run, steps_of
from reproduction.study import FOLDS, NETWORKS, Study

from dvtplan.cli.arguments import seconds
from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration
from dvtplan.data.paths import Workspace
from dvtplan.planning.recipe import RECIPES


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
    from dvtplan.models.networks.registry import NETWORKS as KNOWN  # loads PyTorch, which --help need not wait for

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
