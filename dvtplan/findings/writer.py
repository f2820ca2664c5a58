"""Write the findings of one scan (JSON, summary page, warnings), or a record that its analysis failed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dvtplan.anatomy import scan_landmarks
from dvtplan.anatomy.landmarks import Landmarks
from dvtplan.core import console, digests, json_records, text
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.data import mask_files
from dvtplan.data.dataset import Case
from dvtplan.data.mask_files import findings_path, summary_paths
from dvtplan.data.names import normalized
from dvtplan.findings import burden, lesion_confidence, level_source, out_of_distribution
from dvtplan.findings.lesion_confidence import ConfidenceCounter
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.options import FindingsOptions
from dvtplan.findings.out_of_distribution import OutOfRange
from dvtplan.findings.record import (
    ANALYSED,
    NOT_ANALYSED,
    Findings,
    ModelIdentity,
    not_analysed,
    read_findings,
    reader_warnings,
    result_in_words,
)
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, to_slice_order
from dvtplan.imaging.slice_buffer import SliceBuffer
from dvtplan.imaging.volume_names import stem
from dvtplan.planning import measurement
from dvtplan.planning.fingerprint import ChannelFingerprint
from dvtplan.planning.training_ranges import TrainingData


def resolve_levels(case: Case, mask: Path, options: FindingsOptions) -> LevelAssignment:
    """Choose the levels of a scan. If they are estimated, write the knees that were found next to the mask.

    Raises:
        DvtError: if the image is needed and cannot be read.
    """
    name = stem(mask)
    listed = options.levels_table.get(normalized(case.id)) or options.levels_table.get(normalized(name))
    estimated: dict[str, Landmarks] = {}
    if listed is None and options.level is None and options.estimate_levels:
        estimated[name] = scan_landmarks.estimate_scan(case.images[0])
        json_records.save(estimated[name], mask_files.levels_path(mask))
    assigned = level_source.assign_levels([name], {name: listed}, options.level, estimated)[name]
    if assigned.levels is None or estimated:
        return assigned
    return level_source.note_outside(assigned, volume_io.read_grid(case.images[0]))


def is_up_to_date(mask: Path, levels: LevelAssignment, model: ModelIdentity, options: FindingsOptions) -> bool:
    """Return whether the findings on disk match the mask, the levels and the model; also if none are requested."""
    if not options.record:
        return True
    found = read_findings(findings_path(mask))
    if found is None or found.status != ANALYSED or found.levels != levels.levels:
        return False
    return found.model.digest == model.digest and found.mask_digest == digests.sha256(mask)


def draw_missing_summary(case: Case, mask: Path, options: FindingsOptions) -> None:
    """Draw the summary of findings that are on disk, if it is requested and incomplete.

    Raises:
        DvtError: if a file cannot be read or written.
    """
    if not (options.record and options.summary) or all(path.exists() for path in summary_paths(mask)):
        return
    found = read_findings(findings_path(mask))
    if found is None:
        return
    image, grid = volume_io.read(case.images[0])
    order = to_slice_order(grid, found.model.slice_axis)
    values, _ = volume_io.read(mask)
    _write_page(found, order.apply(image), order.apply(values), order.grid(grid), summary_paths(mask))


def _write_page(
    found: Findings, image: np.ndarray, mask: np.ndarray, grid: Grid, paths: tuple[Path, Path, Path]
) -> None:
    """Write the summary; only this loads matplotlib, which takes as long as predicting a few slices."""
    from dvtplan.findings import patient_page

    patient_page.write_page(found, image, mask, grid, paths)


def write_failure(case_id: str, images: Sequence[str], mask: Path, model: ModelIdentity, reason: str) -> None:
    """Write a record that a case could not be analysed, in place of any earlier findings.

    Args:
        case_id: of the case.
        images: display names of its files.
        mask: where the mask would be.
        model: the model.
        reason: in one line.

    Raises:
        DvtError: if the record cannot be written.
    """
    remove_outputs(mask)
    with contextlib.suppress(DvtError):
        if mask_files.levels_path(mask).exists() and json_records.load(Landmarks, mask_files.levels_path(mask), ""):
            mask_files.levels_path(mask).unlink()
    json_records.save(not_analysed(case_id, images, console.translated(reason), text.now(), model), findings_path(mask))


def remove_outputs(mask: Path) -> None:
    """Remove the findings and the summary of an earlier mask; files that are not ours are kept."""
    if read_findings(findings_path(mask)) is not None:
        for path in (findings_path(mask), *summary_paths(mask)):
            path.unlink(missing_ok=True)


def is_analysed(mask: Path) -> bool:
    """Return whether findings of a scan that was analysed are next to its mask."""
    found = read_findings(findings_path(mask))
    return found is not None and found.status == ANALYSED


def remove_failure(mask: Path) -> None:
    """Remove the record of an earlier failure."""
    found = read_findings(findings_path(mask))
    if found is not None and found.status == NOT_ANALYSED:
        findings_path(mask).unlink(missing_ok=True)


def warn_if_out_of_range(
    case_id: str, channels: Sequence[ChannelFingerprint], grid: Grid, training: TrainingData | None
) -> list[OutOfRange] | None:
    """Compare a scan with the training scans and warn about properties outside their range.

    Args:
        case_id: for the warning.
        channels: measured intensities of each channel.
        grid: of the scan.
        training: ranges of the training scans; None if unknown.

    Returns:
        The properties out of range; None if the training scans are unknown.
    """
    if training is None:
        return None
    found = out_of_distribution.find_out_of_range(measurement.unlabelled(case_id, channels, grid), training)
    if found:
        console.warn(
            f"{case_id}: differs from the {plural(training.cases, 'training scan')}, so its mask may be wrong. "
            f"Outside their range: {'; '.join(one.in_words for one in found)}."
        )
    return found


@dataclass(frozen=True, slots=True)
class FindingsModel:
    """The properties of a model that its findings need."""

    identity: ModelIdentity
    classes: Mapping[str, int]
    """Name -> value in the mask, in the order of the outputs."""
    training: TrainingData | None
    """Ranges of the training scans."""


class FindingsBuilder:
    """Collect the probabilities and votes of a case slice by slice on disk, then write its findings."""

    def __init__(
        self, case: Case, grid: Grid, model: FindingsModel, options: FindingsOptions, levels: LevelAssignment,
        scratch: Path, stack: contextlib.ExitStack,
    ) -> None:  # fmt: skip
        """Open the buffers.

        Args:
            case: the scan.
            grid: of its slices.
            model: the model.
            options: what to write.
            levels: of the scan.
            scratch: folder of the buffers.
            stack: closes the buffers.
        """
        self._case, self._grid, self._model, self._options, self._levels = case, grid, model, options, levels
        self._probabilities, self._votes = (stack.enter_context(SliceBuffer(scratch)) for _ in range(2))
        self._counter = ConfidenceCounter(grid=grid, levels=levels.levels)

    def add(self, probability_BHW: np.ndarray, mask_BHW: np.ndarray, votes_BHW: np.ndarray | None) -> None:
        """Add the next slices.

        Args:
            probability_BHW: of thrombus.
            mask_BHW: every value except 0 is thrombus.
            votes_BHW: bit k is set where fold k alone would segment; None for a single fold.
        """
        self._counter.add(probability_BHW, mask_BHW)
        self._probabilities.append(probability_BHW.astype(np.float16))
        if votes_BHW is not None:
            self._votes.append(votes_BHW)

    def write(
        self,
        mask: Path,
        mask_SHW: np.ndarray,
        removed_SHW: np.ndarray | None,
        image: SliceBuffer,
        images: Sequence[str],
        out_of_range: Sequence[OutOfRange] | None,
    ) -> None:
        """Write the findings, and the summary if it is requested, next to the mask.

        Args:
            mask: path of the mask, which exists.
            mask_SHW: its slices.
            removed_SHW: where components were removed from it as too small, bool; None: no rule removes any.
            image: slices of the first channel.
            images: display names of the image files.
            out_of_range: result of ``warn_if_out_of_range``.

        Raises:
            DvtError: if a file cannot be written.
        """
        found = self._findings(mask, mask_SHW, images, out_of_range)
        if removed_SHW is not None:
            removed = lesion_confidence.measure_removed(removed_SHW, self._grid, self._levels.levels)
            found = replace(found, removed=tuple(removed))
        if self._options.summary:
            _write_page(found, image.read(), mask_SHW, self._grid, summary_paths(mask))
        json_records.save(found, findings_path(mask))

    def _findings(
        self, mask: Path, mask_SHW: np.ndarray, images: Sequence[str], out_of_range: Sequence[OutOfRange] | None
    ) -> Findings:
        model, assigned = self._model, self._levels
        burdens = burden.measure(mask_SHW, self._grid, assigned.levels)
        lesions = lesion_confidence.measure_lesions(
            mask_SHW,
            self._grid,
            assigned.levels,
            lambda s: self._probabilities.read(s, s + 1)[0],
            None if len(self._votes) == 0 else lambda s: self._votes.read(s, s + 1)[0],
            len(model.identity.folds),
            dict(model.classes),
        )
        intensities = model.training is not None and out_of_distribution.compares_intensities(model.training)
        warnings = reader_warnings(model.identity, out_of_range, intensities, assigned)
        return Findings(
            case_id=self._case.id,
            status=ANALYSED,
            in_words=result_in_words(burdens),
            warnings=tuple(map(console.translated, (*self._options.input_warnings, *warnings))),
            images=tuple(images),
            written=text.now(),
            model=model.identity,
            mask=mask.name,
            mask_digest=digests.sha256(mask),
            levels=assigned.levels,
            level_source=None if assigned.levels is None else assigned.source,
            level_note=assigned.note,
            burden=tuple(burdens),
            lesions=tuple(lesions),
            sub_threshold_ml=self._counter.sub_threshold_ml,
            highest_probability=self._counter.highest,
            out_of_range=None if out_of_range is None else tuple(out_of_range),
        )
