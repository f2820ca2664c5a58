"""Format counts, lists, sizes and durations as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime


def shorten_list(names: Sequence[str], separator: str = ", ") -> str:
    """Join the first eight names and count the others: 'a, b and 3 more'."""
    return separator.join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def plural(n: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: '1 case', '2 cases'. Give ``plural`` if it is not the noun with an s."""
    return f"{n} {noun}" if n == 1 else f"{n} {plural or noun + 's'}"


def now() -> str:
    """Return the present date, time and zone in ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def duration(seconds: float) -> str:
    """Format a duration: '42 s', '3 min 05 s', '2 h 10 min' or '3.1 days'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{seconds / 86400:.1f} days"


def size(count: float) -> str:
    """Format a number of bytes: '12 MB', '3.4 GB'."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * scale:  # three digits of the smaller unit would round up to 1e+03
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def show(values: Iterable[float]) -> str:
    """Return numbers in parentheses, with six digits: "(1, 2.5, 3)"."""
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
