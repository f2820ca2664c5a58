"""Divide the patients of a data set into folds: the user's own, those of an earlier run, by group, or seeded ones."""

from __future__ import annotations

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.data import folds
from dvtplan.data.cases_table import FILE_NAME as CASES
from dvtplan.data.cases_table import is_there
from dvtplan.data.dataset import Dataset
from dvtplan.data.folds import DEFAULT_FOLDS, DEFAULT_SEED, Splits, read_user_splits
from dvtplan.data.paths import Workspace
from dvtplan.data.patient_groups import read_patient_groups
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.preprocessed_cases import STAGE


def divide(
    workspace: Workspace,
    raw: Dataset,
    count: int | None,
    seed: int | None,
    by: str | None = None,
    *,
    verify_only: bool,
) -> tuple[Splits | None, tuple[str, ...]]:
    """Divide the patients into folds.

    Args:
        workspace: of the data set.
        raw: its cases.
        count: number of folds; None: as in an earlier run, else 8.
        seed: of the folds; None: as in an earlier run, else 0.
        by: column of ``cases.csv`` whose groups are left out one at a time, instead of seeded folds; None: as in an
            earlier run, unless ``count`` or ``seed`` is given.
        verify_only: too few patients for the folds are a warning, because the data are sound nevertheless.

    Returns:
        The folds, and warnings.

    Raises:
        DvtError: for folds that are not possible, leak a patient, or were edited where they would be lost.
    """
    wanted = count is not None or seed is not None or by is not None
    try:
        if is_there(workspace.user_splits):
            if by is not None:
                raise DvtError(
                    f"{workspace.user_splits}: replaces all other folds, so `folds_by={by}` has no effect. Move this "
                    "file away, or omit `folds_by`."
                )
            splits, warnings = read_user_splits(workspace.user_splits)
            folds.check(splits, raw.patient_of, str(workspace.user_splits))
            existing, edited = _existing(workspace), False
        else:
            existing, warnings = _existing(workspace, required=count is None and by is None), ()
            if existing is not None and not wanted:
                by = existing.by
            edited = existing is not None and _is_edited(workspace, existing)
            if edited and not wanted:
                again = "make seeded folds with `folds` and `seed`" if by is None else f"repeat `folds_by={by}`"
                raise DvtError(
                    f"{workspace.splits}: {_edit(by)}, and would be replaced. To use it, move it to "
                    f"{workspace.user_splits}; else {again}."
                )
            splits = _seeded(raw, existing, count, seed) if by is None else _by_group(workspace, raw.patient_of, by)
    except DvtError as error:
        if not verify_only or is_there(workspace.user_splits):
            raise
        return None, tuple(str(error).splitlines())
    if edited:
        warnings = (f"{workspace.splits}: {_edit(by)}, and is replaced by {_described(splits)}. An edit is lost.",)
    return splits, (*warnings, *_changed_folds(workspace, splits, existing))


def _seeded(raw: Dataset, existing: Splits | None, count: int | None, seed: int | None) -> Splits:
    """Return seeded folds after a check for leaks; a number that is not given is that of an earlier run."""
    if existing is not None and existing.source.startswith("seed "):
        count = len(existing.folds) if count is None else count
        seed = int(existing.source.removeprefix("seed ")) if seed is None else seed
    count = DEFAULT_FOLDS if count is None else count
    splits = folds.split(raw.patient_of, count, DEFAULT_SEED if seed is None else seed)
    folds.check(splits, raw.patient_of, f"`folds={count}`")
    return splits


def _by_group(workspace: Workspace, patient_of: dict[str, str], by: str) -> Splits:
    """Return folds that leave out one group at a time."""
    return folds.split_by_group(patient_of, read_patient_groups(workspace.raw / CASES, by, patient_of, "folds_by"))


def _edit(by: str | None) -> str:
    """Return what is known of splits that are not those that were made."""
    return "was edited" if by is None else f"was edited, or {by} in {CASES} has changed"


def _is_edited(workspace: Workspace, existing: Splits) -> bool:
    """Return whether folds are not those that the seed or the groups give for the cases for which they were made."""
    source, _, seed = existing.source.partition(" ")
    if existing.by is None and (source != "seed" or not seed.isdecimal()):
        return False
    try:
        planned = json_records.load(Fingerprint, workspace.fingerprint, STAGE)
        patient_of = {case.id: case.patient for case in planned.cases}
        if existing.by is not None:
            made = _by_group(workspace, patient_of, existing.by)
        else:
            made = folds.split(patient_of, len(existing.folds), int(seed))
    except DvtError:  # of other cases, so nothing is known
        return False
    return made.folds != existing.folds


def _existing(workspace: Workspace, *, required: bool = False) -> Splits | None:
    """Return the splits of an earlier run, or None if there are none that can be read.

    Raises:
        DvtError: if they cannot be read, are ``required``, and networks may be trained by them.
    """
    try:
        return json_records.load(Splits, workspace.splits, STAGE) if workspace.splits.exists() else None
    except DvtError as error:
        networks = workspace.trained_networks
        if networks and required:
            raise DvtError(
                f"{workspace.splits}: cannot be read, but {', '.join(networks)} may be trained by its folds. Restore "
                "the file, or make the same folds again with `folds` and `seed`."
            ) from error
        return None


def _changed_folds(workspace: Workspace, splits: Splits, existing: Splits | None) -> tuple[str, ...]:
    """Warn if networks may be trained on other folds than the new ones."""
    networks = workspace.trained_networks
    if existing is None or existing.folds == splits.folds or not networks:
        return ()
    return (
        f"{workspace.splits}: changed from {_described(existing)}, to {_described(splits)}. "
        f"{', '.join(networks)} may be trained by the earlier folds; these results are valid only with them.",
    )


def _described(splits: Splits) -> str:
    return f"{plural(len(splits.folds), 'fold')}, {splits.source}"
