"""Cross-validation folds: divide the patients, and check splits."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dvtplan.core.errors import DvtError, InvalidValue
from dvtplan.core.json_records import added_later
from dvtplan.core.text import shorten_list
from dvtplan.data.cases_table import FILE_NAME
from dvtplan.data.json_text import read_json
from dvtplan.data.names import normalized, same_names
from dvtplan.data.patient_groups import PatientGroups

DEFAULT_FOLDS, DEFAULT_SEED = 8, 0
"""The paper's number of folds, and our seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One fold: its training and test cases. No patient is in both."""

    index: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    group: str | None = added_later(None)
    """The group that this fold leaves out of the training, and tests; None: the folds do not follow groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """All folds of a cross-validation."""

    source: str
    """'seed N', 'one COLUMN left out at a time', or the file that they come from."""
    folds: tuple[Fold, ...]
    by: str | None = added_later(None)
    """Column of ``cases.csv`` whose groups are left out one at a time; None: the folds do not follow groups."""

    def title(self, fold: Fold) -> str:
        """Return the index of a fold, with the group that it leaves out: '2 (leaves out centre B)'."""
        return str(fold.index) if self.by is None else f"{fold.index} (leaves out {self.by} {fold.group})"

    def fold(self, index: int, file: Path) -> Fold:
        """Return one fold.

        Args:
            index: of the fold.
            file: of these splits, for the message.

        Raises:
            InvalidValue: if there is no such fold.
        """
        if not isinstance(index, numbers.Integral) or isinstance(index, bool) or not 0 <= index < len(self.folds):
            last = len(self.folds) - 1
            raise InvalidValue(f"fold {index}: {file} holds the folds 0 to {last}. Choose one of them.")
        return self.folds[index]


def split(patient_of: dict[str, str], folds: int, seed: int) -> Splits:
    """Divide patients into folds at random, as evenly as possible (Huang 2019, section 2.4).

    The first folds get the remainder: 58 patients in 8 folds give 8, 8 and six times 7.

    Args:
        patient_of: case -> patient; all cases of a patient are in one fold.
        folds: number of folds.
        seed: of the shuffle; the order of ``patient_of`` has no influence.

    Raises:
        DvtError: if there are fewer patients than folds, fewer than two folds, or a negative seed.
    """
    patients = sorted(set(patient_of.values()))
    if seed < 0:
        raise DvtError(f"`seed={seed}`: expected a whole number from 0.")
    if len(patients) < 2:
        raise DvtError(
            f"Folds need at least 2 patients; the data set has {len(patients)}. Add cases of other patients."
        )
    if not 2 <= folds <= len(patients):
        default = " (the default)" if folds == DEFAULT_FOLDS else ""
        most = len(patients)
        expected = f"2 to {most}, the number of patients" if most > 2 else "2, the number of patients"
        raise DvtError(f"`folds={folds}`{default}: expected {expected}. Use for example `folds={min(5, most)}`.")
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    groups = [{patients[i] for i in part} for part in np.array_split(shuffled, folds)]
    return Splits(source=f"seed {seed}", folds=tuple(_fold(k, g, patient_of) for k, g in enumerate(groups)))


def split_by_group(patient_of: dict[str, str], groups: PatientGroups) -> Splits:
    """Make a fold for each group of patients: it tests this group, and trains on all others.

    Args:
        patient_of: case -> patient; all cases of a patient are in one fold.
        groups: of these patients.

    Raises:
        DvtError: if a patient has no group, there is only one group, or names of groups differ only in case.
    """
    column, names = groups.column, groups.names
    asked = f"`folds_by={column}`"
    if groups.ungrouped:
        raise DvtError(
            f"{asked}: {FILE_NAME} gives no {column} of the patients {shorten_list(groups.ungrouped)}. Add it, or make "
            "seeded folds with `folds`."
        )
    if same := same_names(names):
        raise DvtError(
            f"{asked}: the values {shorten_list(same[0])} in {FILE_NAME} differ only in case, so one {column} may be "
            "in training and test. Write one name, or two that differ."
        )
    if len(names) < 2:
        raise DvtError(
            f"{asked}: expected at least two values in {FILE_NAME}; all patients have {shorten_list(names) or 'none'}. "
            "Make seeded folds with `folds`."
        )
    held_out = [{patient for patient, group in groups.group_of.items() if group == name} for name in names]
    made = (replace(_fold(k, held_out[k], patient_of), group=name) for k, name in enumerate(names))
    return Splits(source=f"one {column} left out at a time", folds=tuple(made), by=column)


def _fold(index: int, held_out: set[str], patient_of: dict[str, str]) -> Fold:
    ids = sorted(patient_of)
    return Fold(
        index=index,
        train=tuple(i for i in ids if patient_of[i] not in held_out),
        test=tuple(i for i in ids if patient_of[i] in held_out),
    )


def check(splits: Splits, patient_of: dict[str, str], source: str) -> None:
    """Refuse splits that leak a patient or do not fit the data set.

    Args:
        splits: to check.
        patient_of: case -> patient.
        source: file of the splits, for messages.

    Raises:
        DvtError: with every fault, one line each.
    """
    if not splits.folds:
        raise DvtError(f"{source}: contains no fold. Add at least one.")
    faults: list[str] = []
    for position, fold in enumerate(splits.folds):
        where = f"{source}: fold {position}"
        if fold.index != position:
            faults.append(f"{where} has the index {fold.index}. Number the folds from 0 in order.")
        unknown = sorted((set(fold.train) | set(fold.test)) - set(patient_of))
        if unknown:
            faults.append(f"{where} lists cases that are not in the data set: {shorten_list(unknown)}. Remove them.")
        if not fold.train or not fold.test:
            faults.append(f"{where} has no {'training' if not fold.train else 'test'} case. Add at least one.")
        for side, ids in (("train", fold.train), ("test", fold.test)):
            if repeated := sorted({c for c in ids if ids.count(c) > 1}):
                faults.append(f"{where} lists cases twice in {side}: {shorten_list(repeated)}. Keep each once.")
        trained = {patient_of[c] for c in fold.train if c in patient_of}
        leaks = sorted({patient_of[c] for c in fold.test if c in patient_of} & trained)
        if leaks:
            faults.append(
                f"{where} has patients in both training and test: {shorten_list(leaks)}. "
                "Put all cases of a patient into one of them."
            )
    tested = [c for fold in splits.folds for c in set(fold.test)]
    twice = sorted({c for c in tested if tested.count(c) > 1})
    if twice:
        faults.append(
            f"{source}: lists cases in more than one test list: {shorten_list(twice)}. Keep each case in one test list."
        )
    missing = sorted(set(patient_of).difference(*((*fold.train, *fold.test) for fold in splits.folds)))
    if missing:
        faults.append(
            f"{source}: lacks cases of the data set: {shorten_list(missing)}. Add them to a fold, "
            "or remove them from the data set."
        )
    if faults:
        raise DvtError("\n".join(faults))


def read_user_splits(path: Path) -> tuple[Splits, tuple[str, ...]]:
    """Read splits that a user wrote, also in nnU-Net's form.

    Returns:
        The splits, and warnings.

    Raises:
        DvtError: if the file is not a list of folds.
    """
    try:
        body = read_json(path)
        listed = body["folds"] if isinstance(body, dict) else body
        if any("test" in entry and "val" in entry for entry in listed):
            raise ValueError("a fold with test and val, of which only one can be used")
        folds = tuple(
            Fold(index=k, train=_ids(entry["train"]), test=_ids(entry["test" if "test" in entry else "val"]))
            for k, entry in enumerate(listed)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DvtError(
            f'{path}: expected a list of {{"train": [case ids], "test": [case ids]}}, one entry per fold; '
            f"found {_fault(error)}. Fix or remove it."
        ) from error
    note = f"{path}: its val cases, as nnU-Net calls them, are the test cases of each fold."
    return Splits(source=path.name, folds=folds), (note,) if any("val" in entry for entry in listed) else ()


def _fault(error: Exception) -> str:
    """Describe what was found in a file that is not a list of folds."""
    if isinstance(error, KeyError):
        return f"a fold without {error}"
    return "something else" if isinstance(error, TypeError) else str(error)


def _ids(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"not a list of case ids: {value!r}")
    return tuple(map(normalized, value))
