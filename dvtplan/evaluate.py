"""The evaluation stage: masks on disk in, ``metrics.csv`` and tables out; anyone's masks, not only ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dvtplan import (
    artifacts,
    comparison,
    lesions,
    level_shift,
    levels,
    measures_table,
    metrics,
    regions,
    surfaces,
    tables,
    volumes,
    voxels,
    workers,
)
from dvtplan.dataset import discover
from dvtplan.errors import DvtError, some
from dvtplan.geometry import GRID_TOLERANCE_MM, Grid, distance_mm, same_grid
from dvtplan.landmarks import LEVEL_BELOW_KNEE_MM
from dvtplan.pairs import (
    Pair,
    choose_folds,
    describe,
    match,
    mixed_training,
    name_folds,
    of_folds,
    predicted_classes,
    read_labels,
)
from dvtplan.records import PHANTOM_NOTE, Confusion, Dataset, Fold, Levels, Splits
from dvtplan.regions import ALL, PROXIMAL_DISTAL
from dvtplan.workspace import METRICS, Workspace

RULES = {
    "identity": "a voxel of the truth has the region of its label; a predicted voxel has the region of the nearest "
    f"truth voxel or, where cases.csv gives levels, of one within {regions.NEAR_MM:g} mm in its limb, else the side "
    "of its limb's level; in a case without truth and levels what is predicted counts in 'all' only",
    "level": "truth and prediction are divided at the level of each limb in cases.csv, or where a note says so as "
    "estimated from the image; on it and above is proximal",
    "none": "no regions",
}
"""How truth and prediction are divided, by the name that stands in every output."""

OWN_LABELS = "a voxel of the truth and a predicted voxel each have the region of their own label"
"""What identity means where the prediction tells the labels apart."""

COLUMNS = ("fold", "case_id", "patient_id", "region", "rule", "tp", "fp", "fn", *tables.SCORES,
           "truth_ml", "predicted_ml", "false_positive_ml", "counted", *measures_table.COLUMNS)  # fmt: skip
"""``metrics.csv``, one row per (case, region). ``counted``: whether the row enters the region's
statistics, which it does where the patient, not only this case, has truth in the region. What
follows it, and where that is empty, is said in ``measures_table``."""

SENSITIVITY = "level_sensitivity.csv"
"""Scores with all levels moved."""

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
    measures: measures_table.MeasuresTable
    """What is measured beside the scores of Table 1."""
    written: tuple[Path, ...]
    shifts: level_shift.LevelShift | None = None
    """Table 1 with moved levels, where it was asked for."""

    @property
    def text(self) -> str:
        """Table 1, the further measures and what moved levels make of it, as text to print."""
        texts = [tables.to_text(self.table), measures_table.to_text(self.measures)]
        return "\n".join(texts if self.shifts is None else [*texts, level_shift.to_text(self.shifts)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Several networks on the same patients, and where that stands."""

    evaluations: dict[str, Evaluation]
    """By network."""
    table: comparison.Comparison
    """Table 2."""
    written: tuple[Path, ...]

    @property
    def text(self) -> str:
        """Table 2 as text to print."""
        return comparison.to_text(self.table)


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
    *,
    tolerance_mm: float = surfaces.TOLERANCE_MM,
    level_sensitivity: bool = False,
    estimate_levels: bool = False,
) -> Evaluation:
    """Score the predictions of a network's folds; write metrics.csv and the tables beside them.

    A mean over fewer cases than the folds test is the mistake to fear: a test case without a
    prediction is an error, and so is a prediction of a case that its own fold trained on.

    Args:
        workspace: the data set, its splits and its results.
        network: name of a results folder.
        split: regions to report; none for what labels and levels allow.
        folds: indices; none for every fold that has predictions.
        rule: 'identity', 'level', or 'auto' for identity where the labels name the regions.
        jobs: processes; none for one, or one per core where the data are large.
        tolerance_mm: of surface Dice.
        level_sensitivity: also score with all levels moved up and down, and write level_sensitivity.csv.
        estimate_levels: where cases.csv has no level, take that which is found in the image; also without this
            where the rule is level, or levels are moved.

    Raises:
        DvtError: for missing predictions, grids that differ, values without a meaning, regions
            that cannot be had. Nothing is written then.
    """
    gathered = _gather(workspace, network, folds)
    asked = _Asked(split=split, rule=rule, shifts=level_sensitivity, estimate=estimate_levels)
    return _evaluate(workspace, network, gathered, asked, jobs, tolerance_mm)


_Gathered = tuple[Dataset, Splits, tuple[Fold, ...], list[Pair]]


def _gather(workspace: Workspace, network: str, folds: Sequence[int] | None) -> _Gathered:
    """What is to be scored of a network, complete; no mask is opened."""
    dataset = discover(workspace.raw)
    splits = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    chosen = choose_folds(workspace, network, splits, folds)
    return dataset, splits, chosen, of_folds(workspace, network, dataset, chosen)


def _evaluate(
    workspace: Workspace,
    network: str,
    gathered: _Gathered,
    asked: _Asked,
    jobs: int | None,
    tolerance_mm: float,
) -> Evaluation:
    """Score what was gathered of a network, and write."""
    dataset, splits, chosen, pairs = gathered
    ready = _ready(
        asked,
        pairs,
        _order(dataset.labels),
        workspace.raw / "cases.csv",
        {case.id: case.images[0] for case in dataset.cases},
        jobs,
        truth_numbers=_numbers(dataset.labels, dataset.labels),
        predicted_numbers=_same_reading(workspace, network, chosen, dataset.labels),
    )
    return _score_and_write(
        ready,
        workspace.results(network),
        subject=f"{network} on {dataset.subject}",
        folds=name_folds(chosen, splits),
        notes=(*_warnings(dataset), *ready.notes, *mixed_training(workspace, [network], chosen)),
        jobs=jobs,
        tolerance_mm=tolerance_mm,
    )


def _warnings(dataset: Dataset) -> tuple[str, ...]:
    """What stands beside every score of a data set."""
    return (PHANTOM_NOTE,) if dataset.is_phantom else ()


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
    tolerance_mm: float = surfaces.TOLERANCE_MM,
    level_sensitivity: bool = False,
    estimate_levels: bool = False,
) -> Evaluation:
    """Score anyone's masks: every label against the prediction of the same name, whatever its ending.

    Without ``dataset`` the names of the labels come from a dataset.json in the labels' folder or
    above it, patients and levels from a cases.csv there. Without a dataset.json every value above
    0 is thrombus; without a cases.csv every case is a patient.

    Args:
        labels_dir: truth, one file per case.
        predictions_dir: predictions, one file per case.
        out: folder for metrics.csv and the tables.
        split: as in ``evaluate``.
        rule: as in ``evaluate``.
        predicted: 'lesion' (every value above 0 is thrombus), 'labels' (values are labels), or
            'auto': what a dataset.json beside the predictions says, else 'labels' where there is
            more than one label.
        dataset: a folder in nnU-Net's raw layout that describes the cases.
        jobs: as in ``evaluate``.
        tolerance_mm: as in ``evaluate``.
        level_sensitivity: as in ``evaluate``.
        estimate_levels: as in ``evaluate``; images are those of ``dataset``.

    Raises:
        DvtError: as ``evaluate``, and for a label without a prediction or the reverse.
    """
    _require_choice("--predicted", predicted, ("auto", "lesion", "labels"))
    labels, details, table = describe(labels_dir, dataset)
    pairs = [
        Pair(case_id=case_id, patient=patient, truth=truth, prediction=prediction, levels=levels)
        for case_id, truth, prediction in match(labels_dir, predictions_dir)
        for patient, levels in [details.get(case_id, (case_id, None))]
    ]
    named = labels if labels is not None else {"lesion": 1}
    images = {} if dataset is None else {case.id: case.images[0] for case in discover(dataset).cases}
    if estimate_levels and not images:
        raise DvtError("--estimate-levels: without --dataset there are no images to estimate levels from. Name it.")
    ready = _ready(
        _Asked(split=split, rule=rule, shifts=level_sensitivity, estimate=estimate_levels),
        pairs,
        _order(named),
        table,
        images,
        jobs,
        truth_numbers=None if labels is None else _numbers(labels, labels),
        predicted_numbers=_predicted_numbers(predictions_dir, predicted, named),
    )
    return _score_and_write(
        ready,
        out,
        subject=f"{predictions_dir} against {labels_dir}",
        folds=f"no folds but the masks in {predictions_dir}",
        notes=ready.notes,
        jobs=jobs,
        tolerance_mm=tolerance_mm,
    )


def compare_networks(
    workspace: Workspace,
    networks: Sequence[str],
    split: tuple[str, ...] | None = None,
    folds: Sequence[int] | None = None,
    rule: str = "auto",
    jobs: int | None = None,
    *,
    tolerance_mm: float = surfaces.TOLERANCE_MM,
) -> Compared:
    """Score several networks on the same folds; write each one's tables, Table 2, and a row per network and fold.

    Args:
        workspace: the data set, its splits and its results.
        networks: names of results folders; the first is compared with each other.
        split: as in ``evaluate``.
        folds: as in ``evaluate``, for all networks.
        rule: as in ``evaluate``.
        jobs: as in ``evaluate``.
        tolerance_mm: as in ``evaluate``.

    Raises:
        DvtError: as ``evaluate``, and if the networks were not scored on the same cases. Nothing of the comparison
            is written then.
    """
    twice = sorted({name for name in networks if list(networks).count(name) > 1})
    if twice:
        raise DvtError(f"--compare: {', '.join(twice)} is named twice. Name each network once.")
    if len(networks) < 2:
        raise DvtError("--compare: one network alone cannot be compared. Name two or more.")
    gathered = {name: _gather(workspace, name, folds) for name in networks}  # before anything is scored or written
    dataset, _, chosen, _ = gathered[networks[0]]
    asked = _Asked(split=split, rule=rule)
    done = {name: _evaluate(workspace, name, of, asked, jobs, tolerance_mm) for name, of in gathered.items()}
    first = next(iter(done.values()))
    table = comparison.compare(
        {name: one.rows for name, one in done.items()},
        subject=dataset.subject,
        rule=first.table.rule,
        folds=first.table.folds,
        notes=(*_warnings(dataset), *mixed_training(workspace, networks, chosen)),
    )
    texts = {
        "table2.csv": comparison.to_csv(table),
        "table2.md": comparison.to_markdown(table),
        "table2.tex": comparison.to_latex(table),
        "folds.csv": table.by_fold.to_csv(index=False, lineterminator="\n"),
    }
    for name, text in texts.items():
        artifacts.write_text(workspace.comparison / name, text)
    written = [path for one in done.values() for path in one.written]
    return Compared(evaluations=done, table=table, written=(*written, *(workspace.comparison / name for name in texts)))


def score(pair: Pair, scheme: Scheme, tolerance_mm: float = surfaces.TOLERANCE_MM) -> list[dict[str, Any]]:
    """Count, score and measure one case in every reported region and over all.

    Returns:
        Rows with ``COLUMNS`` but for ``counted``, which takes the patient's other cases.

    Raises:
        DvtError: if a mask cannot be read, the grids differ, or a value has no meaning.
    """
    return _score(pair, scheme, tolerance_mm, *_read(pair, scheme))


_Scored = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""The rows of ``score``, and those with moved levels."""


def _score_case(case: tuple[Pair, Levels | None], scheme: Scheme, tolerance_mm: float) -> _Scored:
    """Score one case, and again with its levels moved where they are given; its masks are read once."""
    pair, levels = case
    truth, predicted, grid, midline_mm = _read(pair, scheme)
    rows = _score(pair, scheme, tolerance_mm, truth, predicted, grid, midline_mm)
    if levels is None:
        return rows, []
    held = levels if levels.midline_mm is not None else replace(levels, midline_mm=midline_mm)
    moved = level_shift.count(truth, predicted, grid, held)
    return rows, [{"case_id": pair.case_id, "patient_id": pair.patient} | row for row in moved]


def _read(pair: Pair, scheme: Scheme) -> tuple[np.ndarray, np.ndarray, Grid, float]:
    """Truth and prediction as maps of label numbers, cut to the box around both; its grid; and LPS x between the
    limbs, which takes the whole grid."""
    truth, grid = volumes.read(pair.truth)
    predicted, predicted_grid = volumes.read(pair.prediction)
    _require_same_grid(pair, grid, predicted_grid)
    # Nearly all of the volume is empty: what follows needs no more of it than the box around both masks.
    box = voxels.box(truth, predicted) or (slice(0, 1),) * 3
    window = grid.window(np.array([part.start for part in box]), tuple(part.stop - part.start for part in box))
    numbers = _to_numbers(pair.truth, np.ascontiguousarray(truth[box]), scheme.truth_numbers)
    found = _to_numbers(pair.prediction, np.ascontiguousarray(predicted[box]), scheme.predicted_numbers)
    return numbers, found, window, regions.midline_of(grid, pair.levels)


def _score(
    pair: Pair,
    scheme: Scheme,
    tolerance_mm: float,
    truth: np.ndarray,
    predicted: np.ndarray,
    grid: Grid,
    midline_mm: float,
) -> list[dict[str, Any]]:
    # The window's own middle is not that of the legs.
    levels = None if pair.levels is None else replace(pair.levels, midline_mm=midline_mm)
    truth_map, predicted_map = _divide(truth, predicted, grid, scheme, levels)
    *by_region, whole = metrics.count(truth_map, predicted_map, len(scheme.regions))
    counts = {name: (number, by_region[number - 1]) for number, name in enumerate(scheme.regions, start=1)}
    rows = []
    for region, (number, counted) in [*((name, counts[name]) for name in scheme.reported), (ALL, (None, whole))]:
        truth, predicted = (m > 0 if number is None else m == number for m in (truth_map, predicted_map))
        case = {
            "fold": pair.fold,
            "case_id": pair.case_id,
            "patient_id": pair.patient,
            "region": region,
            "rule": scheme.rule,
        }
        rows.append(case | _measure(counted, truth, predicted, grid, tolerance_mm))
    return rows


def _measure(
    counted: Confusion, truth: np.ndarray, predicted: np.ndarray, grid: Grid, tolerance_mm: float
) -> dict[str, Any]:
    """Counts, scores and measures of one region, whose masks may be cut out of the volume."""
    counts = {
        **counted._asdict(),
        "truth_ml": counted.truth * grid.voxel_ml,
        "predicted_ml": counted.predicted * grid.voxel_ml,
        "false_positive_ml": counted.fp * grid.voxel_ml,
        **measures_table.lesion_counts(lesions.count(truth, predicted, grid.voxel_ml)),
    }
    return {
        **counts,
        **{name: float(getattr(counted, name)) for name in tables.SCORES},
        **measures_table.scores(counts),
        **surfaces.compare(truth, predicted, grid.spacing_mm, tolerance_mm)._asdict(),
        "tolerance_mm": tolerance_mm,
    }


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
    there = voxels.indices(mask)
    values = mask.reshape(-1)[there]
    present = np.unique(values)
    known = [float(v).is_integer() and v > 0 if numbers is None else v in numbers for v in present.tolist()]
    if not all(known):
        unknown = [f"{v:g}" for v, k in zip(present.tolist(), known, strict=True) if not k]
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        expected = "whole numbers from 0" if numbers is None else ", ".join(map(str, (0, *sorted(numbers))))
        raise DvtError(f"{path}: holds {shown}; expected {expected}. Threshold it, or name the value in dataset.json.")
    map_ = np.zeros(mask.shape, np.uint8)
    meaning = np.array([1 if numbers is None else numbers[int(v)] for v in present.tolist()], np.uint8)
    map_.reshape(-1)[there] = meaning[np.searchsorted(present, values)]
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
    own = read_labels(described) if described.exists() else None
    if predicted == "lesion" or (predicted == "auto" and (set(own) == {"lesion"} if own else len(labels) < 2)):
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

    A network trained on the union writes 1 for thrombus, which may also be a label's value; what
    was written beside the masks tells.
    """
    classes = {fold.index: predicted_classes(workspace, network, fold.index) for fold in chosen}
    first, *others = classes
    for k in others:
        if classes[k] != classes[first]:
            raise DvtError(
                f"{workspace.fold(network, k).ledger}: names other classes ({', '.join(classes[k])}) than fold {first} "
                f"({', '.join(classes[first])}). Score these folds apart with --folds, or train one of them again."
            )
    own = classes[first]
    return _numbers(own, labels) if len(own) > 1 and set(own) <= set(labels) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a caller wants of regions and levels."""

    split: tuple[str, ...] | None
    rule: str
    shifts: bool = False
    estimate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """What is scored, how, and what is to be said of it."""

    scheme: Scheme
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    moved: dict[str, Levels] | None
    """Levels that are moved, by case; none where that was not asked for."""
    moved_notes: tuple[str, ...]


def _ready(
    asked: _Asked,
    pairs: Sequence[Pair],
    names: tuple[str, ...],
    table: Path,
    images: Mapping[str, Path],
    jobs: int | None,
    *,
    truth_numbers: dict[int, int] | None,
    predicted_numbers: dict[int, int] | None,
) -> _Ready:
    """Choose the rule that gives the wanted regions, and fill in the levels that it needs; with notes where some
    regions had to be left out, or levels were estimated."""
    split, rule = asked.split, asked.rule
    _require_choice("--rule", rule, ("auto", "identity", "level"))
    for region in split or ():
        _require_choice("--split", region, (*names, *(n for n in PROXIMAL_DISTAL if n not in names), ALL))
    wanted = None if split is None else tuple(dict.fromkeys(region for region in split if region != ALL))
    filled, reasons, told = list(pairs), dict[str, str](), list[str]()
    by_level = (_auto_rule(wanted, names, False) if rule == "auto" else rule) == "level"
    if asked.estimate or asked.shifts or by_level:
        filled, reasons, told = _with_estimated(pairs, images, table, jobs)
    # Moved levels are a table of their own, which leaves Table 1 as it is.
    used = filled if asked.estimate or by_level else list(pairs)
    unlevelled = [pair.case_id for pair in used if pair.levels is None]
    chosen = _auto_rule(wanted, names, not unlevelled) if rule == "auto" else rule
    available = {"identity": names, "level": PROXIMAL_DISTAL, "none": ()}[chosen]
    lacking = [region for region in wanted or () if region not in available]
    if lacking:
        raise DvtError(
            f"--split {'/'.join(wanted or ())}: the rule {chosen} gives {', '.join(available)}, not "
            f"{', '.join(lacking)}. Name it among the labels in dataset.json, or choose from what there is."
        )
    without = f"{some(unlevelled)} ({len(unlevelled)} of {len(pairs)} cases)"
    if chosen == "level" or asked.shifts:
        _require_levels(filled, reasons, names, table)
    notes = told if used is filled else []
    if chosen == "none" and wanted is None and len(unlevelled) < len(pairs):
        notes = [*notes, f"No proximal and distal: {table} gives no level for {without}."]
    return _Ready(
        scheme=Scheme(
            rule=chosen,
            regions=available,
            reported=available if wanted is None else wanted,
            truth_numbers=truth_numbers,
            predicted_numbers=predicted_numbers,
        ),
        pairs=tuple(used),
        notes=tuple(notes),
        moved={pair.case_id: pair.levels for pair in filled if pair.levels is not None} if asked.shifts else None,
        moved_notes=tuple(told),
    )


def _require_levels(pairs: Sequence[Pair], reasons: Mapping[str, str], names: Sequence[str], table: Path) -> None:
    without = [pair.case_id for pair in pairs if pair.levels is None]
    if not without:
        return
    found = "".join(f"; nor does the image of {i} ({reasons[i]})" for i in without[:1] if i in reasons)
    raise DvtError(
        f"{table}: gives no level for {some(without)} ({len(without)} of {len(pairs)} cases){found}; the labels name "
        f"{', '.join(names)}. Add level_left_mm or level_right_mm (LPS z in mm) for them, or label the truth proximal "
        "and distal in dataset.json."
    )


def _with_estimated(
    pairs: Sequence[Pair], images: Mapping[str, Path], table: Path, jobs: int | None
) -> tuple[list[Pair], dict[str, str], list[str]]:
    """Pairs with levels from their images where they had none; why some still have none; and a note of it."""
    lacking = [pair.case_id for pair in pairs if pair.levels is None and pair.case_id in images]
    found = levels.of_images({case_id: images[case_id] for case_id in lacking}, jobs)
    filled = [replace(p, levels=found[p.case_id].levels) if p.case_id in found else p for p in pairs]
    reasons = {case_id: of.text for case_id, of in found.items() if of.levels is None}
    done = [case_id for case_id, of in found.items() if of.levels is not None]
    below = f"{LEVEL_BELOW_KNEE_MM:g} mm below the knee joint line"
    note = (
        f"{table} gives no level for {some(done)} ({len(done)} of {len(pairs)} cases): there the level is estimated "
        f"from the image, {below}."
    )
    return filled, reasons, [note] if done else []


def _auto_rule(wanted: tuple[str, ...] | None, names: tuple[str, ...], all_have_levels: bool) -> str:
    if wanted is None:
        return "identity" if len(names) > 1 else "level" if all_have_levels else "none"
    if not wanted:
        return "none"
    return "identity" if set(wanted) <= set(names) else "level"


def _require_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise DvtError(f"{option} {value}: no such choice. Choose from {', '.join(choices)}.")


# --- what is written ------------------------------------------------------------------------------


def _score_and_write(
    ready: _Ready,
    out: Path,
    *,
    subject: str,
    folds: str,
    notes: tuple[str, ...],
    jobs: int | None,
    tolerance_mm: float,
) -> Evaluation:
    """Score every case, and write only when all of them have been scored."""
    pairs, scheme = ready.pairs, ready.scheme
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise DvtError(f"tolerance_mm {tolerance_mm}: expected 0 or more. Give a distance in mm.")
    found = workers.over_cases(
        partial(_score_case, scheme=scheme, tolerance_mm=tolerance_mm),
        [(pair, None if ready.moved is None else ready.moved[pair.case_id]) for pair in pairs],
        [pair.case_id for pair in pairs],
        title="Evaluate",
        jobs=_processes(pairs, jobs),
    )
    rows = _frame(scored for scored, _ in found).astype({"fold": "Int64"})
    patients = tables.by_patient(rows)[["region", "patient_id", "counted"]]
    rows = rows.merge(patients, on=["region", "patient_id"], how="left", validate="many_to_one")[list(COLUMNS)]
    table = tables.table_1(rows, subject=subject, rule=scheme.text, folds=folds, notes=notes)
    measures = measures_table.summarize_measures(rows, rule=scheme.text, folds=folds)
    texts = {
        METRICS: rows.to_csv(index=False, lineterminator="\n"),
        "table1.csv": tables.to_csv(table),
        "table1.md": tables.to_markdown(table),
        "table1.tex": tables.to_latex(table),
        "measures.csv": measures_table.to_csv(measures),
    }
    shifts = None
    if ready.moved is not None:
        said = (f"Scored: {folds}.", *ready.moved_notes)
        shifts = level_shift.summarize_shifts(_frame(moved for _, moved in found), notes=said)
        texts[SENSITIVITY] = level_shift.to_csv(shifts)
    for name, text in texts.items():
        artifacts.write_text(out / name, text)
    if shifts is None:
        (out / SENSITIVITY).unlink(missing_ok=True)  # of earlier scores
    written = tuple(out / name for name in texts)
    return Evaluation(rows=rows, table=table, measures=measures, written=written, shifts=shifts)


def _frame(found: Iterable[list[dict[str, Any]]]) -> pd.DataFrame:
    return pd.DataFrame([row for case in found for row in case])


def _processes(pairs: Sequence[Pair], jobs: int | None) -> int:
    """One process for few voxels, unless a number was asked for; as many as memory allows."""
    sizes = [volumes.count_voxels(pair.truth) for pair in pairs]
    if jobs is None and sum(sizes) < FEW_VOXELS:
        return 1
    return workers.how_many(jobs, len(pairs), max(sizes) * BYTES_PER_VOXEL)
