"""Runs one after the other, and their tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare import scores
from compare.methods import Method
from compare.results import Job, Results
from compare.scores import Scores
from helpers.comparisons import method, rows, setup_of

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, list[str]]]:
    """The runs of each call of a fake evaluation, which finds no mask of the run `lost`."""
    calls: list[dict[str, list[str]]] = []

    def score(_: object, runs: dict[str, list[str]], references: list[str], __: object) -> Scores:
        calls.append(runs)
        if any("lost" in several for several in runs.values()):
            raise DvtError("masks: not found")
        return scores.compare({name: [rows([1])] * len(runs[name]) for name in runs}, references, "labels", "none")

    monkeypatch.setattr(scores, "score", score)
    return calls


def job(name: str, run: str, error: BaseException | None = None) -> Job:
    def work() -> Method:
        if error is not None:
            raise error
        return method(run)

    return Job(method=name, name=run, run=work)


def results(workspace: Workspace, out: Path) -> Results:
    return Results(setup_of(workspace, out), ["ref"], {"processor": "x", "date": "today"}, "command")


def test_a_failed_run_is_named_and_the_others_go_on(
    toy_once: Workspace, tmp_path: Path, scored: list[dict[str, list[str]]]
) -> None:
    made = results(toy_once, tmp_path)
    jobs = [job("ref", "r0", DvtError("no disk")), job("a", "lost"), job("a", "a1"), job("ref", "r1"), job("a", "a2")]
    assert made.run(jobs) == {"r0": "no disk", "lost": "masks: not found"}
    assert scored[-1] == {"a": ["a1", "a2"], "ref": ["r1"]}
    assert "Against ref" in made.text and (tmp_path / "comparison.txt").read_text() == made.text


def test_the_tables_are_written_after_each_run(
    toy_once: Workspace, tmp_path: Path, scored: list[dict[str, list[str]]]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        results(toy_once, tmp_path).run([job("ref", "r0"), job("a", "a0", KeyboardInterrupt())])
    assert "ref" in (tmp_path / "comparison.md").read_text() and (tmp_path / "comparison.json").exists()
