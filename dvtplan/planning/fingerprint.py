"""The fingerprint of a data set: what was measured in each case."""

from __future__ import annotations

from dataclasses import dataclass, field

from dvtplan.core.errors import require
from dvtplan.core.json_records import NOT_IN_DIGEST


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
    ``high``. None in a fingerprint of an older version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFingerprint:
    """Extent of one label in a case."""

    voxels: int
    ml: float
    components: int
    """Number of 26-connected components."""
    left_share: float | None = field(default=None, metadata={NOT_IN_DIGEST: True})
    """Share of the voxels on the patient's left of the middle of the image; a voxel on the middle counts half. None
    without voxels, and in a fingerprint of an older version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFingerprint:
    """Measurements of one case. Axes are anatomical (LR, AP, SI), in any file order."""

    id: str
    patient: str
    shape: dict[str, int]
    spacing_mm: dict[str, float]
    orientation: str
    channels: tuple[ChannelFingerprint, ...]
    positive_slices: dict[str, int]
    """Per axis: number of slices that contain foreground."""
    regions: dict[str, RegionFingerprint]
    source_digest: str
    """SHA-256 of the raw files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Measurements of a data set, case by case."""

    dataset: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    cases: tuple[CaseFingerprint, ...]

    def __post_init__(self) -> None:
        require(len(self.cases) > 0, "a fingerprint needs at least one case")
