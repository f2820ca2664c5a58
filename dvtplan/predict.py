"""Scans in, masks on their own grids out: for a fold's test patients and for a stranger's scan alike."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import nn

from dvtplan import (
    artifacts,
    checkpoint,
    dataset,
    devices,
    dicom,
    findings,
    forms,
    inference,
    journal,
    ledger,
    models,
    provenance,
    scans,
    segments,
    telling,
    volumes,
)
from dvtplan.devices import Setup
from dvtplan.errors import DamagedScan, DvtError, WriteFailed, how_many
from dvtplan.findings import Division
from dvtplan.inference import Model
from dvtplan.ledger import Ledger
from dvtplan.models import Stored
from dvtplan.provenance import Diary
from dvtplan.records import Case, Prediction, PredictionOfCase, PredictionStart, Splits, alike
from dvtplan.scans import Given
from dvtplan.slicefile import SliceFile
from dvtplan.telling import Asked, Evidence
from dvtplan.workspace import (
    ENDINGS,
    FoldFolder,
    Workspace,
    prediction_record,
    prediction_records,
    stem,
)


class Unanalysed(DvtError):
    """Scans that could not be analysed; others of their folder were."""

    def __init__(self, masks: Sequence[Path], failed: Mapping[str, str], scans_in_all: int) -> None:
        self.masks, self.failed = tuple(masks), dict(failed)
        """The masks that were made, in order of case; case -> why it could not be analysed, in one line."""
        self.written = self.masks
        """What was written all in all."""
        told = f"{len(failed)} of {how_many(scans_in_all, 'scan')} could not be analysed; nothing is known about them:"
        super().__init__("\n".join([*([told] if scans_in_all > 1 else []), *self.failed.values()]))


@dataclass(frozen=True, slots=True)
class Spent:
    """What a case took, from file to file."""

    slices: int
    reading_s: float
    network_s: float
    """With resizing there and back."""
    writing_s: float
    telling_s: float
    """Findings and page, where they are asked for."""


def load_model(path: Path, *, folds: Sequence[int] | None = None, setup: Setup | None = None) -> Model:
    """Load trained folds.

    Args:
        path: a results folder, as ``results/DATASET/NETWORK``, or an archive that ``dvt_model export`` wrote of one.
        folds: which; none for all that are trained.
        setup: how to run; none to choose.

    Raises:
        DvtError: if the folder holds no trained fold, or not the ones asked for, or they differ in
            plan or classes; if an archive is damaged or not ours.
    """
    setup = setup or devices.choose()
    with models.opened(path, folds) as stored:
        loaded = [_load_network(stored, k, setup) for k in stored.runs]
    runs = list(stored.runs.values())
    for line in alike(runs):
        journal.note(f"{path}: {line}")
    return Model(
        networks=tuple(network for network, _ in loaded),
        folds=tuple(stored.runs),
        plan=stored.plan,
        classes=runs[0].classes,
        setup=setup,
        digest=models.model_digest(stored.plan, list(zip(runs, (weights for _, weights in loaded), strict=True))),
        path=path,
        network=runs[0].network,
        training=stored.training,
    )


def _load_network(stored: Stored, fold: int, setup: Setup) -> tuple[nn.Module, str]:
    """A fold's network, ready to run, and the digest of its weights."""
    run = stored.runs[fold]
    if stored.archive is None:
        network = checkpoint.blank(run)
        checkpoint.load_weights(FoldFolder(stored.path / f"fold_{fold}").checkpoint, network)
    else:
        needed = checkpoint.shapes(run, f"{stored.path}: fold_{fold}/run.json")
        found = models.archived_weights(stored.archive, fold, needed)
        network = checkpoint.blank(run)
        checkpoint.fill(network, found)
    digest = models.weights_digest(checkpoint.arrays(network))
    network = network.eval().to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]

    def trial(forward: devices.Forward) -> None:
        shape = stored.plan.target_shape
        slices = torch.zeros(inference.slices_at_once(shape, setup.device), run.channels, *shape, device=setup.device)
        with torch.inference_mode(), setup.autocast():
            forward(slices.contiguous(memory_format=setup.memory_format))

    made, failed = devices.compiled(network, setup, trial)
    if failed:
        journal.note(failed)
    return made, digest  # type: ignore[return-value]  # a compiled module is one


# --- many cases -----------------------------------------------------------------------------------


def predict_fold(workspace: Workspace, network: str, index: int, *, setup: Setup | None = None) -> Path:
    """Predict a fold's test patients with that fold alone, from their raw files.

    Returns:
        The folder of the masks.

    Raises:
        DvtError: as ``load_model`` and ``predict_case``.
    """
    splits = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    # These patients are of the data set of the training; nobody wants to hear how they differ.
    model = replace(load_model(workspace.results(network), folds=[index], setup=setup), training=None)
    cases = {case.id: case for case in dataset.discover(workspace.raw).cases}
    out = workspace.fold(network, index).predictions
    with artifacts.sole_writer(out):
        tested = [cases[i] for i in splits.folds[index].test]
        asked = {"dataset": str(workspace.raw), "fold": str(index)}
        predict_cases(tested, out, model, title=f"Predict fold {index}", options=asked)
    return out


def predict_path(
    source: Path,
    out: Path,
    model: Model,
    *,
    overwrite: bool = False,
    save_probabilities: bool = False,
    part: tuple[int, int] | None = None,
    series: Sequence[str] | None = None,
    stations: Sequence[str] | None = None,
    also: Sequence[str] = (),
    asked: Asked | None = None,
) -> list[Path]:
    """Predict one volume, every volume in a folder, one scan in DICOM, or one of several table stations.

    Args:
        source: a file, or a folder of files; ``ID_0000``, ``ID_0001``, ... are channels of one case.
            Or a folder or ZIP archive of DICOM files, whatever their names.
        out: a folder; for a single file also the name of the mask.
        model: what predicts.
        overwrite: make masks anew that are already there.
        save_probabilities: write a volume of probabilities for each class too.
        part: (i, n) predicts the i-th of n shares of the cases, counted from 1, so that n processes, on
            one machine or on several with one disk, do them all.
        series: of DICOM, which volumes are the channels; none where one volume is there.
        stations: series of DICOM, or files of the folder, that overlap and are to be composed.
        also: further forms of every mask, of ``forms.ALSO``. Of stations, each has its own segmentation object.
        asked: what to tell of each scan beside its mask; none for nothing.

    Returns:
        The masks, in order of case; of stations also the mask of each, and what was composed how; then what
        was wanted besides.

    Raises:
        Unanalysed: if scans could not be analysed; each left its ``ID_findings.json`` with the reason, and all
            others have their masks. A mask that was made of such a scan before is gone.
        DvtError: for input that is not there, or that a mask would replace, or where a mask would replace one
            that was changed by hand or comes from elsewhere; masks made until then stay.
    """
    if source.is_dir() and out.exists() and out.samefile(source):
        raise DvtError(f"{out}: is the folder of the images, where masks would pass for images. Name another -o.")
    if forms.DICOM_SEG in also:
        segments.require()
    named = {
        "input": source,
        "output": out,
        "overwrite": overwrite,
        "save_probabilities": save_probabilities,
        "part": part and f"{part[0]}/{part[1]}",
        "series": series and " ".join(series),
        "stations": stations and " ".join(stations),
        "also": " ".join(also),
    }
    options = {name: str(value) for name, value in named.items() if value}
    if model.training is None:
        journal.note("The model lacks the fingerprint of its training scans: whether a scan is like them is not known.")
    with contextlib.ExitStack() as stack:
        try:
            given = stack.enter_context(
                scans.opened(source, len(model.plan.channels), series=series, stations=stations)
            )
        except DamagedScan as error:
            raise _unopened(source, out, model, error, series, asked) from error
        _require_fitting(source, out, given, also)
        remarks = _remarks(given, model)
        if asked is not None:
            asked = replace(asked, remarks=remarks)
        failed: Unanalysed | None = None
        wanted: _Wanted = {
            "overwrite": overwrite, "save_probabilities": save_probabilities, "options": options, "asked": asked
        }  # fmt: skip
        try:
            if given.one and out.name.endswith(ENDINGS):
                masks = _predict_one(given, out, model, **wanted)
            else:
                masks = predict_cases(given.cases, out, model, title="Predict", part=part, given=given, **wanted)
        except Unanalysed as error:
            failed, masks = error, list(error.masks)
        composed = given.composed is not None and bool(masks)
        parts = scans.write_stations(masks[0], given, overwrite=overwrite) if composed else []
        written = [*masks, *parts, *forms.write(masks, parts, given, model, also, overwrite=overwrite)]
        if failed is not None:
            failed.written = tuple(written)
            raise failed
        return written


def _require_fitting(source: Path, out: Path, given: Given, also: Sequence[str]) -> None:
    """Refuse an output that does not fit what was given."""
    if forms.DICOM_SEG in also and given.found is None:
        raise DvtError(f"{source}: is no DICOM, and {forms.DICOM_SEG} draws upon a DICOM series. Leave it away.")
    if out.name.endswith(".mhd"):
        raise DvtError(f"{out}: would be two files, of which one may get lost. Name it .mha, or .nii.gz.")
    if out.is_file() and not (given.one and out.name.endswith(ENDINGS)):
        raise DvtError(f"{out}: is a file. Name a folder as -o, or for a single scan a mask such as mask.nii.gz.")
    if out.name.endswith(ENDINGS) and not (given.one or out.is_dir()):
        raise DvtError(f"{out}: is one mask, and {source} is a folder of scans. Name a folder as -o.")


def _remarks(given: Given, model: Model) -> tuple[str, ...]:
    """Warn where a series is no MR, and no channel of the model is called after what it is; gives the warnings."""
    names = {name.upper() for name in model.plan.channels}
    odd = {v.name: v.modality for shown in given.shown for v in shown if v.modality not in ("", dicom.MR, *names)}
    told = tuple(
        f"Series {name} is {modality}, not MR, for which the model is made: what is marked may mean nothing."
        for name, modality in odd.items()
    )
    for line in told:
        journal.warn(line)
    return told


class _Wanted(TypedDict):
    """Arguments of ``predict_path`` that concern every case."""

    overwrite: bool
    save_probabilities: bool
    options: Mapping[str, str]
    asked: Asked | None


def _predict_one(
    given: Given,
    mask: Path,
    model: Model,
    *,
    overwrite: bool,
    save_probabilities: bool,
    options: Mapping[str, str],
    asked: Asked | None,
) -> list[Path]:
    """The only case into a mask of a given name; one that was made here before is replaced."""
    case, watch = given.cases[0], _Pace(model)
    _require_apart(case, mask)
    if not overwrite:
        _require_ours(mask, ledger.changed([mask]))
    record = mask.with_name(f"{stem(mask)}_run.json")
    diary = Diary(record, _opening(model, options), overwrite=True, alone=True)
    digests = _digests(case)

    def made(draft: Path, spent: Spent) -> None:
        if not overwrite:
            _require_ours(mask, ledger.changed([mask]))
        diary.add(case.id, _made(case, digests, mask, draft, spent, given.spoken))

    try:
        spent = predict_case(
            case, mask, model, save_probabilities=save_probabilities, asked=asked, spoken=given.spoken, made=made
        )
    except WriteFailed:
        raise
    except DvtError as error:
        _withdraw(mask, ledger.written(mask.parent), model)
        if asked is not None:
            telling.tell_failure(case, mask, model, error, given.spoken)
        raise Unanalysed([], {stem(mask): telling.in_one_line(error, given.spoken)}, 1) from error
    watch.add(spent.slices)
    watch.tell()
    return [mask]


def _require_ours(mask: Path, changed: Collection[Path]) -> None:
    if mask in changed:
        raise DvtError(
            f"{mask}: is there and is not what dvt_predict wrote: it was changed, or comes from elsewhere. Name "
            "another -o, or --overwrite it."
        )


def _withdraw(mask: Path, known: Mapping[str, Collection[str]], model: Model) -> None:
    """A scan that cannot be analysed has no mask, nor anything that speaks of an earlier one."""
    if not mask.parent.is_dir():
        return
    try:
        ledger.withdraw(mask, known)
        telling.forget(mask)
        for name in model.classes:
            probability_path(mask, name).unlink(missing_ok=True)
    except OSError as error:
        raise WriteFailed(artifacts.cannot_write(mask, error)) from error
    if (beside := forms.object_path(mask)).exists():
        journal.warn(f"{beside}: is of an earlier mask of this scan, and stays.")


def _unopened(
    source: Path, out: Path, model: Model, error: DvtError, series: Sequence[str] | None, asked: Asked | None
) -> Unanalysed:
    """What a source that is damaged comes to; what was told of it earlier does not stand any longer."""
    name = stem(source.absolute())
    masks = [out] if out.name.endswith(ENDINGS) else [out / f"{name}.nii.gz"]
    if series and not out.name.endswith(ENDINGS):
        masks.append(out / f"{name}_series_{'_'.join(series)}.nii.gz")
    there = [mask for mask in masks if mask.exists() or findings.read(telling.findings_path(mask)) is not None]
    for mask in there or masks[-1:]:
        _withdraw(mask, ledger.written(mask.parent), model)
        if asked is not None:
            telling.tell_failure(Case(id=stem(mask), patient=name, images=(source,)), mask, model, error, {})
    return Unanalysed([], {stem((there or masks)[-1]): telling.in_one_line(error, {})}, 1)


def predict_cases(
    cases: Sequence[Case],
    out: Path,
    model: Model,
    *,
    title: str,
    overwrite: bool = False,
    save_probabilities: bool = False,
    part: tuple[int, int] | None = None,
    options: Mapping[str, str] | None = None,
    given: Given | None = None,
    asked: Asked | None = None,
) -> list[Path]:
    """Predict cases, or a part of them, into a folder; what is there already, by this model from these files, is
    kept. Each part keeps a ledger and a record of its own, so that no process overwrites what another has noted.

    Args:
        cases: what to predict.
        out: the folder.
        model: what predicts.
        title: of the progress bar.
        overwrite: as of ``predict_path``.
        save_probabilities: likewise.
        part: likewise.
        options: what was asked for, for the record.
        given: where the cases come from. With it a case that cannot be analysed does not stop the others, and masks
            that were changed by hand, or come from elsewhere, are kept.
        asked: as of ``predict_path``.

    Raises:
        Unanalysed: at the end, if any could not be analysed.
        DvtError: as ``predict_case``, where nothing is ``given``.
    """
    spoken = {} if given is None else given.spoken
    held = Ledger(out, model.digest, model.classes, part=part, overwrite=overwrite)
    several = len(cases) > 1
    if part is not None:
        cases = cases[part[0] - 1 :: part[1]]
    diary = Diary(prediction_record(out, part), _opening(model, options or {}), overwrite=overwrite)
    ids = {case.id for case in cases}
    with contextlib.suppress(DvtError) if overwrite else contextlib.nullcontext():
        kept = held.vouched.keys() - ids if overwrite else ids if part else held.vouched.keys()
        diary.keep(prediction_records(out), held.vouched, kept)
    masks, watch, failed = [], _Pace(model), dict[str, str]()
    for case in journal.progress(cases, title):
        path = out / f"{case.id}.nii.gz"
        digests = _digests(case)
        beside = [probability_path(path, name) for name in model.classes if save_probabilities]
        _require_apart(case, path)

        def made(
            draft: Path, spent: Spent, case: Case = case, path: Path = path, digests: Sequence[str] = digests
        ) -> None:
            if given is not None and not overwrite and held.is_changed(path):
                raise DvtError(f"{path}: was changed while it was predicted, and is kept. Run again.")
            record = _made(case, digests, path, draft, spent, spoken)
            artifacts.write_text(out / "dataset.json", _labels_json(model))
            diary.add(case.id, record)
            held.add(case.id, digests, record.mask_digest, with_probabilities=save_probabilities)

        try:
            if given is not None and not overwrite and held.is_changed(path):
                if asked is not None:
                    telling.divide(case, path, asked)
                    telling.forget_failure(path)
                journal.warn(
                    f"{path}: was changed since it was made, or comes from elsewhere: it is kept. What is told beside "
                    "it is of the mask as it was made, if it ever was. --overwrite makes both anew."
                )
            elif not held.keeps(case.id, digests, beside) or not telling.told(case, path, model, asked):
                spent = predict_case(
                    case, path, model, save_probabilities=save_probabilities, asked=asked, spoken=spoken, made=made
                )
                watch.add(spent.slices)
            masks.append(path)
        except WriteFailed:
            raise
        except DvtError as error:
            if given is None:
                raise
            _withdraw(path, held.written, model)
            if several or asked is not None:
                telling.tell_failure(case, path, model, error, spoken)
            failed[case.id] = telling.in_one_line(error, spoken)
            held.drop(case.id)
            diary.drop(case.id)
    watch.tell()
    if failed:
        raise Unanalysed(masks, failed, len(cases))
    return masks


def _digests(case: Case) -> list[str]:
    """SHA-256 of each image file; none where one is not there, which reading will say."""
    if not all(p.is_file() for p in case.images):
        return []
    return [artifacts.digest_of_files(volumes.files_of(p)) for p in case.images]


def _opening(model: Model, options: Mapping[str, str]) -> Prediction:
    """The record of a prediction that begins now."""
    start = PredictionStart(
        started=journal.now(),
        device=model.setup.device,
        precision=model.setup.precision,
        setup=model.setup.remark,
        options=dict(options),
        versions=provenance.versions(),
    )
    return Prediction(
        model="" if model.path is None else str(model.path.absolute()),
        model_digest=model.digest,
        network=model.network,
        folds=model.folds,
        classes=model.classes,
        starts=(start,),
        cases={},
    )


def _made(
    case: Case, digests: Sequence[str], mask: Path, draft: Path, spent: Spent, spoken: Mapping[Path, str]
) -> PredictionOfCase:
    """A case for the record, once the draft of its mask is written."""
    return PredictionOfCase(
        images=dict(zip(telling.names(case, spoken), digests, strict=True)),
        mask=mask.name,
        mask_digest=artifacts.sha256(draft),
        slices=spent.slices,
        reading_s=round(spent.reading_s, 3),
        network_s=round(spent.network_s, 3),
        writing_s=round(spent.writing_s, 3),
        finished=journal.now(),
        start=0,
    )


class _Pace:
    """How long scans take, from file to file."""

    def __init__(self, model: Model) -> None:
        self._begin, self._scans, self._slices, self._folds = time.monotonic(), 0, 0, len(model.folds)

    def add(self, slices: int) -> None:
        """A scan was predicted."""
        self._scans += 1
        self._slices += slices

    def tell(self) -> None:
        """Say it, where anything was predicted."""
        if not self._scans:
            return
        seconds = time.monotonic() - self._begin
        by = f" by {self._folds} folds" if self._folds > 1 else ""
        pace = f"{seconds / self._scans:.3g} s a scan, {seconds / self._slices:.2g} s a slice"
        journal.note(
            f"Predicted {how_many(self._scans, 'scan')}, {how_many(self._slices, 'slice')}{by}, in "
            f"{journal.duration(seconds)}: {pace}."
        )


def _require_apart(case: Case, mask: Path) -> None:
    if mask.exists() and any(p.exists() and p.samefile(mask) for p in case.images):
        raise DvtError(f"{mask}: is the image itself, which the mask would replace. Name another -o.")


def probability_path(mask: Path, name: str) -> Path:
    """Where the probabilities of a class lie, beside a mask."""
    return mask.with_name(f"{stem(mask)}_probability_{name}.nii.gz")


def _labels_json(model: Model) -> str:
    """What the values in the masks mean, in nnU-Net's words."""
    return json.dumps({"labels": {"background": 0, **model.classes}, "file_ending": ".nii.gz"}, indent=1) + "\n"


# --- one case -------------------------------------------------------------------------------------


def predict_case(
    case: Case,
    path: Path,
    model: Model,
    *,
    save_probabilities: bool = False,
    asked: Asked | None = None,
    spoken: Mapping[Path, str] | None = None,
    made: Callable[[Path, Spent], None] | None = None,
) -> Spent:
    """Write the mask of one case on the grid of its first image file, and warn where the scan is unlike the training.

    Slices pass through a nameless file on disk, block by block, so memory does not grow with their
    number. With ``save_probabilities`` a float32 volume per class is written too, named
    ``ID_probability_CLASS.nii.gz``; those are assembled in memory. What is ``asked`` is written beside the mask;
    what was told of an earlier mask goes. ``spoken`` holds the names of files that go again. ``made`` is called with
    the draft of the mask, before it takes its place.

    Returns:
        How many slices the case has, and where the time went.

    Raises:
        DvtError: if an image cannot be read or is not finite, channels lie on different grids, or
            the disk is full; nothing half-written stays.
    """
    _require_apart(case, path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.memory_told("Use --device cpu, or name fewer --folds."))
        times = [time.monotonic()]
        opened = inference.open_case(case, path.parent, model, stack)
        odd = telling.oddities(case, opened, model)
        times.append(time.monotonic())
        masks = stack.enter_context(SliceFile(path.parent))
        chances = [stack.enter_context(SliceFile(path.parent)) for _ in model.classes] if save_probabilities else []
        division = Division() if asked is None else telling.divide(case, path, asked)
        evidence = None
        if asked is not None and asked.record:
            evidence = Evidence(case, opened, model, asked, division, path.parent, stack)
        for chance_BKHW, votes_BHW in inference.probabilities(opened, model, with_votes=evidence is not None):
            marked_BHW = inference.decide(chance_BKHW, model.classes)
            masks.append(marked_BHW)
            if evidence is not None:
                evidence.add(chance_BKHW.sum(axis=1), marked_BHW, votes_BHW)
            for chance, volume_BHW in zip(chances, np.moveaxis(chance_BKHW, 1, 0), strict=False):
                chance.append(volume_BHW)
        times.append(time.monotonic())
        for name, chance in zip(model.classes, chances, strict=False):
            volume = inference.in_file_order(chance, opened, np.float32)
            volumes.write_probabilities(probability_path(path, name), volume, opened.grid)

        def noted(draft: Path) -> None:
            if made is not None:
                reading_s, network_s, writing_s = np.diff([*times, time.monotonic()]).tolist()
                made(draft, Spent(len(masks), reading_s, network_s, writing_s, telling_s=0.0))
            # What is there of an earlier mask goes with it.
            telling.forget(path)
            for name in () if save_probabilities else model.classes:
                probability_path(path, name).unlink(missing_ok=True)

        mask = inference.in_file_order(masks, opened, np.uint8)
        volumes.write_mask(path, mask, opened.grid, names=model.classes, noted=noted)
        times.append(time.monotonic())
        if evidence is not None:
            evidence.tell(path, masks.read(), odd, spoken or {})
        times.append(time.monotonic())
        spent = Spent(len(masks), *np.diff(times).tolist())
        journal.detail(
            f"{case.id}: {spent.reading_s:.2g} s reading, {spent.network_s:.2g} s network and resizing, "
            f"{spent.writing_s:.2g} s writing, {spent.telling_s:.2g} s telling"
        )
        return spent
