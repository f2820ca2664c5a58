"""The commands that score masks and report on them."""

from __future__ import annotations

import argparse
from pathlib import Path

from dvtplan.cli.arguments import add_place, millimetres, parser_of, positive, workspace_of
from dvtplan.cli.runner import command


@command
def evaluate(argv: list[str]) -> None:
    """dvt_evaluate"""
    parser = parser_of(
        "Score predictions against the truth: metrics.csv and Table 1.",
        "dvt_evaluate --split proximal/distal",
    )
    add_place(parser)
    parser.add_argument(
        "--split",
        type=_regions,
        metavar="A/B",
        help="regions, such as proximal/distal; default: what labels and levels allow",
    )
    parser.add_argument(
        "--rule",
        choices=("auto", "identity", "level"),
        default="auto",
        help="divide by the truth's labels, or at each limb's level in cases.csv",
    )
    parser.add_argument("--network", default="gn_unet", help="whose predictions")
    parser.add_argument(
        "--compare", nargs="+", metavar="NETWORK", help="several networks: Table 2, the first against each other"
    )
    parser.add_argument("--folds", type=int, nargs="+", help="default: all that have predictions")
    parser.add_argument("--labels", type=Path, help="folder of true masks, to score anyone's --predictions against")
    parser.add_argument(
        "--predictions", type=Path, help="folder of predicted masks of the same names; goes with --labels"
    )
    parser.add_argument(
        "--predicted", choices=("auto", "lesion", "labels"), default="auto", help="what values in --predictions mean"
    )
    parser.add_argument("--out", type=Path, help="where the tables of --predictions go; default: into that folder")
    parser.add_argument("--tolerance", type=millimetres, default=2.0, metavar="MM", help="of surface Dice")
    parser.add_argument(
        "--level-sensitivity",
        action="store_true",
        help="also score with all levels moved by -20 to +20 mm: level_sensitivity.csv",
    )
    parser.add_argument(
        "--estimate-levels",
        action="store_true",
        help="where cases.csv has no level take that found in the image; so done anyway where a rule needs levels",
    )
    parser.add_argument("--jobs", type=positive, help="processes; default: as the data are large")
    parser.add_argument("--pictures", action="store_true", help="draw prediction over truth for every test patient")
    options = parser.parse_args(argv)
    from dvtplan.evaluation import evaluate as evaluate_module
    from dvtplan.evaluation.evaluate import Compared, Evaluation, compare_networks, evaluate_folders

    if (options.labels is None) != (options.predictions is None):
        parser.error("--labels and --predictions go together")
    if options.compare and (options.labels is not None or options.pictures):
        parser.error("--compare goes with neither --labels and --predictions nor --pictures")
    if options.compare and (options.level_sensitivity or options.estimate_levels):
        parser.error("--compare goes with neither --level-sensitivity nor --estimate-levels")
    done: Evaluation | Compared
    if options.predictions is not None:
        done = evaluate_folders(
            options.labels,
            options.predictions,
            options.out or options.predictions,
            options.split,
            options.rule,
            predicted=options.predicted,
            dataset=None if options.dataset is None else workspace_of(options).raw,
            jobs=options.jobs,
            tolerance_mm=options.tolerance,
            level_sensitivity=options.level_sensitivity,
            estimate_levels=options.estimate_levels,
        )
    elif options.compare:
        workspace = workspace_of(options)
        done = compare_networks(
            workspace,
            options.compare,
            options.split,
            options.folds,
            options.rule,
            options.jobs,
            tolerance_mm=options.tolerance,
        )
    else:
        workspace = workspace_of(options)
        done = evaluate_module.evaluate(
            workspace,
            options.network,
            options.split,
            options.folds,
            options.rule,
            options.jobs,
            tolerance_mm=options.tolerance,
            level_sensitivity=options.level_sensitivity,
            estimate_levels=options.estimate_levels,
        )
    print(done.text)
    written = list(done.written)
    if options.pictures and options.predictions is None:
        from dvtplan.reporting.report import draw_cases

        written += draw_cases(workspace, options.network, options.folds)
    print("\n".join(map(str, written)))


def _regions(text: str) -> tuple[str, ...]:
    names = tuple(text.split("/"))
    if len(set(names)) != len(names) or not all(names):
        raise argparse.ArgumentTypeError(f"{text} names a region twice, or none; write proximal/distal")
    return names
