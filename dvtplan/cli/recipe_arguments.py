"""The options that override fields of a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dvtplan.cli.arguments import positive, whole_number

if TYPE_CHECKING:
    from dvtplan.planning.recipe import Recipe

AUTO = "auto"


def batch_size(text: str) -> int | str:
    return text if text == AUTO else positive(text)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe", "each overrides one field of the recipe and lands in run.json")
    group.add_argument(
        "--recipe", choices=("paper", "quick"), default=argparse.SUPPRESS, help="paper (default), or quick for a laptop"
    )
    for name, (kind, meaning) in RECIPE_FIELDS.items():
        metavar = "N" if kind in (positive, whole_number, batch_size) else "X"
        group.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS, metavar=metavar, help=meaning
        )
    group.add_argument(
        "--target",
        choices=("auto", "lesion", "labels"),
        default=argparse.SUPPRESS,
        help="lesion: the union of all labels; default: by the labels' names",
    )


def recipe_of(options: argparse.Namespace) -> Recipe | None:
    """The recipe that the options name; none where they name nothing but epochs."""
    from dvtplan.planning import recipe

    fields = (*RECIPE_FIELDS, "target")
    given = {name: value for name, value in vars(options).items() if name in fields and name != "epochs"}
    if given.get("batch_size") == AUTO:
        given["batch_size"] = 1  # until the training has tried what is fastest
    if not given and not hasattr(options, "recipe"):
        return None
    return recipe.override(getattr(options, "recipe", "paper"), **given)


def shares(text: str) -> tuple[float, ...]:
    """'0.6,0.85', or 'none'."""
    if text == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no list of shares; write 0.6,0.85 or none") from None


RECIPE_FIELDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "epochs": (positive, "passes over the training slices; paper 250, quick 60"),
    "batch_size": (batch_size, "slices per step, over all processes, or auto for what is fastest; paper 2, quick 4"),
    "learning_rate": (float, "Adam's step size at the start; 1e-3"),
    "lr_factor": (float, "what it is multiplied with at each drop; 0.1"),
    "lr_drops": (shares, "shares of the epochs after which it drops; paper 0.6,0.85, quick 0.75,0.92"),
    "beta1": (float, "Adam's momentum; 0.9"),
    "focal_gamma": (float, "focusing exponent of the loss; 2"),
    "focal_alpha": (float, "weight of the foreground, from 0 to 1; paper none, quick 0.75"),
    "oversampling": (float, "share of an epoch drawn from slices with lesions, labels in turn; paper 0, quick 0.5"),
    "norm_groups": (positive, "groups of each group normalization; 32"),
    "width": (positive, "channels of the first level; 32"),
    "seed": (whole_number, "of weights, order and variants; 0"),
}
