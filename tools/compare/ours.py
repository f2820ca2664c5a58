"""Train a recipe of dvtplan with a time budget, in results of its own, and predict the test patients."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from compare import run_settings
from compare.methods import Method
from compare.run_settings import RunSettings
from compare.settings import Setup
from compare.stages import Planned, Stage, Work, in_turn
from dvtplan.core import json_records
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models.training_run import Run
from dvtplan.planning import recipe as recipes
from dvtplan.planning.recipe import Recipe

NETWORK = "gn_unet"
COMMANDS = (sys.executable, "-P", "-m", "dvtplan.cli")
"""Begins every command of dvtplan. With -P its code is that of ``PYTHONPATH``, not of the current folder."""


def run(setup: Setup, recipe: str, seed: int, commit: str) -> Method:
    """Train and predict, as far as it is not done.

    Args:
        setup: of the comparison.
        recipe: its name.
        seed: of the training.
        commit: present commit of dvtplan.

    Raises:
        DvtError: if a command fails.
    """
    name, words = run_name(recipe, seed), ["--recipe", recipe]
    folder = setup.folder(name)
    run_settings.save_once(folder, RunSettings(words=tuple(words), recipe=recipe_of(recipe, seed), commit=commit))
    method = in_turn(work(setup, name, [*words, "--seed", str(seed)], setup.conditions.precision))
    return replace(method, commit=run_settings.load(folder).commit)


def run_name(recipe: str, seed: int) -> str:
    """Return the name of a run of a recipe, which is also that of its folder."""
    return f"{recipe}/seed_{seed}"


def recipe_of(recipe: str, seed: int) -> Recipe:
    """Return a named recipe with a seed."""
    return recipes.override(recipe, seed=seed)


def work(setup: Setup, name: str, recipe: Sequence[str], precision: str = "auto") -> Work[Method]:
    """Yield the commands that train and predict.

    Args:
        setup: of the comparison.
        name: of the method, which is also that of its folder.
        recipe: options of dvt_train.
        precision: number format of training and prediction; 'auto': each tries which is faster.
    """
    workspace = linked(setup.workspace, setup.folder(name))
    folder = workspace.fold(NETWORK, setup.fold.index)
    fixed = [] if precision == "auto" else ["--precision", precision]
    trained = yield command(setup, name, "train", _training(setup, [*recipe, *fixed], workspace))
    predictions = setup.predictions(name)
    places = ["-i", str(setup.test_images), "-o", str(predictions), "--model", str(workspace.results(NETWORK))]
    predict = ["predict", *places, "--folds", str(setup.fold.index), "--device", "cpu", "--no-levels", *fixed]
    predicting = command(setup, name, "predict", predict)
    if not predicting.record.exists():
        shutil.rmtree(predictions, ignore_errors=True)
    predicted = yield predicting
    return _method(setup, name, folder, (trained, predicted))


def command(setup: Setup, name: str, stage: str, words: Sequence[str]) -> Planned:
    """Return a command of dvtplan whose record is in the folder of a method."""
    variables = {**setup.thread_variables, "PYTHONPATH": str(Path(__file__).parents[2])}
    record = setup.folder(name) / f"{stage}.json"
    return Planned(title=name, record=record, command=[*COMMANDS, *words], variables=variables)


def linked(workspace: Workspace, root: Path) -> Workspace:
    """Return a workspace under another root with the same raw and preprocessed data and results of its own."""
    root.mkdir(parents=True, exist_ok=True)
    for folder in (workspace.raw.parent, workspace.preprocessed.parent):
        link = root / folder.name
        if not link.is_symlink():
            link.symlink_to(folder.absolute())
    return Workspace(root, workspace.dataset)


def _training(setup: Setup, recipe: Sequence[str], workspace: Workspace) -> list[str]:
    """Return the command that trains, or continues an interrupted training."""
    fold = setup.fold.index
    place = ["--root", str(workspace.root), "--dataset", workspace.dataset]
    begun = workspace.fold(NETWORK, fold).checkpoint.exists()
    length = ["--time-budget", f"{setup.conditions.budget_s:g}s"]
    how = ["--resume"] if begun else [*recipe, *length]
    return ["train", str(fold), *place, "--network", NETWORK, "--device", "cpu", *how]


def _method(setup: Setup, name: str, folder: FoldFolder, stages: tuple[Stage, Stage]) -> Method:
    training = json_records.load(Run, folder.run, "dvt_train")
    return Method(
        name=name,
        training_s=training.seconds,
        steps=_steps(setup.workspace, training),
        batch_size=training.recipe.batch_size,
        parameters=training.parameters,
        precision=training.arithmetic.precision if training.arithmetic else training.setup,
        peak_bytes=max(stage.peak_bytes for stage in stages),
        prediction_s=stages[1].seconds,
        processor_share=stages[0].processor_share / setup.conditions.threads,
        cases=len(setup.fold.test),
    )


def _steps(workspace: Workspace, training: Run) -> int:
    """Return the number of training steps, also of a training that did not need all of its time budget."""
    if training.schedule is not None:
        return training.schedule.taken
    images = (workspace.preprocessed_case(case) / "image.npy" for case in training.train)
    slices = sum(len(np.load(image, mmap_mode="r")) for image in images)
    return training.epochs_done * -(-slices // training.recipe.batch_size)
