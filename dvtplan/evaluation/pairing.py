"""Which prediction belongs to which label: a fold's test cases, or two folders of anyone's masks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvtplan.anatomy.levels import ALL, Levels
from dvtplan.anatomy.regions import UNASSIGNED
from dvtplan.core import digests, json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data.cases_table import read_cases_table
from dvtplan.data.dataset import Dataset, discover
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.paths import Workspace, trained_folds
from dvtplan.data.prediction_log import Predicted
from dvtplan.models.training_run import Run, training_differences

ENDINGS = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".gipl.gz")
"""Endings of a mask in a folder of anyone's masks; other files are passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One case to score."""

    case_id: str
    patient: str
    truth: Path
    prediction: Path
    levels: Levels | None
    fold: int | None = None
    """None where the masks are no fold of ours."""


def choose_folds(workspace: Workspace, network: str, splits: Splits, folds: Sequence[int] | None) -> tuple[Fold, ...]:
    """The folds to score; each has predictions and stands in the splits."""
    results = workspace.results(network)
    if not results.is_dir():
        there = ", ".join(workspace.trained_networks) or "none"
        raise DvtError(f"{results}: no results of that network; there are: {there}. Run dvt_train.")
    present = [k for k in trained_folds(results) if workspace.fold(network, k).predictions.is_dir()]
    wanted = present if folds is None else sorted(set(folds))
    if not wanted:
        raise DvtError(f"{results}: no fold has predictions. Run dvt_train 0, or name your folders of masks.")
    for index in wanted:
        if not 0 <= index < len(splits.folds):
            raise DvtError(
                f"{results / f'fold_{index}'}: {workspace.splits} has only the folds 0 to {len(splits.folds) - 1}. "
                "Choose one with --folds, or remove what remains of other splits."
            )
        if index not in present:
            others = " ".join(str(k) for k in present if k in wanted)
            leave = f", or leave that fold out with --folds {others}" if others else ""
            command = _training(workspace, network, index)
            raise DvtError(f"{workspace.fold(network, index).predictions}: not found. Run {command}{leave}.")
    return tuple(splits.folds[index] for index in wanted)


def name_folds(chosen: Sequence[Fold], splits: Splits) -> str:
    """'all 8 folds' or 'folds 0, 2 of 8'."""
    n = len(splits.folds)
    if len(chosen) == n:
        return f"all {n} folds"
    return f"fold{'s' if len(chosen) > 1 else ''} {', '.join(str(fold.index) for fold in chosen)} of {n}"


def fold_pairs(workspace: Workspace, network: str, dataset: Dataset, folds: Sequence[Fold]) -> list[Pair]:
    """The test cases of some folds with their predictions, complete.

    ``predictions.json`` vouches for each mask: a training that goes on, or begins anew, withdraws it.

    Raises:
        DvtError: for a prediction that is missing, of an earlier training, replaced since, or of a training case.
    """
    found = [pair for fold in folds for pair in _test_pairs(workspace, network, dataset, fold)]
    vouched = {fold.index: _vouched(workspace, network, fold.index) for fold in folds}
    missing = [p for p in found if not p.prediction.is_file() or p.case_id not in vouched.get(p.fold or 0, ())]
    if missing:
        lacking = dict.fromkeys(pair.fold for pair in missing)
        listed = [f"fold {k}: {', '.join(p.case_id for p in missing if p.fold == k)}" for k in lacking]
        commands = " and ".join(_training(workspace, network, k or 0) for k in lacking)
        raise DvtError(
            f"{workspace.results(network)}: {len(missing)} of {len(found)} test cases have no prediction by the "
            f"present training ({'; '.join(listed)}). Run {commands} to make them."
        )
    for pair in found:
        written = vouched[pair.fold or 0][pair.case_id]
        if written and written != digests.file_digest((pair.prediction,)):
            raise DvtError(
                f"{pair.prediction}: is not the mask that {network} wrote there. Remove it and run "
                f"{_training(workspace, network, pair.fold or 0)} to make it again, or score masks of your own with "
                "dvt_evaluate --labels and --predictions."
            )
    return found


def _vouched(workspace: Workspace, network: str, fold: int) -> dict[str, str]:
    """Case -> digest of the mask that the present training made of it; empty where that was not noted."""
    ledger = workspace.fold(network, fold).ledger
    if not ledger.exists():
        return {}
    held = json_records.load(Predicted, ledger, f"dvt_train {fold} --resume")
    return {case: held.masks.get(case, "") for case in held.cases}


def _training(workspace: Workspace, network: str, fold: int) -> str:
    """The command that makes a fold's predictions, of what is trained there or from the start."""
    begun = workspace.fold(network, fold).checkpoint.exists()
    return workspace.command("dvt_train", fold, *(["--resume"] if begun else []), network=network)


def note_training_differences(workspace: Workspace, networks: Sequence[str], folds: Sequence[Fold]) -> list[str]:
    """A note where what stands in one table was not trained alike, so that it tells of more than one method, or of
    more than the networks."""
    files = [workspace.fold(network, fold.index).run for network in networks for fold in folds]
    runs = [json_records.load(Run, file, "dvt_train") for file in files if file.exists()]
    return training_differences(runs)


def predicted_classes(workspace: Workspace, network: str, fold: int) -> dict[str, int]:
    """What the values in a fold's masks mean, name -> value."""
    return json_records.load(Predicted, workspace.fold(network, fold).ledger, f"dvt_train {fold} --resume").classes


def _test_pairs(workspace: Workspace, network: str, dataset: Dataset, fold: Fold) -> Iterator[Pair]:
    """The test cases of a fold and where their predictions must stand."""
    folder = workspace.fold(network, fold.index).predictions
    leaked = [case_id for case_id in fold.train if (folder / f"{case_id}.nii.gz").exists()]
    if leaked:
        raise DvtError(
            f"{folder}: holds predictions of {shorten_list(leaked)}, on which fold {fold.index} of "
            f"{workspace.splits} trains. "
            "The splits have changed. Make those again that it was trained by (dvt_plan_and_preprocess with the "
            "--folds and --seed of then), or train it anew: "
            f"{workspace.command('dvt_train', fold.index, '--overwrite', network=network)}."
        )
    cases = {case.id: case for case in dataset.cases}
    for case_id in fold.test:
        case = cases.get(case_id)
        if case is None or case.label is None:
            raise DvtError(
                f"{workspace.splits}: fold {fold.index} tests {case_id}, which has no label in {workspace.raw}. "
                "Run dvt_plan_and_preprocess again."
            )
        yield Pair(
            case_id=case_id,
            patient=case.patient,
            truth=case.label,
            prediction=folder / f"{case_id}.nii.gz",
            levels=case.levels,
            fold=fold.index,
        )


def read_reference(
    labels_dir: Path, dataset: Path | None
) -> tuple[dict[str, int] | None, dict[str, tuple[str, Levels | None]], Path]:
    """Labels (none: unknown), patient and levels by case, and where a table of cases belongs."""
    if dataset is not None:
        described = discover(dataset)
        details = {case.id: (case.patient, case.levels) for case in described.cases}
        return described.labels, details, dataset / "cases.csv"
    places = (labels_dir, labels_dir.absolute().parent)
    labels = next((read_labels(p / "dataset.json") for p in places if (p / "dataset.json").exists()), None)
    table = next((p / "cases.csv" for p in places if (p / "cases.csv").exists()), labels_dir / "cases.csv")
    return labels, read_cases_table(table) if table.exists() else {}, table


def pair_by_name(labels_dir: Path, predictions_dir: Path) -> list[tuple[str, Path, Path]]:
    """Case id, label and prediction, paired by file name without its ending."""
    labels, predictions = _masks(labels_dir), _masks(predictions_dir)
    missing, extra = sorted(set(labels) - set(predictions)), sorted(set(predictions) - set(labels))
    faults = []
    if missing:
        faults.append(
            f"{predictions_dir}: {len(missing)} of {len(labels)} labels have no prediction of their name: "
            f"{', '.join(missing)}. Add or rename them."
        )
    if extra:
        faults.append(f"{predictions_dir}: no label in {labels_dir} for {', '.join(extra)}. Add it or remove them.")
    if faults:
        raise DvtError("\n".join(faults))
    return [(case_id, labels[case_id], predictions[case_id]) for case_id in sorted(labels)]


def _masks(folder: Path) -> dict[str, Path]:
    """File name without its ending -> mask."""
    if not folder.is_dir():
        raise DvtError(f"{folder}: no such folder. Name one that holds a mask per case.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((e for e in ENDINGS if path.name.endswith(e)), None)
        if ending is None or path.name.startswith("."):
            continue
        case_id = path.name.removesuffix(ending)
        if case_id in found:
            raise DvtError(f"{path}: {found[case_id].name} is of the same case. Keep one of them.")
        found[case_id] = path
    if not found:
        raise DvtError(f"{folder}: holds no mask. Put one file per case there ({', '.join(ENDINGS)}).")
    return found


def read_labels(path: Path) -> dict[str, int]:
    """Foreground label names and values of a dataset.json that need not describe a whole data set."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        foreground = {name: value for name, value in labels.items() if value != 0}
        usable = all(type(value) is int and 0 < value < UNASSIGNED for value in foreground.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        usable, foreground = False, {}
    if not usable or not foreground or len(set(foreground.values())) != len(foreground) or ALL in foreground:
        raise DvtError(
            f'{path}: expected "labels" that map each name but "{ALL}" to a number of its own, as in '
            '{"background": 0, "lesion": 1}. Mend it.'
        )
    return foreground
