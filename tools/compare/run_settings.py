"""What a run trains: saved before it starts, and checked when its folder is used again."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from compare.settings import MADE_BY
from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.planning.recipe import Recipe

ADVICE = "Remove the folder, then run again."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What is trained: ``run_settings.json``."""

    words: tuple[str, ...]
    """Options of dvt_train, without the seed."""
    recipe: Recipe
    commit: str = json_records.added_later("")
    """Commit of dvtplan that began the training; empty: not recorded."""


def settings_file(folder: Path) -> Path:
    """Return the file of the settings of a run."""
    return folder / "run_settings.json"


def load(folder: Path) -> RunSettings:
    """Read the settings of a run.

    Raises:
        DvtError: if the file is missing or damaged.
    """
    return json_records.load(RunSettings, settings_file(folder), MADE_BY, ADVICE)


def save_once(folder: Path, settings: RunSettings) -> None:
    """Save the settings of a new run. Those of an earlier one are kept."""
    if not settings_file(folder).exists():
        json_records.save(settings, settings_file(folder))


def require_same_recipe(folder: Path, name: str, recipe: Recipe) -> None:
    """Refuse a folder with a training by another recipe of this name.

    Args:
        folder: of the run; it need not exist.
        name: of the recipe, for the message.
        recipe: as it is now.

    Raises:
        DvtError: names the first field that differs.
    """
    if not settings_file(folder).exists():
        return
    earlier = load(folder).recipe
    for one in fields(Recipe):
        before, after = getattr(earlier, one.name), getattr(recipe, one.name)
        if one.name != "name" and before != after:
            raise DvtError(
                f"{settings_file(folder)}: was trained with {one.name} {before}, and {name} now has {after}. Use a new "
                "folder as --out, or remove this one."
            )
