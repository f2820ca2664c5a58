"""Measure one case: intensities, extent, regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from dvtplan.imaging import array_ops
from dvtplan.imaging.geometry import AXES, Grid, anatomical_axes, orientation_code
from dvtplan.planning.fingerprint import CaseFingerprint, ChannelFingerprint, RegionFingerprint

OUTLIER_PERCENTILES = (0.5, 99.5)
"""Intensities outside count as outliers (nnU-Net's clipping percentiles)."""


def measure(
    case_id: str,
    patient: str,
    images: Sequence[np.ndarray],
    label: np.ndarray,
    grid: Grid,
    labels: dict[str, int],
    source_digest: str,
) -> CaseFingerprint:
    """Measure one case.

    Args:
        case_id: id of the case.
        patient: id of the patient.
        images: one array (file order) per channel, all on ``grid``.
        label: label values (file order).
        grid: placement of all arrays.
        labels: foreground label name -> value.
        source_digest: of the raw files.
    """
    foreground = label != 0
    return replace(
        unlabelled(case_id, [channel(image, grid) for image in images], grid),
        patient=patient,
        positive_slices={
            name: int(foreground.any(axis=tuple(a for a in range(3) if a != axis)).sum())
            for name, axis in _by_name(grid).items()
        },
        regions={name: _region(label == value, grid) for name, value in labels.items()},
        source_digest=source_digest,
    )


def unlabelled(case_id: str, channels: Sequence[ChannelFingerprint], grid: Grid) -> CaseFingerprint:
    """Return the fingerprint of a scan without truth; fields on labels and source stay empty."""
    by_name = _by_name(grid)
    return CaseFingerprint(
        id=case_id,
        patient=case_id,
        shape={name: grid.shape[axis] for name, axis in by_name.items()},
        spacing_mm={name: grid.spacing_mm[axis] for name, axis in by_name.items()},
        orientation=orientation_code(grid),
        channels=tuple(channels),
        positive_slices={},
        regions={},
        source_digest="",
    )


def channel(image: np.ndarray, grid: Grid) -> ChannelFingerprint:
    """Measure the intensities of one array (file order) on its grid."""
    low, high = array_ops.percentiles(image, OUTLIER_PERCENTILES)
    minimum = float(image.min())
    tenth, half = (float(np.mean(image < low + share * (high - low))) for share in (0.1, 0.5))
    return ChannelFingerprint(
        minimum=minimum,
        low=float(low),
        high=float(high),
        maximum=float(image.max()),
        slice_maximum_spread={name: _spread(image, axis, minimum) for name, axis in _by_name(grid).items()},
        shares_below=(tenth, half),
    )


def _by_name(grid: Grid) -> dict[str, int]:
    """Return anatomical axis -> array axis."""
    names = [name for name, _ in anatomical_axes(grid)]
    return {name: names.index(name) for name in AXES}


def _spread(image: np.ndarray, axis: int, minimum: float) -> float:
    """Return the spread of the slices' maxima along an axis: the 90th over the 10th percentile."""
    peaks = image.max(axis=tuple(a for a in range(3) if a != axis)).astype(float) - minimum
    low, high = np.percentile(peaks, (10, 90))
    return float(high / low) if low > 0 else float(len(peaks))


def _region(mask: np.ndarray, grid: Grid) -> RegionFingerprint:
    box = array_ops.bounding_box(mask)
    if box is None:
        return RegionFingerprint(voxels=0, ml=0.0, components=0)
    count = int(np.count_nonzero(mask[box]))
    _, components = ndimage.label(mask[box], array_ops.CONNECTIVITY_26)
    return RegionFingerprint(
        voxels=count,
        ml=count * grid.voxel_ml,
        components=int(components),
        left_share=_left_share(mask[box], grid.window(np.array([s.start for s in box]), mask[box].shape), grid),
    )


def _left_share(mask: np.ndarray, box: Grid, grid: Grid) -> float:
    """Return the share of a mask's voxels whose LPS x is above the middle of the whole grid.

    Args:
        mask: bool, with at least one voxel.
        box: grid of the mask, a window of ``grid``.
        grid: the whole grid.
    """
    ends_mm = grid.corners_mm()[:, 0]
    origin_mm, *next_mm = box.position_mm(np.vstack([np.zeros(3), np.eye(3)]))[:, 0].tolist()
    steps_mm = [np.arange(n) * (x - origin_mm) for n, x in zip(mask.shape, next_mm, strict=True)]
    plane_mm = steps_mm[1][:, None] + steps_mm[2] + origin_mm - (ends_mm.min() + ends_mm.max()) / 2
    # By planes, to limit memory. Positions are rounded, so that a voxel on the middle is there for any origin.
    sides = [np.sign(np.round(plane_mm[plane] + x, 6)).sum() for plane, x in zip(mask, steps_mm[0], strict=True)]
    return float((sum(sides) / np.count_nonzero(mask) + 1) / 2)
