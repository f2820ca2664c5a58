"""Predict an input and report on it: everything that one run of the command does, from the model to the last file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.data import mask_files
from dvtplan.data.edited_masks import edited_masks
from dvtplan.findings.options import ReportOptions
from dvtplan.findings.record import read_findings
from dvtplan.imaging.nifti_forms import trusting
from dvtplan.imaging.volume_names import stem
from dvtplan.inference.model import load_model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.outcome import PredictionOutcome
from dvtplan.inference.predict import predict_input
from dvtplan.models.devices import DeviceConfig


def predict_scans(
    input: Path | str,
    output: Path | str,
    model: Path | str,
    options: PredictOptions,
    reports: ReportOptions,
    *,
    folds: Sequence[int] | None = None,
    setup: DeviceConfig | None = None,
) -> PredictionOutcome:
    """Load a model, predict an input, and write the requested reports.

    Args:
        input: as ``predict_path``.
        output: as ``predict_path``.
        model: results folder or archive.
        options: of the prediction.
        reports: which reports to write.
        folds: of the model; None for all trained folds.
        setup: how to run; None chooses.

    Returns:
        All files, and the scans that could not be analysed, which raise no error here.

    Raises:
        DvtError: as ``load_model`` and ``predict_path``, or if a report cannot be written.
    """
    if reports.burden is not None and options.part is not None:
        raise DvtError(
            "`burden` cannot be used with `part` or torchrun. Predict all parts, then run once more with `burden` and "
            "without `part`; existing masks are kept."
        )
    if reports.burden is not None:
        from dvtplan.findings import burden_table  # loads pandas, which no other output needs

        burden_table.require_replaceable(Path(reports.burden))
    findings = reports.findings_options()
    loaded = load_model(model, folds=folds, setup=setup, mirror=options.mirror)
    console.info(loaded.setup.description_with_trial)
    outcome = predict_input(Path(input), Path(output), loaded, options, findings)
    written = list(outcome.files)
    if options.save_probabilities:
        volumes = [mask_files.probability_path(mask, name) for mask in outcome.masks for name in loaded.classes]
        written += [path for path in volumes if path.exists() and path not in written]
    if reports.writes_findings:
        written += _findings_files(outcome.masks, summary=reports.summary)
    if reports.any_report and reports.levels:
        written += _log_levels(outcome)
    if reports.burden is not None:
        with trusting(options.trust):
            written.append(_write_burden(outcome, reports.burden, has_findings=reports.writes_findings))
    return replace(outcome, files=tuple(written))


def _findings_files(masks: Sequence[Path], *, summary: bool) -> list[Path]:
    """Return the findings of these masks that exist; edited masks and masks from elsewhere may have none."""
    paths = []
    for mask in masks:
        paths += [mask_files.findings_path(mask), *(mask_files.summary_paths(mask) if summary else ())]
    return [path for path in paths if path.exists()]


def _log_levels(outcome: PredictionOutcome) -> list[Path]:
    """Log for which scans the level was estimated, is unknown or is doubtful; return the files with the knees."""
    paths = []
    for mask in outcome.masks:
        assigned = outcome.levels.get(stem(mask))
        if assigned is None:
            continue
        if assigned.source not in ("estimated", "none"):
            if assigned.note:
                console.warn(f"{stem(mask)}: check the level: {assigned.note}.")
            continue
        what = "not divided into proximal and distal" if assigned.levels is None else "level estimated from the image"
        console.info(f"{stem(mask)}: {what}: {assigned.note}.")
        paths.append(mask_files.levels_path(mask))
    return paths


def _write_burden(outcome: PredictionOutcome, path: Path, *, has_findings: bool) -> Path:
    """Write the thrombus burden of all scans; burdens that the findings have are not measured again."""
    edited = {stem(mask) for mask in edited_masks(outcome.masks)}
    measured = {}
    for mask in outcome.masks if has_findings else ():
        found = read_findings(mask_files.findings_path(mask))
        if found is not None and stem(mask) not in edited:
            measured[stem(mask)] = found.burden
    masks = {stem(mask): mask for mask in outcome.masks}
    from dvtplan.findings import burden_table  # loads pandas, which no other output needs

    return burden_table.write_burden_table(masks, outcome.levels, path, outcome.failed, measured, edited)
