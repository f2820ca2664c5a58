"""Pairs of true mask and prediction: the test cases of a fold, or two folders of masks of any program."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvtplan.anatomy.levels import Levels
from dvtplan.core import console, digests, json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data.cases_table import FILE_NAME as CASES
from dvtplan.data.cases_table import CaseDetails, is_there, read_cases_table
from dvtplan.data.dataset import Dataset, discover
from dvtplan.data.dataset_json import read_labels
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.mask_files import PROBABILITY, STATION, mask_path
from dvtplan.data.names import normalized
from dvtplan.data.paths import Workspace, prediction_indexes, trained_folds
from dvtplan.data.planned_splits import require_untrained
from dvtplan.data.prediction_records import PredictionIndex
from dvtplan.data.raw_files import find_changes, planned_again, require_same_images
from dvtplan.imaging.volume_names import MASK_ENDINGS, is_hidden
from dvtplan.models.training_run import Run, training_differences

RESUME = "`train_fold` with `resume=True`"
"""How to predict the test cases of a trained fold again."""

OTHER_IMAGES = (".dcm", ".ima", ".tif", ".tiff", ".mgz", ".mgh", ".mnc", ".vtk", ".vti", ".png", ".npy")
"""Endings of images that may be masks, but are not read as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One case to score."""

    case_id: str
    patient: str
    truth: Path
    prediction: Path
    levels: Levels | None
    fold: int | None = None
    """None: the masks are not of a fold."""


def predicted_folds(workspace: Workspace, network: str) -> list[int]:
    """Return the trained folds of a network that have predictions."""
    return [k for k in trained_folds(workspace.results(network)) if workspace.fold(network, k).predictions.is_dir()]


def choose_folds(workspace: Workspace, network: str, splits: Splits, folds: Sequence[int] | None) -> tuple[Fold, ...]:
    """Choose the folds to score. Each has predictions and is in the splits.

    Raises:
        DvtError: for an unknown network or fold, or a fold without predictions.
    """
    results = workspace.results(network)
    if not results.is_dir():
        there = shorten_list(workspace.trained_networks) or "none"
        raise DvtError(f"{results}: no results of this network; there are: {there}. Run `train_fold` first.")
    present = predicted_folds(workspace, network)
    wanted = present if folds is None else sorted(set(folds))
    if not wanted:
        raise DvtError(
            f"{results}: no fold has predictions. Run `train_fold` first, or score folders of masks with `predictions`."
        )
    for index in wanted:
        if not 0 <= index < len(splits.folds):
            remove = ", or remove the results of other splits" if index in present else ""
            raise DvtError(
                f"{results / f'fold_{index}'}: {workspace.splits} has only the folds 0 to {len(splits.folds) - 1}. "
                f"Choose one with `folds`{remove}."
            )
        if index not in present:
            others = [k for k in present if k in wanted]
            omit = f", or omit this fold with `folds={others}`" if others else ""
            action = _training(workspace, network, index)
            raise DvtError(f"{workspace.fold(network, index).predictions}: not found. Run {action}{omit}.")
    return tuple(splits.folds[index] for index in wanted)


def name_folds(chosen: Sequence[Fold], splits: Splits) -> str:
    """Name the folds: 'all 8 folds' or 'folds 0, 2 of 8', with the groups that they leave out."""
    n = len(splits.folds)
    indices = ", ".join(str(fold.index) for fold in chosen)
    named = f"all {n} folds" if len(chosen) == n else f"fold{'s' if len(chosen) > 1 else ''} {indices} of {n}"
    if splits.by is None:
        return named
    groups = ", ".join(f"fold {fold.index} tests {splits.by} {fold.group}" for fold in chosen)
    return f"{named}, each trained without those that it tests ({groups})"


def fold_pairs(workspace: Workspace, network: str, dataset: Dataset, folds: Sequence[Fold]) -> list[Pair]:
    """Pair the test cases of some folds with their predictions.

    ``predictions.json`` lists each current mask. A training that resumes or starts again removes it.

    Raises:
        DvtError: for a prediction that is missing, of an earlier training, replaced, of a training case, or of another
            image than now. A raw file that has changed since the planning is warned of.
    """
    found = [pair for fold in folds for pair in _test_pairs(workspace, network, dataset, fold)]
    changed, known = find_changes(workspace, dataset, sorted({c for f in folds for c in (*f.test, *f.train)}))
    if changed:
        console.warn(
            f"{shorten_list(changed)}: changed after the data set was planned. Scored as it is now; the networks were "
            "trained on it as it was. Run `plan_and_preprocess` again, and train again."
        )
    if planned_again(workspace, network):
        console.warn(
            f"{workspace.results(network)}: was trained before files or patients of the data set changed. Train "
            "it again (`train_fold` with `overwrite=True`), or report that it was not."
        )
    listed = {fold.index: _prediction_index(workspace, network, fold.index) for fold in folds}
    missing = [p for p in found if not p.prediction.is_file() or p.case_id not in listed[p.fold or 0].cases]
    if missing:
        incomplete = dict.fromkeys(pair.fold for pair in missing)
        names = [f"fold {k}: {shorten_list([p.case_id for p in missing if p.fold == k])}" for k in incomplete]
        actions = " and ".join(_training(workspace, network, k or 0) for k in incomplete)
        raise DvtError(
            f"{workspace.results(network)}: {len(missing)} of {len(found)} test cases have no prediction by the "
            f"present training ({'; '.join(names)}). Run {actions}."
        )
    cases = {case.id: case for case in dataset.cases}
    for pair in found:
        index = listed[pair.fold or 0]
        require_same_images(cases[pair.case_id], index.cases[pair.case_id], pair.prediction, known)
        written = index.masks.get(pair.case_id)
        if written and written != digests.files_digest((pair.prediction,)):
            raise DvtError(
                f"{pair.prediction}: is not the mask that {network} wrote there. Move it out of this folder and run "
                f"{_training(workspace, network, pair.fold or 0)}, or score your own masks with `reference` and "
                "`predictions`."
            )
    return found


def _prediction_index(workspace: Workspace, network: str, fold: int) -> PredictionIndex:
    """Read the log of what the present training predicted; without a log it is empty."""
    index_file = workspace.fold(network, fold).prediction_index
    if not index_file.exists():
        return PredictionIndex(model_digest="", classes={}, cases={})
    return json_records.load(PredictionIndex, index_file, RESUME)


def _training(workspace: Workspace, network: str, fold: int) -> str:
    """Name the stage that predicts the test cases of a fold, from its checkpoint if there is one."""
    stage = RESUME if workspace.fold(network, fold).checkpoint.exists() else "`train_fold`"
    return f"{stage} for fold {fold}, `network={network}`"


def note_training_differences(workspace: Workspace, networks: Sequence[str], folds: Sequence[Fold]) -> list[str]:
    """Return a note if the folds or networks of one table were trained differently."""
    files = [workspace.fold(network, fold.index).run for network in networks for fold in folds]
    runs = [json_records.load(Run, file, "`train_fold`") for file in files if file.exists()]
    return training_differences(runs)


def predicted_classes(workspace: Workspace, network: str, fold: int) -> dict[str, int]:
    """Read the classes of a fold's masks: name -> value."""
    return json_records.load(PredictionIndex, workspace.fold(network, fold).prediction_index, RESUME).classes


def _test_pairs(workspace: Workspace, network: str, dataset: Dataset, fold: Fold) -> Iterator[Pair]:
    """Yield the test cases of a fold with the paths of their predictions."""
    folder = workspace.fold(network, fold.index).predictions
    leaked = [case_id for case_id in fold.train if mask_path(folder, case_id).exists()]
    run = workspace.fold(network, fold.index).run
    trained = json_records.load(Run, run, "`train_fold`").used if run.exists() else ()
    require_untrained(run, trained, fold.test, dataset.patient_of, workspace.splits)
    if leaked:
        raise DvtError(
            f"{folder}: contains predictions of {shorten_list(leaked)}, but {workspace.splits} lists them as training "
            f"cases of fold {fold.index}. The splits have changed. Restore them (`plan_and_preprocess` with the "
            "earlier `folds` and `seed`), or train this fold again (`train_fold` with `overwrite=True`)."
        )
    cases = {case.id: case for case in dataset.cases}
    for case_id in fold.test:
        case = cases.get(case_id)
        if case is None or case.label is None:
            raise DvtError(
                f"{workspace.splits}: fold {fold.index} tests {case_id}, which has no label in {workspace.raw}. "
                "Run `plan_and_preprocess` again."
            )
        yield Pair(
            case_id=case_id,
            patient=case.patient,
            truth=case.label,
            prediction=mask_path(folder, case_id),
            levels=case.levels,
            fold=fold.index,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Description of a folder of true masks."""

    labels: dict[str, int] | None
    """Name -> value; None: unknown."""
    details: dict[str, CaseDetails]
    """By case; a case may be missing."""
    cases_table: Path
    """``cases.csv``; it need not exist."""


def read_reference(reference: Path, dataset: Path | None) -> Reference:
    """Read the description of true masks from ``dataset``, or from files in their folder or above it.

    Raises:
        DvtError: if a description cannot be read.
    """
    if dataset is not None:
        described = discover(dataset)
        if is_there(dataset / CASES):
            read_cases_table(dataset / CASES, [case.id for case in described.cases])  # prints its warnings
        details = {case.id: CaseDetails(case.patient, case.levels) for case in described.cases}
        return Reference(labels=described.labels, details=details, cases_table=dataset / CASES)
    reference = folder_of(reference)
    places = (reference, reference.absolute().parent)
    labels = next((read_labels(p / "dataset.json") for p in places if (p / "dataset.json").exists()), None)
    table = next((p / CASES for p in places if is_there(p / CASES)), reference / CASES)
    details = read_cases_table(table, _masks(reference)) if is_there(table) else {}
    return Reference(labels=labels, details=details, cases_table=table)


def folder_of(place: Path) -> Path:
    """Return the folder of masks, also if one of its files is given."""
    return place.parent if place.is_file() else place


def pair_by_name(reference: Path, predictions: Path) -> list[tuple[str, Path, Path]]:
    """Pair the masks of two folders by file name without its ending, or two files.

    What ``predict`` writes next to a mask (probabilities, masks of stations) is not a prediction of another case.

    Returns:
        Case id, true mask and prediction of each case.

    Raises:
        DvtError: if both are the same folder or the same files; names every mask without a partner.
    """
    if reference.resolve() == predictions.resolve():
        raise DvtError(f"{reference}: is given as `reference` and as `predictions`. Name two folders or files.")
    if reference.is_file() and predictions.is_file():
        return [_pair_of_files(reference, predictions)]
    truths, predicted = _masks(reference), _masks(predictions)
    if prediction_indexes(reference):
        truths = _without_companions(truths, keep=())
    predicted = _without_companions(predicted, keep=truths)
    missing, extra = sorted(set(truths) - set(predicted)), sorted(set(predicted) - set(truths))
    faults = []
    if missing:
        faults.append(
            f"{predictions}: {len(missing)} of {len(truths)} true masks have no prediction of the same name: "
            f"{shorten_list(missing)}. Add or rename them."
        )
    if extra:
        faults.append(f"{predictions}: no true mask in {reference} for {shorten_list(extra)}. Add it or remove them.")
    if faults:
        raise DvtError("\n".join(faults))
    same = [case_id for case_id in sorted(truths) if _same_file(truths[case_id], predicted[case_id])]
    if same:
        first = same[0]
        raise DvtError(
            f"{predicted[first]}: is the same file as its true mask {truths[first]} (a link; {len(same)} of "
            f"{len(truths)} predictions). Put the predicted masks there."
        )
    unused = [path.name for path in sorted(reference.iterdir()) if _looks_like_truth(path)]
    if unused:
        console.warn(
            f"{reference}: not scored, since a true mask is a file in this folder itself with an ending of "
            f"{', '.join(MASK_ENDINGS)}: {shorten_list(unused)}."
        )
    return [(case_id, truths[case_id], predicted[case_id]) for case_id in sorted(truths)]


def _pair_of_files(truth: Path, prediction: Path) -> tuple[str, Path, Path]:
    """Return the case id of a true mask, and both files."""
    for path in (truth, prediction):
        if _ending(path) is None:
            raise DvtError(f"{path}: is not a mask. Name a file with the ending {', '.join(MASK_ENDINGS)}.")
    if _same_file(truth, prediction):
        raise DvtError(f"{prediction}: is the same file as its true mask {truth}. Name two files.")
    return normalized(truth.name[: -len(_ending(truth) or "")]), truth, prediction


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _looks_like_truth(path: Path) -> bool:
    """Return whether something in the folder of true masks is a folder of masks, or a mask in another format."""
    if is_hidden(path.name):
        return False
    if path.is_dir():
        with contextlib.suppress(OSError):  # a folder that cannot be listed holds no true mask
            return any(_ending(file) for file in path.iterdir())
        return False
    return path.name.lower().endswith(OTHER_IMAGES)


def _ending(path: Path) -> str | None:
    """Return the ending of a mask's file name, in lower case; None for other files."""
    return next((e for e in MASK_ENDINGS if path.name.lower().endswith(e)), None)


def _masks(folder: Path) -> dict[str, Path]:
    """Map each file name without its ending to the mask."""
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "not found"
        raise DvtError(f"{folder}: {fault}. Name two folders with one mask per case, or two files.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = _ending(path)
        if ending is None or is_hidden(path.name):
            continue
        case_id = normalized(path.name[: -len(ending)])
        if case_id in found:
            raise DvtError(f"{path}: {found[case_id].name} is a mask of the same case. Keep one of them.")
        found[case_id] = path
    if not found:
        raise DvtError(f"{folder}: holds no mask. Put one file per case there ({', '.join(MASK_ENDINGS)}).")
    return found


def _without_companions(masks: Mapping[str, Path], keep: Collection[str]) -> dict[str, Path]:
    """Omit the volumes that a prediction writes next to a mask, except those with a name in ``keep``."""
    return {
        name: path
        for name, path in masks.items()
        if name in keep or not any(word in name and name.partition(word)[0] in masks for word in (PROBABILITY, STATION))
    }
