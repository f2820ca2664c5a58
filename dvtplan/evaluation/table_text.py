"""Aligned text, Markdown and LaTeX tables."""

from __future__ import annotations

import math
import textwrap

TEXT_WIDTH = 100
"""Characters to a line of the table's notes in plain text."""

_TEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {c: "\\" + c for c in "%&#_${}"}
    | {"±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}"}
)


def wrapped(note: str) -> str:
    """A note in lines of a terminal; paths stay whole."""
    return textwrap.fill(note, TEXT_WIDTH, break_long_words=False, break_on_hyphens=False)


def span(low: float, high: float) -> str:
    """A range in two decimals."""
    return "n/a" if math.isnan(low) else f"{number(low)} to {number(high)}"


def number(value: float) -> str:
    """Two decimals, as in the paper."""
    return "n/a" if math.isnan(value) else f"{unsigned_zero(value, 2):.2f}"


def unsigned_zero(value: float, decimals: int) -> float:
    """Rounded, and what is then zero has no sign."""
    return round(value, decimals) + 0.0


def tex(text: str) -> str:
    """A text that LaTeX prints as it stands."""
    return text.translate(_TEX)
