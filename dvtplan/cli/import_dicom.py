"""The command dvt_import."""

from __future__ import annotations

import argparse
from pathlib import Path

from dvtplan.cli.arguments import add_trust, parser_of
from dvtplan.cli.runner import command
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural, shorten_list


@command
def import_dicom(argv: list[str]) -> None:
    """dvt_import"""
    options = _parser().parse_args(argv)
    from dvtplan.dicom import dataset_import
    from dvtplan.dicom.import_options import ImportOptions

    result = dataset_import.import_dicom(
        options.input,
        options.output,
        ImportOptions(
            channels=options.channels,
            label_names=options.label_names,
            series=options.series,
            segmentation=options.segmentation,
            masks=options.masks,
            key=options.key,
            patient_by=options.patient_by,
            keep_names=options.keep_names,
            trust=options.trust,
        ),
    )
    if result.added or result.kept:
        print(f"{result.folder}: {plural(len(result.added), 'case')} imported, {len(result.kept)} already present")
        if result.without_mask:
            print(f"Without a mask, stored in imagesTs and not used for training: {shorten_list(result.without_mask)}")
        print(f"{result.key}: links cases to patients; keep it private, outside the data set")
    if result.faults:
        raise DvtError("\n".join([f"{plural(len(result.faults), 'scan')} not imported.", *result.faults]))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "Make a data set from DICOM scans and their masks, with pseudonyms instead of names. Run it again to add new "
        "scans.",
        "dvt_import -i export -o datasets_raw/DVT --channels CE-MR --series fl3d_vein",
    )
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="SCAN",
        help="a DICOM folder or ZIP archive for each patient, or one folder that contains these",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder of the data set, such as datasets_raw/DVT"
    )
    parser.add_argument(
        "--channels", nargs="+", required=True, metavar="NAME", help="name of each channel, such as CE-MR"
    )
    parser.add_argument(
        "--label-names",
        nargs="+",
        default=(),
        metavar="NAME",
        help="names of the mask values 1, 2, ..., or of the segments; default: thrombus",
    )
    parser.add_argument("--labels", nargs="+", dest="label_names", default=(), help=argparse.SUPPRESS)  # earlier name
    parser.add_argument(
        "--series",
        nargs="+",
        metavar="S",
        help="for each channel, the series number or part of the series description",
    )
    parser.add_argument(
        "--segmentation",
        metavar="S",
        help="if there are several segmentation objects: the series number or part of the description of one",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="CSV",
        help="table with the columns folder and mask (a path from the folder of the table, or the number of a "
        "segmentation object); default: the only mask in each folder, or the mask next to the folder with its name",
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="CSV",
        help="private file that links cases to patients; default: NAME_import_key.csv next to the data set",
    )
    parser.add_argument(
        "--patient-by",
        choices=("tag", "folder"),
        default="tag",
        help="what identifies a patient: the DICOM PatientID (tag), or the folder",
    )
    parser.add_argument(
        "--keep-names", action="store_true", help="name cases after their folders, not case_001, case_002, ..."
    )
    add_trust(parser)
    return parser
