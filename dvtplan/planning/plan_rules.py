"""The plan rules: one function per decision.

A rule returns its decision and a sentence with the reason and its numbers. No rule depends on a network or a fold. A
plan contains no intensity of the data set, only how to normalize each image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median

from dvtplan.core.errors import InvalidValue
from dvtplan.core.json_records import digest
from dvtplan.imaging.geometry import SLICE_ORDER
from dvtplan.imaging.normalize import Normalization
from dvtplan.planning import label_sides
from dvtplan.planning.fingerprint import CaseFingerprint, Fingerprint
from dvtplan.planning.plan import Plan, Variant

STEP = 32
"""Target shapes are multiples of this. It is a multiple of the divisor of every entry of ``models`` ``NETWORKS``."""
FLOOR_LOSS = 0.10
"""Largest share of an axis that rounding down may remove."""
SLICE_SPREAD = 1.25
"""With a larger spread of slice maxima, scaling by slice would change a tissue's value by a quarter."""
OUTLIER_SHARE = 0.25
"""Clip if the outer 1 % of voxels take more than this share of the intensity range."""
CLIP_PERCENTILES = (0.5, 99.5)

PAPER_SHAPE = (960, 320)
ANGLES_DEG = (-2.0, 0.0)
SCALES = (0.9, 1.0, 1.1)


def derive(fingerprint: Fingerprint, preset: str = "auto") -> Plan:
    """Derive the plan of a data set.

    Args:
        fingerprint: of all its cases.
        preset: 'auto' applies the rules, 'paper' takes the fixed choices of Huang 2019.

    Raises:
        InvalidValue: if the preset is unknown.
    """
    if preset not in ("auto", "paper"):
        raise InvalidValue(f"preset must be 'auto' or 'paper', not {preset!r}")
    axis, why_axis = slice_axis(fingerprint)
    shape, why_shape = target_shape(fingerprint, axis)
    normal, why_normal = normalization(fingerprint, axis)
    chosen, why_variants = variants(axis, tuple(fingerprint.labels), fingerprint.cases)
    if preset == "paper":
        shape, why_shape = PAPER_SHAPE, "The paper resizes every slice to 960x320 (section 2.2)."
        normal = Normalization(scope="slice")
        why_normal = "The paper scales each image by its own minimum and maximum (eq. 1), read as each 2-D slice."
        chosen = twelve_variants(mirror=True)
        why_variants = "The paper's 2 rotations x 3 scales x mirror = 12 variants (section 2.2)."
        if sided := mirrored_sides(axis, chosen, fingerprint):
            why_variants += f" The mirror exchanges left and right although {sided}."
    return Plan(
        dataset=fingerprint.dataset,
        preset=preset,
        slice_axis=axis,
        target_shape=shape,
        normalization=normal,
        variants=chosen,
        channels=fingerprint.channels,
        labels=fingerprint.labels,
        because={
            "slice_axis": why_axis,
            "target_shape": why_shape,
            "normalization": why_normal,
            "variants": why_variants,
        },
        fingerprint_digest=digest(fingerprint),
    )


def slice_axis(fingerprint: Fingerprint) -> tuple[str, str]:
    """Stack slices along the anatomical axis with the fewest voxels (median over cases).

    The usual choice, the axis with the largest spacing, may slice near-isotropic leg volumes along an in-plane axis.
    Ties go to the larger spacing, then to coronal before axial before sagittal.
    """
    count = {axis: median(c.shape[axis] for c in fingerprint.cases) for axis in SLICE_ORDER}
    spacing = {axis: median(c.spacing_mm[axis] for c in fingerprint.cases) for axis in SLICE_ORDER}
    best = min(SLICE_ORDER, key=lambda axis: (count[axis], -spacing[axis]))
    listing = ", ".join(f"{axis} {count[axis]:g}" for axis in SLICE_ORDER)
    return best, f"{best} has the fewest voxels (median over {len(fingerprint.cases)} cases: {listing})."


def target_shape(fingerprint: Fingerprint, axis: str) -> tuple[tuple[int, int], str]:
    """Take the median in-plane shape, floored to multiples of 32, or raised if flooring removes too much."""
    rows, columns = (median(c.shape[name] for c in fingerprint.cases) for name, _ in SLICE_ORDER[axis][1:])
    shape = (_fit(rows), _fit(columns))
    return shape, (
        f"The median slice is {rows:g}x{columns:g}; floored to multiples of {STEP}, or raised where that "
        f"loses over {FLOOR_LOSS:.0%} of an axis: {shape[0]}x{shape[1]}."
    )


def _fit(length: float) -> int:
    floor = int(length // STEP) * STEP
    return floor if floor and (length - floor) / length <= FLOOR_LOSS else floor + STEP


def normalization(fingerprint: Fingerprint, axis: str) -> tuple[Normalization, str]:
    """Scale by minimum and maximum (eq. 1), by slice as in the paper unless the slices' maxima differ too much.

    Clip if few voxels take a large part of the range.
    """
    channels = [channel for case in fingerprint.cases for channel in case.channels]
    spread = median(c.slice_maximum_spread[axis] for c in channels)
    outer = median(_outlier_share(c.minimum, c.low, c.high, c.maximum) for c in channels)
    by_volume, clip = spread > SLICE_SPREAD, outer > OUTLIER_SHARE
    how = Normalization(scope="volume" if by_volume else "slice", clip_percentiles=CLIP_PERCENTILES if clip else None)
    return how, (
        f"Slice maxima spread {spread:.2f}-fold (90th over 10th percentile), "
        f"{'above' if by_volume else 'not above'} {SLICE_SPREAD}: scale by {how.scope}. The outer 1 % of voxels take "
        f"{outer:.0%} of the range, {'above' if clip else 'not above'} {OUTLIER_SHARE:.0%}: "
        f"{'clip at percentiles 0.5 and 99.5' if clip else 'no clipping'}."
    )


def _outlier_share(minimum: float, low: float, high: float, maximum: float) -> float:
    return 1.0 - (high - low) / (maximum - minimum) if maximum > minimum else 0.0


def variants(
    axis: str, labels: Sequence[str], cases: Sequence[CaseFingerprint] = ()
) -> tuple[tuple[Variant, ...], str]:
    """Return the paper's twelve variants, without mirroring if that would give no valid image of a patient.

    Mirroring columns exchanges the patient's left and right. It is omitted if the slices are sagittal, or if labels
    belong to a side, by their names or by where they lie (``label_sides``), which mirroring would exchange.
    """
    sided = label_sides.reason(labels, cases)
    if axis == "LR":
        mirror, why = False, "no mirror, since sagittal slices do not hold left and right"
    elif sided:
        mirror, why = False, f"no mirror, since {sided}"
    else:
        mirror, why = True, "mirrored left-right or not"
    chosen = twelve_variants(mirror)
    return chosen, f"Rotations {{-2, 0}} degrees x scales {{0.9, 1.0, 1.1}}, {why}: {len(chosen)} variants."


def mirrored_sides(axis: str, chosen: Sequence[Variant], fingerprint: Fingerprint) -> str:
    """Explain which sides of labels some variants exchange; empty if they exchange none."""
    if axis == "LR" or not any(variant.mirror for variant in chosen):
        return ""
    return label_sides.reason(tuple(fingerprint.labels), fingerprint.cases)


def twelve_variants(mirror: bool) -> tuple[Variant, ...]:
    """Return {-2, 0} degrees x {0.9, 1.0, 1.1} x mirror (section 2.2); six without the mirror."""
    choices = itertools.product(ANGLES_DEG, SCALES, (False, True) if mirror else (False,))
    return tuple(Variant(angle_deg=a, scale=s, mirror=m) for a, s, m in choices)
