"""Argument types that several scripts share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable


def dataset_name(text: str) -> str:
    """Accept a folder name that is safe on every system (argparse type)."""
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder name of letters, digits, '_', '-' and '.'")
    return text


def at_least(low: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers of at least ``low``."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
        return int(text)

    return parse
