"""Hold out some training patients of a fold, on which the threshold and the smallest component are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data.folds import Fold
from dvtplan.models.training_run import Run
from dvtplan.planning.recipe import Recipe


def hold_out(
    fold: Fold, patient_of: Mapping[str, str], recipe: Recipe, previous: Run | None, run_file: Path
) -> tuple[Fold, tuple[str, ...]]:
    """Divide the training cases of a fold by patient, at random.

    Args:
        fold: as planned.
        patient_of: case -> patient, of every training case.
        recipe: its ``held_out`` is the share of the training patients, rounded to whole patients: at least one, and
            at most all but one. 0: nobody. Its seed decides who.
        previous: the run that is resumed; None for a new one.
        run_file: of the previous run, for the message.

    Returns:
        The fold without the cases that are held out, and these cases.

    Raises:
        DvtError: if a patient should be held out, but the fold trains on a single one; or if the previous run holds
            out others.
    """
    held_out = _choose(fold, patient_of, recipe) if recipe.held_out else ()
    if previous and previous.held_out != held_out:
        before, after = (shorten_list(cases) or "nobody" for cases in (previous.held_out, held_out))
        raise DvtError(
            f"{run_file}: the training held out {before}; by the present patients it would be {after}. Restore "
            "cases.csv, or set `overwrite=True` to train from the start."
        )
    return replace(fold, train=tuple(case for case in fold.train if case not in held_out)), held_out


def _choose(fold: Fold, patient_of: Mapping[str, str], recipe: Recipe) -> tuple[str, ...]:
    """Return the cases that are held out, in the order of the fold."""
    patients = sorted({patient_of[case] for case in fold.train})
    if len(patients) < 2:
        raise DvtError(
            f"`held_out={recipe.held_out:g}`: fold {fold.index} trains on one patient, so none can be held out. Set "
            "`held_out=0`."
        )
    count = min(max(1, round(recipe.held_out * len(patients))), len(patients) - 1)
    chosen = {patients[k] for k in np.random.default_rng(recipe.seed).permutation(len(patients))[:count]}
    return tuple(case for case in fold.train if patient_of[case] in chosen)
