"""Predict the test patients of a fold, or any input: scans in, masks on their own grids out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dvtplan.core import console, files, json_records
from dvtplan.core.errors import DamagedScan, DvtError, MaskEdited, WriteFailed
from dvtplan.data import dataset
from dvtplan.data.edited_masks import edited_masks, known_digests, require_unedited
from dvtplan.data.mask_files import single_record_path
from dvtplan.data.names import normalized
from dvtplan.data.paths import Workspace, as_workspace, require_own_folder
from dvtplan.data.planned_splits import load_splits, require_untrained
from dvtplan.data.prediction_log import mask_lock, write_single_record
from dvtplan.data.prediction_records import PredictionRecord, read_record, require_prediction_record
from dvtplan.dicom import reader, segmentation_writer
from dvtplan.findings import level_source
from dvtplan.findings.options import FindingsOptions
from dvtplan.imaging.nifti_forms import trusting
from dvtplan.imaging.volume_names import ENDINGS, stem
from dvtplan.inference import failures, inputs, mask_formats, station_masks
from dvtplan.inference.choose_postprocessing import with_postprocessing
from dvtplan.inference.inputs import PredictionInput
from dvtplan.inference.model import Model, load_model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.outcome import PredictionOutcome
from dvtplan.inference.predict_case import Timings, predict_case, require_not_an_input
from dvtplan.inference.predict_cases import PredictionJob, Throughput, predict_cases
from dvtplan.inference.records import case_record, image_digests, opening_record
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.training_run import Run
from dvtplan.planning.planned_reading import read_as_planned

DEFAULTS = PredictOptions()
NOT_MASKS = (".csv", ".dcm", ".gipl", ".gz", ".hdr", ".htm", ".html", ".img", ".jpg", ".json", ".mha", ".mhd", ".nhdr",
             ".nii", ".npy", ".npz", ".nrrd", ".pdf", ".png", ".tif", ".tiff", ".txt", ".xml", ".zip")  # fmt: skip
"""Endings of files, in lower case, so an output of such a name is a mistake and not a new folder."""


@read_as_planned
def predict_fold(
    workspace: Workspace | Path | str, network: str, index: int, *, setup: DeviceConfig | None = None
) -> Path:
    """Predict the test patients of a fold with its network, from their raw files.

    Args:
        workspace: of the data set, or the folder that holds ``datasets_raw`` with this data set only.
        network: name of the architecture.
        index: of the fold.
        setup: how to run; None chooses.

    Returns:
        The folder of the masks.

    Raises:
        DvtError: as ``load_model`` and ``predict_case``.
    """
    workspace = as_workspace(workspace)
    raw = dataset.discover(workspace.raw)
    fold = load_splits(workspace, raw.patient_of).fold(index, workspace.splits)
    # Test patients are from the data set of the training, so no comparison with the training scans is needed.
    model = replace(load_model(workspace.results(network), folds=[index], setup=setup), training=None)
    console.info(model.setup.description_with_trial)
    run_file = workspace.fold(network, index).run
    run = json_records.load(Run, run_file, "`train_fold`")
    require_untrained(run_file, run.used, fold.test, raw.patient_of, workspace.splits)
    if run.held_out:
        model = with_postprocessing(workspace, run, model, raw)
    cases = {case.id: case for case in raw.cases}
    folder = workspace.fold(network, index).predictions
    with files.exclusive_lock(folder):
        require_unedited(folder)
        job = PredictionJob(
            cases=tuple(cases[case_id] for case_id in fold.test),
            output=folder,
            on_error="raise",
            keep_edited=False,
            title=f"Predict fold {index}",
            recorded={"dataset": str(workspace.raw), "fold": str(index)},
        )
        predict_cases(job, model, DEFAULTS)
    return folder


def predict_path(
    input: Path | str,
    output: Path | str,
    model: Model | Path | str,
    options: PredictOptions = DEFAULTS,
    findings: FindingsOptions | None = None,
) -> list[Path]:
    """Predict one volume, every volume of a folder, one DICOM scan, or one scan of several table stations.

    Args:
        input: a file or a folder of files, where ``ID_0000``, ``ID_0001``, ... are the channels of a case; or a folder
            or ZIP archive of DICOM files with any names.
        output: a folder; for a single scan also the name of the mask.
        model: the model, or its results folder or archive.
        options: of the prediction.
        findings: what to write about each scan next to its mask; None for nothing.

    Returns:
        The masks in order of case, then the masks and the record of stations, then additional formats.

    Raises:
        AnalysisFailed: if scans could not be analysed. Each has an ``ID_findings.json`` with the reason and no mask;
            the others have their masks.
        DvtError: if the input is missing, if a loaded model mirrors otherwise than ``options``, or if a mask would
            replace an input or, for a single mask, an edited mask. Masks that were written before remain.
    """
    if isinstance(model, Model) and options.mirror not in (None, model.mirror is not None):
        raise DvtError(
            f"`mirror={options.mirror}`: the model was loaded with `mirror={model.mirror is not None}`. Load it again "
            "with the other choice, or omit the option."
        )
    loaded = model if isinstance(model, Model) else load_model(model, mirror=options.mirror)
    outcome = predict_input(Path(input), Path(output), loaded, options, findings)
    outcome.raise_failures()
    return list(outcome.files)


def predict_input(
    input: Path, output: Path, model: Model, options: PredictOptions, findings: FindingsOptions | None
) -> PredictionOutcome:
    """As ``predict_path``, but return the scans that could not be analysed in the outcome."""
    if input.is_dir() and output.exists() and output.samefile(input):
        raise DvtError(f"{output}: is the folder of the images. Choose another `output`.")
    if output.name.endswith(ENDINGS) and not output.is_dir():
        _require_own_record(output)
    if mask_formats.DICOM_SEG in options.extra_formats:
        segmentation_writer.import_highdicom()
    if model.training is None:
        console.info("The model has no fingerprint of its training scans, so scans are not compared with them.")
    _tell_rule(model)
    with contextlib.ExitStack() as stack:
        stack.enter_context(trusting(options.trust))
        try:
            opened = inputs.open_input(
                input, len(model.plan.channels), series=options.series, stations=options.stations
            )
            source = stack.enter_context(opened)
        except DamagedScan as error:
            return failures.unreadable_input(input, output, model, error, options.series, record=findings is not None)
        _require_fitting_output(input, output, source, options)
        mask_formats.require_writable(source, model, options)
        warnings = _warn_if_not_mr(source, model)
        if findings is not None:
            findings = replace(findings, input_warnings=warnings)
            _warn_of_levels_table(input, output, source, options, findings)
        recorded = {"input": str(input), "output": str(output), **options.recorded()}
        recorded |= {} if findings is None else findings.recorded()
        job = PredictionJob(
            cases=source.cases,
            output=output,
            on_error="record",
            keep_edited=True,
            recorded=recorded,
            display_names=source.display_names,
        )
        predict_all = _predict_single if source.is_single and output.name.endswith(ENDINGS) else predict_cases
        outcome = predict_all(job, model, options, findings)
        return replace(outcome, files=(*outcome.masks, *_write_derived(outcome.masks, source, model, options)))


def _tell_rule(model: Model) -> None:
    """Say how probabilities become masks, unless by the plain rule; and warn of folds without the choice they need."""
    if not model.rule.is_plain:
        console.info(f"Masks: {model.rule.in_words}.")
    if model.unchosen:
        folds = f"fold {', '.join(map(str, model.unchosen))}"
        fault = f"{model.path}: {folds} held out patients, but no threshold was chosen on them"
        if model.path is not None and model.path.is_file():
            fault = f"{model.path}: was exported before a threshold was chosen on the held-out patients of {folds}"
            advice = "Ask for a new export after this choice."
        else:
            advice = "Predict the test patients of the fold first with `predict_fold`."
        console.warn(f"{fault}; the plain rule is used. {advice}")


def _write_derived(masks: Sequence[Path], source: PredictionInput, model: Model, options: PredictOptions) -> list[Path]:
    """Write the masks of stations and the additional formats."""
    stations = []
    if source.stitched is not None and masks:
        stations = station_masks.write_stations(masks[0], source, overwrite=options.overwrite)
    return [*stations, *mask_formats.write_formats(masks, stations, source, model, options)]


def _require_fitting_output(input: Path, output: Path, source: PredictionInput, options: PredictOptions) -> None:
    """Refuse an output that does not fit the input."""
    if mask_formats.DICOM_SEG in options.extra_formats and source.study is None:
        raise DvtError(f"{input}: is not a DICOM study, which {mask_formats.DICOM_SEG} requires. Omit the format.")
    if source.is_single and options.part is not None:
        raise DvtError(f"{input}: is one scan, but `part` and torchrun distribute a folder of scans. Omit them.")
    place = output.parent if output.name.endswith(ENDINGS) and not output.is_dir() else output
    require_own_folder(place, "output")
    if not output.is_dir() and not output.name.endswith(ENDINGS) and output.suffix.lower() in NOT_MASKS:
        raise DvtError(f"{output}: is not the name of a mask. Use an ending such as .nii.gz, or choose a folder.")
    if output.name.endswith(".mhd"):
        raise DvtError(f"{output}: .mhd would be two files. Use .mha or .nii.gz.")
    if output.is_file() and not (source.is_single and output.name.endswith(ENDINGS)):
        raise DvtError(f"{output}: is a file. Choose a folder as `output`, or for one scan a mask, e.g. mask.nii.gz.")
    if output.name.endswith(ENDINGS) and not (source.is_single or output.is_dir()):
        raise DvtError(f"{output}: is one mask, but {input} is a folder of scans. Choose a folder as `output`.")


def _warn_of_levels_table(
    input: Path, output: Path, source: PredictionInput, options: PredictOptions, findings: FindingsOptions
) -> None:
    """Warn of scans without a row in the table of levels; if a whole folder is predicted, also of rows without scan."""
    if findings.levels_path is None:
        return
    cases = source.cases if options.part is None else source.cases[options.part[0] - 1 :: options.part[1]]
    names: list[tuple[str, ...]] = [(normalized(case.id),) for case in cases]
    if source.is_single and output.name.endswith(ENDINGS):
        names = [(*names[0], normalized(stem(output)))]
    whole = None if source.is_single or options.part is not None else input
    table, given = findings.levels_table, findings.level is not None
    for line in level_source.table_warnings(findings.levels_path, table, names, source=whole, given=given):
        console.warn(line)


def _warn_if_not_mr(source: PredictionInput, model: Model) -> tuple[str, ...]:
    """Warn about each series that is neither MR nor named as a channel of the model; return the warnings."""
    expected = {"", reader.MR, *(name.upper() for name in model.plan.channels)}
    volumes = [volume for of_mask in source.source_volumes for volume in of_mask]
    modalities = {volume.name: volume.modality for volume in volumes if volume.modality not in expected}
    warnings = tuple(
        f"Series {name} is {modality}, but the model is for MR: the result may have no meaning."
        for name, modality in modalities.items()
    )
    for line in warnings:
        console.warn(line)
    return warnings


def _predict_single(
    job: PredictionJob, model: Model, options: PredictOptions, findings: FindingsOptions | None
) -> PredictionOutcome:
    """Predict the only case into a mask with a name of its own (``job.output``), replacing an earlier one."""
    with mask_lock(job.output):
        return _predict_locked(job, model, options, findings)


def _predict_locked(
    job: PredictionJob, model: Model, options: PredictOptions, findings: FindingsOptions | None
) -> PredictionOutcome:
    case, mask, throughput = job.cases[0], job.output, Throughput(model)
    require_not_an_input(case, mask)
    record_path = single_record_path(mask)
    require_prediction_record(record_path, overwrite=True)
    opening, digests = opening_record(model, job.recorded), image_digests(case)

    def enter(draft: Path, timings: Timings) -> None:
        _require_not_edited(mask, overwrite=options.overwrite)
        record = case_record(case, digests, mask, draft, timings, job.display_names)
        write_single_record(record_path, opening, case.id, record)

    _require_not_edited(mask, overwrite=options.overwrite)
    try:
        predicted = predict_case(
            case,
            mask,
            model,
            save_probabilities=options.save_probabilities,
            findings=findings,
            display_names=job.display_names,
            before_replace=enter,
        )
    except (MaskEdited, WriteFailed):
        raise
    except DvtError as error:
        failures.remove_outputs(mask, known_digests(mask.parent), model)
        if findings is not None:
            failures.write_failure(case, mask, model, error, job.display_names)
        return PredictionOutcome(failed={stem(mask): inputs.one_line(error, job.display_names)})
    throughput.add(predicted.timings.slices)
    throughput.log()
    levels = {} if predicted.levels is None else {stem(mask): predicted.levels}
    return PredictionOutcome(masks=(mask,), files=(mask,), levels=levels)


def _require_own_record(mask: Path) -> None:
    """Refuse a mask whose record describes another mask, such as a.nrrd for a.mha: it would lose its record.

    Raises:
        DvtError: names both.
    """
    path = single_record_path(mask)
    try:
        described = read_record(PredictionRecord, path).cases.values()
    except DvtError:  # missing, or reported before it would be replaced
        return
    for other in sorted({case.mask for case in described} - {mask.name}):
        if mask.with_name(other).exists():
            raise DvtError(
                f"{mask}: {path.name} is the record of {other}, which is kept. Choose an `output` of another name "
                f"than {stem(mask)}, or remove {other}."
            )


def _require_not_edited(mask: Path, *, overwrite: bool) -> None:
    """Refuse to replace an edited mask.

    Raises:
        MaskEdited: if no prediction wrote the mask.
    """
    if not overwrite and edited_masks([mask]):
        raise MaskEdited(
            f"{mask}: was edited or comes from elsewhere. Choose another `output`, or set `overwrite=True`."
        )
