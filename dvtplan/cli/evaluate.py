"""The command that scores masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from dvtplan.cli.arguments import add_place, add_trust, millimetres, parser_of, positive, whole_number, workspace_of
from dvtplan.cli.runner import command

NETWORK = "gn_unet"
"""Default of --network."""


@command
def evaluate(argv: list[str]) -> None:
    """dvt_evaluate"""
    parser = parser_of(
        "Score predictions against the reference masks: metrics.csv and Table 1.",
        "dvt_evaluate --split proximal/distal",
    )
    add_place(parser)
    _add_inputs(parser)
    _add_scoring(parser)
    options = parser.parse_args(argv)
    _refuse_conflicts(parser, options)
    from dvtplan.core import worker_pool

    if options.jobs != 1 and worker_pool.available_cores() > 1:
        worker_pool.preload("dvtplan.evaluation.case_scores", "scipy.ndimage", "scipy.spatial", "SimpleITK")
    from dvtplan.evaluation.evaluate import Evaluation, NetworkComparison, compare_networks, evaluate, evaluate_folders
    from dvtplan.evaluation.options import EvaluationOptions

    scoring = EvaluationOptions(
        split=options.split,
        region_rule=options.region_rule,
        jobs=options.jobs,
        tolerance_mm=options.tolerance,
        level_sensitivity=options.level_sensitivity,
        estimate_levels=options.estimate_levels,
        by=options.by,
        trust=options.trust,
    )
    done: Evaluation | NetworkComparison
    if options.predictions is not None:
        done = evaluate_folders(
            options.reference,
            options.predictions,
            options.output or options.predictions,
            prediction_values=options.prediction_values or "auto",
            dataset=None if options.dataset is None else workspace_of(options).raw,
            options=scoring,
        )
    elif options.compare:
        done = compare_networks(workspace_of(options), options.compare, options.folds, scoring)
    else:
        done = evaluate(workspace_of(options), options.network or NETWORK, options.folds, scoring)
    print(done.text)
    written = list(done.written)
    if options.overlays:
        from dvtplan.reporting.overlays import draw_overlays

        written += draw_overlays(workspace_of(options), options.network or NETWORK, options.folds)
    print("\n".join(map(str, written)))


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which masks are scored."""
    parser.add_argument("--network", help=f"network whose predictions are scored; default: {NETWORK}")
    parser.add_argument(
        "--compare", nargs="+", metavar="NETWORK", help="compare the first network with each of the others: Table 2"
    )
    parser.add_argument(
        "--folds", type=whole_number, nargs="+", help="folds to score; default: all that have predictions"
    )
    parser.add_argument(
        "--reference", type=Path, help="folder of reference masks, or one file, to score --predictions of any program"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        help="folder of predicted masks with the same file names, or one file; requires --reference",
    )
    parser.add_argument(
        "--prediction-values",
        choices=("auto", "lesion", "labels"),
        help="what the values in --predictions mean: lesion (any value above 0 is thrombus) or labels; default: auto",
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="folder for the tables of --predictions; default: the folder of --predictions"
    )
    parser.add_argument(
        "--overlays", action="store_true", help="draw prediction and reference over the image for every test patient"
    )


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how masks are scored."""
    parser.add_argument(
        "--split",
        type=_regions,
        metavar="A/B",
        help="regions to score, such as proximal/distal; default: all that labels and levels allow",
    )
    parser.add_argument(
        "--region-rule",
        choices=("auto", "by-label", "level"),
        default="auto",
        help="by-label: a predicted voxel has the region of the nearest reference voxel; level: the level of the limb "
        "divides; auto: by-label if the labels name the regions",
    )
    parser.add_argument(
        "--tolerance", type=millimetres, default=2.0, metavar="MM", help="tolerance of the surface Dice"
    )
    parser.add_argument(
        "--level-sensitivity",
        action="store_true",
        help="also score with all levels shifted by -20 to +20 mm: level_sensitivity.csv",
    )
    parser.add_argument(
        "--estimate-levels",
        action="store_true",
        help="estimate a level that is missing in cases.csv from the image (automatic if the rule needs levels)",
    )
    parser.add_argument(
        "--by", metavar="COLUMN", help="column of cases.csv, such as centre: also write Table 1 per group, with a test"
    )
    parser.add_argument("--jobs", type=positive, help="worker processes; default: chosen by the size of the data")
    add_trust(parser)


def _refuse_conflicts(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that exclude each other."""
    given = {name for name, value in vars(options).items() if value not in (None, False)}
    if ("reference" in given) != ("predictions" in given):
        parser.error("--reference and --predictions must be used together")
    excluded = {
        "predictions": ("network", "compare", "folds", "overlays"),
        "compare": ("network", "overlays", "level_sensitivity", "estimate_levels"),
    }
    if "predictions" in given and "dataset" not in given and options.root is not parser.get_default("root"):
        parser.error("--root can only be used with --predictions if --dataset names a data set there")
    if "predictions" in given and "output" not in given and options.predictions.is_file():
        parser.error("--output is required to score a single file")
    if "predictions" not in given:
        needs = [_option(name) for name in ("output", "prediction_values") if name in given]
        if needs:
            parser.error(f"{' and '.join(needs)} can only be used with --reference and --predictions")
    for name, others in excluded.items():
        clash = [_option(other) for other in others if other in given]
        if name in given and clash:
            parser.error(f"{_option(name)} cannot be used with {' or '.join(clash)}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _regions(text: str) -> tuple[str, ...]:
    names = tuple(text.split("/"))
    if len(set(names)) != len(names) or not all(names):
        raise argparse.ArgumentTypeError(f"{text} has an empty or repeated region; write proximal/distal")
    return names
