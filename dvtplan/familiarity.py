"""Whether a scan is like those that a model was trained on: which of its properties lie outside their range.

What is compared, and why so:

- Voxel spacing and field of view along each anatomical axis, whatever the order of the file.
- The axis along which voxels are thickest, where one is: scans taken in another direction. The order of axes in the
  file is not compared; the mask is the same for any.
- For each channel the share of background and of what is darker than half. Scanners have arbitrary units, so both are
  counted between the scan's own 0.5th and 99.5th percentile.

A value is odd where it lies beyond the smallest or largest of the training scans by more than ``TOLERANCE`` of that
end. A scan without oddities may still be unlike the training scans in what is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dvtplan.geometry import AXES
from dvtplan.records import CaseFingerprint, Fingerprint

TOLERANCE = 0.10
"""Of 58 phantoms, each compared with the 57 others, none is odd at this."""
THICK = 1.5
"""Voxels are thickest along an axis whose spacing is at least so many times that of both others."""

AXIS_WORDS = {"LR": "from right to left", "AP": "from front to back", "SI": "from head to foot"}
SHARES = ("share of voxels that are background", "share of voxels that are darker than half")
"""Of ``ChannelFingerprint.shares_below``, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """One property of a scan that lies outside the range of the training scans."""

    what: str
    """The property in words."""
    value: float | None
    """None where it is no number."""
    low: float | None
    """Smallest of the training scans."""
    high: float | None
    unit: str
    """'mm', or empty for a share or for what is no number."""
    beyond: float | None
    """By how much the value lies outside, as a share of the nearer end of the range."""
    in_words: str
    """All of it in a few words."""


def compare(case: CaseFingerprint, training: Fingerprint) -> list[Oddity]:
    """Name what is odd about a scan, the geometry first.

    Args:
        case: the scan; its labels do not matter.
        training: what the model was trained on; cases without a measurement do not take part in it.

    Returns:
        Nothing where all lies within the range, or beyond it by up to ``TOLERANCE``.
    """
    odd = [*_numbers("voxel spacing", "mm", case.spacing_mm, [c.spacing_mm for c in training.cases])]
    odd += _thickness(case, training)
    odd += _numbers("field of view", "mm", _view_mm(case), [_view_mm(c) for c in training.cases])
    for k, channel in enumerate(case.channels):
        name = f" in channel {training.channels[k]}" if len(training.channels) > 1 else ""
        known = [c.channels[k].shares_below for c in training.cases]
        for j, what in enumerate(SHARES):
            shares = [both[j] for both in known if both is not None]
            if channel.shares_below is not None and shares:
                odd += _number(f"{what}{name}", "", channel.shares_below[j], shares)
    return odd


def compares_intensities(training: Fingerprint) -> bool:
    """Whether any case of the training has its intensities measured as they are compared here."""
    return any(channel.shares_below is not None for case in training.cases for channel in case.channels)


def _view_mm(case: CaseFingerprint) -> dict[str, float]:
    return {axis: case.shape[axis] * case.spacing_mm[axis] for axis in AXES}


def _numbers(what: str, unit: str, values: dict[str, float], known: list[dict[str, float]]) -> Iterator[Oddity]:
    for axis in AXES:
        yield from _number(f"{what} {AXIS_WORDS[axis]}", unit, values[axis], [one[axis] for one in known])


def _number(what: str, unit: str, value: float, known: list[float]) -> Iterator[Oddity]:
    """The oddity of a number, or nothing."""
    low, high = min(known), max(known)
    below, above = value < low, value > high
    end = low if below else high
    beyond = abs(value - end) / end if end > 0 else float(value != end)
    if not (below or above) or beyond <= TOLERANCE:
        return
    scale, sign, digits = (100.0, " %", 2) if unit == "" else (1.0, f" {unit}", 3)
    shown, least, most = (f"{scale * v:.{max(digits, len(str(int(scale * v))))}g}" for v in (value, low, high))
    span = least if least == most else f"{least} to {most}"
    how = f"{100 * beyond:.0f} % {'below' if below else 'above'}"
    yield Oddity(
        what=what,
        value=value,
        low=low,
        high=high,
        unit=unit,
        beyond=beyond,
        in_words=f"{what} {shown}{sign} (training {span}{sign}, {how})",
    )


def _thickness(case: CaseFingerprint, training: Fingerprint) -> Iterator[Oddity]:
    here, known = thickest(case), {thickest(c) for c in training.cases}
    if here in known:
        return
    told = " or ".join(_direction(axis) for axis in sorted(known, key=str))
    what = "voxels thickest"
    yield Oddity(
        what=what,
        value=None,
        low=None,
        high=None,
        unit="",
        beyond=None,
        in_words=f"{what} {_direction(here)} (training {told})",
    )


def thickest(case: CaseFingerprint) -> str | None:
    """The axis along which voxels are clearly thickest, as slices of a 2-D scan are; none where none is."""
    first, second, _ = sorted(AXES, key=lambda axis: -case.spacing_mm[axis])
    return first if case.spacing_mm[first] >= THICK * case.spacing_mm[second] else None


def _direction(axis: str | None) -> str:
    return "in no direction" if axis is None else AXIS_WORDS[axis]
