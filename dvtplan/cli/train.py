"""The command that trains."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from dvtplan.cli.arguments import add_machine, add_place, parser_of, positive, seconds, whole_number, workspace_of
from dvtplan.cli.recipe_arguments import AUTO, add_recipe, recipe_of
from dvtplan.cli.runner import command
from dvtplan.core import process_group
from dvtplan.core.errors import DvtError

if TYPE_CHECKING:
    from dvtplan.data.paths import FoldFolder, Workspace
    from dvtplan.planning.recipe import Recipe


@command
def train(argv: list[str]) -> None:
    """dvt_train"""
    parser = parser_of("Train folds and predict their test patients.", "dvt_train 0 --recipe quick --time-budget 20m")
    parser.add_argument("fold", nargs="+", help="fold numbers, or all")
    add_place(parser)
    parser.add_argument("--network", default="gn_unet", help="which network to train")
    parser.add_argument(
        "--gpus",
        type=positive,
        default=1,
        metavar="N",
        help="data-parallel processes, one per GPU; several folds run side by side",
    )
    parser.add_argument(
        "--workers", type=whole_number, help="reading processes; 0 keeps slices in memory; default: as they fit"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last finished epoch; of several folds, begin those not begun",
    )
    again.add_argument("--overwrite", action="store_true", help="begin anew where a training already is")
    parser.add_argument(
        "--time-budget", type=seconds, metavar="TIME", help="as many epochs as fit, at most the recipe's: 90s, 20m, 8h"
    )
    parser.add_argument("--only", type=whole_number, help=argparse.SUPPRESS)
    add_recipe(parser)
    add_machine(parser)
    options = parser.parse_args(argv)
    workspace = workspace_of(options)
    folds = _fold_numbers(options.fold, workspace)
    begun = [k for k in folds if workspace.fold(options.network, k).checkpoint.exists()]
    if process_group.restart_count() and not options.overwrite:
        options.resume = bool(begun)
    if options.only is None and len(folds) > 1 and options.gpus > 1 and not process_group.under_torchrun():
        _side_by_side(folds, options, argv)
        return
    for fold in folds if options.only is None else [options.only]:
        recipe, resume = recipe_of(options), options.resume and (fold in begun or not begun)
        if recipe is None and options.resume and not resume:
            recipe = _recipe_begun(workspace.fold(options.network, begun[0]))  # as the folds that were begun
        _train_and_predict(workspace, fold, recipe, resume, options)


def _recipe_begun(folder: FoldFolder) -> Recipe:
    from dvtplan.core import json_records
    from dvtplan.models.training_run import Run

    return json_records.load(Run, folder.run, "dvt_train").recipe


def _train_and_predict(
    workspace: Workspace, fold: int, recipe: Recipe | None, resume: bool, options: argparse.Namespace
) -> None:
    from dvtplan.inference import predict
    from dvtplan.models import devices
    from dvtplan.training.job import Options
    from dvtplan.training.train import train_fold

    folder = train_fold(
        workspace,
        fold,
        network=options.network,
        recipe=recipe,
        epochs=getattr(options, "epochs", None),
        options=Options(
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


def _side_by_side(folds: list[int], options: argparse.Namespace, argv: list[str]) -> None:
    """Train a fold per GPU, each in a process of its own, until all are done."""
    from dvtplan.models import devices
    from dvtplan.training import distributed

    slots = [["--device", name] for name in devices.one_per_process(options.device, options.gpus)]
    commands = [[sys.executable, "-m", "dvtplan.cli", "train", *argv, "--gpus", "1", "--only", str(k)] for k in folds]
    failed = [k for k, status in zip(folds, distributed.run_commands(commands, slots), strict=True) if status]
    if failed:
        raise DvtError(
            f"fold {', '.join(map(str, failed))}: failed, see above; the others are trained. Go on with --resume."
        )


def _fold_numbers(words: list[str], workspace: Workspace) -> list[int]:
    """Fold numbers as written, each once, or every fold for 'all'."""
    from dvtplan.core import json_records
    from dvtplan.data.folds import Splits

    splits = json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    there = [fold.index for fold in splits.folds]
    if "all" in words:
        return there
    wrong = [word for word in words if not word.isdecimal() or int(word) not in there]
    if wrong:
        raise DvtError(
            f"fold {wrong[0]}: {workspace.splits} holds the folds 0 to {there[-1]}. Name some of them, or all."
        )
    return list(dict.fromkeys(int(word) for word in words))
