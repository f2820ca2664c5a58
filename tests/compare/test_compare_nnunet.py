"""The command: options, messages, and the whole comparison with programs that are fake."""

from __future__ import annotations

import json
from pathlib import Path

import compare_nnunet
import pytest
from bench import machine
from bench import nnunet as installed
from compare import ours
from helpers.comparisons import fake_programs

from dvtplan.data.paths import Workspace
from dvtplan.planning.recipe import RECIPES, Recipe


def words(workspace: Workspace, out: Path, *more: str) -> list[str]:
    return ["--root", str(workspace.root), "--out", str(out), "--threads", "1", "--minutes", "1", *more]


@pytest.fixture
def environment(toy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with fake programs, and a second recipe."""
    monkeypatch.setitem(RECIPES, "other", Recipe(name="other"))
    folder, _ = fake_programs(tmp_path / "env", toy)
    monkeypatch.setattr(ours, "COMMANDS", (str(folder / "bin" / "dvt"),))
    return folder


def test_the_whole_comparison_and_a_further_recipe(
    toy: Workspace, tmp_path: Path, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    more = ("--nnunet", str(environment), "--recipes")
    assert compare_nnunet.main(words(toy, out, *more, "paper", "paper")) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("paper")] == [
        "paper"
    ] * 2
    calls = (environment / "calls.txt").read_text().splitlines()
    assert len(calls) == 7  # nnU-Net plans once, and has two batch sizes
    assert not any("--precision" in line for line in calls)
    assert compare_nnunet.main(words(toy, out, *more, "paper", "other")) == 0
    assert len((environment / "calls.txt").read_text().splitlines()) == 9  # only the new recipe
    content = json.loads((out / "comparison.json").read_text())
    assert [one["name"] for one in content["methods"]] == [
        "nnU-Net 2D, batch 12", "nnU-Net 2D, batch 32", "paper", "other",
    ]  # fmt: skip
    assert content["methods"][0]["dsc"]["all"]["mean"] == 1.0 and len(content["tests"]) == 2
    assert (out / "comparison.txt").exists() and (out / "comparison.md").exists()


def test_seeds_of_the_recipes_and_as_many_runs_of_nnunet(toy: Workspace, tmp_path: Path, environment: Path) -> None:
    out = tmp_path / "out"
    more = ("--nnunet", str(environment), "--nnunet-batch", "12", "--precision", "fp32", "--seeds")
    assert compare_nnunet.main(words(toy, out, *more, "0", "5", "0")) == 0
    calls = (environment / "calls.txt").read_text().splitlines()
    trained = [line for line in calls if line.startswith("dvt train")]
    assert len(trained) == 2 and all("--precision fp32" in line for line in trained)
    assert "--seed 0 " in trained[0] and "--seed 5 " in trained[1]
    assert len([line for line in calls if "train 1 2d" in line]) == 2
    content = json.loads((out / "comparison.json").read_text())
    assert [[run["name"] for run in one["runs"]] for one in content["methods"]] == [
        ["nnunet_batch_12/run_0", "nnunet_batch_12/run_1"], ["paper/seed_0", "paper/seed_5"],
    ]  # fmt: skip


def test_a_recipe_that_has_changed_needs_another_folder(
    toy: Workspace,
    tmp_path: Path,
    environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, more = tmp_path / "out", ("--nnunet", str(environment), "--recipes", "paper", "other")
    assert compare_nnunet.main(words(toy, out, *more)) == 0
    before = (environment / "calls.txt").read_text()
    monkeypatch.setitem(RECIPES, "other", Recipe(name="other", context=1))
    capsys.readouterr()
    assert compare_nnunet.main(words(toy, out, *more)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "run_settings.json" in line and "context 0, and other now has 1" in line
    assert (environment / "calls.txt").read_text() == before


def test_another_processor_needs_another_folder(
    toy: Workspace,
    tmp_path: Path,
    environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, more = tmp_path / "out", ("--nnunet", str(environment))
    assert compare_nnunet.main(words(toy, out, *more)) == 0
    monkeypatch.setattr(machine, "_processor", lambda: "another one")
    assert compare_nnunet.main(words(toy, out, *more)) == 1
    assert "processor" in capsys.readouterr().err.splitlines()[-1]


def test_other_conditions_need_another_folder(
    toy: Workspace, tmp_path: Path, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, more = tmp_path / "out", ("--nnunet", str(environment))
    assert compare_nnunet.main(words(toy, out, *more)) == 0
    assert compare_nnunet.main(words(toy, out, *more, "--minutes", "2")) == 1
    assert "settings.json" in capsys.readouterr().err
    assert compare_nnunet.main(words(toy, out, *more, "--precision", "bf16")) == 1
    assert "precision auto, not bf16" in capsys.readouterr().err


def test_a_failed_training_ends_in_one_line_and_keeps_the_rest(
    toy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = fake_programs(tmp_path / "env", toy, fail="paper")
    monkeypatch.setattr(ours, "COMMANDS", (str(folder / "bin" / "dvt"),))
    assert compare_nnunet.main(words(toy, tmp_path / "out", "--nnunet", str(folder))) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("compare_nnunet: ") and "train.log" in error and "the disk is on fire" in error
    assert (tmp_path / "out" / "nnunet_batch_32" / "run_0" / "predict.json").exists()


@pytest.mark.parametrize(
    ("word", "failed"),
    [("-P", ["nnunet_batch_12/run_0", "nnunet_batch_32/run_0"]), ("--verify_dataset_integrity", ["nnU-Net 2D"])],
)
def test_without_nnunet_the_recipes_are_scored(
    toy: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: str,
    failed: list[str],
) -> None:
    folder, _ = fake_programs(tmp_path / "env", toy, fail=word)
    monkeypatch.setattr(ours, "COMMANDS", (str(folder / "bin" / "dvt"),))
    assert compare_nnunet.main(words(toy, tmp_path / "out", "--nnunet", str(folder))) == 1
    captured = capsys.readouterr()
    assert any(line.startswith("paper") for line in captured.out.splitlines()) and "no test" in captured.out
    errors = [line for line in captured.err.splitlines() if line.startswith("compare_nnunet: ")]
    assert [line.split(": ")[1] for line in errors] == failed
    assert all("the disk is on fire" in line for line in errors)


def test_if_all_fail_there_is_no_table(
    toy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = fake_programs(tmp_path / "env", toy, fail="train")
    monkeypatch.setattr(ours, "COMMANDS", (str(folder / "bin" / "dvt"),))
    assert compare_nnunet.main(words(toy, tmp_path / "out", "--nnunet", str(folder))) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("the disk is on fire") == 3
    assert not (tmp_path / "out" / "comparison.txt").exists()


def test_a_run_that_cannot_be_scored_is_left_out(
    toy: Workspace, tmp_path: Path, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    more = ("--nnunet", str(environment), "--nnunet-batch", "12", "--recipes", "paper", "other")
    assert compare_nnunet.main(words(toy, out, *more)) == 0
    next((out / "paper" / "seed_0" / "predictions").glob("*.nii.gz")).unlink()
    capsys.readouterr()
    assert compare_nnunet.main(words(toy, out, *more)) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("compare_nnunet: paper/seed_0: ")
    content = json.loads((out / "comparison.json").read_text())
    assert [one["name"] for one in content["methods"]][1:] == ["other"] and len(content["tests"]) == 1


def test_without_a_network_nnunet_cannot_be_installed(
    toy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def create(folder: Path, **_: object) -> None:
        python = folder / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\necho ERROR: No matching distribution found >&2\nexit 1\n")
        python.chmod(0o755)

    monkeypatch.setattr(installed.venv, "create", create)
    assert compare_nnunet.main(words(toy, tmp_path / "out")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nnU-Net could not be installed" in line and "No matching distribution" in line


@pytest.mark.parametrize(
    "wrong",
    [
        ["--minutes", "0"],
        ["--minutes", "x"],
        ["--threads", "0"],
        ["--recipes", "none"],
        ["--precision", "fp16"],
        ["--seeds"],
    ],
)
def test_a_wrong_option_ends_with_status_2(toy_once: Workspace, tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        compare_nnunet.main(words(toy_once, tmp_path, *wrong))
    assert ended.value.code == 2


def test_a_fold_that_does_not_exist_is_named(
    toy: Workspace, tmp_path: Path, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_nnunet.main(words(toy, tmp_path / "out", "--nnunet", str(environment), "--fold", "7")) == 1
    assert "fold 7" in capsys.readouterr().err
