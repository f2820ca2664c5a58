"""The evaluation stage: masks on disk in, ``metrics.csv`` and Table 1 out; anyone's masks, not only ours."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dvtplan import artifacts, metrics, regions, tables, volumes, workers
from dvtplan.dataset import discover, read_cases_table
from dvtplan.errors import DvtError
from dvtplan.geometry import GRID_TOLERANCE_MM, Grid, distance_mm, same_grid
from dvtplan.records import Dataset, Fold, Levels, Splits
from dvtplan.regions import PROXIMAL_DISTAL
from dvtplan.workspace import Workspace, trained_folds

ALL = "all"
"""All thrombus, whatever its region; always scored."""

RULES = {
    "identity": "a voxel of the truth has the region of its label; a predicted voxel has the region of the nearest "
    f"truth voxel or, where cases.csv gives levels, of one within {regions.NEAR_MM:g} mm in its limb, else the side "
    "of its limb's level; in a case without truth and levels what is predicted counts in 'all' only",
    "level": "truth and prediction are divided at the level of each limb in cases.csv; on it and above is proximal",
    "none": "no regions",
}
"""How truth and prediction are divided, by the name that stands in every output."""

OWN_LABELS = "a voxel of the truth and a predicted voxel each have the region of their own label"
"""What identity means where the prediction tells the labels apart."""

ENDINGS = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".gipl.gz")
"""Endings of a mask in a folder of anyone's masks; other files are passed over."""

COLUMNS = ("fold", "case_id", "patient_id", "region", "rule", "tp", "fp", "fn", *tables.SCORES,
           "truth_ml", "predicted_ml", "false_positive_ml", "counted")  # fmt: skip
"""``metrics.csv``, one row per (case, region). ``counted``: whether the row enters the region's
statistics, which it does where the patient, not only this case, has truth in the region."""

BYTES_PER_VOXEL = 24
"""Peak memory of scoring a case: both masks as read, as maps, and their copies."""

FEW_VOXELS = 300_000_000
"""Below this, over all cases, starting processes costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was scored and where it stands."""

    rows: pd.DataFrame
    """``metrics.csv``."""
    table: tables.Table
    written: tuple[Path, ...]

    @property
    def text(self) -> str:
        """Table 1 as text to print."""
        return tables.to_text(self.table)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How the masks of every case are read and divided."""

    rule: str
    """A key of ``RULES``."""
    regions: tuple[str, ...]
    """Into which truth and prediction are divided, in the order of their numbers."""
    reported: tuple[str, ...]
    """Which of them get rows, beside ``ALL``."""
    truth_numbers: dict[int, int] | None
    """Value in a label file -> number of its label; None: every value above 0 is thrombus."""
    predicted_numbers: dict[int, int] | None
    """The same for predictions."""

    @property
    def text(self) -> str:
        """Name and meaning of the rule, and how predictions were read."""
        lesion = self.predicted_numbers is None
        meaning = RULES[self.rule] if lesion or self.rule != "identity" else OWN_LABELS
        read = "every value above 0 is thrombus" if lesion else "values are labels"
        return f"{self.rule} ({meaning}). In predictions {read}"


def evaluate(
    workspace: Workspace,
    network: str,
    split: tuple[str, ...] | None = None,
    folds: Sequence[int] | None = None,
    rule: str = "auto",
    jobs: int | None = None,
) -> Evaluation:
    """Score the predictions of a network's folds; write metrics.csv and Table 1 beside them.

    A mean over fewer cases than the folds test is the mistake to fear: a test case without a
    prediction is an error, and so is a prediction of a case that its own fold trained on.

    Args:
        workspace: the data set, its splits and its results.
        network: name of a results folder.
        split: regions to report; none for what labels and levels allow.
        folds: indices; none for every fold that has predictions.
        rule: 'identity', 'level', or 'auto' for identity where the labels name the regions.
        jobs: processes; none for one, or one per core where the data are large.

    Raises:
        DvtError: for missing predictions, grids that differ, values without a meaning, regions
            that cannot be had. Nothing is written then.
    """
    dataset = discover(workspace.raw)
    splits = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    chosen = _choose_folds(workspace, network, splits, folds)
    pairs = [pair for fold in chosen for pair in _test_pairs(workspace, network, dataset, fold)]
    _require_predictions(workspace.results(network), pairs)
    scheme, notes = _scheme(
        split,
        rule,
        pairs,
        _order(dataset.labels),
        workspace.raw / "cases.csv",
        truth_numbers=_numbers(dataset.labels, dataset.labels),
        predicted_numbers=_same_reading(workspace, network, chosen, dataset.labels),
    )
    return _score_and_write(
        pairs,
        scheme,
        workspace.results(network),
        subject=f"{network} on {dataset.name}",
        folds=_name_folds(chosen, splits),
        notes=notes,
        jobs=jobs,
    )


def evaluate_folders(
    labels_dir: Path,
    predictions_dir: Path,
    out: Path,
    split: tuple[str, ...] | None = None,
    rule: str = "auto",
    *,
    predicted: str = "auto",
    dataset: Path | None = None,
    jobs: int | None = None,
) -> Evaluation:
    """Score anyone's masks: every label against the prediction of the same name, whatever its ending.

    Without ``dataset`` the names of the labels come from a dataset.json in the labels' folder or
    above it, patients and levels from a cases.csv there. Without a dataset.json every value above
    0 is thrombus; without a cases.csv every case is a patient.

    Args:
        labels_dir: truth, one file per case.
        predictions_dir: predictions, one file per case.
        out: folder for metrics.csv and Table 1.
        split: as in ``evaluate``.
        rule: as in ``evaluate``.
        predicted: 'lesion' (every value above 0 is thrombus), 'labels' (values are labels), or
            'auto': what a dataset.json beside the predictions says, else 'labels' where there is
            more than one label.
        dataset: a folder in nnU-Net's raw layout that describes the cases.
        jobs: as in ``evaluate``.

    Raises:
        DvtError: as ``evaluate``, and for a label without a prediction or the reverse.
    """
    _require_choice("--predicted", predicted, ("auto", "lesion", "labels"))
    labels, details, table = _describe(labels_dir, dataset)
    pairs = [
        Pair(case_id=case_id, patient=patient, truth=truth, prediction=prediction, levels=levels)
        for case_id, truth, prediction in _match(labels_dir, predictions_dir)
        for patient, levels in [details.get(case_id, (case_id, None))]
    ]
    named = labels if labels is not None else {"lesion": 1}
    scheme, notes = _scheme(
        split,
        rule,
        pairs,
        _order(named),
        table,
        truth_numbers=None if labels is None else _numbers(labels, labels),
        predicted_numbers=_predicted_numbers(predictions_dir, predicted, named),
    )
    return _score_and_write(
        pairs,
        scheme,
        out,
        subject=f"{predictions_dir} against {labels_dir}",
        folds=f"no folds but the masks in {predictions_dir}",
        notes=notes,
        jobs=jobs,
    )


def score(pair: Pair, scheme: Scheme) -> list[dict[str, Any]]:
    """Count and score one case in every reported region and over all.

    Returns:
        Rows with ``COLUMNS`` but for ``counted``, which takes the patient's other cases.

    Raises:
        DvtError: if a mask cannot be read, the grids differ, or a value has no meaning.
    """
    truth, grid = volumes.read(pair.truth)
    predicted, predicted_grid = volumes.read(pair.prediction)
    _require_same_grid(pair, grid, predicted_grid)
    truth_map, predicted_map = _divide(
        _to_numbers(pair.truth, truth, scheme.truth_numbers),
        _to_numbers(pair.prediction, predicted, scheme.predicted_numbers),
        grid,
        scheme,
        pair.levels,
    )
    *by_region, whole = metrics.count(truth_map, predicted_map, len(scheme.regions))
    counts = dict(zip(scheme.regions, by_region, strict=True))
    return [
        {
            "fold": pair.fold,
            "case_id": pair.case_id,
            "patient_id": pair.patient,
            "region": region,
            "rule": scheme.rule,
            **counted._asdict(),
            **{name: float(getattr(counted, name)) for name in tables.SCORES},
            "truth_ml": counted.truth * grid.voxel_ml,
            "predicted_ml": counted.predicted * grid.voxel_ml,
            "false_positive_ml": counted.fp * grid.voxel_ml,
        }
        for region, counted in [*((name, counts[name]) for name in scheme.reported), (ALL, whole)]
    ]


# --- from files to numbers ------------------------------------------------------------------------


def _require_same_grid(pair: Pair, truth: Grid, predicted: Grid) -> None:
    if truth.shape != predicted.shape:
        raise DvtError(
            f"{pair.prediction}: shape {predicted.shape[::-1]} differs from that of its label {pair.truth}, "
            f"{truth.shape[::-1]}. Resample it onto the label's grid with nearest neighbours."
        )
    if not same_grid(truth, predicted):
        raise DvtError(
            f"{pair.prediction}: lies up to {distance_mm(truth, predicted):.3g} mm away from its label {pair.truth} "
            f"(tolerance {GRID_TOLERANCE_MM:g} mm). Resample it onto the label's grid with nearest neighbours."
        )


def _to_numbers(path: Path, mask: np.ndarray, numbers: dict[int, int] | None) -> np.ndarray:
    """A uint8 map of label numbers from the values of a file; looks at voxels above 0 only."""
    voxels = np.flatnonzero(mask)
    values = mask.reshape(-1)[voxels]
    present = np.unique(values)
    known = [float(v).is_integer() and v > 0 if numbers is None else v in numbers for v in present.tolist()]
    if not all(known):
        unknown = [f"{v:g}" for v, k in zip(present.tolist(), known, strict=True) if not k]
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        expected = "whole numbers from 0" if numbers is None else ", ".join(map(str, (0, *sorted(numbers))))
        raise DvtError(
            f"{path}: holds {shown}; expected {expected}. Threshold it, or name the value in dataset.json."
        )
    map_ = np.zeros(mask.shape, np.uint8)
    meaning = np.array([1 if numbers is None else numbers[int(v)] for v in present.tolist()], np.uint8)
    map_.reshape(-1)[voxels] = meaning[np.searchsorted(present, values)]
    return map_


def _divide(
    truth: np.ndarray, predicted: np.ndarray, grid: Grid, scheme: Scheme, levels: Levels | None
) -> tuple[np.ndarray, np.ndarray]:
    """The region maps of truth and prediction from their maps of label numbers."""
    if scheme.rule == "level":
        if levels is None:
            raise ValueError("the rule level needs levels for every case")
        return regions.by_level(truth, grid, levels), regions.by_level(predicted, grid, levels)
    if scheme.rule == "identity" and scheme.predicted_numbers is None:
        usable = levels if scheme.regions == PROXIMAL_DISTAL else None
        return truth, regions.by_identity(truth, predicted, grid, usable)
    return truth, predicted


# --- which labels, which regions ------------------------------------------------------------------


def _order(labels: dict[str, int]) -> tuple[str, ...]:
    """Label names by value; proximal before distal where these are all, as levels need it."""
    if set(labels) == set(PROXIMAL_DISTAL):
        return PROXIMAL_DISTAL
    return tuple(sorted(labels, key=lambda name: labels[name]))


def _numbers(values: dict[str, int], labels: dict[str, int]) -> dict[int, int]:
    """Value in a file -> number of that label in the order of the data set's labels."""
    return {value: _order(labels).index(name) + 1 for name, value in values.items()}


def _predicted_numbers(folder: Path, predicted: str, labels: dict[str, int]) -> dict[int, int] | None:
    """How to read the predictions in a folder; none where every value above 0 is thrombus."""
    described = folder / "dataset.json"
    own = _read_labels(described) if described.exists() else None
    if predicted == "lesion" or (
        predicted == "auto" and (set(own) == {"lesion"} if own else len(labels) < 2)
    ):
        return None
    unknown = sorted(set(own or labels) - set(labels))
    if unknown:
        raise DvtError(
            f"{described}: names {', '.join(unknown)}, but the truth has {', '.join(labels)}. Name them alike, or "
            "score their union with --predicted lesion."
        )
    return _numbers(own or labels, labels)


def _same_reading(
    workspace: Workspace, network: str, chosen: Sequence[Fold], labels: dict[str, int]
) -> dict[int, int] | None:
    """How to read the predictions of all folds, which must be one way.

    A network trained on the union writes 1 for thrombus, which may also be a label's value, so
    with several labels only the dataset.json beside the masks can tell.
    """
    folders = [workspace.fold(network, fold.index).predictions for fold in chosen]
    for fold, folder in zip(chosen, folders, strict=True):
        if len(labels) > 1 and not (folder / "dataset.json").exists():
            raise DvtError(
                f"{folder / 'dataset.json'}: not found; without it 1 may mean thrombus or {_order(labels)[0]}. "
                f"Run dvt_train {fold.index} --resume to write it."
            )
    first, *others = folders
    reading = _predicted_numbers(first, "auto", labels)
    for folder in others:
        if _predicted_numbers(folder, "auto", labels) != reading:
            raise DvtError(
                f"{folder / 'dataset.json'}: names other labels than {first / 'dataset.json'}. Score these folds "
                "apart with --folds, or train one of them again."
            )
    return reading


def _read_labels(path: Path) -> dict[str, int]:
    """Foreground label names and values of a dataset.json that need not describe a whole data set."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        foreground = {name: value for name, value in labels.items() if value != 0}
        usable = all(type(value) is int and 0 < value < regions.UNASSIGNED for value in foreground.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        usable, foreground = False, {}
    if not usable or not foreground or len(set(foreground.values())) != len(foreground) or ALL in foreground:
        raise DvtError(
            f'{path}: expected "labels" that map each name but "{ALL}" to a number of its own, as in '
            '{"background": 0, "lesion": 1}. Mend it.'
        )
    return foreground


def _scheme(
    split: tuple[str, ...] | None,
    rule: str,
    pairs: Sequence[Pair],
    names: tuple[str, ...],
    table: Path,
    *,
    truth_numbers: dict[int, int] | None,
    predicted_numbers: dict[int, int] | None,
) -> tuple[Scheme, tuple[str, ...]]:
    """Choose the rule that gives the wanted regions; with a note where some had to be left out."""
    _require_choice("--rule", rule, ("auto", "identity", "level"))
    for region in split or ():
        _require_choice("--split", region, (*names, *(n for n in PROXIMAL_DISTAL if n not in names), ALL))
    wanted = None if split is None else tuple(dict.fromkeys(region for region in split if region != ALL))
    unlevelled = [pair.case_id for pair in pairs if pair.levels is None]
    chosen = _auto_rule(wanted, names, not unlevelled) if rule == "auto" else rule
    available = {"identity": names, "level": PROXIMAL_DISTAL, "none": ()}[chosen]
    lacking = [region for region in wanted or () if region not in available]
    if lacking:
        raise DvtError(
            f"--split {'/'.join(wanted or ())}: the rule {chosen} gives {', '.join(available)}, not "
            f"{', '.join(lacking)}. Name it among the labels in dataset.json, or choose from what there is."
        )
    some = f"{_some(unlevelled)} ({len(unlevelled)} of {len(pairs)} cases)"
    if chosen == "level" and unlevelled:
        raise DvtError(
            f"{table}: gives no level for {some}; the labels name {', '.join(names)}. Add level_left_mm or "
            "level_right_mm (LPS z in mm) for them, or label the truth proximal and distal in dataset.json."
        )
    scheme = Scheme(
        rule=chosen,
        regions=available,
        reported=available if wanted is None else wanted,
        truth_numbers=truth_numbers,
        predicted_numbers=predicted_numbers,
    )
    left_out = chosen == "none" and wanted is None and len(unlevelled) < len(pairs)
    return scheme, (f"No proximal and distal: {table} gives no level for {some}.",) if left_out else ()


def _auto_rule(wanted: tuple[str, ...] | None, names: tuple[str, ...], all_have_levels: bool) -> str:
    if wanted is None:
        return "identity" if len(names) > 1 else "level" if all_have_levels else "none"
    if not wanted:
        return "none"
    return "identity" if set(wanted) <= set(names) else "level"


def _require_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise DvtError(f"{option} {value}: no such choice. Choose from {', '.join(choices)}.")


# --- which files ----------------------------------------------------------------------------------


def _choose_folds(
    workspace: Workspace, network: str, splits: Splits, folds: Sequence[int] | None
) -> tuple[Fold, ...]:
    """The folds to score; each has predictions and stands in the splits."""
    results = workspace.results(network)
    if not results.is_dir():
        there = (
            sorted(p.name for p in results.parent.iterdir() if p.is_dir()) if results.parent.is_dir() else []
        )
        raise DvtError(
            f"{results}: no results of that network; there are: {', '.join(there) or 'none'}. Run dvt_train."
        )
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
            raise DvtError(
                f"{workspace.fold(network, index).predictions}: not found. Run dvt_train {index} --resume, "
                f"or leave that fold out with --folds {' '.join(str(k) for k in wanted if k in present)}."
            )
    return tuple(splits.folds[index] for index in wanted)


def _name_folds(chosen: Sequence[Fold], splits: Splits) -> str:
    """'all 8 folds' or 'folds 0, 2 of 8'."""
    n = len(splits.folds)
    if len(chosen) == n:
        return f"all {n} folds"
    return f"fold{'s' if len(chosen) > 1 else ''} {', '.join(str(fold.index) for fold in chosen)} of {n}"


def _test_pairs(workspace: Workspace, network: str, dataset: Dataset, fold: Fold) -> Iterable[Pair]:
    """The test cases of a fold and where their predictions must stand."""
    folder = workspace.fold(network, fold.index).predictions
    leaked = [case_id for case_id in fold.train if (folder / f"{case_id}.nii.gz").exists()]
    if leaked:
        raise DvtError(
            f"{folder}: holds predictions of {_some(leaked)}, on which fold {fold.index} of {workspace.splits} trains. "
            f"The splits have changed: remove {folder.parent} and run dvt_train {fold.index}."
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


def _require_predictions(results: Path, pairs: Sequence[Pair]) -> None:
    missing = [pair for pair in pairs if not pair.prediction.is_file()]
    if missing:
        folds = dict.fromkeys(pair.fold for pair in missing)
        listed = [f"fold {k}: {', '.join(p.case_id for p in missing if p.fold == k)}" for k in folds]
        commands = " and ".join(f"dvt_train {k} --resume" for k in folds)
        raise DvtError(
            f"{results}: {len(missing)} of {len(pairs)} test cases have no prediction ({'; '.join(listed)}). "
            f"Run {commands}, or dvt_predict, to make them."
        )


def _describe(
    labels_dir: Path, dataset: Path | None
) -> tuple[dict[str, int] | None, dict[str, tuple[str, Levels | None]], Path]:
    """Labels (none: unknown), patient and levels by case, and where a table of cases belongs."""
    if dataset is not None:
        described = discover(dataset)
        details = {case.id: (case.patient, case.levels) for case in described.cases}
        return described.labels, details, dataset / "cases.csv"
    places = (labels_dir, labels_dir.absolute().parent)
    labels = next((_read_labels(p / "dataset.json") for p in places if (p / "dataset.json").exists()), None)
    table = next((p / "cases.csv" for p in places if (p / "cases.csv").exists()), labels_dir / "cases.csv")
    return labels, read_cases_table(table) if table.exists() else {}, table


def _match(labels_dir: Path, predictions_dir: Path) -> list[tuple[str, Path, Path]]:
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
        faults.append(
            f"{predictions_dir}: no label in {labels_dir} for {', '.join(extra)}. Add it or remove them."
        )
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


def _some(case_ids: Sequence[str]) -> str:
    return ", ".join(case_ids[:8]) + (f" and {len(case_ids) - 8} more" if len(case_ids) > 8 else "")


# --- what is written ------------------------------------------------------------------------------


def _score_and_write(
    pairs: Sequence[Pair],
    scheme: Scheme,
    out: Path,
    *,
    subject: str,
    folds: str,
    notes: tuple[str, ...],
    jobs: int | None,
) -> Evaluation:
    """Score every case, and write only when all of them have been scored."""
    found = workers.over_cases(
        partial(score, scheme=scheme),
        pairs,
        [pair.case_id for pair in pairs],
        title="Evaluate",
        jobs=_processes(pairs, jobs),
    )
    rows = pd.DataFrame([row for case in found for row in case]).astype({"fold": "Int64"})
    patients = tables.by_patient(rows)[["region", "patient_id", "counted"]]
    rows = rows.merge(patients, on=["region", "patient_id"], how="left", validate="many_to_one")[
        list(COLUMNS)
    ]
    table = tables.table_1(rows, subject=subject, rule=scheme.text, folds=folds, notes=notes)
    texts = {
        "metrics.csv": rows.to_csv(index=False, lineterminator="\n"),
        "table1.csv": tables.to_csv(table),
        "table1.md": tables.to_markdown(table),
        "table1.tex": tables.to_latex(table),
    }
    for name, text in texts.items():
        artifacts.write_text(out / name, text)
    return Evaluation(rows=rows, table=table, written=tuple(out / name for name in texts))


def _processes(pairs: Sequence[Pair], jobs: int | None) -> int:
    """One process for few voxels, unless a number was asked for; as many as memory allows."""
    sizes = [math.prod(volumes.read_grid(pair.truth).shape) for pair in pairs]
    if jobs is None and sum(sizes) < FEW_VOXELS:
        return 1
    return workers.how_many(jobs, len(pairs), max(sizes) * BYTES_PER_VOXEL)
