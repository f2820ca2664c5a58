"""The evaluation stage: read masks, write ``metrics.csv`` and tables. The masks may come from any program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from dvtplan.core import files, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.data.cases_table import FILE_NAME as CASES
from dvtplan.data.cases_table import CaseDetails
from dvtplan.data.dataset import PHANTOM_NOTE, Dataset, discover
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.paths import METRICS, Workspace, as_workspace, require_own_folder
from dvtplan.data.planned_splits import load_splits
from dvtplan.evaluation import level_sensitivity, secondary_metrics, stored_scores, table1, table1_by_group, table2
from dvtplan.evaluation.case_scores import score_case
from dvtplan.evaluation.level_sensitivity import LevelSensitivity
from dvtplan.evaluation.options import DEFAULTS, EvaluationOptions, require_choice
from dvtplan.evaluation.pairing import (
    Pair,
    choose_folds,
    fold_pairs,
    folder_of,
    name_folds,
    note_training_differences,
    pair_by_name,
    predicted_folds,
    read_reference,
)
from dvtplan.evaluation.prediction_values import CHOICES, check_values, read_folder, read_folds
from dvtplan.evaluation.region_rules import (
    ScoringPlan,
    label_numbers,
    plan_scoring,
    region_order,
)
from dvtplan.evaluation.table1_by_group import GroupTable, read_groups, summarize_groups
from dvtplan.imaging import volume_io
from dvtplan.imaging.nifti_forms import trusting
from dvtplan.planning.planned_reading import read_as_planned

COLUMNS = ("fold", "case_id", "patient_id", "region", "rule", "tp", "fp", "fn", *table1.SCORES,
           "truth_ml", "predicted_ml", "false_positive_ml", "counted", *secondary_metrics.COLUMNS)  # fmt: skip
"""Columns of ``metrics.csv``, which has one row per (case, region). ``counted``: the row is in the region's
statistics, because the patient (in this or another case) has truth in the region. ``secondary_metrics`` defines the
columns after it, and where they are empty."""

SENSITIVITY = "level_sensitivity.csv"
"""Scores with all levels shifted."""

BYTES_PER_VOXEL = 24
"""Peak memory of scoring a case: both masks as read, as maps, and their copies."""

FEW_VOXELS = 60_000_000
"""Below this number, over all cases, starting processes costs more time than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The scores, and where they were written."""

    rows: pd.DataFrame
    """``metrics.csv``."""
    table: table1.Table
    measures: secondary_metrics.MeasuresTable
    """Measures in addition to the scores of Table 1."""
    written: tuple[Path, ...]
    by_group: GroupTable | None = None
    """Table 1 per group of patients, if wanted."""
    shifts: LevelSensitivity | None = None
    """Table 1 with shifted levels, if level sensitivity was wanted."""

    @property
    def text(self) -> str:
        """All tables as text to print."""
        texts = [table1.to_text(self.table)]
        texts += [] if self.by_group is None else [table1_by_group.to_text(self.by_group)]
        texts += [secondary_metrics.to_text(self.measures)]
        return "\n".join(texts if self.shifts is None else [*texts, level_sensitivity.to_text(self.shifts)])


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkComparison:
    """Several networks on the same patients, and where the tables were written."""

    evaluations: dict[str, Evaluation]
    """By network."""
    table: table2.Comparison
    """Table 2."""
    written: tuple[Path, ...]

    @property
    def text(self) -> str:
        """Table 2 as text to print, and each network's Table 1 per group, if wanted."""
        groups = [one.by_group for one in self.evaluations.values() if one.by_group is not None]
        return "\n".join([table2.to_text(self.table), *map(table1_by_group.to_text, groups)])


# --- entry points ---------------------------------------------------------------------------------


@read_as_planned
def evaluate(
    workspace: Workspace | Path | str,
    network: str,
    folds: Sequence[int] | None = None,
    options: EvaluationOptions = DEFAULTS,
) -> Evaluation:
    """Score the predictions of a network's folds; write metrics.csv and the tables next to them.

    A missing prediction would silently shorten a mean, so it is an error. A prediction of a case that its own fold
    trained on is an error, too.

    Args:
        workspace: the data set, its splits and its results; or the folder that holds ``datasets_raw`` with this data
            set only.
        network: name of a results folder.
        folds: indices; None: every fold that has predictions.
        options: regions, rule, levels, tolerance.

    Raises:
        DvtError: for missing predictions, different grids, values without a meaning, or regions that are not
            available. Then nothing is written.
    """
    workspace = as_workspace(workspace)
    return _evaluate(workspace, network, _gather(workspace, network, folds), options)


def evaluate_folders(
    reference: Path | str,
    predictions: Path | str,
    output: Path | str,
    *,
    prediction_values: str = "auto",
    dataset: Path | str | None = None,
    options: EvaluationOptions = DEFAULTS,
) -> Evaluation:
    """Score masks of any program: each true mask with the prediction of the same name, whatever its file ending.

    Without ``dataset``, the label names come from a dataset.json in the reference folder or above it, and patients and
    levels from a cases.csv there. Without a dataset.json every value above 0 is thrombus. Without a cases.csv every
    case is a patient.

    Args:
        reference: folder of true masks, one file per case; or the file of one case.
        predictions: folder of predicted masks likewise; or the file of this case, with any name.
        output: folder for metrics.csv and the tables.
        prediction_values: 'lesion' (every value above 0 is thrombus), 'labels' (values are labels), or 'auto': as a
            dataset.json next to the predictions says, else 'labels' if there is more than one label.
        dataset: a folder in nnU-Net's raw layout that describes the cases.
        options: as in ``evaluate``; levels are estimated from the images of ``dataset``.

    Raises:
        DvtError: as ``evaluate``, and for a true mask without a prediction or the reverse.
    """
    require_choice("prediction_values", prediction_values, CHOICES)
    reference, predictions, output = Path(reference), Path(predictions), Path(output)
    dataset = None if dataset is None else Path(dataset)
    require_own_folder(output, "output")
    described = read_reference(reference, dataset)
    labels = described.labels
    pairs = [
        Pair(case_id=case_id, patient=patient, truth=truth, prediction=prediction, levels=levels)
        for case_id, truth, prediction in pair_by_name(reference, predictions)
        for patient, levels in [described.details.get(case_id, CaseDetails(case_id, None))]
    ]
    named = labels if labels is not None else {"lesion": 1}
    reading = read_folder(folder_of(predictions), prediction_values, named)
    images = {} if dataset is None else {case.id: case.images[0] for case in discover(dataset).cases}
    if options.estimate_levels and not images:
        raise DvtError("`estimate_levels`: levels are estimated from images. Name the data set with `dataset`.")
    plan = plan_scoring(
        options,
        pairs,
        region_order(named),
        described.cases_table,
        images,
        truth_numbers=None if labels is None else label_numbers(labels, labels),
        predicted_numbers=reading.numbers,
    )
    return _score_and_write(
        plan,
        output,
        options,
        _Caption(
            subject=f"{predictions} against {reference}",
            folds=f"the masks in {predictions}, without folds",
            notes=plan.notes,
        ),
        check=partial(check_values, reading=reading, regions=plan.scheme.regions),
    )


@read_as_planned
def compare_networks(
    workspace: Workspace | Path | str,
    networks: Sequence[str],
    folds: Sequence[int] | None = None,
    options: EvaluationOptions = DEFAULTS,
) -> NetworkComparison:
    """Score several networks on the same folds; write Table 2, a row per network and fold, and the tables of each.

    The tables of a network are written only if all its predicted folds are scored, so that scores of more folds are
    kept.

    Args:
        workspace: as in ``evaluate``.
        networks: names of results folders; the first is compared with each other one.
        folds: as in ``evaluate``, for all networks.
        options: as in ``evaluate``.

    Raises:
        DvtError: as ``evaluate``, and if the networks were not scored on the same cases. Then nothing of the
            comparison is written.
    """
    workspace = as_workspace(workspace)
    twice = sorted({name for name in networks if list(networks).count(name) > 1})
    if twice:
        raise DvtError(f"`compare`: names {', '.join(twice)} twice. Name each network once.")
    if len(networks) < 2:
        raise DvtError(f"`compare`: names only {', '.join(networks) or 'no network'}. Name two networks or more.")
    gathered = {name: _gather(workspace, name, folds) for name in networks}  # before anything is scored or written
    first = gathered[networks[0]]
    done = {}
    for name, inputs in gathered.items():
        whole = {fold.index for fold in inputs.folds} >= set(predicted_folds(workspace, name))
        done[name] = _evaluate(workspace, name, inputs, options, write=whole)
    table = table2.table_2(
        {name: one.rows for name, one in done.items()},
        subject=first.dataset.subject,
        rule=done[networks[0]].table.rule,
        folds=done[networks[0]].table.folds,
        notes=(*_warnings(first.dataset), *note_training_differences(workspace, networks, first.folds)),
    )
    texts = {
        "table2.csv": table2.to_csv(table),
        "table2.md": table2.to_markdown(table),
        "table2.tex": table2.to_latex(table),
        "folds.csv": table.by_fold.to_csv(index=False, lineterminator="\n"),
    }
    written = [path for one in done.values() for path in one.written]
    written += _write(workspace.comparison, texts)
    return NetworkComparison(evaluations=done, table=table, written=tuple(written))


# --- one network ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """What is scored of a network; all its files exist."""

    dataset: Dataset
    splits: Splits
    folds: tuple[Fold, ...]
    pairs: list[Pair]


def _gather(workspace: Workspace, network: str, folds: Sequence[int] | None) -> _Inputs:
    """Find the masks of a network without opening them."""
    dataset = discover(workspace.raw)
    splits = load_splits(workspace, dataset.patient_of)
    chosen = choose_folds(workspace, network, splits, folds)
    pairs = fold_pairs(workspace, network, dataset, chosen)
    return _Inputs(dataset=dataset, splits=splits, folds=chosen, pairs=pairs)


def _evaluate(
    workspace: Workspace, network: str, inputs: _Inputs, options: EvaluationOptions, *, write: bool = True
) -> Evaluation:
    """Score the masks of a network, and write the tables if wanted."""
    dataset = inputs.dataset
    plan = plan_scoring(
        options,
        inputs.pairs,
        region_order(dataset.labels),
        workspace.raw / CASES,
        {case.id: case.images[0] for case in dataset.cases},
        truth_numbers=label_numbers(dataset.labels, dataset.labels),
        predicted_numbers=read_folds(workspace, network, inputs.folds, dataset.labels),
    )
    return _score_and_write(
        plan,
        workspace.results(network) if write else None,
        options,
        _Caption(
            subject=f"{network} on {dataset.subject}",
            folds=name_folds(inputs.folds, inputs.splits),
            notes=(
                *_warnings(dataset), *plan.notes, *note_training_differences(workspace, [network], inputs.folds),
            ),
        ),
        checkpoints={fold.index: workspace.fold(network, fold.index).checkpoint for fold in inputs.folds},
    )  # fmt: skip


def _warnings(dataset: Dataset) -> tuple[str, ...]:
    """Return the notes of every table of a data set."""
    return (PHANTOM_NOTE,) if dataset.is_phantom else ()


# --- score and write ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caption:
    """What the tables say about their numbers."""

    subject: str
    folds: str
    notes: tuple[str, ...]


def _score_and_write(
    plan: ScoringPlan,
    out: Path | None,
    options: EvaluationOptions,
    caption: _Caption,
    *,
    checkpoints: Mapping[int, Path] = MappingProxyType({}),
    check: Callable[[pd.DataFrame], tuple[str, ...]] = lambda _: (),
) -> Evaluation:
    """Score every case, and write into ``out`` only if ``check`` accepts the rows; it returns further notes."""
    rule = plan.scheme.text
    groups = None if options.by is None else read_groups(plan.cases_table, options.by, plan.pairs)
    # Digests come first: a file that changes during scoring then makes the scores stale.
    digests = stored_scores.digest_files(stored_scores.scored_files(plan.pairs, plan.cases_table, checkpoints))
    found = _score(plan, options)
    rows = _frame(scored for scored, _ in found).astype({"fold": "Int64"})
    notes = (*caption.notes, *check(rows))
    patients = table1.by_patient(rows)[["region", "patient_id", "counted"]]
    rows = rows.merge(patients, on=["region", "patient_id"], how="left", validate="many_to_one")[list(COLUMNS)]
    table = table1.table_1(rows, subject=caption.subject, rule=rule, folds=caption.folds, notes=notes)
    measures = secondary_metrics.summarize_measures(rows, rule=rule, folds=caption.folds)
    metrics = rows.to_csv(index=False, lineterminator="\n")
    texts = {
        METRICS: metrics,
        "table1.csv": table1.to_csv(table),
        "table1.md": table1.to_markdown(table),
        "table1.tex": table1.to_latex(table),
        "measures.csv": secondary_metrics.to_csv(measures),
        stored_scores.RECORD: stored_scores.dump_record(rule, metrics, digests, groups),
    }
    by_group = None
    if groups is not None:
        by_group = summarize_groups(rows, groups, subject=caption.subject, rule=rule, folds=caption.folds, notes=notes)
        texts |= table1_by_group.all_files(by_group)
    shifts = None
    if plan.levels_to_shift is not None:
        shift_notes = (f"Scored: {caption.folds}.", *plan.shift_notes)
        shifts = level_sensitivity.summarize_shifts(_frame(shifted for _, shifted in found), notes=shift_notes)
        texts[SENSITIVITY] = level_sensitivity.to_csv(shifts)
    written = () if out is None else _write(out, texts)
    if out is not None:
        for name in {SENSITIVITY, *table1_by_group.FILES} - set(texts):
            (out / name).unlink(missing_ok=True)  # of earlier scores
    return Evaluation(rows=rows, table=table, measures=measures, written=written, by_group=by_group, shifts=shifts)


_Rows = list[dict[str, Any]]


def _score(plan: ScoringPlan, options: EvaluationOptions) -> list[tuple[_Rows, _Rows]]:
    """Score every case; return the rows of each, and those with shifted levels."""
    pairs = plan.pairs
    with trusting(options.trust):
        return worker_pool.over_cases(
            partial(score_case, scheme=plan.scheme, tolerance_mm=options.tolerance_mm),
            [(pair, None if plan.levels_to_shift is None else plan.levels_to_shift[pair.case_id]) for pair in pairs],
            [pair.case_id for pair in pairs],
            title="Evaluate",
            jobs=_processes(pairs, options.jobs),
        )


def _write(folder: Path, texts: Mapping[str, str]) -> tuple[Path, ...]:
    """Write files of text into a folder; return their paths."""
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return tuple(folder / name for name in texts)


def _frame(found: Iterable[_Rows]) -> pd.DataFrame:
    return pd.DataFrame([row for case in found for row in case])


def _processes(pairs: Sequence[Pair], jobs: int | None) -> int:
    """Use one process for few voxels unless a number is given, else as many as memory allows."""
    sizes = [volume_io.count_voxels(pair.truth) for pair in pairs]
    return worker_pool.choose_workers(jobs, sizes, BYTES_PER_VOXEL, few_voxels=FEW_VOXELS)
