"""What a run trains is saved once, and another recipe of the same name is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from compare import run_settings
from compare.run_settings import RunSettings, require_same_recipe, save_once

from dvtplan.core.errors import DvtError
from dvtplan.planning.recipe import Recipe

RECIPE = Recipe(name="other", context=1)


def test_another_recipe_of_the_same_name_is_refused(tmp_path: Path) -> None:
    require_same_recipe(tmp_path, "other", RECIPE)  # nothing was trained
    save_once(tmp_path, RunSettings(words=(), recipe=RECIPE))
    require_same_recipe(tmp_path, "other", replace(RECIPE, name="another name"))
    with pytest.raises(DvtError, match=r"run_settings\.json.*context 1, and other now has 2.*--out"):
        require_same_recipe(tmp_path, "other", replace(RECIPE, context=2))


def test_the_settings_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    save_once(tmp_path / "run", RunSettings(words=("--recipe", "other"), recipe=RECIPE, commit="abc"))
    save_once(tmp_path / "run", RunSettings(words=(), recipe=Recipe(), commit="def"))
    found = run_settings.load(tmp_path / "run")
    assert found == RunSettings(words=("--recipe", "other"), recipe=RECIPE, commit="abc")


def test_a_file_without_a_commit_can_be_read(tmp_path: Path) -> None:
    save_once(tmp_path, RunSettings(words=(), recipe=RECIPE))
    path = run_settings.settings_file(tmp_path)
    content = json.loads(path.read_text())
    del content["commit"]
    path.write_text(json.dumps(content))
    assert run_settings.load(tmp_path).commit == ""


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run_settings.settings_file(tmp_path).write_text("{")
    with pytest.raises(DvtError, match=r"run_settings\.json.*Remove the folder"):
        require_same_recipe(tmp_path, "other", RECIPE)
