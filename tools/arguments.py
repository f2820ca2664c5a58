"""TODO"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable


def dataset_name(text: str) -> str:
    """An argparse type: a folder name that is safe everywhere."""
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder name of letters, digits, '_', '-' and '.'")
    return text


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: whole numbers from ``low`` up."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} up")
        return int(text)

    return parse
