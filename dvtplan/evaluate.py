"""The evaluation stage: masks on disk in, ``metrics.csv`` and tables out; anyone's masks, not only ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    "level": "truth and prediction are divided at the level of each limb in cases.csv; on it and above is proximal",
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

    @property
    def text(self) -> str:
        """Table 1 and the further measures as text to print."""
        return f"{tables.to_text(self.table)}\n{measures_table.to_text(self.measures)}"


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

    Raises:
        DvtError: for missing predictions, grids that differ, values without a meaning, regions
            that cannot be had. Nothing is written then.
    """
    gathered = _gather(workspace, network, folds)
    return _evaluate(workspace, network, gathered, split, rule, jobs, tolerance_mm)


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
    split: tuple[str, ...] | None,
    rule: str,
    jobs: int | None,
    tolerance_mm: float,
) -> Evaluation:
    """Score what was gathered of a network, and write."""
    dataset, splits, chosen, pairs = gathered
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
        subject=f"{network} on {dataset.subject}",
        folds=name_folds(chosen, splits),
        notes=(*_warnings(dataset), *notes, *mixed_training(workspace, [network], chosen)),
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
    done = {name: _evaluate(workspace, name, of, split, rule, jobs, tolerance_mm) for name, of in gathered.items()}
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
    truth, grid = volumes.read(pair.truth)
    predicted, predicted_grid = volumes.read(pair.prediction)
    _require_same_grid(pair, grid, predicted_grid)
    # Nearly all of the volume is empty: what follows needs no more of it than the box around both masks.
    levels = None if pair.levels is None else replace(pair.levels, midline_mm=regions.midline_of(grid, pair.levels))
    box = voxels.box(truth, predicted) or (slice(0, 1),) * 3
    grid = grid.window(np.array([part.start for part in box]), tuple(part.stop - part.start for part in box))
    truth_map, predicted_map = _divide(
        _to_numbers(pair.truth, np.ascontiguousarray(truth[box]), scheme.truth_numbers),
        _to_numbers(pair.prediction, np.ascontiguousarray(predicted[box]), scheme.predicted_numbers),
        grid,
        scheme,
        levels,
    )
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
    without = f"{some(unlevelled)} ({len(unlevelled)} of {len(pairs)} cases)"
    if chosen == "level" and unlevelled:
        raise DvtError(
            f"{table}: gives no level for {without}; the labels name {', '.join(names)}. Add level_left_mm or "
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
    return scheme, (f"No proximal and distal: {table} gives no level for {without}.",) if left_out else ()


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
    pairs: Sequence[Pair],
    scheme: Scheme,
    out: Path,
    *,
    subject: str,
    folds: str,
    notes: tuple[str, ...],
    jobs: int | None,
    tolerance_mm: float,
) -> Evaluation:
    """Score every case, and write only when all of them have been scored."""
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise DvtError(f"tolerance_mm {tolerance_mm}: expected 0 or more. Give a distance in mm.")
    found = workers.over_cases(
        partial(score, scheme=scheme, tolerance_mm=tolerance_mm),
        pairs,
        [pair.case_id for pair in pairs],
        title="Evaluate",
        jobs=_processes(pairs, jobs),
    )
    rows = pd.DataFrame([row for case in found for row in case]).astype({"fold": "Int64"})
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
    for name, text in texts.items():
        artifacts.write_text(out / name, text)
    return Evaluation(rows=rows, table=table, measures=measures, written=tuple(out / name for name in texts))


def _processes(pairs: Sequence[Pair], jobs: int | None) -> int:
    """One process for few voxels, unless a number was asked for; as many as memory allows."""
    sizes = [volumes.count_voxels(pair.truth) for pair in pairs]
    if jobs is None and sum(sizes) < FEW_VOXELS:
        return 1
    return workers.how_many(jobs, len(pairs), max(sizes) * BYTES_PER_VOXEL)
