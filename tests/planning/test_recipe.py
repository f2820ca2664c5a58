"""The recipes, and what docs/developer/recipes.md says about them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from dvtplan.planning.recipe import RECIPES, Recipe

PAGE = Path(__file__).parents[2] / "docs" / "developer" / "recipes.md"
ROW = re.compile(r"^\| `(\w+)` \| (\S+) \| (\S+) \|", re.MULTILINE)


def as_on_the_page(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def test_the_page_lists_every_difference_of_the_recipes_with_its_values() -> None:
    listed = {name: (paper, modern) for name, paper, modern in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    paper, modern = RECIPES["paper"], RECIPES["modern"]
    unlisted = {"name", "lr_drops"}  # drops have no effect with a cosine
    names = {f.name for f in fields(Recipe) if getattr(paper, f.name) != getattr(modern, f.name)} - unlisted
    values = {name: tuple(as_on_the_page(getattr(recipe, name)) for recipe in (paper, modern)) for name in names}
    assert listed == values
