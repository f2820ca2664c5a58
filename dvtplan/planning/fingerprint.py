"""Measure what one case looks like."""

from __future__ import annotations

from dataclasses import dataclass, field

from dvtplan.core.errors import require
from dvtplan.core.json_records import NOT_IN_DIGEST

# --- what was measured ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFingerprint:
    """Intensities of one image file, in scanner units."""

    minimum: float
    low: float
    """0.5th percentile."""
    high: float
    """99.5th percentile."""
    maximum: float
    slice_maximum_spread: dict[str, float]
    """Per axis: 90th over 10th percentile of the slices' maxima above the minimum."""
    shares_below: tuple[float, float] | None = field(default=None, metadata={NOT_IN_DIGEST: True})
    """Share of the voxels below a tenth (background, mostly air) and below half of the way from ``low`` to
    ``high``. None in fingerprints from before it was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFingerprint:
    """How much of one label a case holds."""

    voxels: int
    ml: float
    components: int
    """26-connected pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFingerprint:
    """What one case looks like. Axes are anatomical (LR, AP, SI), whatever the file's order."""

    id: str
    patient: str
    shape: dict[str, int]
    spacing_mm: dict[str, float]
    orientation: str
    channels: tuple[ChannelFingerprint, ...]
    positive_slices: dict[str, int]
    """Per axis: how many slices hold any foreground."""
    regions: dict[str, RegionFingerprint]
    source_digest: str
    """SHA-256 of the raw files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What the data set looks like, case by case."""

    dataset: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    cases: tuple[CaseFingerprint, ...]

    def __post_init__(self) -> None:
        require(len(self.cases) > 0, "a fingerprint of no cases")
