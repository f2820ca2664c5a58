"""``run.json``: how a fold was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dvtplan.core.text import plural
from dvtplan.planning.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a fold was trained, and how far: ``run.json``."""

    network: str
    fold: int
    recipe: Recipe
    """As used; no field is 'auto'."""
    classes: dict[str, int]
    """Meaning of the outputs: class name -> value in predicted masks. One class: a sigmoid."""
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
    """Training time over all resumes."""
    waiting_share: float
    """Share of ``seconds`` spent waiting for data."""


def training_differences(runs: Sequence[Run]) -> list[str]:
    """Return a line if folds or networks were trained by different recipes or plans; an empty list if not."""
    kinds: dict[tuple[Recipe, str], list[Run]] = {}
    for run in runs:
        kinds.setdefault((replace(run.recipe, name=""), run.plan_digest), []).append(run)
    if len(kinds) < 2:
        return []
    networks = dict.fromkeys(run.network for run in runs)
    groups = []
    for members in kinds.values():
        folds = {name: ", ".join(str(run.fold) for run in members if run.network == name) for name in networks}
        who = [f"{name} fold {k}" if len(networks) > 1 else f"fold {k}" for name, k in folds.items() if k]
        recipe = members[0].recipe
        groups.append(f"{', '.join(who)}: {recipe.name}, {plural(recipe.epochs, 'epoch')}")
    plans = len({digest for _, digest in kinds})
    how = "different recipes or plans" if plans > 1 else "different recipes"
    what = "networks" if len(networks) > 1 else "folds"
    return [f"These {what} were trained by {how} ({'; '.join(groups)})."]
