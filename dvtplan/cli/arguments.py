"""Options that several commands share, and types of options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvtplan import __version__

if TYPE_CHECKING:
    from dvtplan.data.paths import Workspace


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Show a default, unless there is none or the help text states it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        hidden = action.default in (None, False, (), argparse.SUPPRESS) or "default" in (action.help or "")
        return action.help if hidden else super()._get_help_string(action)


def parser_of(description: str, example: str, *, verbosity: bool = True) -> argparse.ArgumentParser:
    """Make a parser with the options that all commands have.

    Args:
        description: what the command does.
        example: command line that uses it.
        verbosity: whether it has -q and -v.
    """
    parser = argparse.ArgumentParser(**_settings(description, example))
    parser.add_argument("--version", action="version", version=f"dvtplan {__version__}")
    if verbosity:
        _add_verbosity(parser)
    return parser


def add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, description: str, example: str
) -> argparse.ArgumentParser:
    """Add the parser of an action of a command; arguments as in ``parser_of``."""
    summary = description.partition(":")[0].rstrip(".")
    parser = actions.add_parser(name, help=summary, **_settings(description, example))
    _add_verbosity(parser)
    return parser


def _settings(description: str, example: str) -> dict[str, Any]:
    return {
        "description": description,
        "epilog": f"example: {example}",
        "formatter_class": _Help,
        "allow_abbrev": False,
    }


def _add_verbosity(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action=_Verbosity, help="print only results, warnings and errors")
    group.add_argument("-v", "--verbose", action=_Verbosity, help="also print timings, and tracebacks of errors")


class _Verbosity(argparse.Action):
    """Set how much is printed, as soon as the option is parsed."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **options)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        from dvtplan.core import console

        console.set_verbosity(quiet=self.dest == "quiet", verbose=self.dest == "verbose")
        setattr(namespace, self.dest, True)


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the options that locate the data set."""
    parser.add_argument("--root", type=Path, default=Path(), help="folder that contains datasets_raw")
    parser.add_argument("--dataset", help="name of the data set in datasets_raw; required if there are several")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses between the forms of a NIfTI header."""
    parser.add_argument(
        "--trust",
        choices=("sform", "qform"),
        help="form of a NIfTI header to read where sform, qform and pixdim contradict each other; default: refuse",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options of the computing device."""
    parser.add_argument("--device", default="auto", help="where to compute: auto, cuda, cuda:N, cpu or mps")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        help="number format; default: bf16 on a GPU that supports it, on a CPU if a short trial is clearly faster",
    )
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="use torch.compile; default: only for training on a GPU",
    )
    parser.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="store images with channels last; default: by device, for training on a CPU the faster in a trial",
    )


def workspace_of(options: argparse.Namespace) -> Workspace:
    """Open the data set that the options locate."""
    from dvtplan.data.paths import open_workspace

    return open_workspace(options.root, options.dataset)


def whole_number(text: str) -> int:
    """Parse a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number (0, 1, 2, ...)")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number (1, 2, ...)")
    return int(text)


def seconds(text: str) -> float:
    """Parse a time such as 90s, 20m or 8h into seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time above 0 with a unit; write 90s, 20m or 8h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def millimetres(text: str) -> float:
    """Parse a distance in mm, from 0."""
    if re.fullmatch(r"\d+(?:\.\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text} is not a distance in mm, such as 2 or 2.5")
    return float(text)
