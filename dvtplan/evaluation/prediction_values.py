"""What the values of predicted masks mean: thrombus, or one label each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data.dataset_json import FILE_NAME, read_labels
from dvtplan.data.folds import Fold
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.case_scores import PREDICTED_LABELS, TRUE_LABELS
from dvtplan.evaluation.pairing import predicted_classes
from dvtplan.evaluation.region_rules import label_numbers

CHOICES = ("auto", "lesion", "labels")
"""Choices of ``prediction_values``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the values of predictions are read."""

    folder: Path
    """Of the predictions."""
    numbers: dict[int, int] | None
    """Value -> number of its label; None: every value above 0 is thrombus."""
    assumed: bool = False
    """Neither the user nor a dataset.json said so."""


def read_folder(folder: Path, choice: str, labels: dict[str, int]) -> Reading:
    """Decide how to read the predictions in a folder.

    Args:
        folder: of the predictions, perhaps with a dataset.json that describes them.
        choice: one of ``CHOICES``.
        labels: label of the truth -> value.

    Raises:
        DvtError: if the folder's dataset.json names other labels than the truth.
    """
    described = folder / FILE_NAME
    own = read_labels(described) if described.exists() else None
    if choice == "lesion":
        return Reading(folder=folder, numbers=None)
    if choice == "auto" and (set(own) == {"lesion"} if own else len(labels) < 2):
        return Reading(folder=folder, numbers=None)
    unknown = sorted(set(own or labels) - set(labels))
    if unknown:
        raise DvtError(
            f"{described}: names {shorten_list(unknown)}, but the truth has {shorten_list(list(labels))}. Use the same "
            "names, or score the union of the labels with `prediction_values='lesion'`."
        )
    numbers = label_numbers(own or labels, labels)
    return Reading(folder=folder, numbers=numbers, assumed=choice == "auto" and own is None)


def read_folds(
    workspace: Workspace, network: str, chosen: Sequence[Fold], labels: dict[str, int]
) -> dict[int, int] | None:
    """Decide how to read the predictions of all folds, which must agree.

    A network trained on the union writes 1 for thrombus, and 1 may also be a label's value. So the classes in
    predictions.json decide.

    Returns:
        As ``Reading.numbers``.

    Raises:
        DvtError: if folds predict different classes.
    """
    classes = {fold.index: predicted_classes(workspace, network, fold.index) for fold in chosen}
    first, *others = classes
    for k in others:
        if classes[k] != classes[first]:
            here, there = (shorten_list(list(classes[fold])) for fold in (k, first))
            raise DvtError(
                f"{workspace.fold(network, k).prediction_index}: names other classes ({here}) than fold {first} "
                f"({there}). Score these folds separately with `folds`, or train one of them again."
            )
    own = classes[first]
    return label_numbers(own, labels) if len(own) > 1 and set(own) <= set(labels) else None


def check_values(rows: pd.DataFrame, reading: Reading, regions: Sequence[str]) -> tuple[str, ...]:
    """Refuse, or warn of, predictions that are read as labels but all hold the same single value.

    They are probably masks of 0 and 1, whose value 1 means thrombus and not the first label. Read as labels, every
    other label would score 0. True masks of one value are a warning, if the predictions have other labels.

    Args:
        rows: scored rows with the columns ``TRUE_LABELS`` and ``PREDICTED_LABELS``.
        reading: how the predictions were read.
        regions: labels in the order of their numbers.

    Returns:
        Notes of the tables, which are also warnings.

    Raises:
        DvtError: if the reading was assumed, and the truth has other labels than this value's.
    """
    true, predicted = ({k for found in rows[name] for k in found} for name in (TRUE_LABELS, PREDICTED_LABELS))
    if reading.numbers is None or len(regions) < 2 or set(rows["rule"]) != {"by-label"}:
        return ()
    if len(predicted) == 1:
        return _check_single(reading, regions, true, *predicted)
    if len(true) == 1 and predicted - true:
        others = [regions[k - 1] for k in sorted(predicted - true)]
        note = (
            f"All true masks have only the label {regions[min(true) - 1]}, but the predictions have "
            f"{shorten_list(others)}. If the true masks do not distinguish labels, these scores are wrong"
        )
        console.warn(f"{note}: name their values in dataset.json.")
        return (f"{note}.",)
    return ()


def _check_single(reading: Reading, regions: Sequence[str], true: set[int], number: int) -> tuple[str, ...]:
    """Refuse or warn of predictions that only have the label with this number; return the note.

    Values that are labels by declaration are sound if the truth has no other label, as in a single patient.
    """
    value = next(value for value, its_number in (reading.numbers or {}).items() if its_number == number)
    only = f"predictions have only the label {regions[number - 1]}, value {value}"
    others = [regions[k - 1] for k in sorted(true - {number})]
    if reading.assumed and others:
        raise DvtError(
            f"{reading.folder}: all {only}, but the truth has {shorten_list(others)}. If every value above 0 is "
            "thrombus, set `prediction_values=lesion`; if not, set `prediction_values=labels`."
        )
    if not reading.assumed and not others:
        return ()
    others = others or [name for k, name in enumerate(regions, start=1) if k != number]
    note = (
        f"All {only}, so nothing is predicted as {shorten_list(others)}. If this value is thrombus of any label, these "
        "scores are wrong"
    )
    console.warn(f"{reading.folder}: {note[0].lower()}{note[1:]}: set `prediction_values=lesion`.")
    return (f"{note}.",)
