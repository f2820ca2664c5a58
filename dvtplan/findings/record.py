"""The record of one scan's findings, in numbers and in words.

An empty mask and a failed analysis are different results, so every record has a status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dvtplan.anatomy.levels import Levels
from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.findings.burden import Burden, category
from dvtplan.findings.lesion_confidence import Lesion, RemovedComponents
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.out_of_distribution import OutOfRange

ANALYSED, NOT_ANALYSED = "analysed", "not analysed"
COULD_NOT = "This scan could not be analysed. It is not known whether it contains thrombus."
NOT_RULED_OUT = "This does not rule out thrombus."
"""Follows every statement that a mask is empty."""
DISCLAIMER = "A measurement, not a diagnosis. Research software, not a medical device."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The model that segmented a scan, and its software."""

    network: str
    folds: tuple[int, ...]
    digest: str
    """Digest of the plan and all weights."""
    dataset: str
    """The data set that it was trained on."""
    phantom: bool
    """Whether that data set is a phantom."""
    training_scans: int | None
    """Number of training scans; None if the model lacks their fingerprint."""
    slice_axis: str
    versions: dict[str, str]
    threshold: float | None = None
    """Lowest probability of a segmented voxel; None: the most probable class, of a single class 0.5."""
    smallest_component_mm3: float = 0.0
    """Smaller components were removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The findings of one scan: ``ID_findings.json``."""

    case_id: str
    status: str
    """'analysed' or 'not analysed'. In the second case all measurements are missing, not zero."""
    in_words: str
    reason: str | None = None
    """Why it could not be analysed."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before the numbers, most serious first."""
    images: tuple[str, ...]
    written: str
    """Time with time zone."""
    model: ModelIdentity
    mask: str | None = None
    """File name."""
    mask_digest: str | None = None
    levels: Levels | None = None
    level_source: str | None = None
    """A key of ``LEVEL_SOURCES``; None without levels."""
    level_note: str = ""
    """What a reader should know about the levels."""
    burden: tuple[Burden, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    """By decreasing volume."""
    sub_threshold_ml: dict[str, float] = field(default_factory=dict)
    """Limb -> volume of its sub-threshold voxels (``lesion_confidence.SUB_THRESHOLD``)."""
    removed: tuple[RemovedComponents, ...] = json_records.added_later(())
    """By limb; the mask, the burden, the lesions and the sub-threshold volume lack them."""
    highest_probability: float | None = None
    """Of any voxel."""
    out_of_range: tuple[OutOfRange, ...] | None = None
    """Properties out of the range of the training scans; None if they could not be compared."""
    disclaimer: str = DISCLAIMER

    def __post_init__(self) -> None:
        if self.status not in (ANALYSED, NOT_ANALYSED):
            raise ValueError(f"status must be {ANALYSED!r} or {NOT_ANALYSED!r}, not {self.status!r}")
        if (self.status == ANALYSED) == (self.reason is not None):
            raise ValueError("reason must be given if a scan was not analysed, and only then")

    @property
    def volume_ml(self) -> float:
        """Segmented volume of both limbs."""
        return sum(burden.volume_ml for burden in self.burden if burden.region == "all")


def not_analysed(case_id: str, images: Sequence[str], reason: str, written: str, model: ModelIdentity) -> Findings:
    """Return the record of a scan that could not be analysed."""
    return Findings(
        case_id=case_id, status=NOT_ANALYSED, in_words=COULD_NOT, reason=reason, images=tuple(images), written=written,
        model=model,
    )  # fmt: skip


def result_in_words(burdens: Sequence[Burden], *, edited: bool = False) -> str:
    """Describe the segmentation; a model's empty mask is said not to rule out thrombus."""
    result = category(list(burdens), edited=edited)
    return result if edited or any(burden.volume_ml > 0 for burden in burdens) else f"{result} {NOT_RULED_OUT}"


def reader_warnings(
    model: ModelIdentity, out_of_range: Sequence[OutOfRange] | None, intensities: bool, assigned: LevelAssignment
) -> list[str]:
    """Return what a reader must know before the numbers, most serious first.

    Args:
        model: the model.
        out_of_range: properties outside the range of the training scans; None if they could not be compared.
        intensities: whether intensities were compared too.
        assigned: levels of the scan.
    """
    lines = []
    if model.phantom:
        lines.append(
            f"The model was trained on phantoms ({model.dataset}), which are computed images. Its result on a scan of "
            "a patient has no meaning."
        )
    if out_of_range:
        lines.append(
            f"This scan differs from the {plural(model.training_scans or 0, 'scan')} that the model was trained on, so "
            f"the result may be wrong. Outside their range: {'; '.join(one.in_words for one in out_of_range)}."
        )
    if out_of_range is None:
        lines.append(
            "It is not known whether this scan is similar to the training scans, since the model lacks their "
            "fingerprint."
        )
    elif not intensities:
        lines.append("Intensities were not compared with the training scans, since their fingerprint lacks them.")
    if assigned.levels is None:
        cause = "The knee was not found in this scan" if assigned.note else "No level is known for this scan"
        lines.append(
            f"{cause}, so the result is not split into proximal and distal. You can give the level with `level`."
        )
    elif assigned.source == "estimated":
        lines.append(f"The level was estimated from the image and may be wrong by 20 mm or more: {assigned.note}.")
    elif assigned.note:
        lines.append(f"Check the level: {assigned.note}.")
    return lines


def read_findings(path: Path) -> Findings | None:
    """Read findings; return None if there is no such file, or if it holds something else."""
    try:
        return json_records.load(Findings, path, "`predict` with `findings`") if path.exists() else None
    except DvtError:
        return None
