"""The command dvt, which lists the commands in the order of use."""

from __future__ import annotations

import argparse

from dvtplan.cli.arguments import parser_of
from dvtplan.cli.runner import command

COMMANDS = {
    "dvt_import": "make a data set from DICOM scans and their masks",
    "dvt_plan_and_preprocess": "verify a data set, make its plan, preprocess its slices",
    "dvt_train": "train folds and predict their test patients",
    "dvt_evaluate": "score predictions: metrics.csv, Table 1, Table 2",
    "dvt_report": "write one HTML report of all scored networks",
    "dvt_model": "export a trained model to one file, or describe one",
    "dvt_predict": "segment thrombus in new scans (NIfTI or DICOM)",
}
"""Command -> what it does, in the order of use."""

TEXT = """\
Segment deep vein thrombosis of the legs in MR. Commands, in the order of use:

{commands}

Each command lists its options with --help.

Exit status: 0 success; 1 an error you can fix, explained in one line;
2 invalid option; 130 interrupted by Ctrl-C (finished results are kept)."""


@command
def overview(argv: list[str]) -> None:
    """dvt"""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items())
    parser = parser_of(TEXT.format(commands=listed), "dvt_train --help", verbosity=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    parser.print_help()
