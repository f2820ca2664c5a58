"""The section of the report on how the networks were made: plans, folds, trainings, recipes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from dvtplan.core.text import duration, plural
from dvtplan.data.folds import Splits
from dvtplan.models.postprocessing import Postprocessing
from dvtplan.models.training_run import Run
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import Recipe, settings
from dvtplan.planning.recipe_text import describe_input, describe_optimizer, has_effect
from dvtplan.rendering import html_page
from dvtplan.rendering.html_page import Html
from dvtplan.rendering.views import VIEWS
from dvtplan.reporting.report_outline import section
from dvtplan.reporting.report_sections import charts, listed
from dvtplan.reporting.scored_network import Chart, ScoredNetwork

T = TypeVar("T")

DECISIONS = {
    "slice_axis": "Direction of slices",
    "target_shape": "Size of the network's input",
    "normalization": "Intensities",
    "variants": "Augmentation",
}
"""Decision of a plan -> its name in the report."""


def methods(results: Sequence[ScoredNetwork], splits: Splits, curves: Sequence[Chart], first: int) -> Html:
    """Return the section on plans, folds and trainings.

    Args:
        results: the networks.
        splits: the folds.
        curves: the learning curves.
        first: number of the first of these figures.
    """
    return section(
        "methods",
        _plans(results),
        html_page.section("folds", "Folds", _folds(results, splits), level=3),
        html_page.section("training", "Training", _runs(results), _recipes(results), charts(curves, first), level=3),
    )


def _plans(results: Sequence[ScoredNetwork]) -> Html:
    """Return each plan once, with the networks that were trained by it."""
    recipes = {one.network: [run.recipe for run in one.runs.values()] for one in results}
    parts = [
        html_page.table(
            f"The plan of {listed(names)} (preset {plan.preset}): each decision with its reason.",
            ("Decision", "Chosen", "Reason"),
            [("", _decisions(plan, [r for n in names for r in recipes[n]]))],
            wide=(1, 2),
        )
        for plan, names in _kinds((one.plan, one.network) for one in results)
    ]
    return html_page.section("plan", "Plan", *parts, level=3)


def _decisions(plan: Plan, recipes: Sequence[Recipe]) -> list[tuple[str, str, str]]:
    """Return name, choice and reason of each decision, and for variants by which of the recipes they were applied."""
    rows = []
    for key, reason in plan.because.items():
        chosen = _decided(plan, key)
        if key == "variants" and any(recipe.augmentation == "wide" for recipe in recipes):
            users = dict.fromkeys(recipe.name for recipe in recipes if recipe.augmentation != "wide")
            chosen += f", applied only by {listed([*users])}" if users else ", not applied: the recipe's is wide"
        rows.append((DECISIONS.get(key, key), chosen, reason))
    return rows


def _decided(plan: Plan, key: str) -> str:
    if key == "slice_axis":
        return f"{VIEWS[plan.slice_axis][0]} ({plan.slice_axis})"
    if key == "target_shape":
        return f"{plan.target_shape[0]} rows × {plan.target_shape[1]} columns"
    if key == "normalization":
        clip = plan.normalization.clip_percentiles
        return f"0 to 1 by {plan.normalization.scope}" + (
            "" if clip is None else f", percentiles {clip[0]:g}, {clip[1]:g}"
        )
    if key == "variants":
        return plural(len(plan.variants), "variant")
    return _value(getattr(plan, key, ""))


def _folds(results: Sequence[ScoredNetwork], splits: Splits) -> Html:
    scored = {fold.index: [o.network for o in results if fold in o.folds] for fold in splits.folds}
    rows = [
        (splits.title(f), str(len(f.train)), str(len(f.test)), listed(scored[f.index]) or "none", ", ".join(f.test))
        for f in splits.folds
    ]
    caption = f"Folds ({splits.source}), in numbers of cases. No patient is both trained on and tested in a fold."
    return html_page.table(
        caption, ("Fold", "Trained on", "Tested", "Scored here", "Test cases"), [("", rows)], wide=(3, 4)
    )


def _runs(results: Sequence[ScoredNetwork]) -> Html:
    groups = []
    for one in results:
        rows = []
        for fold in one.folds:
            run = one.runs.get(fold.index)
            if run is None:
                rows.append((f"fold\u00a0{fold.index}", *["unknown"] * 5))
                continue
            held_out = _held_out(run, one.postprocessing.get(fold.index))
            versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
            rows.append(
                (
                    f"fold\u00a0{fold.index}",
                    f"{run.recipe.name}, {run.done} of {run.length}{held_out}",
                    f"{run.parameters:,}",
                    f"{duration(run.seconds)}\n{run.waiting_share:.0%} waiting for data",
                    f"{run.setup} {plural(run.processes, 'process', 'processes')}.",
                    f"{run.started}\n{versions}",
                )
            )
        groups.append((one.network, rows))
    header = ("Fold", "Recipe", "Parameters", "Training time", "Machine", "Begun, versions")
    return html_page.table("Training of each network and fold (run.json).", header, groups, wide=(4, 5))


def _held_out(run: Run, chosen: Postprocessing | None) -> str:
    """Return lines on the cases that were held out and the mask rule that was chosen on them."""
    cases = f"\n{len(run.train)} cases trained on, {len(run.held_out)} held out" if run.held_out else ""
    return cases if chosen is None else f"{cases}\n{chosen.in_words}"


def _recipes(results: Sequence[ScoredNetwork]) -> Html:
    """Return a column per recipe, with the networks and folds that were trained by it."""
    runs = {f"{one.network} fold {fold}": run for one in results for fold, run in one.runs.items()}
    # Two trainings of the same time budget seldom have the same number of steps.
    kinds = _kinds((replace(run.recipe, epochs=1), name) for name, run in runs.items())
    if not kinds:
        return html_page.text("")
    rows = [
        (
            setting.title,
            *(_value(getattr(recipe, name)) if has_effect(recipe, name) else "not used" for recipe, _ in kinds),
        )
        for name, setting in settings().items()
        if name != "epochs" and any(has_effect(recipe, name) for recipe, _ in kinds)
    ]
    rows[1:1] = [
        (title, *(describe(recipe) for recipe, _ in kinds))
        for title, describe in {"a step sees": describe_input, "optimizer": describe_optimizer}.items()
    ]
    lengths = [dict.fromkeys(runs[name].length.partition(" ")[0] for name in names) for _, names in kinds]
    rows.insert(1, (settings()["epochs"].title, *map(", ".join, lengths)))
    header = ("Setting", *("; ".join(names) for _, names in kinds))
    return html_page.table("Recipe: everything besides the plan that determines a training.", header, [("", rows)])


def _kinds(things: Iterable[tuple[T, str]]) -> list[tuple[T, list[str]]]:
    """Group the names of equal things."""
    kinds: list[tuple[T, list[str]]] = []
    for thing, name in things:
        same = next((names for kind, names in kinds if kind == thing), None)
        if same is None:
            kinds.append((thing, [name]))
        else:
            same.append(name)
    return kinds


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_value, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
