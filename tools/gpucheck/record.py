"""The record of a run: ``gpu_check.json``, rewritten after every event, and the final table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import results
from bench.results import Row, from_json

from dvtplan.core.files import write_text
from gpucheck.checks import FAILED, MISSED, NOT_REACHED, PASSED

NAME = "gpu_check.json"
RUNNING, DONE, STOPPED = "running", "done", "stopped"
"""Further states of a part, and of a check; see also ``checks``."""


@dataclass(slots=True, kw_only=True)
class CheckResult:
    """Result of one check."""

    name: str
    state: str = NOT_REACHED
    seconds: float | None = None
    error: str = ""
    """The last lines of its traceback."""
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class PartResult:
    """Result of one part."""

    name: str
    state: str = NOT_REACHED
    limit_s: float | None = None
    seconds: float | None = None
    error: str = ""
    checks: list[CheckResult] = field(default_factory=list)

    def check(self, name: str) -> CheckResult:
        """Return one of its checks."""
        return next(check for check in self.checks if check.name == name)


class Record:
    """All results of a run, saved after every change."""

    def __init__(self, path: Path, head: Mapping[str, Any], parts: Mapping[str, Sequence[str]]) -> None:
        """Start a record.

        Args:
            path: the JSON file.
            head: command, device and similar facts.
            parts: part -> names of its checks, in order.
        """
        self.path, self.head = path, dict(head)
        self.parts = [PartResult(name=p, checks=[CheckResult(name=c) for c in names]) for p, names in parts.items()]
        self._begin = time.monotonic()
        self.save()

    def part(self, name: str) -> PartResult:
        """Return one part."""
        return next(part for part in self.parts if part.name == name)

    def take(self, part: str, event: Mapping[str, Any]) -> None:
        """Enter an event of a part's process: the machine, the begin or end of a check, or a measured value."""
        if event["event"] == "machine":
            self.head["machine"] = event["machine"]
        elif event["event"] == "begin":
            self.part(part).check(event["check"]).state = RUNNING
        elif event["event"] == "row":
            self.part(part).check(event["check"]).rows.append(event["row"])
        elif event["event"] == "end":
            check = self.part(part).check(event["check"])
            check.state, check.seconds, check.error = event["state"], event["seconds"], event["error"]
        self.save()

    def end(self, part: str, state: str, seconds: float, error: str = "") -> None:
        """Enter the end of a part; a running check becomes stopped."""
        result = self.part(part)
        result.state, result.seconds, result.error = state, round(seconds, 1), error
        for check in result.checks:
            if check.state == RUNNING:
                check.state = STOPPED
        self.save()

    def save(self) -> None:
        """Write the file."""
        content = {
            **self.head,
            "seconds": round(time.monotonic() - self._begin, 1),
            "parts": [asdict(part) for part in self.parts],
        }
        write_text(self.path, json.dumps(content, indent=1) + "\n")

    @property
    def empty(self) -> bool:
        """Whether no check was completed."""
        return not any(check.state in (PASSED, MISSED) for part in self.parts for check in part.checks)

    @property
    def failed(self) -> bool:
        """Whether anything failed; a check that was not reached did not fail."""
        return any(FAILED in (part.state, *(check.state for check in part.checks)) for part in self.parts)

    def to_text(self) -> str:
        """Return all values, failures with reasons, missed goals, and checks that were not reached."""
        measured = [from_json(row) for part in self.parts for check in part.checks for row in check.rows]
        lines = [results.to_text(measured)] if measured else ["Nothing was measured."]
        sections = {
            "Failed": self._beyond(FAILED),
            "Goals missed": self._beyond(MISSED),
            "Not reached": self._unreached(),
        }
        for title, entries in sections.items():
            listed = [f"  {line}" for entry in entries for line in entry.splitlines()]
            lines += ["", f"{title}:" if listed else f"{title}: nothing.", *listed]
        counts = [f"{count} {state}" for state, count in self._counts().items()]
        return "\n".join([*lines, "", f"{', '.join(counts)}. Everything: {self.path}"])

    def _beyond(self, state: str) -> Iterator[str]:
        """Yield parts and checks in a state, with their errors or the values beyond their limits."""
        for part in self.parts:
            if part.state == state:
                yield f"{part.name}: {part.error}"
            for check in part.checks:
                if check.state == state:
                    yield f"{part.name}, {check.name}: {check.error or '; '.join(_missed(check.rows))}"

    def _unreached(self) -> Iterator[str]:
        for part in self.parts:
            for check in part.checks:
                if check.state in (NOT_REACHED, STOPPED, RUNNING):
                    part_state = f"its part was {part.state}" if check.state == NOT_REACHED else check.state
                    yield f"{part.name}, {check.name}: {check.error or part_state}"

    def _counts(self) -> dict[str, int]:
        states = [check.state for part in self.parts for check in part.checks]
        return {state: states.count(state) for state in dict.fromkeys([PASSED, FAILED, *states])}


def _missed(content: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in map(from_json, content):
        if row.verdict == "missed":
            yield _goal_of(row)


def _goal_of(row: Row) -> str:
    return f"{row.what}: {row.value:.3g} {row.unit}".rstrip() + f", expected {row.goal}"
