"""Counts, lists, sizes and durations in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime


def shorten_list(names: Sequence[str]) -> str:
    """The first names of what may be many, for a message in one line."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def plural(n: int, noun: str, plural: str | None = None) -> str:
    """'1 case', '2 cases'; the plural where an s does not make it."""
    return f"{n} {noun}" if n == 1 else f"{n} {plural or noun + 's'}"


def now() -> str:
    """Date, time and zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def duration(seconds: float) -> str:
    """'42 s', '3 min 05 s', '2 h 10 min' or '3.1 days'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{seconds / 86400:.1f} days"


def size(count: float) -> str:
    """Bytes in a unit that people read: '12 MB', '3.4 GB'."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * scale:  # three digits of the smaller unit would round up to 1e+03
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
