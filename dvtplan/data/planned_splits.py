"""The folds of a planned data set, checked with its patients as they are known now.

Everything that reads cases and folds together reads the folds here, so that no network is trained or scored by folds
in which a patient is on both sides, whatever has changed in ``cases.csv`` or ``splits.json`` since the planning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core import console, json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.process_group import is_main_process
from dvtplan.core.text import shorten_list
from dvtplan.data import cases_table
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.names import visible
from dvtplan.data.paths import Workspace
from dvtplan.data.patient_groups import read_patient_groups

STAGE = "`plan_and_preprocess`"


def load_splits(workspace: Workspace, patient_of: Mapping[str, str], known_from: Path | None = None) -> Splits:
    """Read the folds of a planned data set, and refuse them if they leak a patient or do not fit the cases.

    Folds that leave out a group of patients must still do so by the present ``cases.csv``, if there is one.

    Args:
        workspace: of the data set.
        patient_of: case -> patient, of every case.
        known_from: the file that the cases are from, for messages, if the patients are as planned; None: the raw data
            set. Only then groups are checked, and patients in training and test whose names differ only in case give
            a warning.

    Raises:
        DvtError: if the file is missing or damaged; or names the first fold with a fault, in one line.
    """
    splits = json_records.load(Splits, workspace.splits, STAGE)
    if not splits.folds:
        raise DvtError(f"{workspace.splits}: contains no fold. Run {STAGE} again.")
    for position, fold in enumerate(splits.folds):
        fault = _fault(fold, position, patient_of, known_from or workspace.raw)
        if fault:
            raise DvtError(f"{workspace.splits}: fold {position} {fault}. Restore the file, or run {STAGE} again.")
    for position, fold in enumerate(splits.folds):
        if leak := find_leak(fold.train, fold.test, patient_of):
            raise DvtError(
                f"{workspace.splits}: fold {position} trains on {leak.trained} and tests {leak.tested}, all of the "
                f"patient {leak.patient}. Restore the file or {cases_table.FILE_NAME}, or run {STAGE} again and train "
                "this fold again."
            )
    if known_from is None:
        _require_groups(splits, patient_of, workspace)
    if known_from is None and is_main_process():
        _warn_of_similar_patients(splits, patient_of, workspace)
    return splits


def _warn_of_similar_patients(splits: Splits, patient_of: Mapping[str, str], workspace: Workspace) -> None:
    """Warn of the first patients in training and test whose names differ only in case."""
    folded = {case_id: visible(patient).casefold() for case_id, patient in patient_of.items()}
    for fold in splits.folds:
        if leak := find_leak(fold.train, fold.test, folded):
            console.warn(
                f"{workspace.splits}: fold {fold.index} trains on {leak.trained} and tests {leak.tested}, whose "
                f"patients differ only in case: {patient_of[leak.tested]}. If they are one, write one name in "
                f"{cases_table.FILE_NAME}; then run {STAGE} again and train again."
            )
            return


def _require_groups(splits: Splits, patient_of: Mapping[str, str], workspace: Workspace) -> None:
    """Refuse folds that do not leave out the group that they name, by the present ``cases.csv``."""
    table, by = workspace.raw / cases_table.FILE_NAME, splits.by
    if by is None or not cases_table.is_there(table):
        return
    planned = sorted({case_id for fold in splits.folds for case_id in (*fold.train, *fold.test)})
    action = f"Restore {table}, or run {STAGE} again with `folds_by={by}` and train again."
    try:
        groups = read_patient_groups(table, by, {case_id: patient_of[case_id] for case_id in planned}, "folds_by")
    except DvtError as error:
        raise DvtError(f"{error} {workspace.splits} leaves out one {by} at a time. {action}") from error
    group_of = {case_id: groups.group_of[patient_of[case_id]] for case_id in planned}
    for fold in splits.folds:
        group = {case_id for case_id in planned if group_of[case_id] == fold.group}
        for verb, wrong in (
            ("trains on", group & set(fold.train)),
            ("tests", set(fold.test) - group),
            ("does not test", group - set(fold.test)),
        ):
            if wrong:
                now = shorten_list(sorted({group_of[case_id] for case_id in wrong}))
                raise DvtError(
                    f"{workspace.splits}: fold {fold.index} leaves out {by} {fold.group}, but {verb} "
                    f"{shorten_list(sorted(wrong))}, of {by} {now} in {table}. {action}"
                )


def _fault(fold: Fold, position: int, patient_of: Mapping[str, str], known_from: Path) -> str:
    """Return what is wrong in a fold besides its patients; empty if nothing."""
    if fold.index != position:
        return f"has the index {fold.index}"
    if not fold.train or not fold.test:
        return f"has no {'test' if fold.train else 'training'} case"
    counts = Counter((*fold.train, *fold.test))
    if twice := sorted(case_id for case_id, count in counts.items() if count > 1):
        return f"lists {shorten_list(twice)} more than once, in training or test"
    for case_ids, verb in ((fold.test, "tests"), (fold.train, "trains on")):
        if unknown := sorted(set(case_ids) - set(patient_of)):
            return f"{verb} {shorten_list(unknown)}, which {known_from} does not contain"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A patient with cases in training and test."""

    patient: str
    trained: str
    """Cases that are trained on, for messages."""
    tested: str


def find_leak(train: Collection[str], test: Collection[str], patient_of: Mapping[str, str]) -> Leak | None:
    """Return the first patient with cases in training and test, or None.

    A case that ``patient_of`` does not list is a patient of its own.
    """
    trained: dict[str, list[str]] = {}
    for case_id in train:
        trained.setdefault(patient_of.get(case_id, case_id), []).append(case_id)
    for case_id in test:
        patient = patient_of.get(case_id, case_id)
        if patient in trained:
            return Leak(patient=patient, trained=shorten_list(sorted(trained[patient])), tested=case_id)
    return None


def current_patients(workspace: Workspace, planned: Mapping[str, str]) -> dict[str, str]:
    """Return the patient of each planned case by the present ``cases.csv``; as planned where it does not exist.

    Raises:
        DvtError: if the table is faulty.
    """
    table = workspace.raw / cases_table.FILE_NAME
    if not cases_table.is_there(table):
        return dict(planned)
    read = cases_table.survey_cases_table(table)
    if read.faults:
        raise DvtError("\n".join(read.faults))
    details = read.cases
    return {case_id: details[case_id].patient if case_id in details else case_id for case_id in planned}


def require_untrained(
    run: Path, trained: Collection[str], test: Collection[str], patient_of: Mapping[str, str], splits: Path
) -> None:
    """Refuse to predict or score cases of patients that a network was trained on.

    Args:
        run: the record of the training, for the message.
        trained: the cases that it lists.
        test: cases to predict or score.
        patient_of: case -> patient, as known now.
        splits: the file that ``test`` is from, for the message.

    Raises:
        DvtError: names the patient and its cases.
    """
    if leak := find_leak(trained, test, patient_of):
        raise DvtError(
            f"{run}: the network was trained on {leak.trained}, and {splits} tests {leak.tested} of the same patient, "
            f"{leak.patient}. Restore the splits of the training, or train this fold again (`train_fold` with "
            "`overwrite=True`)."
        )
