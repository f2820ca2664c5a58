"""The command that finds thrombus on scans."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from dvtplan.cli.arguments import add_machine, parser_of
from dvtplan.cli.runner import command
from dvtplan.core import process_group
from dvtplan.core.errors import DvtError


@command
def predict(argv: list[str]) -> None:
    """dvt_predict"""
    parser = parser_of(
        "Find thrombus on scans with a trained model; masks lie on the scans' own grids.",
        "dvt_predict -i scan.nii.gz -o mask.nii.gz --model results/DVT/gn_unet",
    )
    parser.add_argument(
        "-i", "--input", type=Path, required=True, help="a volume, a folder of volumes, or a folder or ZIP of DICOM"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder, or a file for a single volume")
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help="a results folder or an archive of one (dvt_model); its trained folds predict together",
    )
    parser.add_argument(
        "--series", nargs="+", metavar="N", help="of DICOM: the series to take, one for each channel of the model"
    )
    parser.add_argument(
        "--stations", nargs="+", metavar="S", help="overlapping series, or files of a folder, to compose into one scan"
    )
    parser.add_argument("--folds", type=int, nargs="+", help="default: all that are trained")
    parser.add_argument("--save-probabilities", action="store_true", help="write a probability volume per class too")
    parser.add_argument(
        "--burden",
        type=Path,
        metavar="CSV",
        help="write there how much was found in each limb, how long and how far up",
    )
    parser.add_argument(
        "--findings",
        action="store_true",
        help="write ID_findings.json beside each mask: all that was found, each lesion with its probability",
    )
    parser.add_argument(
        "--page", action="store_true", help="write ID_summary.html, .pdf and .png beside each mask; with --findings"
    )
    parser.add_argument(
        "--levels",
        metavar="CSV",
        help="a cases.csv with the levels that divide proximal from distal; or the word none, not to divide. Scans "
        "without a level there take --level, else it is estimated from the image",
    )
    parser.add_argument(
        "--level",
        type=_heights,
        metavar="MM",
        help="LPS z of the level in both limbs, or --level=LEFT,RIGHT",
    )
    parser.add_argument(
        "--also",
        nargs="+",
        choices=("dicom-seg", "itksnap"),
        default=(),
        metavar="FORM",
        help="besides each mask: dicom-seg, an object for the archive; itksnap, names of its values",
    )
    parser.add_argument("--overwrite", action="store_true", help="make masks anew that are already there")
    parser.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="the I-th of N shares of a folder; run all N, side by side or on a cluster",
    )
    add_machine(parser)
    options = parser.parse_args(argv)
    from dvtplan.anatomy.levels import Levels
    from dvtplan.core import console
    from dvtplan.data import cases_table, mask_files, prediction_log
    from dvtplan.findings import burden_table, writer
    from dvtplan.findings.record import read_findings
    from dvtplan.imaging.volume_io import ENDINGS, stem
    from dvtplan.inference.model import load_model
    from dvtplan.inference.predict import AnalysisFailed, predict_path
    from dvtplan.models import devices
    from dvtplan.training import distributed

    rank, world = process_group.rank_and_world_size()
    if world > 1 and options.part is not None:
        raise DvtError("--part and torchrun both share the scans out. Use one of them.")
    told = options.findings or options.page
    for option, value in (("--levels", options.levels), ("--level", options.level)):
        if value is not None and options.burden is None and not told:
            raise DvtError(
                f"{option} divides what --burden measures, and what --findings and --page tell. Give one of them."
            )
    undivided = options.levels == "none"
    if undivided and options.level is not None:
        raise DvtError("--level gives what --levels none leaves out. Give one of them.")
    if options.burden is not None and (world > 1 or options.part is not None):
        raise DvtError("--burden measures all scans at once. Run it again without --part or torchrun; masks are kept.")
    rows = {} if undivided or options.levels is None else cases_table.read_cases_table(Path(options.levels))
    asked = None
    if told or options.burden is not None:
        asked = writer.FindingsOptions(
            record=told,
            page=options.page,
            table={case_id: levels for case_id, (_, levels) in rows.items()},
            given=None if options.level is None else Levels(left_mm=options.level[0], right_mm=options.level[-1]),
            estimate=options.level is None and not undivided,
        )
    setup = devices.choose(
        distributed.local_device(options.device),
        precision=options.precision,
        channels_last=options.channels_last,
        compiled=options.compile,
    )
    console.info(setup.description)
    model = load_model(options.model, folds=options.folds, setup=setup)
    failed: AnalysisFailed | None = None
    try:
        written = predict_path(
            options.input,
            options.output,
            model,
            overwrite=options.overwrite,
            save_probabilities=options.save_probabilities,
            part=(rank + 1, world) if world > 1 else options.part,
            series=options.series,
            stations=options.stations,
            also=options.also,
            asked=asked,
        )
    except AnalysisFailed as error:
        failed, written = error, list(error.written)
    whole = [path for path in written if path.name.endswith(ENDINGS)]
    masks = {stem(path): path for path in (whole[:1] if options.stations else whole)}
    for mask in masks.values() if told else []:
        # Nothing is told of a mask that comes from elsewhere.
        beside = (mask_files.findings_path(mask), *(mask_files.summary_paths(mask) if options.page else ()))
        written += [path for path in beside if path.exists()]
    if asked is not None:
        for name, division in asked.divided.items():
            if division.source in ("estimated", "none") and name in masks and not undivided:
                what = "not divided" if division.levels is None else "levels estimated from the image"
                console.info(f"{name}: {what}: {division.note}.")
                written.append(mask_files.levels_path(masks[name]))
        if options.burden is not None:
            reasons = {} if failed is None else failed.failed
            records = {name: read_findings(mask_files.findings_path(mask)) for name, mask in masks.items() if told}
            changed = {stem(mask) for mask in prediction_log.changed(masks.values())}
            measured = {
                name: record.burden for name, record in records.items() if record is not None and name not in changed
            }
            written.append(
                burden_table.write_burden_table(masks, asked.divided, options.burden, reasons, measured, changed)
            )
    for path in written:
        print(path)
    if failed is not None:
        raise failed


def _heights(text: str) -> tuple[float, ...]:
    match = re.fullmatch(r"[+-]?\d+(?:\.\d+)?(?:,[+-]?\d+(?:\.\d+)?)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is neither a height in mm nor two such as -210.5,-208")
    return tuple(float(part) for part in text.split(","))


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is no share such as 1/4 or 4/4")
    return int(match[1]), int(match[2])
