"""The options that override fields of a recipe, generated from ``planning.recipe``."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dvtplan.cli.arguments import positive, whole_number

if TYPE_CHECKING:
    from dvtplan.planning.recipe import Recipe, Setting

AUTO = "auto"


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add ``--recipe`` and one option for each field of a recipe that has a help text."""
    from dvtplan.planning.recipe import RECIPES, Recipe

    group = parser.add_argument_group("recipe", "each overrides one field of the recipe and is written to run.json")
    group.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        default=argparse.SUPPRESS,
        help="named recipe: that of Huang 2019 (paper, default), or newer methods (modern; docs/developer/recipes.md)",
    )
    types = typing.get_type_hints(Recipe)
    for name, setting in _options().items():
        if types[name] is bool:
            _add_switch(group, name, setting)
            continue
        convert, metavar = _converter(name, types[name], setting)
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=convert,
            choices=setting.choices or None,
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=f"{setting.help}; {_values(name)}",
        )


def _add_switch(group: argparse._ArgumentGroup, name: str, setting: Setting) -> None:
    group.add_argument(
        f"--{name.replace('_', '-')}",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help=f"{setting.help}; {_values(name)}",
    )


def recipe_of(options: argparse.Namespace) -> Recipe | None:
    """Return the recipe that the options name; None if they name nothing but epochs."""
    from dvtplan.planning import recipe

    changes = {name: value for name, value in vars(options).items() if name in _options() and name != "epochs"}
    if changes.get("batch_size") == AUTO:
        changes["batch_size"] = 1  # until the training has found the fastest
    if not changes and not hasattr(options, "recipe"):
        return None
    return recipe.override(getattr(options, "recipe", "paper"), **changes)


def batch_size(text: str) -> int | str:
    """Convert a positive number or 'auto'."""
    if text == AUTO:
        return text
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1, or {AUTO}") from None


def number(text: str) -> float:
    """Convert a number such as 0.001 or 1e-3."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number, such as 0.001") from None


def number_or_none(text: str) -> float | None:
    """Convert a number or 'none'."""
    return None if text == "none" else number(text)


def shares(text: str) -> tuple[float, ...]:
    """Convert '0.6,0.85' or 'none'."""
    if text == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a list of shares; write 0.6,0.85 or none") from None


def _options() -> dict[str, Setting]:
    from dvtplan.planning import recipe

    return {name: setting for name, setting in recipe.settings().items() if setting.help}


def _converter(name: str, kind: Any, setting: Setting) -> tuple[Callable[[str], Any], str | None]:
    """Return what converts an option's text, and what stands for its value in the help."""
    if name == "batch_size":
        return batch_size, "N"
    if kind is int:
        return (positive if setting.minimum > 0 else whole_number), "N"
    if typing.get_origin(kind) is tuple:
        return shares, "X"
    if kind is str:
        return str, None if setting.choices else "NAME"
    return (number_or_none if type(None) in typing.get_args(kind) else number), "X"


def _values(name: str) -> str:
    """Return a field's value in the named recipes: '0.1', or 'paper 2, modern 12'."""
    from dvtplan.planning.recipe import RECIPES

    values = {recipe_name: _shown(getattr(one, name)) for recipe_name, one in RECIPES.items()}
    if len(set(values.values())) == 1:
        return f"default: {values['paper']}"
    return "default: " + ", ".join(f"{recipe_name} {value}" for recipe_name, value in values.items())


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
