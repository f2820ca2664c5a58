"""Predict cases into a folder: keep current and edited masks, log new ones, record failures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dvtplan.core import console, text
from dvtplan.core.errors import DvtError, MaskEdited, WriteFailed
from dvtplan.core.text import plural
from dvtplan.data import dataset_json
from dvtplan.data.dataset import Case
from dvtplan.data.mask_files import mask_path, probability_path
from dvtplan.data.prediction_log import PredictionLog, mask_lock
from dvtplan.findings import writer
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.options import FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import HEADER_TOLERANCE_MM, same_grid
from dvtplan.imaging.volume_names import stem
from dvtplan.inference import failures, inputs
from dvtplan.inference.kept_masks import UnusableMask, require_usable
from dvtplan.inference.model import Model
from dvtplan.inference.options import DICOM_SEG, PredictOptions
from dvtplan.inference.outcome import PredictionOutcome
from dvtplan.inference.predict_case import CaseOutcome, Timings, predict_case, require_not_an_input
from dvtplan.inference.records import case_record, image_digests, opening_record


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionJob:
    """Cases, where their masks go, and what happens on errors and to edited masks."""

    cases: tuple[Case, ...]
    output: Path
    """Folder of the masks; for a single scan it may be the mask."""
    on_error: Literal["raise", "record"]
    """'record' continues with the other cases and returns the failures."""
    keep_edited: bool
    """Keep masks that were edited or come from elsewhere, unless ``overwrite`` is set."""
    title: str = "Predict"
    """Of the progress bar."""
    recorded: Mapping[str, str] = field(default_factory=dict)
    """Options for the record of the masks."""
    display_names: Mapping[Path, str] = field(default_factory=dict)
    """Temporary file -> name to show to the user."""


def predict_cases(
    job: PredictionJob, model: Model, options: PredictOptions, findings: FindingsOptions | None = None
) -> PredictionOutcome:
    """Predict cases, or one part of them, into a folder. Masks that this model made from the same files are kept.

    Args:
        job: the cases and the folder of their masks.
        model: the model.
        options: of the prediction.
        findings: what to write about each scan; None for nothing.

    Raises:
        FolderInUse: if another process predicts one of the cases into this folder.
        DvtError: if a file cannot be written; with ``on_error='raise'`` also as ``predict_case``.
    """
    return _JobRun(job, model, options, findings).run()


class _JobRun:
    """One run over the cases of a job."""

    def __init__(
        self, job: PredictionJob, model: Model, options: PredictOptions, findings: FindingsOptions | None
    ) -> None:
        self._job, self._model, self._options, self._findings = job, model, options, findings
        part = options.part
        self._cases = job.cases if part is None else job.cases[part[0] - 1 :: part[1]]
        self._keep_edited = job.keep_edited and not options.overwrite
        self._log = PredictionLog(
            job.output,
            opening_record(model, job.recorded),
            [case.id for case in self._cases],
            part=part,
            overwrite=options.overwrite,
        )

    def run(self) -> PredictionOutcome:
        masks, levels, failed = [], dict[str, LevelAssignment](), dict[str, str]()
        throughput = Throughput(self._model)
        for case in console.progress(self._cases, self._job.title):
            mask = mask_path(self._job.output, case.id)
            require_not_an_input(case, mask)
            with mask_lock(mask):
                self._log.refresh()
                try:
                    assigned = self._keep_or_predict(case, mask, throughput)
                except WriteFailed:
                    raise
                except DvtError as error:
                    if self._job.on_error == "raise":
                        raise
                    failed[case.id] = self._record_failure(case, mask, error)
                    continue
            masks.append(mask)
            if assigned is not None:
                levels[stem(mask)] = assigned
        throughput.log()
        if not self._cases:
            console.info("This part has no scan, since there are fewer scans than parts.")
        self._log_kept(len(masks) - throughput.scans)
        return PredictionOutcome(
            masks=tuple(masks), files=tuple(masks), levels=levels, failed=failed, scans=len(self._cases)
        )

    def _log_kept(self, kept: int) -> None:
        if kept and self._job.on_error == "record":
            console.info(
                f"Kept {plural(kept, 'existing mask')} in {self._job.output}. Set `overwrite=True` to predict again."
            )

    def _keep_or_predict(self, case: Case, mask: Path, throughput: Throughput) -> LevelAssignment | None:
        """Make sure that the mask and its findings are there; return the levels if there are findings."""
        findings = self._findings
        if self._keep_edited and self._log.is_edited(mask):
            return self._keep(case, mask)
        digests = image_digests(case)
        names = self._model.classes if self._options.save_probabilities else ()
        is_current = self._log.is_current(case.id, digests, [probability_path(mask, name) for name in names])
        if is_current and self._lies_on_its_image(case, mask):
            if findings is None:
                return None
            levels = writer.resolve_levels(case, mask, findings)
            if writer.is_up_to_date(mask, levels, self._model.identity, findings):
                writer.draw_missing_summary(case, mask, findings)
                return levels
        try:
            predicted = self._predict(case, mask, digests)
        except MaskEdited:
            return self._keep(case, mask)
        throughput.add(predicted.timings.slices)
        return predicted.levels

    def _lies_on_its_image(self, case: Case, mask: Path) -> bool:
        """Return whether a mask lies where its image does; it may not if another form of the header was trusted."""
        return self._options.trust is None or same_grid(
            volume_io.read_grid(mask), volume_io.read_grid(case.images[0]), HEADER_TOLERANCE_MM
        )

    def _keep(self, case: Case, mask: Path) -> LevelAssignment | None:
        """Keep an edited mask with a warning; check it first if it will be measured or converted."""
        levels, findings, options = None, self._findings, self._options
        if findings is not None:
            levels = writer.resolve_levels(case, mask, findings)
        converted = DICOM_SEG in options.extra_formats or options.stations is not None
        if converted or (findings is not None and findings.measured):
            name = self._job.display_names.get(case.images[0], case.images[0].name)
            grid = volume_io.read_grid(case.images[0])
            require_usable(mask, name, grid, self._model.classes, any_orientation=not converted)
        if findings is not None:
            writer.remove_failure(mask)
        console.warn(
            f"{mask}: was edited or comes from elsewhere and is kept. Its findings, if any, describe the mask before "
            "the edit. Set `overwrite=True` to replace both."
        )
        return levels

    def _predict(self, case: Case, mask: Path, digests: list[str]) -> CaseOutcome:
        job, full = self._job, self._options.save_probabilities

        def enter(draft: Path, timings: Timings) -> None:
            if self._keep_edited and self._log.is_edited(mask):
                raise MaskEdited(f"{mask}: was edited during the prediction and is kept.")
            record = case_record(case, digests, mask, draft, timings, job.display_names)
            dataset_json.write(job.output / dataset_json.FILE_NAME, self._model.classes, ".nii.gz")
            self._log.record(case.id, record, with_probabilities=full)

        return predict_case(
            case,
            mask,
            self._model,
            save_probabilities=full,
            findings=self._findings,
            display_names=job.display_names,
            before_replace=enter,
        )

    def _record_failure(self, case: Case, mask: Path, error: DvtError) -> str:
        """Remove the outputs of a failed case and record the failure; return the reason in one line.

        An edited mask that is unusable stays in the log, so that its original counts as unedited if it is put back, and
        it keeps the findings from before the edit.
        """
        is_edited = isinstance(error, UnusableMask)
        if not is_edited:
            failures.remove_outputs(mask, self._log.known_digests, self._model)
        if (len(self._job.cases) > 1 or self._findings is not None) and not (is_edited and writer.is_analysed(mask)):
            failures.write_failure(case, mask, self._model, error, self._job.display_names)
        if not is_edited:
            self._log.remove(case.id)
        return inputs.one_line(error, self._job.display_names)


class Throughput:
    """Time per scan and slice, from file to file."""

    def __init__(self, model: Model) -> None:
        self._start, self._slices, self._folds = time.monotonic(), 0, len(model.folds)
        self.scans = 0

    def add(self, slices: int) -> None:
        """Count a predicted scan."""
        self.scans += 1
        self._slices += slices

    def log(self) -> None:
        """Log the time, if any scan was predicted."""
        if not self.scans:
            return
        seconds = time.monotonic() - self._start
        folds = f" by {self._folds} folds" if self._folds > 1 else ""
        pace = f"{seconds / self.scans:.3g} s per scan, {seconds / self._slices:.2g} s per slice"
        console.info(
            f"Predicted {plural(self.scans, 'scan')}, {plural(self._slices, 'slice')}{folds}, in "
            f"{text.duration(seconds)}: {pace}."
        )
