"""dvt_predict: segment thrombus in new scans."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from dvtplan.cli.arguments import add_machine, add_trust, parser_of, whole_number
from dvtplan.cli.runner import command
from dvtplan.core import process_group
from dvtplan.core.errors import DvtError
from dvtplan.inference.options import EXTRA_FORMATS


@command
def predict(argv: list[str]) -> None:
    """Run dvt_predict."""
    arguments = _parser().parse_args(argv)
    from dvtplan.findings.options import ReportOptions
    from dvtplan.inference import session
    from dvtplan.inference.options import PredictOptions
    from dvtplan.models import devices
    from dvtplan.training import distributed

    rank, world = process_group.rank_and_world_size()
    if world > 1 and arguments.part is not None:
        raise DvtError("--part and torchrun both distribute the scans. Use only one of them.")
    options = PredictOptions(
        overwrite=arguments.overwrite,
        save_probabilities=arguments.save_probabilities,
        part=(rank + 1, world) if world > 1 else arguments.part,
        series=arguments.series and tuple(arguments.series),
        stations=arguments.stations and tuple(arguments.stations),
        extra_formats=tuple(arguments.extra_formats),
        mirror=arguments.mirror,
        trust=arguments.trust,
    )
    reports = ReportOptions(
        findings=arguments.findings,
        summary=arguments.summary,
        burden=arguments.burden,
        levels_table=arguments.levels_table,
        level=arguments.level,
        levels=arguments.levels,
    )
    setup = devices.choose(
        distributed.local_device(arguments.device),
        precision=arguments.precision,
        channels_last=arguments.channels_last,
        compiled=arguments.compile,
    )
    outcome = session.predict_scans(
        arguments.input, arguments.output, arguments.model, options, reports, folds=arguments.folds, setup=setup
    )
    for path in outcome.files:
        print(path)
    outcome.raise_failures()


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "Segment thrombus on scans with a trained model. Masks have the grid of their scan.",
        "dvt_predict -i scan.nii.gz -o mask.nii.gz --model results/DVT/gn_unet",
    )
    parser.add_argument(
        "-i", "--input", type=Path, required=True, help="a volume, a folder of volumes, or a folder or ZIP of DICOM"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder, or a file for a single volume")
    parser.add_argument(
        "--model", type=Path, required=True, help="results folder, or archive of dvt_model; its folds predict together"
    )
    parser.add_argument("--series", nargs="+", metavar="N", help="DICOM series, one per channel of the model")
    parser.add_argument(
        "--stations", nargs="+", metavar="S", help="overlapping series, or files of a folder, to stitch into one scan"
    )
    parser.add_argument(
        "--folds", type=whole_number, nargs="+", help="folds of the model to use; default: all trained folds"
    )
    parser.add_argument("--save-probabilities", action="store_true", help="also write a probability volume per class")
    parser.add_argument("--extra-formats", nargs="+", choices=tuple(EXTRA_FORMATS), default=(), metavar="FORMAT",
                        help="additional formats of each mask: dicom-seg, a DICOM segmentation object; itksnap, label "
                             "names")  # fmt: skip
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average predictions of mirrored slices: every second tile is mirrored, whole slices are predicted both "
        "ways, which takes twice as long; default: as the recipe says",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing masks, also edited ones")
    parser.add_argument(
        "--part", type=_part, metavar="I/N", help="the I-th of N shares of a folder; run all N, in parallel if you like"
    )
    add_trust(parser)
    _add_reports(parser)
    add_machine(parser)
    return parser


def _add_reports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--findings", action="store_true",
                        help="write ID_findings.json next to each mask: burden, lesions, confidence")  # fmt: skip
    parser.add_argument("--summary", action="store_true",
                        help="write ID_summary.html, .pdf and .png next to each mask; includes --findings")  # fmt: skip
    parser.add_argument("--burden", type=Path, metavar="CSV",
                        help="write the thrombus burden of each limb: volume, length and position")  # fmt: skip
    parser.add_argument("--levels-table", type=Path, metavar="CSV",
                        help="cases.csv with the level between proximal and distal; other scans use --level, or an "
                             "estimate from the image")  # fmt: skip
    parser.add_argument(
        "--level",
        type=_heights,
        metavar="MM",
        help="boundary between proximal and distal: LPS z in mm for both limbs, or --level=LEFT,RIGHT",
    )
    parser.add_argument(
        "--levels",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="divide into proximal and distal; default: divide",
    )


def _heights(text: str) -> tuple[float, ...]:
    match = re.fullmatch(r"[+-]?\d+(?:\.\d+)?(?:,[+-]?\d+(?:\.\d+)?)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: expected one height in mm, or two such as -210.5,-208")
    return tuple(float(part) for part in text.split(","))


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is not a share such as 1/4 or 4/4")
    return int(match[1]), int(match[2])
