"""dvt_import"""

from __future__ import annotations

from pathlib import Path

from dvtplan.cli.arguments import parser_of
from dvtplan.cli.runner import command
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural


@command
def import_dicom(argv: list[str]) -> None:
    """dvt_import"""
    parser = parser_of(
        "Make a data set of DICOM scans and their masks, under pseudonyms; run again, it adds what is new.",
        "dvt_import -i export/* -o datasets_raw/DVT --channels CE-MR --series fl3d_vein",
    )
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="SCAN",
        help="a folder or ZIP of DICOM for each patient, or one folder of these",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the data set, such as datasets_raw/DVT")
    parser.add_argument("--channels", nargs="+", required=True, metavar="NAME", help="such as CE-MR")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=(),
        metavar="NAME",
        help="names of the values 1, 2, ... or of segments; default: thrombus",
    )
    parser.add_argument(
        "--series", nargs="+", metavar="S", help="for each channel the number of a series, or part of its description"
    )
    parser.add_argument(
        "--segmentation", metavar="S", help="of several segmentation objects, the number or part of the description"
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="CSV",
        help="table with the columns folder and mask; default: the one mask in the folder, or beside it under its name",
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="CSV",
        help="who is who, to be kept; default: NAME_import_key.csv beside the data set",
    )
    parser.add_argument(
        "--patients", choices=("tag", "folder"), default="tag", help="who is one patient: one DICOM id, or one folder"
    )
    parser.add_argument("--keep-names", action="store_true", help="call cases like their folders, not case_001, ...")
    options = parser.parse_args(argv)
    from dvtplan.dicom import dataset_import

    done = dataset_import.import_dicom(
        options.input,
        options.output,
        options.channels,
        labels=options.labels,
        series=options.series,
        segmentation=options.segmentation,
        masks=options.masks,
        key=options.key,
        by=options.patients,
        keep_names=options.keep_names,
    )
    if done.added or done.kept:
        print(f"{done.folder}: {plural(len(done.added), 'case')} imported, {len(done.kept)} there already")
        if done.unmasked:
            print(f"Without a mask, in imagesTs, which is not read: {', '.join(done.unmasked)}")
        print(f"{done.key}: who is who; it is no part of the data set and names patients")
    if done.faults:
        raise DvtError("\n".join([f"{plural(len(done.faults), 'scan')} not imported.", *done.faults]))
