"""The evaluation stage: masks on disk in, ``metrics.csv`` and tables out; anyone's masks, not only ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from dvtplan.core import files, json_records, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import PHANTOM_NOTE, Dataset, discover
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.paths import METRICS, Workspace
from dvtplan.evaluation import secondary_metrics, surface_distance, table1, table2
from dvtplan.evaluation.case_scores import score_case
from dvtplan.evaluation.level_sensitivity import LevelShift, summarize_shifts, to_csv, to_text
from dvtplan.evaluation.pairing import (
    Pair,
    choose_folds,
    fold_pairs,
    name_folds,
    note_training_differences,
    pair_by_name,
    read_reference,
)
from dvtplan.evaluation.region_rules import (
    EvaluationOptions,
    ScoringPlan,
    label_numbers,
    plan_scoring,
    predicted_numbers,
    region_order,
    require_choice,
    same_reading,
)
from dvtplan.imaging import volume_io

COLUMNS = ("fold", "case_id", "patient_id", "region", "rule", "tp", "fp", "fn", *table1.SCORES,
           "truth_ml", "predicted_ml", "false_positive_ml", "counted", *secondary_metrics.COLUMNS)  # fmt: skip
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
    table: table1.Table
    measures: secondary_metrics.MeasuresTable
    """What is measured beside the scores of Table 1."""
    written: tuple[Path, ...]
    shifts: LevelShift | None = None
    """Table 1 with moved levels, where it was asked for."""

    @property
    def text(self) -> str:
        """Table 1, the further measures and what moved levels make of it, as text to print."""
        texts = [table1.to_text(self.table), secondary_metrics.to_text(self.measures)]
        return "\n".join(texts if self.shifts is None else [*texts, to_text(self.shifts)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Several networks on the same patients, and where that stands."""

    evaluations: dict[str, Evaluation]
    """By network."""
    table: table2.Comparison
    """Table 2."""
    written: tuple[Path, ...]

    @property
    def text(self) -> str:
        """Table 2 as text to print."""
        return table2.to_text(self.table)


def evaluate(
    workspace: Workspace,
    network: str,
    split: tuple[str, ...] | None = None,
    folds: Sequence[int] | None = None,
    rule: str = "auto",
    jobs: int | None = None,
    *,
    tolerance_mm: float = surface_distance.TOLERANCE_MM,
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
    asked = EvaluationOptions(split=split, rule=rule, shifts=level_sensitivity, estimate=estimate_levels)
    return _evaluate(workspace, network, gathered, asked, jobs, tolerance_mm)


_Gathered = tuple[Dataset, Splits, tuple[Fold, ...], list[Pair]]


def _gather(workspace: Workspace, network: str, folds: Sequence[int] | None) -> _Gathered:
    """What is to be scored of a network, complete; no mask is opened."""
    dataset = discover(workspace.raw)
    splits = json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    chosen = choose_folds(workspace, network, splits, folds)
    return dataset, splits, chosen, fold_pairs(workspace, network, dataset, chosen)


def _evaluate(
    workspace: Workspace,
    network: str,
    gathered: _Gathered,
    asked: EvaluationOptions,
    jobs: int | None,
    tolerance_mm: float,
) -> Evaluation:
    """Score what was gathered of a network, and write."""
    dataset, splits, chosen, pairs = gathered
    ready = plan_scoring(
        asked,
        pairs,
        region_order(dataset.labels),
        workspace.raw / "cases.csv",
        {case.id: case.images[0] for case in dataset.cases},
        jobs,
        truth_numbers=label_numbers(dataset.labels, dataset.labels),
        predicted_numbers=same_reading(workspace, network, chosen, dataset.labels),
    )
    return _score_and_write(
        ready,
        workspace.results(network),
        subject=f"{network} on {dataset.subject}",
        folds=name_folds(chosen, splits),
        notes=(*_warnings(dataset), *ready.notes, *note_training_differences(workspace, [network], chosen)),
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
    tolerance_mm: float = surface_distance.TOLERANCE_MM,
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
    require_choice("--predicted", predicted, ("auto", "lesion", "labels"))
    labels, details, table = read_reference(labels_dir, dataset)
    pairs = [
        Pair(case_id=case_id, patient=patient, truth=truth, prediction=prediction, levels=levels)
        for case_id, truth, prediction in pair_by_name(labels_dir, predictions_dir)
        for patient, levels in [details.get(case_id, (case_id, None))]
    ]
    named = labels if labels is not None else {"lesion": 1}
    images = {} if dataset is None else {case.id: case.images[0] for case in discover(dataset).cases}
    if estimate_levels and not images:
        raise DvtError("--estimate-levels: without --dataset there are no images to estimate levels from. Name it.")
    ready = plan_scoring(
        EvaluationOptions(split=split, rule=rule, shifts=level_sensitivity, estimate=estimate_levels),
        pairs,
        region_order(named),
        table,
        images,
        jobs,
        truth_numbers=None if labels is None else label_numbers(labels, labels),
        predicted_numbers=predicted_numbers(predictions_dir, predicted, named),
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
    tolerance_mm: float = surface_distance.TOLERANCE_MM,
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
    asked = EvaluationOptions(split=split, rule=rule)
    done = {name: _evaluate(workspace, name, of, asked, jobs, tolerance_mm) for name, of in gathered.items()}
    first = next(iter(done.values()))
    table = table2.table_2(
        {name: one.rows for name, one in done.items()},
        subject=dataset.subject,
        rule=first.table.rule,
        folds=first.table.folds,
        notes=(*_warnings(dataset), *note_training_differences(workspace, networks, chosen)),
    )
    texts = {
        "table2.csv": table2.to_csv(table),
        "table2.md": table2.to_markdown(table),
        "table2.tex": table2.to_latex(table),
        "folds.csv": table.by_fold.to_csv(index=False, lineterminator="\n"),
    }
    for name, text in texts.items():
        files.write_text(workspace.comparison / name, text)
    written = [path for one in done.values() for path in one.written]
    return Compared(evaluations=done, table=table, written=(*written, *(workspace.comparison / name for name in texts)))


# --- what is written ------------------------------------------------------------------------------


def _score_and_write(
    ready: ScoringPlan,
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
    found = worker_pool.over_cases(
        partial(score_case, scheme=scheme, tolerance_mm=tolerance_mm),
        [(pair, None if ready.moved is None else ready.moved[pair.case_id]) for pair in pairs],
        [pair.case_id for pair in pairs],
        title="Evaluate",
        jobs=_processes(pairs, jobs),
    )
    rows = _frame(scored for scored, _ in found).astype({"fold": "Int64"})
    patients = table1.by_patient(rows)[["region", "patient_id", "counted"]]
    rows = rows.merge(patients, on=["region", "patient_id"], how="left", validate="many_to_one")[list(COLUMNS)]
    table = table1.table_1(rows, subject=subject, rule=scheme.text, folds=folds, notes=notes)
    measures = secondary_metrics.summarize_measures(rows, rule=scheme.text, folds=folds)
    texts = {
        METRICS: rows.to_csv(index=False, lineterminator="\n"),
        "table1.csv": table1.to_csv(table),
        "table1.md": table1.to_markdown(table),
        "table1.tex": table1.to_latex(table),
        "measures.csv": secondary_metrics.to_csv(measures),
    }
    shifts = None
    if ready.moved is not None:
        said = (f"Scored: {folds}.", *ready.moved_notes)
        shifts = summarize_shifts(_frame(moved for _, moved in found), notes=said)
        texts[SENSITIVITY] = to_csv(shifts)
    for name, text in texts.items():
        files.write_text(out / name, text)
    if shifts is None:
        (out / SENSITIVITY).unlink(missing_ok=True)  # of earlier scores
    written = tuple(out / name for name in texts)
    return Evaluation(rows=rows, table=table, measures=measures, written=written, shifts=shifts)


def _frame(found: Iterable[list[dict[str, Any]]]) -> pd.DataFrame:
    return pd.DataFrame([row for case in found for row in case])


def _processes(pairs: Sequence[Pair], jobs: int | None) -> int:
    """One process for few voxels, unless a number was asked for; as many as memory allows."""
    sizes = [volume_io.count_voxels(pair.truth) for pair in pairs]
    if jobs is None and sum(sizes) < FEW_VOXELS:
        return 1
    return worker_pool.choose_workers(jobs, len(pairs), max(sizes) * BYTES_PER_VOXEL)
