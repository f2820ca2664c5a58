"""Measure the model's confidence in each lesion: its probability, and the agreement of the folds.

The numbers are not calibrated: a probability of 0.9 does not mean that nine in ten such lesions are real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from dvtplan.anatomy import regions
from dvtplan.anatomy.levels import LIMBS, PROXIMAL_DISTAL, Levels
from dvtplan.imaging import array_ops
from dvtplan.imaging.array_ops import CONNECTIVITY_26
from dvtplan.imaging.geometry import Grid

PLAIN_THRESHOLD = 0.5
"""Lowest probability of a segmented voxel where the model has no threshold of its own."""
SUB_THRESHOLD = 0.25
"""Lowest probability of a sub-threshold voxel: one that was not segmented, but nearly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One 26-connected component of a mask."""

    number: int
    """From 1, by decreasing volume."""
    limb: str
    """The limb of most of its voxels."""
    region: str | None
    """'proximal', 'distal', or 'proximal and distal' if it crosses the level; None without a level."""
    label: str | None
    """The class of most of its voxels; None for a model of one class."""
    volume_ml: float
    centre_lps_mm: tuple[float, float, float]
    slice_number: int
    """The slice with most of its voxels, from 1, as in the figures."""
    probability_mean: float
    """Over its voxels, summed over the classes."""
    probability_peak: float
    agreement_mean: float | None
    """Share of its voxels that one fold alone would segment, mean over the folds; None for a single fold."""
    agreement_min: float | None
    """The same share for the fold that segments least of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedComponents:
    """The components of one limb that the model's rule removed from its mask, since they are too small."""

    limb: str
    components: int
    volume_ml: float


@dataclass(slots=True)
class ConfidenceCounter:
    """Count sub-threshold voxels and track the highest probability, block by block."""

    grid: Grid
    """Of the slices."""
    levels: Levels | None
    sub_threshold: tuple[int, int] = (0, 0)
    """Voxels in the left and in the right limb."""
    highest: float = 0.0
    slices: int = 0

    def add(self, probability_BHW: np.ndarray, mask_BHW: np.ndarray) -> None:
        """Count the next slices.

        Args:
            probability_BHW: of thrombus.
            mask_BHW: every value except 0 is thrombus.
        """
        indices = np.argwhere((probability_BHW >= SUB_THRESHOLD) & (mask_BHW == 0)) + np.array([self.slices, 0, 0])
        left = int(regions.in_left_limb(self.grid.position_mm(indices), self.grid, self.levels).sum())
        self.sub_threshold = self.sub_threshold[0] + left, self.sub_threshold[1] + len(indices) - left
        self.highest = max(self.highest, float(probability_BHW.max()))
        self.slices += len(probability_BHW)

    @property
    def sub_threshold_ml(self) -> dict[str, float]:
        """Limb -> volume of its sub-threshold voxels."""
        return {limb: count * self.grid.voxel_ml for limb, count in zip(LIMBS, self.sub_threshold, strict=True)}


def vote_type(folds: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned type with one bit per fold.

    Raises:
        ValueError: for more than 64 folds.
    """
    kind = next((k for k in (np.uint8, np.uint16, np.uint32, np.uint64) if np.iinfo(k).bits >= folds), None)
    if kind is None:
        raise ValueError(f"{folds} folds have more votes than a voxel can hold")
    return np.dtype(kind)


def measure_lesions(
    mask_SHW: np.ndarray,
    grid: Grid,
    levels: Levels | None,
    read_probability: Callable[[int], np.ndarray],
    read_votes: Callable[[int], np.ndarray] | None = None,
    folds: int = 1,
    classes: dict[str, int] | None = None,
) -> list[Lesion]:
    """Measure every lesion. Probabilities and votes are read slice by slice, and only where there are lesions.

    Args:
        mask_SHW: every value except 0 is thrombus.
        grid: of the slices, shape (S, H, W).
        levels: of the limbs; None if unknown.
        read_probability: slice -> probability of thrombus, (H, W).
        read_votes: slice -> (H, W), bit k set where fold k alone would segment; None for a single fold.
        folds: their number.
        classes: name -> value in the mask.

    Returns:
        The largest first; an empty list for an empty mask.
    """
    box = array_ops.bounding_box(mask_SHW)
    if box is None:
        return []
    labels, count = ndimage.label(mask_SHW[box] != 0, CONNECTIVITY_26)
    corner = np.array([part.start for part in box])
    indices = np.argwhere(labels)
    ids = labels[labels > 0]
    sizes = _per_lesion(ids, count)
    centres = np.stack([_per_lesion(ids, count, indices[:, a]) / sizes for a in range(3)], axis=1)
    centres_mm = grid.position_mm(centres + corner)
    left_voxels = _per_lesion(ids, count, regions.in_left_limb(grid.position_mm(indices + corner), grid, levels))
    per_slice = np.bincount(ids * len(labels) + indices[:, 0], minlength=(count + 1) * len(labels))
    slices = per_slice.reshape(count + 1, -1)[1:].argmax(axis=1) + corner[0] + 1
    region = _regions(labels, grid.window(corner, labels.shape), grid, levels, ids)
    label = _classes(mask_SHW[box][labels > 0], ids, classes)
    mean, peak, shares = _confidence(labels, count, box, read_probability, read_votes, folds)
    order = np.lexsort((np.arange(count), -sizes))
    return [
        Lesion(
            number=number,
            limb=LIMBS[0] if left_voxels[n] * 2 >= sizes[n] else LIMBS[1],
            region=region[n],
            label=label[n],
            volume_ml=float(sizes[n] * grid.voxel_ml),
            centre_lps_mm=(float(centres_mm[n, 0]), float(centres_mm[n, 1]), float(centres_mm[n, 2])),
            slice_number=int(slices[n]),
            probability_mean=float(mean[n]),
            probability_peak=float(peak[n]),
            agreement_mean=None if shares is None else float(shares[:, n].mean()),
            agreement_min=None if shares is None else float(shares[:, n].min()),
        )
        for number, n in enumerate(order.tolist(), start=1)
    ]


def measure_removed(removed_SHW: np.ndarray, grid: Grid, levels: Levels | None) -> list[RemovedComponents]:
    """Count the components that were removed from a mask, in each limb; a limb without any is missing.

    Args:
        removed_SHW: their voxels, bool.
        grid: of the slices, shape (S, H, W).
        levels: of the limbs; None if unknown.
    """
    box = array_ops.bounding_box(removed_SHW)
    if box is None:
        return []
    labels, count = ndimage.label(removed_SHW[box], CONNECTIVITY_26)
    positions_mm = grid.position_mm(np.argwhere(labels) + np.array([part.start for part in box]))
    ids = labels[labels > 0]
    sizes = _per_lesion(ids, count)
    in_left = _per_lesion(ids, count, regions.in_left_limb(positions_mm, grid, levels)) * 2 >= sizes
    return [
        RemovedComponents(limb=limb, components=int(inside.sum()), volume_ml=float(sizes[inside].sum() * grid.voxel_ml))
        for limb, inside in zip(LIMBS, (in_left, ~in_left), strict=True)
        if inside.any()
    ]


def _per_lesion(ids: np.ndarray, count: int, values: np.ndarray | None = None) -> np.ndarray:
    """Sum values, or count voxels, per lesion; shape (count,)."""
    return np.bincount(ids, values, minlength=count + 1)[1:]


def _confidence(
    labels_SHW: np.ndarray,
    count: int,
    box: tuple[slice, ...],
    read_probability: Callable[[int], np.ndarray],
    read_votes: Callable[[int], np.ndarray] | None,
    folds: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return per lesion the mean and peak probability, (count,), and the share of each fold, (folds, count)."""
    totals, peaks, shares = np.zeros(count), np.zeros(count), np.zeros((folds, count))
    for s in range(len(labels_SHW)):
        inside = labels_SHW[s] > 0
        if not inside.any():
            continue
        ids, window, number = labels_SHW[s][inside], (box[1], box[2]), s + box[0].start
        probability = read_probability(number)[window][inside].astype(float)
        totals += _per_lesion(ids, count, probability)
        np.maximum.at(peaks, ids - 1, probability)
        if read_votes is not None:
            votes = read_votes(number)[window][inside]
            for k in range(folds):
                bit = (votes >> votes.dtype.type(k)) & votes.dtype.type(1)
                shares[k] += _per_lesion(ids, count, bit)
    sizes = _per_lesion(labels_SHW[labels_SHW > 0], count)
    return totals / sizes, peaks, None if read_votes is None else shares / sizes


def _regions(labels: np.ndarray, window: Grid, whole: Grid, levels: Levels | None, ids: np.ndarray) -> list[str | None]:
    """Return the region of each lesion."""
    count = int(ids.max())
    if levels is None:
        return [None] * count
    # The middle of the window is not the middle of the legs.
    levels = replace(levels, midline_mm=regions.midline_of(whole, levels))
    of_voxels = regions.by_level(labels, window, levels)[labels > 0]
    per_region = [_per_lesion(ids, count, of_voxels == k) for k in (1, 2)]
    return [
        " and ".join(name for name, counts in zip(PROXIMAL_DISTAL, per_region, strict=True) if counts[n])
        for n in range(count)
    ]


def _classes(values: np.ndarray, ids: np.ndarray, classes: dict[str, int] | None) -> list[str | None]:
    """Return the most frequent class of each lesion; None for a model of one class."""
    count = int(ids.max())
    if classes is None or len(classes) < 2:
        return [None] * count
    names = list(classes)
    most = np.stack([_per_lesion(ids, count, values == classes[name]) for name in names]).argmax(0)
    return [names[k] for k in most]
