"""The paper's study in one command: steps that are done are skipped, steps that are left are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from phantom.cohort import Design, make_cohort
from reproduce import main
from reproduction.steps import Step, _command, describe, run, steps_of
from reproduction.study import Study

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.models.training_run import Run, Schedule
from dvtplan.planning import recipe
from dvtplan.planning.recipe import Recipe

PHANTOM = Design(seed=1, cases=2)


def study(workspace: Workspace, **changes: object) -> Study:
    """The toy's two folds with one network."""
    plain = Study(
        workspace=workspace,
        phantom=None,
        phantom_jobs=1,
        n_folds=2,
        run_folds=(0, 1),
        networks=("gn_unet",),
        recipe="toy",
        epochs=None,
        budget_s=None,
        preset="auto",
    )
    return replace(plain, **changes)


@pytest.fixture(autouse=True)
def toy_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the fixture ``trained``."""
    monkeypatch.setitem(recipe.RECIPES, "toy", Recipe(epochs=8, width=4, norm_groups=2, learning_rate=3e-3))


def left(steps: list[Step]) -> list[str]:
    return [step.name for step in steps if not step.done]


def shorten(workspace: Workspace, budget_s: float, epochs: int) -> None:
    """Let the records say that a time budget decided the epochs of the folds."""
    schedule = Schedule(
        budget_s=budget_s, recipe_epochs=8, steps_per_epoch=2, planned=9, steps=2 * epochs, taken=2 * epochs, drops=()
    )
    for fold in (0, 1):
        path = workspace.fold("gn_unet", fold).run
        if path.exists():
            json_records.save(json_records.load(Run, path, "").with_schedule(schedule), path)


def test_in_an_empty_folder_every_step_is_left(tmp_path: Path) -> None:
    steps = steps_of(study(Workspace(tmp_path, "Phantom"), phantom=PHANTOM, networks=("gn_unet", "segnet")))
    assert left(steps) == [step.name for step in steps]
    assert [step.name for step in steps] == [
        "phantom cohort",
        "plan and preprocess",
        "gn_unet, fold 0",
        "gn_unet, fold 1",
        "segnet, fold 0",
        "segnet, fold 1",
        "Tables 1 and 2",
        "report",
    ]


def test_what_is_trained_and_predicted_is_done(trained: Workspace) -> None:
    assert left(steps_of(study(trained))) == ["Tables 1 and 2", "report"]
    assert left(steps_of(study(trained, networks=("gn_unet", "unet"))))[:2] == ["unet, fold 0", "unet, fold 1"]


def test_a_fold_without_predictions_is_resumed(trained: Workspace) -> None:
    trained.fold("gn_unet", 1).prediction_index.unlink()
    assert left(steps_of(study(trained)))[0] == "gn_unet, fold 1 (begun)"


def test_the_rest_of_a_fold_is_estimated_from_its_own_epochs(trained: Workspace) -> None:
    """Half of its epochs took 60 s, so the other half will."""
    path = trained.fold("gn_unet", 0).run
    whole = json_records.load(Run, path, "")
    json_records.save(replace(whole, epochs_done=4, seconds=60.0), path)
    step = next(s for s in steps_of(study(trained)) if s.name.startswith("gn_unet, fold 0"))
    assert not step.done
    assert step.seconds == pytest.approx(60.0 / 4 * (whole.recipe.epochs - 4))


def test_a_fold_not_started_is_estimated_from_another_fold(trained: Workspace) -> None:
    path = trained.fold("gn_unet", 0).run
    json_records.save(replace(json_records.load(Run, path, ""), seconds=90.0), path)
    for name in ("run", "prediction_index", "checkpoint"):
        getattr(trained.fold("gn_unet", 1), name).unlink()
    seconds = {s.name: s.seconds for s in steps_of(study(trained, networks=("gn_unet", "unet")))}
    assert seconds["gn_unet, fold 1"] == pytest.approx(90.0)
    assert seconds["unet, fold 0"] is None  # unknown
    shorten(trained, 30.0, epochs=8)
    steps = steps_of(study(trained, networks=("gn_unet", "unet"), budget_s=30.0))
    assert {s.name: s.seconds for s in steps}["unet, fold 0"] == 30.0


def test_the_description_adds_up_what_is_left() -> None:
    steps = [
        Step(name="plan", done=True, seconds=0, run=lambda: None),
        Step(name="a", done=False, seconds=60.0, run=lambda: None),
        Step(name="b", done=False, seconds=None, run=lambda: None),
    ]
    text = describe(steps)
    assert "2 of 3 steps left: about 1 min 00 s and 1 training" in text
    assert "duration unknown" in text


def test_steps_run_once_and_done_steps_never(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []

    def now() -> list[Step]:
        return [
            Step(name=name, done=name == "b" or name in ran, seconds=0, run=lambda name=name: ran.append(name))
            for name in ("a", "b", "c")
        ]

    run(now)
    assert ran == ["a", "c"]
    assert "== c  (step 3 of 3" in capsys.readouterr().err


def test_another_phantom_under_the_same_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_cohort(tmp_path, Design(cases=2, seed=1))
    capsys.readouterr()
    there = study(Workspace(tmp_path, "Phantom"), phantom=PHANTOM)
    assert "phantom cohort" not in left(steps_of(there))
    with pytest.raises(DvtError, match=r"found 2, .*seed 1"):
        steps_of(replace(there, phantom=replace(PHANTOM, seed=2)))
    assert main(["--root", str(tmp_path), "--cases", "2", "--seed", "2", "--dry-run"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "paper"}, r"plan.json: expected --preset paper, found auto"),
        ({"n_folds": 3}, r"splits.json: expected --folds 3, found 2"),
        ({"epochs": 9}, r"run.json: expected --recipe toy with 9 epochs, found .* with 8 epochs"),
        ({"recipe": "modern"}, r"run.json: expected --recipe modern with 250 epochs, found .* with 8 epochs"),
        ({"recipe": "modern", "budget_s": 60.0}, r"run.json: expected --recipe modern with 8 epochs"),
    ],
)
def test_a_study_with_other_options_is_refused(trained: Workspace, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DvtError, match=message + ".* Use the options of that study, or another --root"):
        steps_of(study(trained, **changes))
    steps_of(study(trained, epochs=8))


def test_folds_of_another_time_budget_are_refused(trained: Workspace) -> None:
    with pytest.raises(DvtError, match=r"run\.json: expected --time-budget 60s, found no --time-budget"):
        steps_of(study(trained, budget_s=60.0))
    shorten(trained, 180.0, epochs=3)
    steps_of(study(trained, budget_s=180.0))  # with any number of epochs
    with pytest.raises(DvtError, match=r"run\.json: expected --time-budget 7200s, found --time-budget 180s"):
        steps_of(study(trained, budget_s=7200.0))
    shorten(trained, 180.0, epochs=8)  # all epochs of the recipe
    with pytest.raises(DvtError, match=r"expected no --time-budget, found --time-budget 180s.* another --root"):
        steps_of(study(trained))


def test_a_damaged_description_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "datasets_raw" / "Phantom" / "dataset.json"
    path.parent.mkdir(parents=True)
    for text in ("{", "[]", "3"):
        path.write_text(text)
        assert main(["--root", str(tmp_path), "--dry-run"]) == 1
        error = capsys.readouterr().err
        assert "dataset.json" in error and error.count("\n") == 1


def test_trainings_of_unknown_duration_are_shown_as_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path / "study"), "--dry-run"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("20 of 20 steps left: 16 trainings of unknown duration")


def test_a_phantom_without_clot_is_another(tmp_path: Path) -> None:
    make_cohort(tmp_path, Design(cases=2, seed=1, thrombus=False))
    with pytest.raises(DvtError, match=r"found 2, .*without thrombus"):
        steps_of(study(Workspace(tmp_path, "Phantom"), phantom=PHANTOM))


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "study"
    assert main(["--root", str(root), "--dry-run", "--run-folds", "0", "1", "--time-budget", "3m"]) == 0
    assert not root.exists()
    assert "about 24 min 00 s" in capsys.readouterr().err  # four networks, two folds, three minutes each


@pytest.mark.parametrize(("words", "expected"), [([], "paper"), (["--recipe", "toy"], "toy")])
def test_every_training_has_the_recipe_of_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    trainings: list[list[str]] = []
    monkeypatch.setattr("reproduce.steps_of", lambda study: trainings.append(study.training) or [])
    assert main(["--root", str(tmp_path), "--time-budget", "3m", "--dry-run", *words]) == 0
    assert trainings == [["--recipe", expected, "--time-budget", "180s"]]


def test_a_failing_command_stops_the_study_with_its_message(tmp_path: Path) -> None:
    with pytest.raises(DvtError, match="ended with status 1"):
        _command(["plan_and_preprocess", "--root", str(tmp_path)])


def test_a_phantom_says_that_it_is_synthetic() -> None:
    assert Design(difficulty="easy", seed=3).description.startswith("synthetic: phantom")


@pytest.mark.parametrize(
    "flags",
    [
        ["--run-folds", "4"],
        ["--time-budget", "3"],
        ["--time-budget", "0m"],
        ["--epochs", "2", "--time-budget", "3m"],
        ["--networks", "gn_unet", "foo"],
        ["--networks", "unet", "unet"],
        ["--recipe", "foo"],
        ["--folds", "17"],
    ],
)
def test_bad_options_are_refused(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--root", str(tmp_path), *flags])
    assert stop.value.code == 2
    assert list(tmp_path.iterdir()) == []
