"""What was found on a scan: a record of it all, in numbers and in words, and the burden of many scans as a table.

"No voxel was marked" and "could not be analysed" are different things: every record and every row has a status.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from dvtplan import artifacts, volumes
from dvtplan.agreement import Lesion
from dvtplan.burden import Burden, category, measure
from dvtplan.errors import DvtError, how_many
from dvtplan.familiarity import Oddity
from dvtplan.landmarks import LEVEL_BELOW_KNEE_MM, Landmarks
from dvtplan.records import Levels
from dvtplan.regions import LIMBS

ANALYSED, NOT_ANALYSED = "analysed", "not analysed"
CHANGED = "mask changed"
"""Of a scan whose mask is not the one that was made; it was measured as it is."""
COULD_NOT = "Could not be analysed: nothing is known about thrombus on this scan."
NOT_RULED_OUT = "This does not rule thrombus out."
"""Stands beside every mask without a marked voxel."""
DISCLAIMER = "A measurement, not a diagnosis. Research software, no medical device."

COLUMNS = ("case_id", "status", "limb", "region", "volume_ml", "pieces", "length_mm", "largest_section_mm2",
           "top_above_level_mm", "bottom_above_level_mm", "level_mm", "level_source", "level_note",
           "scan_in_words")  # fmt: skip

SAID_BY = {
    "table": "from a table", "given": "given", "estimated": "estimated from the image", "none": "of unknown origin"
}  # fmt: skip
"""Source of levels, as tables call it -> in words: a table of cases, the command line, the image; or nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The levels of one scan and who says so."""

    levels: Levels | None = None
    source: str = "none"
    """One of ``SAID_BY``."""
    note: str = ""
    """What a reader of the table should know of them; empty where there is nothing to say."""

    def __post_init__(self) -> None:
        if self.source not in SAID_BY or (self.levels is None) != (self.source == "none"):
            raise ValueError(f"levels {self.levels} cannot come from {self.source!r}")


def divide(
    names: Sequence[str],
    table: Mapping[str, Levels | None],
    given: Levels | None,
    found: Mapping[str, Landmarks],
) -> dict[str, Division]:
    """Decide how each scan is divided.

    Args:
        names: of the scans.
        table: levels by scan, which come first.
        given: levels of all other scans; they come second.
        found: what was found in the images of others; where nothing was, the scan is not divided.
    """
    return {name: _division(table.get(name), given, found.get(name)) for name in names}


def _division(told: Levels | None, given: Levels | None, found: Landmarks | None) -> Division:
    if told is not None:
        return Division(levels=told, source="table")
    if given is not None:
        return Division(levels=given, source="given")
    if found is None:
        return Division()
    if found.levels is None:
        return Division(note=found.text)
    how = f"the level is {LEVEL_BELOW_KNEE_MM:g} mm below, as in most people"
    alone = found.left.level_mm is None or found.right.level_mm is None
    return Division(
        levels=found.levels,
        source="estimated",
        note=f"{found.text}; {how}{', and that of one limb serves both' if alone else ''}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
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
    maker: Maker
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
    oddities: tuple[Oddity, ...] | None = None
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


def not_analysed(case_id: str, images: Sequence[str], reason: str, made: str, maker: Maker) -> Findings:
    """The record of a scan that could not be analysed."""
    return Findings(
        case_id=case_id, status=NOT_ANALYSED, in_words=COULD_NOT, reason=reason, images=tuple(images), made=made,
        maker=maker,
    )  # fmt: skip


def words(found: Sequence[Burden]) -> str:
    """What was marked, in words; an empty mask is said not to rule anything out."""
    told = category(list(found))
    return told if any(burden.volume_ml > 0 for burden in found) else f"{told} {NOT_RULED_OUT}"


def warnings(maker: Maker, oddities: Sequence[Oddity] | None, intensities: bool, division: Division) -> list[str]:
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
            f"This scan is unlike the {how_many(maker.training_scans or 0, 'scan')} that the model was trained on, so "
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


def read(path: Path) -> Findings | None:
    """The record in a file; none where there is no such file, or another one."""
    try:
        return artifacts.load(Findings, path, "dvt_predict --findings") if path.exists() else None
    except DvtError:
        return None


# --- many scans as a table ------------------------------------------------------------------------


def write(
    masks: Mapping[str, Path],
    divisions: Mapping[str, Division],
    path: Path,
    failed: Mapping[str, str] | None = None,
    measured: Mapping[str, Sequence[Burden]] | None = None,
    changed: Collection[str] = (),
) -> Path:
    """Measure masks and write ``path``.

    A scan without any marked voxel has its rows, of zeros. A scan that could not be analysed has one row, of its
    status and the reason, without any number.

    Args:
        masks: by case.
        divisions: of the limbs by case; cases that are missing are not divided.
        path: of the csv.
        failed: case -> why it could not be analysed.
        measured: what masks were measured already, by case; the others are read and measured.
        changed: cases whose mask is not the one that was made; their status says so.

    Raises:
        DvtError: if a mask cannot be read or the table not written.
    """
    rows: list[dict[str, object]] = []
    for case_id, mask in masks.items():
        division = divisions.get(case_id, Division())
        known = (measured or {}).get(case_id)
        found = measure(*volumes.read(mask), division.levels) if known is None else known
        rows += _rows(case_id, found, division, CHANGED if case_id in changed else ANALYSED)
    for case_id, reason in (failed or {}).items():
        rows.append({"case_id": case_id, "status": NOT_ANALYSED, "scan_in_words": f"{COULD_NOT} {reason}"})
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"pieces": "Int64"})  # whole also where some are missing
    artifacts.write_text(path, table.to_csv(index=False))
    return path


def _rows(case_id: str, found: Sequence[Burden], division: Division, status: str) -> list[dict[str, object]]:
    told = words(found)
    level_mm = (
        dict.fromkeys(LIMBS) if division.levels is None else dict(zip(LIMBS, division.levels.both_mm, strict=True))
    )
    return [
        {
            "case_id": case_id,
            "status": status,
            "limb": burden.limb,
            "region": burden.region,
            "volume_ml": round(burden.volume_ml, 3),
            "pieces": burden.pieces,
            "length_mm": round(burden.length_mm, 1),
            "largest_section_mm2": round(burden.largest_section_mm2, 1),
            "top_above_level_mm": _tenths(burden.top_mm),
            "bottom_above_level_mm": _tenths(burden.bottom_mm),
            "level_mm": _tenths(level_mm[burden.limb]),
            "level_source": division.source,
            "level_note": division.note or None,
            "scan_in_words": told,
        }
        for burden in found
    ]


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
