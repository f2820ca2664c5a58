"""Scans in, masks on their own grids out: for a fold's test patients and for a stranger's scan alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from dvtplan.core import console, files, json_records, text
from dvtplan.core.digests import volume_digest, sha256
from dvtplan.core.errors import DamagedScan, DvtError, WriteFailed
from dvtplan.core.text import plural
from dvtplan.data import dataset, dataset_json, mask_files, prediction_log
from dvtplan.data.dataset import Case
from dvtplan.data.folds import Splits
from dvtplan.data.mask_files import probability_path
from dvtplan.data.paths import Workspace, prediction_record, prediction_records
from dvtplan.data.prediction_log import Diary, Ledger, Prediction, PredictionOfCase, PredictionStart
from dvtplan.dicom import reader, segmentation_writer
from dvtplan.findings import writer
from dvtplan.findings.record import read_findings
from dvtplan.findings.writer import FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.volume_io import ENDINGS, stem
from dvtplan.inference import inputs, mask_formats, station_masks
from dvtplan.inference.inputs import PredictionInput
from dvtplan.inference.model import Model, load_model
from dvtplan.inference.predict_case import Timings, predict_case, require_not_an_input
from dvtplan.models.devices import DeviceConfig


class AnalysisFailed(DvtError):
    """Scans that could not be analysed; others of their folder were."""

    def __init__(self, masks: Sequence[Path], failed: Mapping[str, str], scans_in_all: int) -> None:
        self.masks, self.failed = tuple(masks), dict(failed)
        """The masks that were made, in order of case; case -> why it could not be analysed, in one line."""
        self.written = self.masks
        """What was written all in all."""
        told = f"{len(failed)} of {plural(scans_in_all, 'scan')} could not be analysed; nothing is known about them:"
        super().__init__("\n".join([*([told] if scans_in_all > 1 else []), *self.failed.values()]))


# --- many cases -----------------------------------------------------------------------------------


def predict_fold(workspace: Workspace, network: str, index: int, *, setup: DeviceConfig | None = None) -> Path:
    """Predict a fold's test patients with that fold alone, from their raw files.

    Returns:
        The folder of the masks.

    Raises:
        DvtError: as ``load_model`` and ``predict_case``.
    """
    splits = json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    # These patients are of the data set of the training; nobody wants to hear how they differ.
    model = replace(load_model(workspace.results(network), folds=[index], setup=setup), training=None)
    cases = {case.id: case for case in dataset.discover(workspace.raw).cases}
    out = workspace.fold(network, index).predictions
    with files.exclusive_lock(out):
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
    asked: FindingsOptions | None = None,
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
    if mask_formats.DICOM_SEG in also:
        segmentation_writer.import_highdicom()
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
        console.info("The model lacks the fingerprint of its training scans: whether a scan is like them is not known.")
    with contextlib.ExitStack() as stack:
        try:
            given = stack.enter_context(
                inputs.open_input(source, len(model.plan.channels), series=series, stations=stations)
            )
        except DamagedScan as error:
            raise _unreadable_input(source, out, model, error, series, asked) from error
        _require_fitting(source, out, given, also)
        remarks = _remarks(given, model)
        if asked is not None:
            asked = replace(asked, remarks=remarks)
        failed: AnalysisFailed | None = None
        wanted: _Wanted = {
            "overwrite": overwrite, "save_probabilities": save_probabilities, "options": options, "asked": asked
        }  # fmt: skip
        try:
            if given.one and out.name.endswith(ENDINGS):
                masks = _predict_one(given, out, model, **wanted)
            else:
                masks = predict_cases(given.cases, out, model, title="Predict", part=part, given=given, **wanted)
        except AnalysisFailed as error:
            failed, masks = error, list(error.masks)
        composed = given.composed is not None and bool(masks)
        parts = station_masks.write_stations(masks[0], given, overwrite=overwrite) if composed else []
        written = [*masks, *parts, *mask_formats.write_formats(masks, parts, given, model, also, overwrite=overwrite)]
        if failed is not None:
            failed.written = tuple(written)
            raise failed
        return written


def _require_fitting(source: Path, out: Path, given: PredictionInput, also: Sequence[str]) -> None:
    """Refuse an output that does not fit what was given."""
    if mask_formats.DICOM_SEG in also and given.found is None:
        raise DvtError(f"{source}: is no DICOM, and {mask_formats.DICOM_SEG} draws upon a DICOM series. Leave it away.")
    if out.name.endswith(".mhd"):
        raise DvtError(f"{out}: would be two files, of which one may get lost. Name it .mha, or .nii.gz.")
    if out.is_file() and not (given.one and out.name.endswith(ENDINGS)):
        raise DvtError(f"{out}: is a file. Name a folder as -o, or for a single scan a mask such as mask.nii.gz.")
    if out.name.endswith(ENDINGS) and not (given.one or out.is_dir()):
        raise DvtError(f"{out}: is one mask, and {source} is a folder of scans. Name a folder as -o.")


def _remarks(given: PredictionInput, model: Model) -> tuple[str, ...]:
    """Warn where a series is no MR, and no channel of the model is called after what it is; gives the warnings."""
    names = {name.upper() for name in model.plan.channels}
    odd = {v.name: v.modality for shown in given.shown for v in shown if v.modality not in ("", reader.MR, *names)}
    told = tuple(
        f"Series {name} is {modality}, not MR, for which the model is made: what is marked may mean nothing."
        for name, modality in odd.items()
    )
    for line in told:
        console.warn(line)
    return told


class _Wanted(TypedDict):
    """Arguments of ``predict_path`` that concern every case."""

    overwrite: bool
    save_probabilities: bool
    options: Mapping[str, str]
    asked: FindingsOptions | None


def _predict_one(
    given: PredictionInput,
    mask: Path,
    model: Model,
    *,
    overwrite: bool,
    save_probabilities: bool,
    options: Mapping[str, str],
    asked: FindingsOptions | None,
) -> list[Path]:
    """The only case into a mask of a given name; one that was made here before is replaced."""
    case, watch = given.cases[0], _Throughput(model)
    require_not_an_input(case, mask)
    if not overwrite:
        _require_ours(mask, prediction_log.changed([mask]))
    record = mask.with_name(f"{stem(mask)}_run.json")
    diary = Diary(record, _session(model, options), overwrite=True, alone=True)
    digests = _digests(case)

    def made(draft: Path, spent: Timings) -> None:
        if not overwrite:
            _require_ours(mask, prediction_log.changed([mask]))
        diary.add(case.id, _case_prediction(case, digests, mask, draft, spent, given.spoken))

    try:
        spent = predict_case(
            case, mask, model, save_probabilities=save_probabilities, asked=asked, spoken=given.spoken, made=made
        )
    except WriteFailed:
        raise
    except DvtError as error:
        _remove_mask(mask, prediction_log.written(mask.parent), model)
        if asked is not None:
            _write_failure(case, mask, model, error, given.spoken)
        raise AnalysisFailed([], {stem(mask): inputs.one_line(error, given.spoken)}, 1) from error
    watch.add(spent.slices)
    watch.tell()
    return [mask]


def _require_ours(mask: Path, changed: Collection[Path]) -> None:
    if mask in changed:
        raise DvtError(
            f"{mask}: is there and is not what dvt_predict wrote: it was changed, or comes from elsewhere. Name "
            "another -o, or --overwrite it."
        )


def _write_failure(case: Case, mask: Path, model: Model, error: DvtError, spoken: Mapping[Path, str]) -> None:
    images, reason = inputs.image_names(case, spoken), inputs.one_line(error, spoken)
    writer.write_failure(case.id, images, mask, model.maker, reason)


def _remove_mask(mask: Path, known: Mapping[str, Collection[str]], model: Model) -> None:
    """A scan that cannot be analysed has no mask, nor anything that speaks of an earlier one."""
    if not mask.parent.is_dir():
        return
    try:
        prediction_log.withdraw(mask, known)
        writer.remove_outputs(mask)
        for name in model.classes:
            probability_path(mask, name).unlink(missing_ok=True)
    except OSError as error:
        raise WriteFailed(files.cannot_write(mask, error)) from error
    if (beside := mask_files.dicom_seg_path(mask)).exists():
        console.warn(f"{beside}: is of an earlier mask of this scan, and stays.")


def _unreadable_input(
    source: Path, out: Path, model: Model, error: DvtError, series: Sequence[str] | None, asked: FindingsOptions | None
) -> AnalysisFailed:
    """What a source that is damaged comes to; what was told of it earlier does not stand any longer."""
    name = stem(source.absolute())
    masks = [out] if out.name.endswith(ENDINGS) else [out / f"{name}.nii.gz"]
    if series and not out.name.endswith(ENDINGS):
        masks.append(out / f"{name}_series_{'_'.join(series)}.nii.gz")
    there = [mask for mask in masks if mask.exists() or read_findings(mask_files.findings_path(mask)) is not None]
    for mask in there or masks[-1:]:
        _remove_mask(mask, prediction_log.written(mask.parent), model)
        if asked is not None:
            writer.write_failure(stem(mask), [source.name], mask, model.maker, inputs.one_line(error, {}))
    return AnalysisFailed([], {stem((there or masks)[-1]): inputs.one_line(error, {})}, 1)


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
    given: PredictionInput | None = None,
    asked: FindingsOptions | None = None,
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
    diary = Diary(prediction_record(out, part), _session(model, options or {}), overwrite=overwrite)
    ids = {case.id for case in cases}
    with contextlib.suppress(DvtError) if overwrite else contextlib.nullcontext():
        kept = held.vouched.keys() - ids if overwrite else ids if part else held.vouched.keys()
        diary.keep(prediction_records(out), held.vouched, kept)
    masks, watch, failed = [], _Throughput(model), dict[str, str]()
    for case in console.progress(cases, title):
        path = out / f"{case.id}.nii.gz"
        digests = _digests(case)
        beside = [probability_path(path, name) for name in model.classes if save_probabilities]
        require_not_an_input(case, path)

        def made(
            draft: Path, spent: Timings, case: Case = case, path: Path = path, digests: Sequence[str] = digests
        ) -> None:
            if given is not None and not overwrite and held.is_changed(path):
                raise DvtError(f"{path}: was changed while it was predicted, and is kept. Run again.")
            record = _case_prediction(case, digests, path, draft, spent, spoken)
            dataset_json.write(out / dataset_json.FILE_NAME, model.classes, ".nii.gz")
            diary.add(case.id, record)
            held.add(case.id, digests, record.mask_digest, with_probabilities=save_probabilities)

        try:
            if given is not None and not overwrite and held.is_changed(path):
                if asked is not None:
                    writer.resolve_levels(case, path, asked)
                    writer.remove_failure(path)
                console.warn(
                    f"{path}: was changed since it was made, or comes from elsewhere: it is kept. What is told beside "
                    "it is of the mask as it was made, if it ever was. --overwrite makes both anew."
                )
            elif not held.keeps(case.id, digests, beside) or not writer.is_up_to_date(case, path, model.maker, asked):
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
            _remove_mask(path, held.written, model)
            if several or asked is not None:
                _write_failure(case, path, model, error, spoken)
            failed[case.id] = inputs.one_line(error, spoken)
            held.drop(case.id)
            diary.drop(case.id)
    watch.tell()
    if failed:
        raise AnalysisFailed(masks, failed, len(cases))
    return masks


def _digests(case: Case) -> list[str]:
    """SHA-256 of each image file; none where one is not there, which reading will say."""
    if not all(p.is_file() for p in case.images):
        return []
    return [volume_digest(volume_io.files_of(p)) for p in case.images]


def _session(model: Model, options: Mapping[str, str]) -> Prediction:
    """The record of a prediction that begins now."""
    start = PredictionStart(
        started=text.now(),
        device=model.setup.device,
        precision=model.setup.precision,
        setup=model.setup.description,
        options=dict(options),
        versions=prediction_log.versions(),
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


def _case_prediction(
    case: Case, digests: Sequence[str], mask: Path, draft: Path, spent: Timings, spoken: Mapping[Path, str]
) -> PredictionOfCase:
    """A case for the record, once the draft of its mask is written."""
    return PredictionOfCase(
        images=dict(zip(inputs.image_names(case, spoken), digests, strict=True)),
        mask=mask.name,
        mask_digest=sha256(draft),
        slices=spent.slices,
        reading_s=round(spent.reading_s, 3),
        network_s=round(spent.network_s, 3),
        writing_s=round(spent.writing_s, 3),
        finished=text.now(),
        start=0,
    )


class _Throughput:
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
        console.info(
            f"Predicted {plural(self._scans, 'scan')}, {plural(self._slices, 'slice')}{by}, in "
            f"{text.duration(seconds)}: {pace}."
        )


