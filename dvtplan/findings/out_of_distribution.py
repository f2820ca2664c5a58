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

from dvtplan.imaging.geometry import AXES
from dvtplan.planning.fingerprint import CaseFingerprint
from dvtplan.planning.training_ranges import Range, TrainingData, thickest_axis, view_mm

TOLERANCE = 0.10
"""Of 58 phantoms, each compared with the 57 others, none is odd at this."""

AXIS_WORDS = {"LR": "from right to left", "AP": "from front to back", "SI": "from head to foot"}
SHARES = ("share of voxels that are background", "share of voxels that are darker than half")
"""Of ``ChannelFingerprint.shares_below``, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfRange:
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


def find_out_of_range(case: CaseFingerprint, training: TrainingData) -> list[OutOfRange]:
    """Name what is odd about a scan, the geometry first.

    Args:
        case: the scan; its labels do not matter.
        training: what the model was trained on.

    Returns:
        Nothing where all lies within the range, or beyond it by up to ``TOLERANCE``.
    """
    odd = [*_numbers("voxel spacing", "mm", case.spacing_mm, training.spacing_mm)]
    odd += _thickness(case, training)
    odd += _numbers("field of view", "mm", view_mm(case), training.view_mm)
    for channel, known, called in zip(case.channels, training.channels, training.channel_names, strict=True):
        name = f" in channel {called}" if len(training.channels) > 1 else ""
        if channel.shares_below is not None and known.shares_below is not None:
            for what, share, spread in zip(SHARES, channel.shares_below, known.shares_below, strict=True):
                odd += _number(f"{what}{name}", "", share, spread)
    return odd


def compares_intensities(training: TrainingData) -> bool:
    """Whether the intensities of the training were measured as they are compared here."""
    return any(channel.shares_below is not None for channel in training.channels)


def _numbers(what: str, unit: str, values: dict[str, float], known: dict[str, Range]) -> Iterator[OutOfRange]:
    for axis in AXES:
        yield from _number(f"{what} {AXIS_WORDS[axis]}", unit, values[axis], known[axis])


def _number(what: str, unit: str, value: float, known: Range) -> Iterator[OutOfRange]:
    """The oddity of a number, or nothing."""
    low, high = known.minimum, known.maximum
    below, above = value < low, value > high
    end = low if below else high
    beyond = abs(value - end) / end if end > 0 else float(value != end)
    if not (below or above) or beyond <= TOLERANCE:
        return
    scale, sign, digits = (100.0, " %", 2) if unit == "" else (1.0, f" {unit}", 3)
    shown, least, most = (f"{scale * v:.{max(digits, len(str(int(scale * v))))}g}" for v in (value, low, high))
    span = least if least == most else f"{least} to {most}"
    how = f"{100 * beyond:.0f} % {'below' if below else 'above'}"
    yield OutOfRange(
        what=what,
        value=value,
        low=low,
        high=high,
        unit=unit,
        beyond=beyond,
        in_words=f"{what} {shown}{sign} (training {span}{sign}, {how})",
    )


def _thickness(case: CaseFingerprint, training: TrainingData) -> Iterator[OutOfRange]:
    here = thickest_axis(case) or "none"
    if here in training.thickest:
        return
    told = " or ".join(map(_direction, training.thickest))
    what = "voxels thickest"
    yield OutOfRange(
        what=what,
        value=None,
        low=None,
        high=None,
        unit="",
        beyond=None,
        in_words=f"{what} {_direction(here)} (training {told})",
    )


def _direction(axis: str) -> str:
    return "in no direction" if axis == "none" else AXIS_WORDS[axis]
