"""Commands on data sets."""

from __future__ import annotations

from pathlib import Path

from dvtplan.cli.options import add_place, parser_of, positive, whole
from dvtplan.cli.running import command, gathered
from dvtplan.errors import DvtError, how_many


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
    from dvtplan import importing

    done = importing.import_dicom(
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
        print(f"{done.folder}: {how_many(len(done.added), 'case')} imported, {len(done.kept)} there already")
        if done.unmasked:
            print(f"Without a mask, in imagesTs, which is not read: {', '.join(done.unmasked)}")
        print(f"{done.key}: who is who; it is no part of the data set and names patients")
    if done.faults:
        raise DvtError("\n".join([f"{how_many(len(done.faults), 'scan')} not imported.", *done.faults]))


@command
def plan_and_preprocess(argv: list[str]) -> None:
    """dvt_plan_and_preprocess"""
    parser = parser_of(
        "Verify a data set, derive its plan, divide its patients into folds, prepare its slices.",
        "dvt_plan_and_preprocess --dataset DVT",
    )
    add_place(parser)
    parser.add_argument("--preset", choices=("auto", "paper"), default="auto", help="paper: Huang 2019 to the letter")
    parser.add_argument(
        "--folds", type=int, help="by patient; default: as before, else 8; datasets_raw/NAME/splits.json wins"
    )
    parser.add_argument("--seed", type=whole, help="of the folds; default: as before, else 0")
    parser.add_argument("--jobs", type=positive, help="processes; default: one per core, as memory allows")
    parser.add_argument("--verify-only", action="store_true", help="stop after verification, write nothing")
    parser.add_argument("--replan", action="store_true", help="derive plan.json anew even if it was edited")
    options = parser.parse_args(argv)
    from dvtplan import workers

    if options.jobs != 1:
        workers.begin("dvtplan.preprocess")
    from dvtplan import journal, preprocess

    with gathered() as group:
        made = preprocess.plan_and_preprocess(
            options.root,
            options.dataset,
            preset=options.preset,
            n_folds=options.folds,
            seed=options.seed,
            jobs=options.jobs,
            verify_only=options.verify_only,
            replan=options.replan,
            team=group,
        )
    if not group.leads:
        return
    for warning in made.warnings:
        journal.warn(warning)
    print(made.summary)
    print(made.spent)
    print("Verified; nothing was written." if options.verify_only else f"Prepared in {made.workspace.preprocessed}")
