"""Export a trained model: one file without names of patients and without pickle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dvtplan import __version__
from dvtplan.core import console, json_records, verified_archive
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.data.dataset import PHANTOM_NOTE, PHANTOM_WARNING, Dataset, display_name, survey
from dvtplan.data.paths import Workspace, model_fold
from dvtplan.data.phantom import is_phantom
from dvtplan.data.planned_splits import require_untrained
from dvtplan.evaluation import table1
from dvtplan.evaluation.stored_scores import stored_table1
from dvtplan.models import checkpoint, model_store, weight_files
from dvtplan.models.description import ModelDescription
from dvtplan.models.model_store import StoredModel
from dvtplan.models.training_run import Run
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.training_ranges import TrainingData

ENDING = ".zip"

NOTICE = """\
A trained model of dvtplan {version} ({network} on {subject}).

Research software, not a medical device. Its masks and figures are measurements for research, not for the
diagnosis or treatment of any patient. There is no warranty of any kind.

{phantom}dvtplan is licensed under Apache-2.0. {licence}

dvt_model info describes this file. dvt_predict --model uses it as it is.
"""
NO_LICENCE = "The authors of this model have not stated a licence for its weights: ask them."
ROUNDED_NOTE = "The scores were measured with float32 weights. This archive stores the weights rounded to float16."
"""Note of Table 1, because the rounded weights have not been scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """The archive that was written."""

    path: Path
    digest: str
    folds: tuple[int, ...]
    omitted: tuple[str, ...]
    """A sentence for each part that could not be exported, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelContext:
    """Data and scores of a model."""

    data: TrainingData | None
    table: table1.Table | None
    subject: str
    """Name of the data set for captions, marked if it is of phantoms."""
    phantom: bool | None
    omitted: tuple[str, ...]


def export_model(
    results: Path | str,
    target: Path | str,
    *,
    folds: Sequence[int] | None = None,
    licence: Path | str | None = None,
    overwrite: bool = False,
    weights: str = "float32",
) -> ExportedModel:
    """Write an archive of trained folds. The same folds and type of weights give the same bytes.

    The archive has no names of patients, cases or their files: ``run.json`` only counts its cases, and the fingerprint
    is reduced to ranges over all cases.

    Args:
        results: a results folder, as ``results/DATASET/NETWORK``.
        target: the archive, whose name ends in .zip.
        folds: indices; None: all that are trained.
        licence: a text file with the terms of use of the weights; it becomes part of the notice.
        overwrite: replace an existing file.
        weights: the type in which float weights are stored, one of ``model_store.FLOATS``.

    Raises:
        DvtError: if the folds do not belong together or to the plan, weights do not fit their network, are not
            finite or overflow their type, or the file exists. Then nothing is written.
    """
    results, target = Path(results), Path(target)
    if weights not in model_store.FLOATS:
        raise ValueError(f"weights are stored as {' or '.join(model_store.FLOATS)}, not {weights!r}")
    if not results.is_dir():
        raise DvtError(f"{results}: is not a folder. Name a results folder, such as results/DATASET/gn_unet.")
    if target.suffix.lower() != ENDING:
        raise DvtError(f"{target}: the name of an archive must end in {ENDING}. Choose such a name.")
    if target.exists() and (not overwrite or not target.is_file()):
        raise DvtError(f"{target}: exists. Choose another name, or set `overwrite=True`.")
    terms = _read_terms(None if licence is None else Path(licence))
    with model_store.open_model(results, folds) as stored:
        _require_sound_folds(stored)
        known = _known(stored, weights)
        with verified_archive.write_archive(target, model_store.KIND) as archive:
            _add_surroundings(archive, stored, known, terms)
            digests = {k: _add_fold(archive, stored, k, weights) for k in stored.runs}
    return ExportedModel(
        path=target,
        digest=_digest(stored, digests),
        folds=tuple(stored.runs),
        omitted=(*known.omitted, *_unfinished(stored)),
    )


def _digest(stored: StoredModel, weights: dict[int, str]) -> str:
    """Return the digest of a model; ``weights`` is that of each fold's weights."""
    return model_store.model_digest(stored.plan, [(run, weights[k]) for k, run in stored.runs.items()], stored.rules)


def _require_sound_folds(stored: StoredModel) -> None:
    """Refuse folds that are not of one cross-validation, or that test a patient that they were trained on."""
    first = next(iter(stored.runs))
    other = [k for k, run in stored.runs.items() if run.splits_digest != stored.runs[first].splits_digest]
    if other:
        same = [k for k in stored.runs if k not in other]
        raise DvtError(
            f"{model_fold(stored.path, other[0]).run}: was trained by other splits than fold {first}, so they are not "
            f"of one cross-validation. Export folds of the same splits, for example with `folds={same}`."
        )
    workspace = _workspace(stored.path)
    _require_no_leak(stored, None if workspace is None else survey(workspace.raw)[0])


def _require_no_leak(stored: StoredModel, dataset: Dataset | None) -> None:
    for k, run in stored.runs.items():
        if dataset is not None:
            file = model_fold(stored.path, k).run
            require_untrained(file, run.used, run.test, dataset.patient_of, file)


def _workspace(results: Path) -> Workspace | None:
    """Return the workspace around a results folder, or None if there is none."""
    results = results.absolute()
    return Workspace(results.parents[2], results.parent.name) if len(results.parents) > 2 else None


def _add_surroundings(
    archive: verified_archive.ArchiveWriter, stored: StoredModel, known: _ModelContext, terms: str
) -> None:
    """Add the members that do not belong to a single fold."""
    archive.add_record(model_store.PLAN, stored.plan)
    if known.data is not None:
        archive.add_record(model_store.DATA, known.data)
    if known.table is not None:
        archive.add(model_store.TABLE_CSV, table1.to_csv(known.table).encode())
        archive.add(model_store.TABLE_TEXT, table1.to_text(known.table).encode())
    archive.add(model_store.NOTICE, _notice(stored, known, terms).encode())


def _add_fold(archive: verified_archive.ArchiveWriter, stored: StoredModel, fold: int, floats: str) -> str:
    """Add the run and the weights of a fold. Return the digest of its weights."""
    archive.add_record(f"fold_{fold}/run.json", _without_case_names(stored.runs[fold]))
    arrays = _weights(stored, fold, floats)
    for name, array in arrays.items():
        archive.add(weight_files.weights_name(fold, name), weight_files.npy(array))
    digest = weight_files.weights_digest(arrays)
    if fold in stored.postprocessing:
        chosen = replace(stored.postprocessing[fold], weights=digest)  # float16 weights have another digest
        archive.add_record(model_store.postprocessing_name(fold), chosen)
    return digest


def describe_folder(results: Path | str) -> ModelDescription:
    """Describe a results folder like an archive of it.

    Raises:
        DvtError: as ``export_model``.
    """
    results = Path(results)
    with model_store.open_model(results) as stored:
        known = _known(stored)
        digests = {k: weight_files.weights_digest(_weights(stored, k)) for k in stored.runs}
    omitted = "".join(f"; {console.translated(line)}" for line in known.omitted)
    return ModelDescription(
        path=results,
        plan=stored.plan,
        runs=stored.runs,
        data=known.data,
        table="" if known.table is None else table1.to_text(known.table),
        weights="float32",
        postprocessing=stored.postprocessing,
        digest=_digest(stored, digests),
        about=f"results folder{omitted}",
    )


# --- weights --------------------------------------------------------------------------------------


def _weights(stored: StoredModel, fold: int, floats: str = "float32") -> dict[str, np.ndarray]:
    """Read a fold's weights; float32 weights become ``floats``, one of ``model_store.FLOATS``."""
    run, folder = stored.runs[fold], model_fold(stored.path, fold)
    needed = checkpoint.expected_weights(run, str(folder.run))
    done = checkpoint.epochs_done(folder.checkpoint)
    if done != run.epochs_done:
        raise DvtError(
            f"{folder.checkpoint}: contains {plural(done, 'epoch')}, but {folder.run.name} lists {run.epochs_done}. "
            "Wait for the end of the training, or resume it (`train_fold` with `resume=True`)."
        )
    found = checkpoint.weights(folder.checkpoint)
    if fold in stored.postprocessing:
        stored.postprocessing[fold].require_weights(weight_files.weights_digest(found), folder.postprocessing)
    has = {name: (str(array.dtype), array.shape) for name, array in found.items()}
    if has != needed:
        wrong = sorted(name for name in {*has, *needed} if has.get(name) != needed.get(name))
        raise DvtError(
            f"{folder.checkpoint}: {wrong[0]} does not fit the {run.network} of {folder.run}. Train this fold again."
        )
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise DvtError(f"{folder.checkpoint}: {name} has weights that are not finite. Train this fold again.")
    return {name: _stored_as(folder.checkpoint, name, found[name], floats) for name in needed}


def _stored_as(file: Path, name: str, array: np.ndarray, floats: str) -> np.ndarray:
    """Round a float32 tensor to the type in which an archive stores it. Other tensors do not change."""
    if floats == "float32" or array.dtype != np.float32:
        return array
    largest, most = float(np.abs(array).max(initial=0)), float(np.finfo(floats).max)
    if largest > most:
        raise DvtError(
            f"{file}: {name} has a weight of magnitude {largest:.9g}, above the {most:g} of {floats}. "
            "Use `weights=float32`."
        )
    return array.astype(floats)


def _without_case_names(run: Run) -> Run:
    """Return the run with the names of its cases replaced."""
    train, held_out, test = ((model_store.WITHHELD,) * len(cases) for cases in (run.train, run.held_out, run.test))
    return replace(run, train=train, held_out=held_out, test=test)


def _unfinished(stored: StoredModel) -> Iterator[str]:
    for k, run in stored.runs.items():
        if not run.is_finished:
            yield f"fold {k} is exported after {run.done} of {run.length}"
        if run.held_out and k not in stored.postprocessing:
            yield f"fold {k} is exported with the plain rule for masks: none was chosen on its held-out patients"


# --- data and scores of the model ------------------------------------------------------------------


def _known(stored: StoredModel, weights: str = "float32") -> _ModelContext:
    """Find the training data and the scores of a model in the workspace around its results folder.

    ``weights`` is the type in which the weights are stored.
    """
    workspace = _workspace(stored.path)
    dataset = None if workspace is None else survey(workspace.raw)[0]
    phantom = is_phantom(
        stored.plan.dataset,
        description=None if dataset is None else dataset.description,
        recorded=None if stored.training is None else stored.training.phantom,
    )
    subject = display_name(stored.plan.dataset, phantom)
    notes = {PHANTOM_NOTE: phantom, ROUNDED_NOTE: weights == "float16"}
    data, table, omitted = None, None, []
    try:
        data = _data(workspace, stored, phantom)
    except DvtError as why:
        omitted.append(f"no ranges of the training data: {why}")
    try:
        present = tuple(note for note, holds in notes.items() if holds)
        _require_no_leak(stored, dataset)
        table = stored_table1(stored.path.absolute(), stored, dataset, subject=subject, notes=present)
    except DvtError as why:
        omitted.append(f"no Table 1: {why}")
    return _ModelContext(data=data, table=table, subject=subject, phantom=phantom, omitted=tuple(omitted))


def _data(workspace: Workspace | None, stored: StoredModel, phantom: bool | None) -> TrainingData:
    """Return the ranges of the training data, or raise DvtError if they are not available."""
    if stored.training is not None:
        return stored.training if phantom is None else replace(stored.training, phantom=phantom)
    file = None if workspace is None else workspace.fingerprint
    if file is None or not file.exists():
        raise DvtError(f"{file or 'fingerprint.json'}: not found.")
    fingerprint = json_records.load(Fingerprint, file, "`plan_and_preprocess`")
    data = model_store.trained_on(fingerprint, stored.plan, stored.runs, phantom)
    if data is None:
        raise DvtError(f"{file}: is not the fingerprint that the plan was derived from.")
    return data


def _read_terms(licence: Path | None) -> str:
    if licence is None:
        return ""
    try:
        return licence.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DvtError(f"{licence}: is not a readable text file in UTF-8. Name another file as `licence`.") from error


def _notice(stored: StoredModel, known: _ModelContext, terms: str) -> str:
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
