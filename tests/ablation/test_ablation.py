"""The command: all of it with a program that is fake."""

from __future__ import annotations

import json
from pathlib import Path

import ablation
import pytest
from ablation_study import levers, schedule
from compare import ours
from helpers.ablations import calls, fail, fake_program

from dvtplan.core.text import plural
from dvtplan.data.paths import Workspace


@pytest.fixture
def program(toy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the fake program."""
    monkeypatch.setattr(schedule, "POLL_S", 0.01)
    monkeypatch.setattr(ours, "COMMANDS", (str(fake_program(tmp_path / "fake", toy)),))
    return tmp_path / "fake"


def run(workspace: Workspace, out: Path, *more: str) -> int:
    words = ["--root", str(workspace.root), "--out", str(out), "--minutes", "1", "--levers", "context_0", "no_clipping"]
    return ablation.main([*words, *more])


def test_all_runs_and_the_table(
    toy: Workspace, tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, one = tmp_path / "out", ("--levers", "context_0")
    assert run(toy, out, *one, "--dry-run") == 0
    assert plural(4, "run") in capsys.readouterr().out and not out.exists()
    assert run(toy, out, *one) == 0
    trained = [line for line in calls(program) if line.startswith("train")]
    assert len(trained) == 4 and len(calls(program)) == 12
    assert trained[1].endswith("--recipe modern --context 0 --seed 0 --time-budget 60s")
    shown = capsys.readouterr().out
    assert (out / "ablation.txt").read_text() == shown and (out / "ablation.md").exists()
    content = json.loads((out / "ablation.json").read_text())
    assert [one["name"] for one in content["levers"]] == ["modern", "context_0"]
    assert content["levers"][1]["regions"]["all"]["difference"]["estimate"] == pytest.approx(0.2)
    assert str(tmp_path) not in (out / "ablation.json").read_text()
    assert run(toy, out, "--levers", "paper", "--seeds", "0", "--remove-checkpoints") == 0
    assert len(calls(program)) == 15  # only the new run
    assert {path.relative_to(out).parts[0] for path in out.rglob("checkpoint.pt")} == {"modern", "context_0"}
    capsys.readouterr()
    assert ablation.main(["--out", str(out), "--table"]) == 0
    assert "--recipe paper" in capsys.readouterr().out


def test_a_failed_run_is_reported_the_others_go_on_and_it_is_repeated(
    toy: Workspace, tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    fail(program, "--context")
    assert run(toy, out, "--seeds", "0") == 1
    captured = capsys.readouterr()
    assert "no_clipping" in captured.out and "context_0 " not in captured.out
    assert "context_0/seed_0" in captured.err and "the disk is on fire" in captured.err
    before = len(calls(program))
    fail(program)
    assert run(toy, out, "--seeds", "0") == 0
    assert len(calls(program)) == before + 3 and "context_0 " in capsys.readouterr().out


def test_if_all_fail_their_messages_remain(
    toy: Workspace, tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(program, "train")
    assert run(toy, tmp_path / "out", "--seeds", "0") == 1
    assert capsys.readouterr().err.count("the disk is on fire") == 3


def test_another_data_set_tests(
    toy: Workspace, tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy.root / "datasets_raw" / "Other").symlink_to(toy.raw)
    assert run(toy, tmp_path / "out", "--dataset", "Toy", "--test", "Other") == 1
    assert "is also a scan of Toy" in capsys.readouterr().err and not (program / "calls.txt").exists()


def test_other_conditions_or_another_recipe_are_refused(
    toy: Workspace, tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(toy, out, "--seeds", "0", "--precision", "fp32") == 0
    assert all("--precision fp32" in line for line in calls(program) if line.startswith("train"))
    assert run(toy, out, "--seeds", "0") == 1
    assert "settings.json" in capsys.readouterr().err
    monkeypatch.setitem(levers.LEVERS, "context_0", {"context": 1})
    assert run(toy, out, "--seeds", "0", "--precision", "fp32") == 1
    assert "context 0, and context_0 now has 1" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--jobs", "0"], ["--levers", "none"], ["--table", "--dry-run"]])
def test_a_wrong_option_ends_with_status_2(toy_once: Workspace, tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(toy_once, tmp_path, *wrong)
    assert ended.value.code == 2


def test_what_cannot_run_is_named(
    toy: Workspace, tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert ablation.main(["--out", str(out), "--table"]) == 1
    assert run(toy, out, "--jobs", "1000") == 1
    assert "--jobs 1000" in capsys.readouterr().err
    monkeypatch.setattr(ablation, "_free", lambda _: 1_000_000)
    assert run(toy, out) == 1
    assert "--remove-checkpoints" in capsys.readouterr().err and not (program / "calls.txt").exists()
