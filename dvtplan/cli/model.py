"""dvt_model: export a trained model to one file, or describe a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from dvtplan.cli.arguments import add_action, parser_of, whole_number
from dvtplan.cli.runner import command, for_command_line


@command
def model(argv: list[str]) -> None:
    """dvt_model"""
    parser = parser_of(
        "Export a trained model to one file for others, or describe a model.",
        "dvt_model export results/DVT/gn_unet gn_unet.zip",
        verbosity=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="export | info")
    export = add_action(
        actions,
        "export",
        "Write an archive of trained folds: weights, plan, recipe, ranges of the training data and Table 1, "
        "without names of patients or files.",
        "dvt_model export results/DVT/gn_unet gn_unet.zip --folds 0 1",
    )
    export.add_argument("results", type=Path, metavar="RESULTS", help="a results folder, such as results/DVT/gn_unet")
    export.add_argument("target", type=Path, metavar="MODEL.zip", help="the archive to write")
    export.add_argument("--folds", type=whole_number, nargs="+", help="folds to export; default: all that are trained")
    export.add_argument("--licence", type=Path, metavar="TXT", help="text file with the licence of the weights")
    export.add_argument("--overwrite", action="store_true", help="replace an existing file")
    export.add_argument(
        "--weights",
        choices=("float32", "float16"),
        default="float32",
        help="number type of the stored weights; float16 rounds them to half the size; default: float32",
    )
    info = add_action(
        actions,
        "info",
        "Verify and describe a model: network, weights, classes, plan, training data, recipe, Table 1, digest.",
        "dvt_model info gn_unet.zip",
    )
    info.add_argument("path", type=Path, metavar="MODEL", help="an archive, or a results folder")
    options = parser.parse_args(argv)
    if options.action == "info":
        print(for_command_line(_info(options.path)))
    else:
        _export(options)


def _info(path: Path) -> str:
    """Verify and describe a model."""
    from dvtplan.models import description

    if not path.is_dir():
        return description.to_text(description.describe_archive(path))
    from dvtplan.reporting.model_export import describe_folder

    return description.to_text(describe_folder(path))


def _export(options: argparse.Namespace) -> None:
    from dvtplan.core import console, text
    from dvtplan.reporting.model_export import export_model

    exported = export_model(
        options.results,
        options.target,
        folds=options.folds,
        licence=options.licence,
        overwrite=options.overwrite,
        weights=options.weights,
    )
    for line in exported.omitted:
        console.warn(line)
    size = text.size(exported.path.stat().st_size)
    print(f"{exported.path} ({size}, folds {' '.join(map(str, exported.folds))}, digest {exported.digest})")
