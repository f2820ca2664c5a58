"""Scores on disk: ``metrics.csv``, and ``scores.json`` with the digests of the files that it was computed from.

Scores are current as long as these files have the same content. Times of files do not matter, so a copied results
folder stays current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dvtplan.anatomy.levels import ALL
from dvtplan.core import digests, json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data import cases_table
from dvtplan.data.dataset import Dataset
from dvtplan.data.mask_files import mask_path
from dvtplan.data.paths import METRICS, POSTPROCESSING, model_fold
from dvtplan.data.patient_groups import PatientGroups
from dvtplan.evaluation import secondary_metrics, table1
from dvtplan.evaluation.pairing import Pair
from dvtplan.models.model_store import StoredModel

RECORD = "scores.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRecord:
    """What ``metrics.csv`` was computed from: ``scores.json``."""

    rule: str
    """Name and meaning of the region rule."""
    metrics: str
    """SHA-256 of ``metrics.csv``."""
    files: dict[str, str]
    """Key of a file (see ``scored_files``) -> its SHA-256; empty: there was no such file."""
    groups: PatientGroups | None = None
    """Of the patients, if Table 1 per group was wanted."""


# --- which files ----------------------------------------------------------------------------------


def scored_files(pairs: Iterable[Pair], table: Path, checkpoints: Mapping[int, Path]) -> dict[str, Path]:
    """Return every file that the scores of some cases depend on, by a key that does not depend on its folder."""
    files = {cases_table.FILE_NAME: table}
    for pair in pairs:
        files |= {truth_key(pair.case_id): pair.truth, prediction_key(pair.case_id): pair.prediction}
    files |= {checkpoint_key(fold): path for fold, path in checkpoints.items()}
    rules = {postprocessing_key(fold): path.with_name(POSTPROCESSING) for fold, path in checkpoints.items()}
    return files | {key: path for key, path in rules.items() if path.exists()}


def truth_key(case_id: str) -> str:
    return f"labels/{case_id}"


def prediction_key(case_id: str) -> str:
    return f"predictions/{case_id}"


def checkpoint_key(fold: int) -> str:
    return f"fold_{fold}/checkpoint.pt"


def postprocessing_key(fold: int) -> str:
    return f"fold_{fold}/{POSTPROCESSING}"


def dump_record(rule: str, metrics: str, files: dict[str, str], groups: PatientGroups | None = None) -> str:
    """Return the text of ``scores.json`` for a text of ``metrics.csv`` and the digests of ``digest_files``."""
    digest = hashlib.sha256(metrics.encode()).hexdigest()
    return json_records.dump(ScoreRecord(rule=rule, metrics=digest, files=files, groups=groups))


def digest_files(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each file, empty where there is no such file."""
    return {key: digests.sha256(path) if path.is_file() else "" for key, path in files.items()}


# --- read and check -------------------------------------------------------------------------------


def read_scores(results: Path) -> tuple[pd.DataFrame, ScoreRecord]:
    """Read ``metrics.csv`` and ``scores.json`` of a results folder.

    Raises:
        DvtError: if one of them is missing or unreadable, or they do not belong together.
    """
    rows = read_metrics(results / METRICS)
    file = results / RECORD
    if not file.exists():
        raise DvtError(
            f"{file}: not found. It lists the masks from which {METRICS} was computed; older versions did not write "
            f"it. Run {_stage(results)}."
        )
    record = json_records.load(ScoreRecord, file, _stage(results))
    if record.metrics != digests.sha256(results / METRICS):
        raise DvtError(f"{results / METRICS}: has changed since `evaluate` wrote it. Run {_stage(results)}.")
    return rows, record


def _stage(results: Path) -> str:
    """Name the stage that scores the network of a results folder."""
    return f"`evaluate` with `network={results.name}`"


def require_current(record: ScoreRecord, files: Mapping[str, Path], metrics: Path) -> None:
    """Refuse scores if one of the files that they were computed from has changed.

    Args:
        record: what the scores were computed from.
        files: the present files, by the keys of ``scored_files``; only these are checked.
        metrics: where the scores are, for the message.

    Raises:
        DvtError: names the first file with another content.
    """
    for key, digest in digest_files(files).items():
        if digest != record.files.get(key, ""):
            raise DvtError(f"{files[key]}: has changed since {metrics} was computed. Run {_stage(metrics.parent)}.")


def read_metrics(path: Path) -> pd.DataFrame:
    """Read ``metrics.csv``; names such as 001 and NA stay text.

    Raises:
        DvtError: if it is missing, unreadable or lacks columns.
    """
    names = {column: "str" for column in ("case_id", "patient_id", "region", "rule")}
    needed = [*names, "fold", "counted", *table1.COUNTS, *secondary_metrics.COLUMNS]
    if not path.exists():
        raise DvtError(f"{path}: not found. Run {_stage(path.parent)} first.")
    try:
        rows = pd.read_csv(path, dtype=names | {"fold": "Int64"}, keep_default_na=False, na_values=[""])
        rows = rows.astype(dict.fromkeys(["tp", "fp", "fn"], "int64"))
        missing = [column for column in needed if column not in rows.columns]
        usable = not missing and bool((rows["region"] == ALL).any())
    except (OSError, ValueError, KeyError) as error:
        raise DvtError(f"{path}: is not a readable table of scores. Run {_stage(path.parent)}.") from error
    if not usable:
        what = f"the columns {shorten_list(missing)}" if missing else f"rows of the region {ALL}"
        raise DvtError(f"{path}: lacks {what}. Run {_stage(path.parent)}.")
    return rows


# --- Table 1 of a stored model --------------------------------------------------------------------


def stored_table1(
    results: Path, stored: StoredModel, dataset: Dataset | None, *, subject: str, notes: tuple[str, ...]
) -> table1.Table:
    """Compute Table 1 of the folds of a stored model from its ``metrics.csv``.

    Args:
        results: the model's results folder.
        stored: the model; its folds are summarized.
        dataset: the data set that was scored; None if it is not available, then its files are not checked.
        subject: the data set's name for the caption.
        notes: further notes of the table.

    Raises:
        DvtError: if there are no scores, they do not hold all test cases, or a file has changed since.
    """
    metrics = results / METRICS
    rows, record = read_scores(results)
    rows = rows[rows["fold"].isin(list(stored.runs))].reset_index(drop=True)
    for k, run in stored.runs.items():
        if set(rows.loc[rows["fold"] == k, "case_id"]) != set(run.test):
            folds = f" and `folds={list(stored.runs)}`"
            raise DvtError(f"{metrics}: does not hold the test cases of fold {k}. Run {_stage(results)}{folds}.")
    require_current(record, _model_files(results, stored, dataset), metrics)
    network = next(iter(stored.runs.values())).network
    listed = ", ".join(map(str, stored.runs))
    return table1.table_1(
        rows,
        subject=f"{network} on {subject}",
        rule=record.rule,
        folds=f"fold{'s' if len(stored.runs) > 1 else ''} {listed}, each on patients that it was not trained on",
        notes=notes,
    )


def _model_files(results: Path, stored: StoredModel, dataset: Dataset | None) -> dict[str, Path]:
    """Return the files that a model's scores depend on, as far as they are available."""
    files: dict[str, Path] = {}
    for k, run in stored.runs.items():
        folder = model_fold(results, k)
        files[checkpoint_key(k)] = folder.checkpoint
        files[postprocessing_key(k)] = folder.postprocessing
        masks = {case_id: mask_path(folder.predictions, case_id) for case_id in run.test}
        files |= {prediction_key(case_id): path for case_id, path in masks.items() if path.exists()}
    if dataset is not None:
        tested = {case_id for run in stored.runs.values() for case_id in run.test}
        files[cases_table.FILE_NAME] = dataset.folder / cases_table.FILE_NAME
        files |= {truth_key(case.id): case.label for case in dataset.cases if case.label and case.id in tested}
    return files
