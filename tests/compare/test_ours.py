"""Training and prediction of a recipe, in results of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare import ours, run_settings
from helpers.comparisons import fake_programs, run_record, setup_of

from dvtplan.data.paths import Workspace


@pytest.fixture
def calls(toy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list of calls of the commands, which are fake."""
    environment, calls = fake_programs(tmp_path / "env", toy)
    monkeypatch.setattr(ours, "COMMANDS", (str(environment / "bin" / "dvt"),))
    return calls


def test_a_recipe_trains_with_the_time_and_predicts_once(toy: Workspace, tmp_path: Path, calls: Path) -> None:
    setup = setup_of(toy, tmp_path / "out", budget_s=150.0)
    setup.test_images.mkdir(parents=True)
    first = ours.run(setup, "paper", 3, "abc")
    assert ours.run(setup, "paper", 3, "def") == first and first.commit == "abc"
    training, predicting = calls.read_text().splitlines()
    assert training.startswith("dvt train 0") and training.endswith("--recipe paper --seed 3 --time-budget 150s")
    assert f"--root {tmp_path / 'out' / 'paper' / 'seed_3'}" in training and "--folds 0" in predicting
    assert (first.steps, first.slices, first.training_s, first.cases) == (13, 26, 11.0, 2)
    assert (tmp_path / "out" / "paper" / "seed_3" / "datasets_raw").samefile(toy.raw.parent)
    assert not toy.results("gn_unet").exists()


def test_training_and_prediction_have_the_precision_of_the_conditions(
    toy: Workspace, tmp_path: Path, calls: Path
) -> None:
    setup = setup_of(toy, tmp_path / "out", precision="bf16")
    setup.test_images.mkdir(parents=True)
    ours.run(setup, "paper", 0, "")
    assert [line.count("--precision bf16") for line in calls.read_text().splitlines()] == [1, 1]


def test_what_is_trained_is_saved_before_and_kept(toy: Workspace, tmp_path: Path, calls: Path) -> None:
    setup = setup_of(toy, tmp_path / "out")
    setup.test_images.mkdir(parents=True)
    ours.run(setup, "paper", 2, "abc")
    saved = run_settings.load(setup.folder("paper/seed_2"))
    assert saved.words == ("--recipe", "paper") and saved.recipe.seed == 2 and saved.commit == "abc"


def test_an_interrupted_training_resumes(toy: Workspace, tmp_path: Path, calls: Path) -> None:
    setup = setup_of(toy, tmp_path / "out")
    workspace = ours.linked(toy, setup.folder("paper"))
    checkpoint = workspace.fold("gn_unet", 0).checkpoint
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    words = ours._training(setup, ["--recipe", "paper"], workspace)
    assert words[-1] == "--resume" and "--recipe" not in words


def test_steps_of_a_training_that_ended_before_its_time(toy_once: Workspace) -> None:
    # Two cases of 6 slices give 6 steps of 2 slices an epoch.
    assert ours._steps(toy_once, run_record(schedule=None)) == 2 * 6
