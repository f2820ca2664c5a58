"""What was found on a scan: a record of it all, in numbers and in words, and the burden of many scans as a table.

"No voxel was marked" and "could not be analysed" are different things: every record and every row has a status.
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
from dvtplan.findings.lesion_confidence import Lesion
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.out_of_distribution import OutOfRange

ANALYSED, NOT_ANALYSED = "analysed", "not analysed"
COULD_NOT = "Could not be analysed: nothing is known about thrombus on this scan."
NOT_RULED_OUT = "This does not rule thrombus out."
"""Stands beside every mask without a marked voxel."""
DISCLAIMER = "A measurement, not a diagnosis. Research software, no medical device."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The model that looked at a scan, and the software that it ran in."""

    network: str
    folds: tuple[int, ...]
    digest: str
    """Of the plan and all weights."""
    dataset: str
    """That it was trained on."""
    phantom: bool
    """Whether that data set was computed."""
    training_scans: int | None
    """How many the scan was compared with; none where the model knows nothing of them."""
    slice_axis: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found on one scan: ``ID_findings.json``."""

    case_id: str
    status: str
    """'analysed' or 'not analysed'; where it is the latter every measurement is missing, none is zero."""
    in_words: str
    reason: str | None = None
    """Why it could not be analysed."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before the numbers."""
    images: tuple[str, ...]
    made: str
    """When, with the time zone."""
    maker: ModelIdentity
    mask: str | None = None
    """File name."""
    mask_digest: str | None = None
    levels: Levels | None = None
    level_source: str | None = None
    """Who says where the levels are, of ``SAID_BY``; none for 'none'."""
    level_note: str = ""
    """What a reader should know of them."""
    burden: tuple[Burden, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    """By falling volume."""
    nearly_marked_ml: dict[str, float] = field(default_factory=dict)
    """Limb -> volume of voxels that were not marked and have a probability of ``agreement.NEARLY`` or more."""
    highest_probability: float | None = None
    """Of any voxel."""
    oddities: tuple[OutOfRange, ...] | None = None
    """None where the scan could not be compared with those of the training."""
    disclaimer: str = DISCLAIMER

    def __post_init__(self) -> None:
        if self.status not in (ANALYSED, NOT_ANALYSED):
            raise ValueError(f"status must be {ANALYSED!r} or {NOT_ANALYSED!r}, not {self.status!r}")
        if (self.status == ANALYSED) == (self.reason is not None):
            raise ValueError("a reason stands where a scan was not analysed, and only there")

    @property
    def volume_ml(self) -> float:
        """Of all that was marked."""
        return sum(burden.volume_ml for burden in self.burden if burden.region == "all")


def not_analysed(case_id: str, images: Sequence[str], reason: str, made: str, maker: ModelIdentity) -> Findings:
    """The record of a scan that could not be analysed."""
    return Findings(
        case_id=case_id, status=NOT_ANALYSED, in_words=COULD_NOT, reason=reason, images=tuple(images), made=made,
        maker=maker,
    )  # fmt: skip


def words(found: Sequence[Burden]) -> str:
    """What was marked, in words; an empty mask is said not to rule anything out."""
    told = category(list(found))
    return told if any(burden.volume_ml > 0 for burden in found) else f"{told} {NOT_RULED_OUT}"


def warnings(
    maker: ModelIdentity, oddities: Sequence[OutOfRange] | None, intensities: bool, division: LevelAssignment
) -> list[str]:
    """What a reader must know before the numbers, the gravest first.

    Args:
        maker: the model.
        oddities: none where nothing could be compared.
        intensities: whether intensities were compared too.
        division: of the limbs.
    """
    told = []
    if maker.phantom:
        told.append(
            f"The model was trained on phantoms ({maker.dataset}): on images that were computed, not on patients. What "
            "it marks on a scan of a patient means nothing."
        )
    if oddities:
        told.append(
            f"This scan is unlike the {plural(maker.training_scans or 0, 'scan')} that the model was trained on, so "
            f"what is marked may be wrong. Outside their range: {'; '.join(odd.in_words for odd in oddities)}."
        )
    if oddities is None:
        told.append("Whether this scan is like those that the model was trained on is not known: the model lacks their "
                    "fingerprint.")  # fmt: skip
    elif not intensities:
        told.append("Intensities were not compared with those of the training: its fingerprint lacks them.")
    if division.levels is None:
        why = f": {division.note}" if division.note else ""
        told.append(f"No level is known, so what was marked is not divided into proximal and distal{why}.")
    elif division.source == "estimated":
        told.append(f"Levels were estimated from the image and may be 20 mm off, or more: {division.note}.")
    return told


def read_findings(path: Path) -> Findings | None:
    """The record in a file; none where there is no such file, or another one."""
    try:
        return json_records.load(Findings, path, "dvt_predict --findings") if path.exists() else None
    except DvtError:
        return None
