"""Measure what each part of the recipe `modern` is worth: one change at a time, at equal time.

Each change (lever) is trained with every seed, each run with one thread on a core of its own. It predicts the test
patients, and is scored by dvt_evaluate. docs/developer/recipes.md describes the table.

    python tools/ablation.py --dataset Small --test SmallTest --minutes 10 --seeds 0 1 --jobs 2 --out ablation_small
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # dvtplan need not be installed

from ablation_study import conditions, levers, results, runs, schedule, table
from ablation_study.conditions import AblationConditions
from ablation_study.levers import LEVERS
from ablation_study.runs import Job
from arguments import at_least, minutes, print_error
from compare import inputs, settings
from compare.settings import Setup

from dvtplan.core import child_processes, files, json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration, plural, size
from dvtplan.data.dataset import Dataset, discover
from dvtplan.data.folds import Fold
from dvtplan.data.paths import Workspace, open_workspace
from dvtplan.data.planned_splits import load_splits
from dvtplan.planning.plan import Plan
from dvtplan.planning.target import predicts_union

NAME = "ablation"


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.table:
            print(_table(options.out), end="")
            return 0
        if options.dry_run:
            _describe(_prepare(options), options)
            return 0
        with child_processes.ends_in_order(), files.exclusive_lock(options.out):
            return _run(options)
    except (DvtError, OSError) as error:
        print_error(NAME, error)
        return 1
    except KeyboardInterrupt:
        print(f"\n{NAME}: interrupted. Run it again to continue.", file=sys.stderr)
        return child_processes.exit_status()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    """All that is known before the first run."""

    setup: Setup
    tested: Workspace
    test: Dataset
    conditions: AblationConditions
    machine: dict[str, object]
    jobs: list[Job]
    skipped: dict[str, str]

    @property
    def waiting(self) -> list[Job]:
        """Runs that are not finished."""
        return [job for job in self.jobs if not runs.method_file(self.setup.folder(job.name)).exists()]


# --- before the first run -------------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> _Study:
    """Read the data sets, choose the levers, and refuse what cannot run."""
    workspace = open_workspace(options.root, options.dataset)
    dataset = discover(workspace.raw)
    if not options.dry_run:
        inputs.plan(workspace)
    elif not inputs.is_planned(workspace):
        raise DvtError(f"{workspace.raw}: is not planned yet. Run dvt_plan_and_preprocess, then --dry-run again.")
    fold = load_splits(workspace, dataset.patient_of).fold(options.fold, workspace.splits)
    tested, test, fold = _test_patients(options, workspace, dataset, fold)
    plan = json_records.load(Plan, workspace.plan, "dvt_plan_and_preprocess")
    chosen, skipped = levers.choose(options.levers, plan)
    from bench import machine  # loads PyTorch, which --help need not wait for

    here = machine.describe("cpu")
    common = _conditions(options, workspace, test, fold, str(here["processor"]))
    study = _Study(
        setup=Setup(workspace=workspace, out=options.out, conditions=common, fold=fold),
        tested=tested,
        test=test,
        conditions=common,
        machine=here,
        jobs=[Job(lever=lever, seed=seed) for seed in dict.fromkeys(options.seeds) for lever in chosen],
        skipped=skipped,
    )
    settings.first_cores(options.jobs, "--jobs")
    settings.require_the_same(options.out, common, save=not options.dry_run)
    for job in study.jobs:
        runs.require_same_recipe(study.setup.folder(job.name), job)
    return study


def _test_patients(
    options: argparse.Namespace, workspace: Workspace, dataset: Dataset, fold: Fold
) -> tuple[Workspace, Dataset, Fold]:
    """Return the data set of the test patients, and the fold with these."""
    if options.test is None or options.test == workspace.dataset:
        return workspace, dataset, fold
    tested = open_workspace(options.root, options.test)
    test = discover(tested.raw)
    conditions.require_comparable(dataset, test)
    return tested, test, replace(fold, test=tuple(case.id for case in test.cases))


def _conditions(
    options: argparse.Namespace, workspace: Workspace, test: Dataset, fold: Fold, processor: str
) -> AblationConditions:
    return AblationConditions(
        dataset=workspace.dataset,
        fold=options.fold,
        budget_s=60 * options.minutes,
        threads=1,
        splits_digest=settings.splits_digest(workspace),
        jobs=options.jobs,
        processor=processor,
        precision=options.precision,
        test=test.name,
        test_digest=conditions.digest_of([case for case in test.cases if case.id in set(fold.test)]),
        values="lesion" if predicts_union("auto", test.labels) else "labels",
        phantom=test.is_phantom,
    )


def _describe(study: _Study, options: argparse.Namespace) -> None:
    """Print what would run, and how long."""
    waiting = study.waiting
    for job in study.jobs:
        state = "to run" if job in waiting else "finished"
        print(f"{job.lever}, seed {job.seed}: {state} ({' '.join(levers.words_of(job.lever))})")
    _print_skipped(study)
    total = -(-len(waiting) // options.jobs) * study.conditions.budget_s
    print(
        f"{len(waiting)} of {plural(len(study.jobs), 'run')} to do, {options.jobs} at a time: {duration(total)} of "
        "training. Predictions and scores come on top."
    )
    print(f"Disk: about {size(_needed(study, options))}, free {size(_free(options.out))}.")


def _print_skipped(study: _Study) -> None:
    for lever, reason in study.skipped.items():
        print(f"{lever} is skipped: {reason}.", file=sys.stderr)


def _needed(study: _Study, options: argparse.Namespace) -> int:
    """Return the bytes on disk that the runs will need."""
    return runs.CHECKPOINT_BYTES * (options.jobs if options.remove_checkpoints else len(study.waiting))


def _free(out: Path) -> int:
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return shutil.disk_usage(place).free


# --- the runs -------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    """Run what is not finished, and write the tables after each run; return the exit status."""
    study = _prepare(options)
    needed, free = _needed(study, options), _free(options.out)
    if needed > free:
        raise DvtError(
            f"{options.out}: the runs need about {size(needed)}, and {size(free)} are free. Free some space, or use "
            "--remove-checkpoints."
        )
    _print_skipped(study)
    inputs.link_test(study.setup, study.test)
    waiting = study.waiting
    ended: list[Job] = []

    def start(job: Job) -> runs.Work[object]:
        remove = options.remove_checkpoints
        return runs.work(study.setup, job, study.tested, study.conditions, remove_checkpoint=remove)

    def done(job: Job) -> None:
        ended.append(job)
        print(f"== {job.name}: finished, {len(ended)} of {len(waiting)}", file=sys.stderr, flush=True)
        _write(options.out, study.machine)

    failed = schedule.run(waiting, settings.first_cores(options.jobs, "--jobs"), start, done)
    if len(failed) < len(study.jobs):
        print(_write(options.out, study.machine), end="")
    for job, message in failed.items():
        print_error(NAME, DvtError(f"{job.name}: {message}"))
    if failed:
        print(f"{NAME}: {plural(len(failed), 'run')} failed. Run it again to repeat them.", file=sys.stderr)
    return 1 if failed else 0


# --- the table ------------------------------------------------------------------------------------


def _read(out: Path) -> tuple[Sequence[results.Lever], AblationConditions, str]:
    """Read what is finished; the text is the region rule."""
    common = json_records.load(AblationConditions, out / "settings.json", runs.MADE_BY, "Choose another --out.")
    found = results.load(out)
    if not found:
        raise DvtError(f"{out}: no run is finished.")
    return results.compare(found), common, found[0].rule


def _table(out: Path) -> str:
    return table.to_text(*_read(out))


def _write(out: Path, machine: dict[str, object]) -> str:
    """Write the tables of the finished runs; return them as text."""
    read = _read(out)
    text = table.to_text(*read)
    files.write_text(out / "ablation.txt", text)
    files.write_text(out / "ablation.md", table.to_markdown(*read))
    files.write_text(out / "ablation.json", table.to_json(*read, machine))
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog="example: python tools/ablation.py --dataset Small --minutes 10 --seeds 0 1 --jobs 2 --out ablation",
        allow_abbrev=False,
    )
    parser.add_argument("--root", type=Path, default=Path(), help="folder with datasets_raw; default: this folder")
    parser.add_argument("--dataset", help="data set to train on; default: the only one")
    parser.add_argument("--fold", type=at_least(0), default=0, help="fold to train, and to test (default: 0)")
    parser.add_argument("--test", metavar="NAME", help="test all patients of this data set instead of the fold's")
    parser.add_argument("--minutes", type=minutes, default=10.0, help="training time of each run (default: 10)")
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1], help="a run each (default: 0 1)")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="runs at a time, each on its own core (default: 1)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto",
        help="number format of all trainings; auto (default): each tries which is faster, which may differ",
    )  # fmt: skip
    parser.add_argument(
        "--levers", nargs="+", choices=tuple(LEVERS), default=list(LEVERS), metavar="LEVER",
        help=f"changes to measure, next to {levers.REFERENCE}; default: all; an unknown name lists them",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for runs and tables")
    parser.add_argument("--remove-checkpoints", action="store_true", help="remove the checkpoint of each finished run")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="list what would run and how long, then stop")
    only.add_argument("--table", action="store_true", help="print the table of the finished runs in --out, then stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
