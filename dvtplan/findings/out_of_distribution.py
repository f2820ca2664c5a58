"""Find the properties of a scan that are outside the range of the training scans.

Compared are:

- Voxel spacing and field of view along each anatomical axis, in any axis order of the file.
- The axis along which voxels are thickest, if there is one. The axis order of the file is not compared, since the mask
  does not depend on it.
- For each channel, the share of background and of voxels darker than half. Scanners have arbitrary units, so both are
  counted between the scan's own 0.5th and 99.5th percentile.

A value is out of range if it is below the smallest or above the largest training value by more than ``TOLERANCE`` of
that value. Other properties are not compared, so a scan within range may still differ from the training scans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dvtplan.imaging.geometry import AXES
from dvtplan.planning.fingerprint import CaseFingerprint
from dvtplan.planning.training_ranges import Range, TrainingData, thickest_axis, view_mm

TOLERANCE = 0.10
"""With this tolerance, none of 58 phantoms is out of the range of the 57 others."""

AXIS_WORDS = {"LR": "from right to left", "AP": "from front to back", "SI": "from head to foot"}
SHARES = ("share of voxels that are background", "share of voxels that are darker than half")
"""Names of ``ChannelFingerprint.shares_below``, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfRange:
    """One quantity of a scan that is outside the range of the training scans."""

    quantity: str
    """The quantity in words."""
    value: float | None
    """None if the quantity is not a number."""
    low: float | None
    """Smallest training value."""
    high: float | None
    """Largest training value."""
    unit: str
    """'mm', or empty for a share and for a quantity that is not a number."""
    relative_excess: float | None
    """Distance outside the range, relative to its nearer end."""
    in_words: str
    """Property, value, range and distance."""


def find_out_of_range(case: CaseFingerprint, training: TrainingData) -> list[OutOfRange]:
    """List the properties of a scan that are out of range, geometry first.

    Args:
        case: the scan; its labels are not used.
        training: ranges of the training scans.

    Returns:
        An empty list if all values are in range, or outside by at most ``TOLERANCE``.
    """
    found = [*_compare_axes("voxel spacing", "mm", case.spacing_mm, training.spacing_mm)]
    found += _compare_thickness(case, training)
    found += _compare_axes("field of view", "mm", view_mm(case), training.view_mm)
    for channel, known, channel_name in zip(case.channels, training.channels, training.channel_names, strict=True):
        suffix = f" in channel {channel_name}" if len(training.channels) > 1 else ""
        if channel.shares_below is not None and known.shares_below is not None:
            for quantity, share, limits in zip(SHARES, channel.shares_below, known.shares_below, strict=True):
                found += _compare(f"{quantity}{suffix}", "", share, limits)
    return found


def compares_intensities(training: TrainingData) -> bool:
    """Return whether the fingerprint of the training scans has the intensities that are compared here."""
    return any(channel.shares_below is not None for channel in training.channels)


def _compare_axes(quantity: str, unit: str, values: dict[str, float], known: dict[str, Range]) -> Iterator[OutOfRange]:
    for axis in AXES:
        yield from _compare(f"{quantity} {AXIS_WORDS[axis]}", unit, values[axis], known[axis])


def _compare(quantity: str, unit: str, value: float, known: Range) -> Iterator[OutOfRange]:
    """Yield a number that is out of range, or nothing."""
    low, high = known.minimum, known.maximum
    below, above = value < low, value > high
    end = low if below else high
    relative_excess = abs(value - end) / end if end > 0 else float(value != end)
    if not (below or above) or relative_excess <= TOLERANCE:
        return
    scale, sign, digits = (100.0, " %", 2) if unit == "" else (1.0, f" {unit}", 3)
    shown, low_text, high_text = (f"{scale * v:.{max(digits, len(str(int(scale * v))))}g}" for v in (value, low, high))
    span = low_text if low_text == high_text else f"{low_text} to {high_text}"
    distance = f"{100 * relative_excess:.0f} % {'below' if below else 'above'}"
    yield OutOfRange(
        quantity=quantity,
        value=value,
        low=low,
        high=high,
        unit=unit,
        relative_excess=relative_excess,
        in_words=f"{quantity} {shown}{sign} (training {span}{sign}, {distance})",
    )


def _compare_thickness(case: CaseFingerprint, training: TrainingData) -> Iterator[OutOfRange]:
    """Yield the direction of the thickest voxels if no training scan has it."""
    axis = thickest_axis(case) or "none"
    if axis in training.thickest:
        return
    expected = " or ".join(map(_thickness_in_words, training.thickest))
    yield OutOfRange(
        quantity="voxels thickest",
        value=None,
        low=None,
        high=None,
        unit="",
        relative_excess=None,
        in_words=f"voxels are clearly thickest {_thickness_in_words(axis)} (training scans: {expected})",
    )


def _thickness_in_words(axis: str) -> str:
    return "in no direction" if axis == "none" else AXIS_WORDS[axis]
