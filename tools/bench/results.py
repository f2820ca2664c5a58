"""A measured value with its goal, and the table and JSON file of many values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured value."""

    section: str
    what: str
    value: float
    """NaN, without a goal, where it could not be measured."""
    unit: str
    """'x' for a ratio."""
    at_least: float | None = None
    at_most: float | None = None
    """The goal is ``at_least`` or ``at_most``."""
    note: str = ""
    """Input and reference, or why it could not be measured."""
    detail: dict[str, object] = field(default_factory=dict)
    """Further values for the JSON file: seconds, spread, sizes."""

    @property
    def goal(self) -> str:
        """The goal as text."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else ""

    @property
    def verdict(self) -> str:
        """'met' or 'missed' (also for NaN); without a goal 'not measured' or an empty string."""
        low, high = self.at_least, self.at_most
        if low is None and high is None:
            return "not measured" if math.isnan(self.value) else ""
        return "met" if (low is None or self.value >= low) and (high is None or self.value <= high) else "missed"


def absent(section: str, what: str, why: str) -> Row:
    """Return a row for a value that could not be measured here."""
    return Row(section=section, what=what, value=math.nan, unit="", note=why)


def to_text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    lines = [("Section", "What", "Figure", "Goal", "", "Note")]
    for row in rows:
        figure = "-" if math.isnan(row.value) else f"{row.value:.3g} {row.unit}"
        lines.append((row.section, row.what, figure, row.goal, row.verdict, row.note))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def to_json(row: Row) -> dict[str, object]:
    """Return a row for a JSON file; values that are not finite become null."""
    return {**_finite(asdict(row)), "verdict": row.verdict}


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(content: Mapping[str, Any]) -> Row:
    """Return the row that ``to_json`` wrote."""
    known = {field.name: content[field.name] for field in fields(Row)}
    return Row(**{**known, "value": math.nan if known["value"] is None else known["value"]})


def save(rows: Sequence[Row], machine: dict[str, object], command: str, path: Path) -> None:
    """Write rows, machine and command as JSON."""
    content = {"command": command, "machine": machine, "rows": [to_json(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
