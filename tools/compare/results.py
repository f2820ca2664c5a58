"""The finished runs of a comparison: run them, score them, and write the tables after each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from compare import scores, table
from compare.methods import Method
from compare.scores import Known
from compare.settings import Setup
from dvtplan.core import files
from dvtplan.core.errors import DvtError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run of a method."""

    method: str
    """Name of the method, as in the tables."""
    name: str
    """Name of the run, which is also that of its folder."""
    run: Callable[[], Method]
    """Trains and predicts, as far as it is not done."""


class Results:
    """The finished runs of each method, and their tables."""

    def __init__(self, setup: Setup, references: Sequence[str], machine: Mapping[str, object], command: str) -> None:
        """Start without any.

        Args:
            setup: of the comparison.
            references: methods of which the best is the reference of the tests.
            machine: as ``bench.machine.describe`` returns it.
            command: that makes the tables.
        """
        self._setup, self._references, self._machine, self._command = setup, references, machine, command
        self._finished: dict[str, list[Method]] = {}
        self._known: Known = {}
        self.text = ""
        """The tables as text; empty without a finished run."""

    def run(self, jobs: Iterable[Job]) -> dict[str, str]:
        """Run jobs one after the other. A failed one does not stop the others.

        Returns:
            Name of each run that failed -> message.
        """
        failed = {}
        for job in jobs:
            try:
                self._add(job.method, job.run())
            except DvtError as error:
                failed[job.name] = str(error)
        return failed

    def _add(self, method: str, run: Method) -> None:
        """Score a run and write the tables with it. If it cannot be scored, it is left out."""
        finished = {**self._finished, method: [*self._finished.get(method, []), run]}
        runs = {name: [one.name for one in several] for name, several in finished.items()}
        found = scores.score(self._setup, runs, self._references, self._known)
        self._finished = finished
        out, conditions = self._setup.out, self._setup.conditions
        machine = f"{self._machine['processor']}, {self._machine['date']}"
        self.text = table.to_text(finished, found, conditions, machine)
        files.write_text(out / "comparison.txt", self.text)
        files.write_text(out / "comparison.md", table.to_markdown(finished, found, conditions, machine))
        files.write_text(
            out / "comparison.json", table.to_json(finished, found, conditions, self._machine, self._command)
        )
