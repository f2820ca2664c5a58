"""Compare nnU-Net 2D and recipes of dvtplan: the same fold, cores and wall time.

Each method trains for the same time, predicts the test patients of the fold, and is scored by the same function.
docs/developer/comparing.md describes the conditions and what is not equal.

    python tools/compare_nnunet.py --dataset Hippocampus --recipes paper --minutes 20 --out comparison
"""

from __future__ import annotations

import argparse
import functools
import itertools
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # dvtplan need not be installed

from arguments import at_least, minutes, print_error
from compare import inputs, nnunet, ours, run_settings, settings
from compare.results import Job, Results
from compare.settings import Conditions, Setup

from dvtplan.core import child_processes, files, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import discover
from dvtplan.data.paths import Workspace, open_workspace
from dvtplan.data.planned_splits import load_splits
from dvtplan.planning.recipe import RECIPES

NAME = "compare_nnunet"


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with child_processes.ends_in_order(), files.exclusive_lock(options.out), settings.pinned(options.threads):
            return _compare(options, shlex.join(["python", "tools/compare_nnunet.py", *words]))
    except (DvtError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print_error(NAME, error)
        return 1
    except KeyboardInterrupt:
        print(f"\n{NAME}: interrupted. Run it again to continue.", file=sys.stderr)
        return child_processes.exit_status()


def _compare(options: argparse.Namespace, command: str) -> int:
    """Run every method, and write the tables after each run; return the exit status."""
    from bench import machine
    from bench import nnunet as installed  # loads PyTorch, which --help need not wait for

    workspace = open_workspace(options.root, options.dataset)
    dataset = discover(workspace.raw)
    nnunet.require_suitable(dataset)
    here = machine.describe("cpu")
    programs = installed.ready(options.nnunet or options.out / "nnunet_environment").absolute()
    inputs.plan(workspace)
    splits = load_splits(workspace, dataset.patient_of)
    setup = Setup(
        workspace=workspace,
        out=options.out,
        conditions=_conditions(options, workspace, str(here["processor"])),
        fold=splits.fold(options.fold, workspace.splits),
    )
    settings.require_the_same(options.out, setup.conditions)
    for recipe, seed in itertools.product(options.recipes, options.seeds):
        folder = setup.folder(ours.run_name(recipe, seed))
        run_settings.require_same_recipe(folder, recipe, ours.recipe_of(recipe, seed))
    inputs.link_test(setup, dataset)
    failed: dict[str, str] = {}
    try:
        batches = nnunet.prepare(setup, splits, programs, options.nnunet_batch)
    except DvtError as error:
        batches, failed[nnunet.NAME] = [], str(error)
    results = Results(setup, list(map(nnunet.method_name, batches)), here, command)
    failed |= results.run(_jobs(options, setup, programs, batches, str(here["commit"])))
    print(results.text, end="")
    for name, message in failed.items():
        print_error(NAME, DvtError(f"{name}: {message}"))
    return 1 if failed else 0


def _jobs(
    options: argparse.Namespace, setup: Setup, programs: Path, batches: Sequence[int], commit: str
) -> Iterator[Job]:
    """Yield every run. All methods run once before one of them runs a second time."""
    for number, seed in enumerate(dict.fromkeys(options.seeds)):
        for batch in batches:
            run = functools.partial(nnunet.run, setup, programs, batch, number)
            yield Job(method=nnunet.method_name(batch), name=nnunet.run_name(batch, number), run=run)
        for recipe in dict.fromkeys(options.recipes):
            run = functools.partial(ours.run, setup, recipe, seed, commit)
            yield Job(method=recipe, name=ours.run_name(recipe, seed), run=run)


def _conditions(options: argparse.Namespace, workspace: Workspace, processor: str) -> Conditions:
    return Conditions(
        dataset=workspace.dataset,
        fold=options.fold,
        budget_s=60 * options.minutes,
        threads=options.threads,
        splits_digest=settings.splits_digest(workspace),
        processor=processor,
        precision=options.precision,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog="example: python tools/compare_nnunet.py --dataset Hippocampus --recipes paper --out comparison",
        allow_abbrev=False,
    )
    parser.add_argument("--root", type=Path, default=Path(), help="folder with datasets_raw; default: this folder")
    parser.add_argument("--dataset", help="data set in nnU-Net's layout; default: the only one")
    parser.add_argument("--fold", type=at_least(0), default=0, help="fold to train and test (default: 0)")
    parser.add_argument("--recipes", nargs="+", choices=tuple(RECIPES), default=["paper"], help="recipes to compare")
    parser.add_argument("--minutes", type=minutes, default=20.0, help="training time of each method (default: 20)")
    parser.add_argument(
        "--seeds", type=at_least(0), nargs="+", default=[0], metavar="S",
        help="a training of each recipe with each, and as many of nnU-Net, which has no seed (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto",
        help="number format of the recipes, for training and prediction; auto (default): each tries which is faster",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=at_least(1), default=worker_pool.available_cores(),
        help="threads and cores of each method; default: all cores",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for trainings and tables")
    parser.add_argument(
        "--nnunet", type=Path, metavar="DIR", help="environment with nnU-Net, made if missing; default: in --out"
    )
    parser.add_argument(
        "--nnunet-batch",
        type=at_least(1),
        nargs="+",
        default=[12, 32],
        metavar="N",
        help="batch sizes of nnU-Net, a training each (default: 12 32)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
