"""What commands there are, in the order in which they are used."""

from __future__ import annotations

import argparse

from dvtplan.cli.arguments import parser_of
from dvtplan.cli.runner import command

COMMANDS = {
    "dvt_import": "make a data set of DICOM scans and their masks",
    "dvt_plan_and_preprocess": "verify a data set, derive its plan, prepare its slices",
    "dvt_train": "train folds and predict their test patients",
    "dvt_evaluate": "score predictions: metrics.csv, Table 1, Table 2",
    "dvt_report": "write one page on all scored networks",
    "dvt_model": "put a trained model into one file for others, tell of one",
    "dvt_predict": "find thrombus on scans, DICOM among them, with a trained model",
}
"""In the order of use; with what each does."""

TEXT = """\
Segment leg vein thrombosis on MR. The commands, in the order of use:

{commands}

Each tells its options by --help. Exit status: 0 done; 1 something you can
mend, told in a line; 2 a wrong option; 130 interrupted by Ctrl-C, and what was
finished is kept."""


@command
def overview(argv: list[str]) -> None:
    """dvt"""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    parser = parser_of(TEXT.format(commands=listed), "dvt_train --help", telling=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    parser.print_help()
