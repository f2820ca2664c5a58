"""dvt_train: train folds and predict their test patients."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from dvtplan.cli.arguments import add_machine, add_place, parser_of, positive, seconds, whole_number, workspace_of
from dvtplan.cli.recipe_arguments import AUTO, add_recipe, recipe_of
from dvtplan.cli.runner import command
from dvtplan.core import child_processes, process_group
from dvtplan.core.errors import DvtError

if TYPE_CHECKING:
    from dvtplan.data.paths import FoldFolder, Workspace
    from dvtplan.planning.recipe import Recipe


@command
def train(argv: list[str]) -> None:
    """dvt_train"""
    options = _parser().parse_args(argv)
    if options.parent is not None:
        child_processes.end_with_parent(options.parent)
    workspace = workspace_of(options)
    folds = _fold_numbers(options.fold, workspace)
    started = [k for k in folds if workspace.fold(options.network, k).checkpoint.exists()]
    if process_group.restart_count() and not options.overwrite:
        options.resume = bool(started)
    if options.only is None and len(folds) > 1 and options.gpus > 1 and not process_group.under_torchrun():
        _train_in_parallel(folds, options, argv)
        return
    for fold in folds if options.only is None else [options.only]:
        recipe, resume = recipe_of(options), options.resume and (fold in started or not started)
        if recipe is None and options.resume and not resume:
            recipe = _recipe_of_run(workspace.fold(options.network, started[0]))
        _train_and_predict(workspace, fold, recipe, resume, options)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("Train folds and predict their test patients.", "dvt_train 0 --recipe modern --time-budget 20m")
    parser.add_argument("fold", nargs="+", help="fold numbers, or all")
    add_place(parser)
    parser.add_argument("--network", default="gn_unet", help="network to train; an unknown name lists all")
    parser.add_argument(
        "--gpus",
        type=positive,
        default=1,
        metavar="N",
        help="data-parallel processes, one per GPU; several folds are trained in parallel, one per GPU",
    )
    parser.add_argument(
        "--workers",
        type=whole_number,
        help="processes that read slices; 0 keeps all slices in memory; default: 0 if memory suffices",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume",
        action="store_true",
        help="continue after the last checkpoint; with several folds, also start those that are not trained",
    )
    existing.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing training, once the new one is saved for the first time",
    )
    parser.add_argument(
        "--time-budget",
        type=seconds,
        metavar="TIME",
        help="train each fold for this time, at most for the recipe's epochs: 90s, 20m, 8h; predictions come on top",
    )
    parser.add_argument("--only", type=whole_number, help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=whole_number, help=argparse.SUPPRESS)
    add_recipe(parser)
    add_machine(parser)
    return parser


def _recipe_of_run(folder: FoldFolder) -> Recipe:
    """Return the recipe of a started fold, which the other folds must share, as it was before a time budget."""
    from dvtplan.core import json_records
    from dvtplan.models.training_run import Run

    return json_records.load(Run, folder.run, "`train_fold`").whole_recipe


def _train_and_predict(
    workspace: Workspace, fold: int, recipe: Recipe | None, resume: bool, options: argparse.Namespace
) -> None:
    from dvtplan.inference import predict
    from dvtplan.models import devices
    from dvtplan.training.job import TrainingOptions
    from dvtplan.training.train import train_fold

    folder = train_fold(
        workspace,
        fold,
        network=options.network,
        recipe=recipe,
        epochs=getattr(options, "epochs", None),
        options=TrainingOptions(
            device=options.device,
            precision=options.precision,
            channels_last=options.channels_last,
            compiled=options.compile,
            processes=options.gpus,
            workers=options.workers,
            resume=resume,
            overwrite=options.overwrite,
            batch_size_auto=getattr(options, "batch_size", None) == AUTO,
            time_budget_s=options.time_budget,
        ),
    )
    if process_group.is_main_process():
        setup = devices.choose(
            options.device, precision=options.precision, channels_last=options.channels_last, compiled=False
        )
        predict.predict_fold(workspace, options.network, fold, setup=setup)
        print(folder.path)


def _train_in_parallel(folds: list[int], options: argparse.Namespace, argv: list[str]) -> None:
    """Train one fold per GPU at a time, each in its own process."""
    from dvtplan.models import devices
    from dvtplan.training import distributed

    slots = [["--device", name] for name in devices.one_per_process(options.device, options.gpus)]
    base = [sys.executable, "-m", "dvtplan.cli", "train", *argv, "--gpus", "1", "--parent", str(os.getpid())]
    commands = [[*base, "--only", str(k)] for k in folds]
    failed = [k for k, status in zip(folds, distributed.run_commands(commands, slots), strict=True) if status]
    if failed:
        raise DvtError(
            f"fold {', '.join(map(str, failed))}: failed, see above; the others are trained. Continue with --resume."
        )


def _fold_numbers(words: list[str], workspace: Workspace) -> list[int]:
    """Return the given fold numbers, each once, or every fold for 'all'."""
    from dvtplan.core import json_records
    from dvtplan.data.folds import Splits

    splits = json_records.load(Splits, workspace.splits, "`plan_and_preprocess`")
    available = list(range(len(splits.folds)))
    if not available:
        raise DvtError(f"{workspace.splits}: contains no fold. Run `plan_and_preprocess` again.")
    if "all" in words:
        if set(words) != {"all"}:
            raise DvtError(f"fold {' '.join(words)}: all already means every fold. Give all alone, or fold numbers.")
        return available
    unknown = [word for word in words if not word.isdecimal() or int(word) not in available]
    if unknown:
        raise DvtError(
            f"fold {unknown[0]}: {workspace.splits} contains the folds 0 to {available[-1]}. Choose from these, or all."
        )
    return list(dict.fromkeys(int(word) for word in words))
