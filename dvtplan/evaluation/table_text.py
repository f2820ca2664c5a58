"""Numbers in tables, and tables as aligned text, Markdown and LaTeX."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

TEXT_WIDTH = 100
"""Characters in a line of a table's notes in plain text."""

_TEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {c: "\\" + c for c in "%&#_${}"}
    | {"±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}"}
)

Rows = Sequence[Sequence[str]]
"""Cells of a table, row by row, all rows of one length."""


# --- numbers --------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Format with two decimals, as in the paper."""
    return "n/a" if math.isnan(value) else f"{unsigned_zero(value, 2):.2f}"


def span(low: float, high: float) -> str:
    """Format a range with two decimals."""
    return "n/a" if math.isnan(low) else f"{number(low)} to {number(high)}"


def interval(low: float, high: float) -> str:
    """Format a confidence interval with two decimals; '-' if there are too few patients for one."""
    return "-" if math.isnan(low) else span(low, high)


def mean_sd(mean: float, sd: float) -> str:
    """Format a mean and a standard deviation with two decimals."""
    return f"{number(mean)} ± {number(sd)}"


def unsigned_zero(value: float, decimals: int) -> float:
    """Round, and remove the sign of a zero."""
    return round(value, decimals) + 0.0


# --- tables ---------------------------------------------------------------------------------------


def text_table(title: str, rows: Rows, notes: Iterable[str]) -> str:
    """Format a table for a terminal: a title, aligned columns, and notes wrapped to ``TEXT_WIDTH``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    body = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title, "", *body, "", *map(wrapped, notes)]) + "\n"


def markdown_table(title: str, rows: Rows, notes: Iterable[str]) -> str:
    """Format a table in Markdown; the first row is the header."""
    body = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    body.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join([f"**{title}**", "", *body, "", *(f"- {note}" for note in notes)]) + "\n"


def latex_table(
    title: str, header: str, groups: Iterable[Rows], notes: Iterable[str], *, columns: str, style: str = r"\centering"
) -> str:
    """Format a LaTeX table environment that needs no package.

    Args:
        title: the caption; LaTeX numbers the table itself.
        header: the header row in LaTeX, without its end.
        groups: rows between two horizontal lines.
        notes: sentences below the table.
        columns: column specification of the tabular.
        style: commands at the start of the table.
    """
    lines = [r"\begin{table}", style, rf"\caption{{{tex(title)}}}", rf"\begin{{tabular}}{{{columns}}}", r"\hline"]
    lines.append(header + r" \\")
    for rows in groups:
        lines += [r"\hline", *(" & ".join(map(tex, row)) + r" \\" for row in rows)]
    lines += [r"\hline", r"\end{tabular}", "", r"\raggedright\footnotesize"]
    lines += [tex(note) + r"\par" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def wrapped(note: str) -> str:
    """Wrap a note to ``TEXT_WIDTH``; paths stay whole."""
    return textwrap.fill(note, TEXT_WIDTH, break_long_words=False, break_on_hyphens=False)


def tex(text: str) -> str:
    """Escape a text for LaTeX."""
    return text.translate(_TEX)
