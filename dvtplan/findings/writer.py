"""What is told of a scan beside its mask: the record of what was found, its page, a warning where it is unlike the
training; or that it could not be analysed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dvtplan.anatomy import scan_landmarks
from dvtplan.anatomy.landmarks import Landmarks
from dvtplan.anatomy.levels import Levels
from dvtplan.core import console, digests, json_records, text
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.data import mask_files
from dvtplan.data.dataset import Case
from dvtplan.data.mask_files import findings_path, summary_paths
from dvtplan.findings import burden, lesion_confidence, level_source, out_of_distribution, patient_page
from dvtplan.findings.lesion_confidence import ConfidenceCounter
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.out_of_distribution import OutOfRange
from dvtplan.findings.record import (
    ANALYSED,
    NOT_ANALYSED,
    Findings,
    ModelIdentity,
    not_analysed,
    read_findings,
    warnings,
    words,
)
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, to_slice_order
from dvtplan.imaging.slice_buffer import SliceBuffer
from dvtplan.imaging.volume_io import stem
from dvtplan.planning import measurement
from dvtplan.planning.fingerprint import ChannelFingerprint
from dvtplan.planning.training_ranges import TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingsOptions:
    """What is to be told of each scan beside its mask."""

    record: bool = True
    """``ID_findings.json``; else only how the scan is divided is decided."""
    page: bool = False
    """The summary as HTML, PDF and PNG too."""
    table: Mapping[str, Levels | None] = field(default_factory=dict)
    """Levels by case, or by name of the mask, which come first."""
    given: Levels | None = None
    """Of all other scans."""
    estimate: bool = False
    """Look for the knees of those that have none by then."""
    divided: dict[str, LevelAssignment] = field(default_factory=dict)
    """Is filled: name of each mask -> how its scan was divided."""
    remarks: tuple[str, ...] = ()
    """What a reader must know of the scan before anything else."""


def resolve_levels(case: Case, mask: Path, asked: FindingsOptions) -> LevelAssignment:
    """How a scan is divided; what is found in its first image is written beside its mask.

    Raises:
        DvtError: if the image has to be looked at and cannot be read.
    """
    name = stem(mask)
    told = asked.table.get(case.id) or asked.table.get(name)
    found: dict[str, Landmarks] = {}
    if told is None and asked.given is None and asked.estimate:
        found[name] = scan_landmarks.estimate_scan(case.images[0])
        json_records.save(found[name], mask_files.levels_path(mask))
    asked.divided[name] = level_source.assign_levels([name], {name: told}, asked.given, found)[name]
    return asked.divided[name]


def is_up_to_date(case: Case, mask: Path, maker: ModelIdentity, asked: FindingsOptions | None) -> bool:
    """Whether all that is asked about a case that was predicted is told already; a page that is missing is made."""
    if asked is None:
        return True
    division = resolve_levels(case, mask, asked)
    if not asked.record:
        return True
    found = read_findings(findings_path(mask))
    if found is None or found.status != ANALYSED or found.levels != division.levels:
        return False
    if found.maker.digest != maker.digest or found.mask_digest != digests.sha256(mask):
        return False
    if asked.page and not all(path.exists() for path in summary_paths(mask)):
        image, grid = volume_io.read(case.images[0])
        order = to_slice_order(grid, maker.slice_axis)
        values, _ = volume_io.read(mask)
        patient_page.write_page(found, order.apply(image), order.apply(values), order.grid(grid), summary_paths(mask))
    return True


def write_failure(case_id: str, images: Sequence[str], mask: Path, maker: ModelIdentity, reason: str) -> None:
    """Write a record that a case could not be analysed, in place of any earlier findings.

    Args:
        case_id: of the case.
        images: its files, as the user knows them.
        mask: where the mask would be.
        maker: the model.
        reason: in one line.
    """
    remove_outputs(mask)
    with contextlib.suppress(DvtError):
        if mask_files.levels_path(mask).exists() and json_records.load(Landmarks, mask_files.levels_path(mask), ""):
            mask_files.levels_path(mask).unlink()
    json_records.save(not_analysed(case_id, images, reason, text.now(), maker), findings_path(mask))


def remove_outputs(mask: Path) -> None:
    """Remove what was told of an earlier mask of that name; what is no record of ours stays."""
    if read_findings(findings_path(mask)) is not None:
        for path in (findings_path(mask), *summary_paths(mask)):
            path.unlink(missing_ok=True)


def remove_failure(mask: Path) -> None:
    """Remove the record that a scan could not be analysed, which it can be now."""
    found = read_findings(findings_path(mask))
    if found is not None and found.status == NOT_ANALYSED:
        findings_path(mask).unlink(missing_ok=True)


def warn_if_out_of_range(
    case_id: str, looks: Sequence[ChannelFingerprint], grid: Grid, training: TrainingData | None
) -> list[OutOfRange] | None:
    """Compare a scan with the training scans and warn where it is outside their range.

    Args:
        case_id: for the warning.
        looks: intensities of each channel.
        grid: of the scan.
        training: ranges of the training scans, or None where they are not known.

    Returns:
        What is outside; None where the training scans are not known.
    """
    if training is None:
        return None
    odd = out_of_distribution.find_out_of_range(measurement.unlabelled(case_id, looks, grid), training)
    if odd:
        console.warn(
            f"{case_id}: is unlike the {plural(training.cases, 'training scan')}, so its mask may be "
            f"wrong. Outside their range: {'; '.join(one.in_words for one in odd)}."
        )
    return odd


@dataclass(frozen=True, slots=True)
class FindingsModel:
    """What the findings need to know of a model."""

    maker: ModelIdentity
    classes: Mapping[str, int]
    """Name -> value in the mask, in the order of the outputs."""
    training: TrainingData | None
    """Ranges of the training scans."""


class FindingsBuilder:
    """Probabilities and votes of a case, slice by slice on disk, from which its findings are written."""

    def __init__(
        self, case: Case, grid: Grid, model: FindingsModel, asked: FindingsOptions, division: LevelAssignment,
        scratch: Path, stack: contextlib.ExitStack,
    ) -> None:  # fmt: skip
        self._case, self._grid, self._model, self._asked = case, grid, model, asked
        self._division, self._levels = division, division.levels
        self._chances, self._votes = (stack.enter_context(SliceBuffer(scratch)) for _ in range(2))
        self._tally = ConfidenceCounter(grid=grid, levels=self._levels)

    def add(self, chance_BHW: np.ndarray, marked_BHW: np.ndarray, votes_BHW: np.ndarray | None) -> None:
        """Take the next slices: probability of thrombus, the mask, and a bit per fold."""
        self._tally.add(chance_BHW, marked_BHW)
        self._chances.append(chance_BHW.astype(np.float16))
        if votes_BHW is not None:
            self._votes.append(votes_BHW)

    def tell(
        self,
        mask: Path,
        marked_SHW: np.ndarray,
        image: SliceBuffer,
        images: Sequence[str],
        odd: Sequence[OutOfRange] | None,
    ) -> None:
        """Write the findings of the case, and its page where that is asked for, next to its mask.

        Args:
            mask: path of the mask, which is there.
            marked_SHW: the mask, slices first.
            image: slices of the first channel.
            images: names of the image files, as the user knows them.
            odd: what ``oddities`` returned.
        """
        found = self._findings(mask, marked_SHW, images, odd)
        if self._asked.page:
            patient_page.write_page(found, image.read(), marked_SHW, self._grid, summary_paths(mask))
        json_records.save(found, findings_path(mask))

    def _findings(
        self, mask: Path, marked_SHW: np.ndarray, images: Sequence[str], odd: Sequence[OutOfRange] | None
    ) -> Findings:
        model, of_limbs, grid = self._model, self._levels, self._grid
        measured = burden.measure(marked_SHW, grid, of_limbs)
        lesions = lesion_confidence.lesions(
            marked_SHW,
            grid,
            of_limbs,
            lambda s: self._chances.read(s, s + 1)[0],
            None if len(self._votes) == 0 else lambda s: self._votes.read(s, s + 1)[0],
            len(model.maker.folds),
            dict(model.classes),
        )
        intensities = model.training is not None and out_of_distribution.compares_intensities(model.training)
        return Findings(
            case_id=self._case.id,
            status=ANALYSED,
            in_words=words(measured),
            warnings=(*self._asked.remarks, *warnings(model.maker, odd, intensities, self._division)),
            images=tuple(images),
            made=text.now(),
            maker=model.maker,
            mask=mask.name,
            mask_digest=digests.sha256(mask),
            levels=of_limbs,
            level_source=None if of_limbs is None else self._division.source,
            level_note=self._division.note,
            burden=tuple(measured),
            lesions=tuple(lesions),
            nearly_marked_ml=self._tally.nearly_ml,
            highest_probability=self._tally.highest,
            oddities=None if odd is None else tuple(odd),
        )
