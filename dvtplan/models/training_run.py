"""run.json: what a fold was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dvtplan.core.text import plural
from dvtplan.planning.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a fold was trained with, and how far: ``run.json``."""

    network: str
    fold: int
    recipe: Recipe
    """As used, every field decided."""
    classes: dict[str, int]
    """What the network's outputs mean: name -> value in predicted masks; one: a sigmoid."""
    channels: int
    parameters: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    plan_digest: str
    splits_digest: str
    setup: str
    """Device and precision."""
    processes: int
    versions: dict[str, str]
    started: str
    epochs_done: int
    seconds: float
    """Of training, over all resumes."""
    waiting_share: float
    """Of that time, the share spent waiting for data."""


def training_differences(runs: Sequence[Run]) -> list[str]:
    """A line if folds, or networks, were trained by different recipes or plans; none if all are alike."""
    kinds: dict[tuple[Recipe, str], list[Run]] = {}
    for run in runs:
        kinds.setdefault((replace(run.recipe, name=""), run.plan_digest), []).append(run)
    if len(kinds) < 2:
        return []
    networks = dict.fromkeys(run.network for run in runs)
    told = []
    for of in kinds.values():
        folds = {name: ", ".join(str(run.fold) for run in of if run.network == name) for name in networks}
        who = [f"{name} fold {k}" if len(networks) > 1 else f"fold {k}" for name, k in folds.items() if k]
        told.append(f"{', '.join(who)}: {of[0].recipe.name}, {plural(of[0].recipe.epochs, 'epoch')}")
    plans = len({digest for _, digest in kinds})
    also = f"; by {plans} plans" if plans > 1 else ""
    what = "networks" if len(networks) > 1 else "folds"
    return [f"These {what} were not trained alike ({'; '.join(told)}{also})."]
