"""What several commands take: where the data are, on what to run; and the types of options."""

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
    """Defaults are told where there is one to tell, and where the help does not tell it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, False, argparse.SUPPRESS) or "default" in (action.help or "")
        return action.help if silent else super()._get_help_string(action)


def parser_of(what: str, example: str, *, telling: bool = True) -> argparse.ArgumentParser:
    """A parser with what all commands have.

    Args:
        what: what the command does.
        example: of its use.
        telling: whether it takes -q and -v.
    """
    parser = argparse.ArgumentParser(**_told(what, example))
    parser.add_argument("--version", action="version", version=f"dvtplan {__version__}")
    if telling:
        _add_telling(parser)
    return parser


def add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, example: str
) -> argparse.ArgumentParser:
    """A parser for one of the things that a command does; arguments as of ``parser_of``."""
    parser = actions.add_parser(name, help=what.partition(":")[0].rstrip("."), **_told(what, example))
    _add_telling(parser)
    return parser


def _told(what: str, example: str) -> dict[str, Any]:
    return {
        "description": what,
        "epilog": f"example: {example}",
        "formatter_class": _Help,
        "allow_abbrev": False,
    }


def _add_telling(parser: argparse.ArgumentParser) -> None:
    told = parser.add_mutually_exclusive_group()
    told.add_argument("-q", "--quiet", action=_Telling, help="say nothing but errors, warnings and results")
    told.add_argument("-v", "--verbose", action=_Telling, help="say more: times of every step, tracebacks of errors")


class _Telling(argparse.Action):
    """How much a run tells, set as soon as it is read."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **options)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        from dvtplan.core import console

        console.set_verbosity(quiet=self.dest == "quiet", verbose=self.dest == "verbose")
        setattr(namespace, self.dest, True)


def add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path(), help="folder that holds datasets_raw")
    parser.add_argument("--dataset", help="name in datasets_raw; needed only where there are several")


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N, cpu or mps")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: what the device does best")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="use torch.compile")
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, help="memory layout of images")


def workspace_of(options: argparse.Namespace) -> Workspace:
    from dvtplan.data.paths import open_workspace

    return open_workspace(options.root, options.dataset)


def whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    if whole_number(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def seconds(text: str) -> float:
    """'90s', '20m' or '8h' in seconds, as the type of an option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no time with its unit; write 90s, 20m or 8h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def millimetres(text: str) -> float:
    if re.fullmatch(r"\d+(?:\.\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text} is no distance in mm from 0")
    return float(text)
