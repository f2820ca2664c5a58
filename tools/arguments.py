"""Argument types and error messages that several scripts share."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable

from dvtplan.cli.runner import for_command_line


def dataset_name(text: str) -> str:
    """Accept a folder name that is safe on every system (argparse type)."""
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder name of letters, digits, '_', '-' and '.'")
    return text


def print_error(script: str, error: Exception) -> None:
    """Print an error as one line on stderr, with options in place of the library's parameters."""
    message = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    print(f"{script}: {for_command_line(message)}", file=sys.stderr)


def at_least(low: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers of at least ``low``."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
        return int(text)

    return parse


def minutes(text: str) -> float:
    """Accept a number of minutes above 0 (argparse type)."""
    with contextlib.suppress(ValueError):
        if 0 < (found := float(text)) <= 100_000:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
