"""Ranges of the training data, which reveal no single patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from statistics import median

from dvtplan.imaging.geometry import AXES
from dvtplan.planning.fingerprint import CaseFingerprint, Fingerprint

THICK = 1.5
"""Voxels are thickest along an axis if its spacing is at least this many times that of both others."""
SMALLEST_GROUP = 5
"""If fewer cases have a label, only their number is given: other values would be those of single patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Range of one quantity over all cases; the three values may come from different cases."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelData:
    """Intensities of one channel, in scanner units; same fields as ``ChannelFingerprint``."""

    minimum: Range
    low: Range
    high: Range
    maximum: Range
    slice_maximum_spread: dict[str, Range]
    shares_below: tuple[Range, Range] | None
    """None if no case has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelData:
    """Frequency and size of one label."""

    cases: int
    """Number of cases that contain it."""
    ml: Range | None
    """Over the cases that contain it; None if these are fewer than ``SMALLEST_GROUP``."""
    components: Range | None
    """Number of 26-connected components, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """A fingerprint as ranges over its cases: no names, no file digests, no combined values of one patient."""

    dataset: str
    phantom: bool | None
    """Whether the patients are phantoms; None if unknown."""
    cases: int
    patients: int
    orientations: dict[str, int]
    """Orientation -> number of cases."""
    shape: dict[str, Range]
    """Voxels along LR, AP, SI."""
    spacing_mm: dict[str, Range]
    view_mm: dict[str, Range]
    """Field of view: shape times spacing."""
    thickest: dict[str, int]
    """Axis along which voxels are thickest -> number of cases; 'none' if along no axis."""
    channel_names: tuple[str, ...]
    channels: tuple[ChannelData, ...]
    labels: dict[str, LabelData]

    def __post_init__(self) -> None:
        for name in ("shape", "spacing_mm", "view_mm"):
            if set(getattr(self, name)) != set(AXES):
                raise ValueError(f"{name} must have the axes {', '.join(AXES)}, not {list(getattr(self, name))}")
        if not self.thickest or not set(self.thickest) <= {*AXES, "none"}:
            raise ValueError(f"thickest must count the axes {', '.join(AXES)} and none, not {list(self.thickest)}")
        if len(self.channel_names) != len(self.channels):
            raise ValueError(f"there must be a name for each channel, not {len(self.channel_names)} names for "
                             f"{len(self.channels)}")  # fmt: skip


def summarize(fingerprint: Fingerprint, cases: Collection[str], phantom: bool | None) -> TrainingData:
    """Summarize some cases of a data set in ranges.

    Args:
        fingerprint: of the data set.
        cases: ids of the cases that were trained on.
        phantom: whether they are phantoms; None if unknown.

    Raises:
        ValueError: if there are no cases, or one has no fingerprint.
    """
    chosen = [case for case in fingerprint.cases if case.id in set(cases)]
    if not chosen or len(chosen) != len(set(cases)):
        raise ValueError(f"{len(set(cases))} cases requested, {len(chosen)} of them have a fingerprint")
    return TrainingData(
        dataset=fingerprint.dataset,
        phantom=phantom,
        cases=len(chosen),
        patients=len({case.patient for case in chosen}),
        orientations=dict(sorted(Counter(case.orientation for case in chosen).items())),
        shape={axis: _spread(case.shape[axis] for case in chosen) for axis in AXES},
        spacing_mm={axis: _spread(case.spacing_mm[axis] for case in chosen) for axis in AXES},
        view_mm={axis: _spread(view_mm(case)[axis] for case in chosen) for axis in AXES},
        thickest=dict(sorted(Counter(thickest_axis(case) or "none" for case in chosen).items())),
        channel_names=fingerprint.channels,
        channels=tuple(_channel(chosen, k) for k in range(len(fingerprint.channels))),
        labels={name: _label(chosen, name) for name in fingerprint.labels},
    )


def view_mm(case: CaseFingerprint) -> dict[str, float]:
    """Return the field of view along each axis."""
    return {axis: case.shape[axis] * case.spacing_mm[axis] for axis in AXES}


def thickest_axis(case: CaseFingerprint) -> str | None:
    """Return the axis along which voxels are clearly thickest, as in a 2-D scan; None if there is none."""
    first, second, _ = sorted(AXES, key=lambda axis: -case.spacing_mm[axis])
    return first if case.spacing_mm[first] >= THICK * case.spacing_mm[second] else None


def _channel(cases: Collection[CaseFingerprint], k: int) -> ChannelData:
    channels = [case.channels[k] for case in cases]
    shares = [one.shares_below for one in channels if one.shares_below is not None]
    return ChannelData(
        minimum=_spread(one.minimum for one in channels),
        low=_spread(one.low for one in channels),
        high=_spread(one.high for one in channels),
        maximum=_spread(one.maximum for one in channels),
        slice_maximum_spread={axis: _spread(one.slice_maximum_spread[axis] for one in channels) for axis in AXES},
        shares_below=(_spread(low for low, _ in shares), _spread(half for _, half in shares)) if shares else None,
    )


def _label(cases: Collection[CaseFingerprint], name: str) -> LabelData:
    found = [case.regions[name] for case in cases if case.regions[name].voxels > 0]
    enough = len(found) >= SMALLEST_GROUP
    return LabelData(
        cases=len(found),
        ml=_spread(one.ml for one in found) if enough else None,
        components=_spread(one.components for one in found) if enough else None,
    )


def _spread(values: Iterable[float]) -> Range:
    known = [float(value) for value in values]
    return Range(minimum=min(known), median=float(median(known)), maximum=max(known))
