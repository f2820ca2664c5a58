"""A results folder into an archive that others may have: no patient's name, no pickle, one file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dvtplan import __version__, artifacts, checkpoint, dataset, measures_table, models, sealed, tables
from dvtplan.errors import DvtError, how_many
from dvtplan.models import Described, Stored
from dvtplan.records import PHANTOM_NOTE, PHANTOM_WARNING, Fingerprint, Run, called
from dvtplan.training_data import TrainingData
from dvtplan.workspace import FoldFolder, Workspace

ENDING = ".zip"

NOTICE = """\
A trained model of dvtplan {version} ({network} on {subject}).

Research software, no medical device. Its masks and figures are measurements for research, not for the
diagnosis or treatment of any patient. There is no warranty of any kind.

{phantom}dvtplan is licensed under Apache-2.0. {licence}

dvt_model info tells what is in here, dvt_predict --model takes it as it is.
"""
NO_LICENCE = "Who trained this model has not said under which licence its weights may be used: ask them."
ROUNDED_NOTE = "The scores were measured with float32 weights. This archive stores the weights rounded to float16."
"""A note of Table 1, because nothing has scored the rounded weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    digest: str
    folds: tuple[int, ...]
    left_out: tuple[str, ...]
    """A line for each thing that could not travel, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What lies around a results folder."""

    data: TrainingData | None
    table: tables.Table | None
    subject: str
    """The data set for captions; says so of phantoms."""
    phantom: bool | None
    left_out: tuple[str, ...]


def export_model(
    results: Path,
    target: Path,
    *,
    folds: Sequence[int] | None = None,
    licence: Path | None = None,
    overwrite: bool = False,
    weights: str = "float32",
) -> Exported:
    """Write an archive of trained folds; the same folds and type of weights give the same bytes.

    Names of patients, cases and their files stay here: ``run.json`` counts its cases without naming them, and of the
    fingerprint travel ranges over all cases.

    Args:
        results: a results folder, as ``results/DATASET/NETWORK``.
        target: the archive, whose name ends in .zip.
        folds: which; none for all that are trained.
        licence: a text file under whose terms the weights may be used; becomes part of the notice.
        overwrite: replace a file that is there.
        weights: the type in which float weights are stored, one of ``models.FLOATS``.

    Raises:
        DvtError: if the folds do not belong together or to the plan, weights do not fit their network, are not
            finite or overflow their type, or the file is there already. Nothing is written then.
    """
    if weights not in models.FLOATS:
        raise ValueError(f"weights are stored as {' or '.join(models.FLOATS)}, not {weights!r}")
    if not results.is_dir():
        raise DvtError(f"{results}: is no folder. Name a results folder, such as results/DATASET/gn_unet.")
    if target.suffix.lower() != ENDING:
        raise DvtError(f"{target}: an archive's name ends in {ENDING}. Name it so.")
    if target.exists() and (not overwrite or not target.is_file()):
        raise DvtError(f"{target}: is there already. Name another file, or give --overwrite.")
    terms = _read_terms(licence)
    with models.opened(results, folds) as stored:
        known = _known(stored, weights)
        with sealed.writing(target, models.KIND) as archive:
            _add_surroundings(archive, stored, known, terms)
            digests = {k: _add_fold(archive, stored, k, weights) for k in stored.runs}
    return Exported(
        path=target,
        digest=models.model_digest(stored.plan, [(run, digests[k]) for k, run in stored.runs.items()]),
        folds=tuple(stored.runs),
        left_out=(*known.left_out, *_unfinished(stored.runs)),
    )


def _add_surroundings(archive: sealed.Writer, stored: Stored, known: _Known, terms: str) -> None:
    """Add all members that belong to no single fold."""
    archive.add_record(models.PLAN, stored.plan)
    if known.data is not None:
        archive.add_record(models.DATA, known.data)
    if known.table is not None:
        archive.add(models.TABLE_CSV, tables.to_csv(known.table).encode())
        archive.add(models.TABLE_TEXT, tables.to_text(known.table).encode())
    archive.add(models.NOTICE, _notice(stored, known, terms).encode())


def _add_fold(archive: sealed.Writer, stored: Stored, fold: int, floats: str) -> str:
    """Add the run and the weights of a fold. Return the digest of its weights."""
    archive.add_record(f"fold_{fold}/run.json", _nameless(stored.runs[fold]))
    arrays = _weights(stored, fold, floats)
    for name, array in arrays.items():
        archive.add(models.weights_name(fold, name), models.npy(array))
    return models.weights_digest(arrays)


def describe_folder(results: Path) -> Described:
    """A results folder in words, as its archive would tell it.

    Raises:
        DvtError: as ``export_model``.
    """
    with models.opened(results) as stored:
        known = _known(stored)
        digests = {k: models.weights_digest(_weights(stored, k)) for k in stored.runs}
    left_out = "".join(f"; {line}" for line in known.left_out)
    return Described(
        path=results,
        plan=stored.plan,
        runs=stored.runs,
        data=known.data,
        table="" if known.table is None else tables.to_text(known.table),
        weights="float32",
        digest=models.model_digest(stored.plan, [(run, digests[k]) for k, run in stored.runs.items()]),
        about=f"results folder{left_out}",
    )


# --- weights --------------------------------------------------------------------------------------


def _weights(stored: Stored, fold: int, floats: str = "float32") -> dict[str, np.ndarray]:
    """A fold's weights, as its network has them; float32 weights as ``floats``, one of ``models.FLOATS``."""
    run, folder = stored.runs[fold], FoldFolder(stored.path / f"fold_{fold}")
    needed = checkpoint.shapes(run, str(folder.run))
    done = checkpoint.epochs_done(folder.checkpoint)
    if done != run.epochs_done:
        raise DvtError(
            f"{folder.checkpoint}: has {how_many(done, 'epoch')} behind it, {folder.run.name} tells of "
            f"{run.epochs_done}. Wait for its training to end, or go on with --resume."
        )
    found = checkpoint.weights(folder.checkpoint)
    has = {name: (str(array.dtype), array.shape) for name, array in found.items()}
    if has != needed:
        wrong = sorted(name for name in {*has, *needed} if has.get(name) != needed.get(name))
        raise DvtError(
            f"{folder.checkpoint}: {wrong[0]} does not fit the {run.network} of {folder.run}. Train this fold again."
        )
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise DvtError(f"{folder.checkpoint}: {name} holds weights that are not finite. Train this fold again.")
    return {name: _stored_as(folder.checkpoint, name, found[name], floats) for name in needed}


def _stored_as(file: Path, name: str, array: np.ndarray, floats: str) -> np.ndarray:
    """Round a float32 tensor to the type in which an archive stores it. Other tensors stay."""
    if floats == "float32" or array.dtype != np.float32:
        return array
    largest, most = float(np.abs(array).max(initial=0)), float(np.finfo(floats).max)
    if largest > most:
        raise DvtError(
            f"{file}: {name} holds a weight of magnitude {largest:.9g}, beyond the {most:g} of {floats}. "
            "Use --weights float32."
        )
    return array.astype(floats)


def _nameless(run: Run) -> Run:
    """A run that counts its cases and does not name them."""
    return replace(run, train=(models.WITHHELD,) * len(run.train), test=(models.WITHHELD,) * len(run.test))


def _unfinished(runs: Mapping[int, Run]) -> Iterator[str]:
    for k, run in runs.items():
        if run.epochs_done < run.recipe.epochs:
            yield f"fold {k} travels as it is, after {run.epochs_done} of {how_many(run.recipe.epochs, 'epoch')}"


# --- what lies around -----------------------------------------------------------------------------


def _known(stored: Stored, weights: str = "float32") -> _Known:
    """What the workspace around a results folder tells of its data and scores.

    ``weights`` is the type in which the weights travel.
    """
    results = stored.path.absolute()
    workspace = Workspace(results.parents[2], results.parent.name) if len(results.parents) > 2 else None
    phantom, left_out = _is_phantom(workspace, stored), []
    subject = called(stored.plan.dataset, phantom)
    notes = {PHANTOM_NOTE: phantom, ROUNDED_NOTE: weights == "float16"}
    data, table = None, None
    try:
        data = _data(workspace, stored, phantom)
    except _Left as why:
        left_out.append(f"no ranges of the training data: {why}")
    try:
        table = _table(results, stored, subject, tuple(note for note, holds in notes.items() if holds))
    except _Left as why:
        left_out.append(f"no Table 1: {why}")
    return _Known(data=data, table=table, subject=subject, phantom=phantom, left_out=tuple(left_out))


class _Left(Exception):
    """Why something does not travel."""


def _is_phantom(workspace: Workspace | None, stored: Stored) -> bool | None:
    """By the data set; where that is gone, by what is kept beside the plan, or stands below its table."""
    described = None if workspace is None else dataset.survey(workspace.raw)[0]
    if described is not None:
        return described.is_phantom
    if stored.training is not None and stored.training.phantom is not None:
        return stored.training.phantom
    with contextlib.suppress(OSError, ValueError):
        if PHANTOM_WARNING in (stored.path / "table1.md").read_text(encoding="utf-8"):
            return True
    return None


def _data(workspace: Workspace | None, stored: Stored, phantom: bool | None) -> TrainingData:
    if stored.training is not None:
        return stored.training if phantom is None else replace(stored.training, phantom=phantom)
    file = None if workspace is None else workspace.fingerprint
    if file is None or not file.exists():
        raise _Left(f"{file or 'fingerprint.json'} is not there")
    try:
        fingerprint = artifacts.load(Fingerprint, file, "dvt_plan_and_preprocess")
    except DvtError as error:
        raise _Left(str(error)) from error
    data = models.trained_on(fingerprint, stored.plan, stored.runs, phantom)
    if data is None:
        raise _Left(f"{file} is not the fingerprint that the plan was derived from")
    return data


def _table(results: Path, stored: Stored, subject: str, notes: tuple[str, ...]) -> tables.Table:
    """Table 1 of the folds that travel, from the counts in metrics.csv."""
    file = results / "metrics.csv"
    if not file.exists():
        raise _Left(f"{file} is not there; dvt_evaluate makes it")
    folders = {k: FoldFolder(results / f"fold_{k}") for k in stored.runs}
    sources = [p for f in folders.values() for p in (f.checkpoint, *sorted(f.predictions.glob("*.nii.gz")))]
    newer = [path for path in sources if path.stat().st_mtime_ns > file.stat().st_mtime_ns]
    if newer:
        raise _Left(f"{file} is older than {newer[0]}; dvt_evaluate makes it anew")
    try:
        rows = measures_table.read_metrics(file, "dvt_evaluate")
    except DvtError as error:
        raise _Left(str(error)) from error
    rows = rows[rows["fold"].isin(list(stored.runs))].reset_index(drop=True)
    for k, run in stored.runs.items():
        if set(rows.loc[rows["fold"] == k, "case_id"]) != set(run.test):
            raise _Left(f"{file} does not hold the test cases of fold {k}; dvt_evaluate --folds {k} does")
    network = next(iter(stored.runs.values())).network
    listed = ", ".join(map(str, stored.runs))
    return tables.table_1(
        rows,
        subject=f"{network} on {subject}",
        rule=tables.told_rule(results / "table1.csv", str(rows["rule"].iloc[0])),
        folds=f"fold{'s' if len(stored.runs) > 1 else ''} {listed}, each on patients that it was not trained on",
        notes=notes,
    )


def _read_terms(licence: Path | None) -> str:
    if licence is None:
        return ""
    try:
        return licence.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DvtError(f"{licence}: cannot be read as text ({error}). Name a text file in UTF-8.") from error


def _notice(stored: Stored, known: _Known, terms: str) -> str:
    phantom = f"Its training data were phantoms. {PHANTOM_WARNING}\n\n" if known.phantom else ""
    licence = "The weights are under the terms below." if terms else NO_LICENCE
    text = NOTICE.format(
        version=__version__,
        network=next(iter(stored.runs.values())).network,
        subject=known.subject,
        phantom=phantom,
        licence=licence,
    )
    return f"{text}\n{terms}\n" if terms else text
