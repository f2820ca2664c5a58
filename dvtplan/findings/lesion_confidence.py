"""How sure a model was of what it marked: probability of each lesion, and how far the folds agree on it.

None of these numbers is calibrated: a probability of 0.9 does not mean that nine in ten such lesions are real.
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

SUB_THRESHOLD = 0.25
"""A voxel that is not marked is nearly marked from this probability on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One 26-connected component of a mask."""

    number: int
    """Counted from 1 by falling volume."""
    limb: str
    """Where most of its voxels lie."""
    region: str | None
    """'proximal' or 'distal', both where it crosses the level, none where no level is known."""
    label: str | None
    """The class of most of its voxels, where the model has several."""
    volume_ml: float
    centre_lps_mm: tuple[float, float, float]
    slice_number: int
    """The slice that holds most of it, counted from 1 as the pictures count."""
    probability_mean: float
    """Over its voxels; of all classes together where there are several."""
    probability_peak: float
    agreement_mean: float | None
    """Share of its voxels that a fold alone would mark, mean over the folds; none of a single fold."""
    agreement_min: float | None
    """The same of the fold that marks least of it."""


@dataclass(slots=True)
class ConfidenceCounter:
    """What is counted over all slices while they pass: nearly marked voxels, and the highest probability."""

    grid: Grid
    """In slice order."""
    levels: Levels | None
    nearly: tuple[int, int] = (0, 0)
    """Voxels of the left and of the right limb."""
    highest: float = 0.0
    slices: int = 0

    def add(self, chance_BHW: np.ndarray, mask_BHW: np.ndarray) -> None:
        """Count the next slices: probability of thrombus, and what was marked (any value but 0)."""
        places = np.argwhere((chance_BHW >= SUB_THRESHOLD) & (mask_BHW == 0)) + np.array([self.slices, 0, 0])
        left = int(regions.in_left_limb(self.grid.position_mm(places), self.grid, self.levels).sum())
        self.nearly = self.nearly[0] + left, self.nearly[1] + len(places) - left
        self.highest = max(self.highest, float(chance_BHW.max()))
        self.slices += len(chance_BHW)

    @property
    def nearly_ml(self) -> dict[str, float]:
        """Limb -> volume of what was nearly marked."""
        return {limb: count * self.grid.voxel_ml for limb, count in zip(LIMBS, self.nearly, strict=True)}


def vote_type(folds: int) -> np.dtype[np.unsignedinteger]:
    """The smallest type with a bit for each fold."""
    kind = next((k for k in (np.uint8, np.uint16, np.uint32, np.uint64) if np.iinfo(k).bits >= folds), None)
    if kind is None:
        raise ValueError(f"{folds} folds have more votes than a voxel can hold")
    return np.dtype(kind)


def lesions(
    mask_SHW: np.ndarray,
    grid: Grid,
    levels: Levels | None,
    chance_of: Callable[[int], np.ndarray],
    votes_of: Callable[[int], np.ndarray] | None = None,
    folds: int = 1,
    classes: dict[str, int] | None = None,
) -> list[Lesion]:
    """Measure every lesion; probabilities and votes are asked for slice by slice, and only where lesions are.

    Args:
        mask_SHW: every value but 0 is thrombus.
        grid: in slice order, of shape (S, H, W).
        levels: of the limbs; none if unknown.
        chance_of: slice -> probability of thrombus, (H, W).
        votes_of: slice -> bit k set where fold k alone would mark, (H, W); none of a single fold.
        folds: how many there are.
        classes: name -> value in the mask; told of each lesion where there are several.

    Returns:
        The largest first; none for an empty mask.
    """
    box = array_ops.bounding_box(mask_SHW)
    if box is None:
        return []
    labels, count = ndimage.label(mask_SHW[box] != 0, CONNECTIVITY_26)
    corner = np.array([part.start for part in box])
    places = np.argwhere(labels)
    ids = labels[labels > 0]

    def per_lesion(values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(ids, values, minlength=count + 1)[1:]

    sizes = per_lesion()
    centres = grid.position_mm(np.stack([per_lesion(places[:, a]) / sizes for a in range(3)], axis=1) + corner)
    in_left = per_lesion(regions.in_left_limb(grid.position_mm(places + corner), grid, levels)) * 2 >= sizes
    per_slice = np.bincount(ids * len(labels) + places[:, 0], minlength=(count + 1) * len(labels))
    slices = per_slice.reshape(count + 1, -1)[1:].argmax(axis=1) + corner[0] + 1
    region = _regions(labels, grid.window(corner, labels.shape), grid, levels, ids)
    label = _classes(mask_SHW[box][labels > 0], ids, classes)
    chances, peaks, shares = np.zeros(count), np.zeros(count), np.zeros((folds, count))
    for s in range(len(labels)):
        there = labels[s] > 0
        if not there.any():
            continue
        here, window = labels[s][there], (box[1], box[2])
        chance = chance_of(s + corner[0])[window][there].astype(float)
        chances += np.bincount(here, chance, minlength=count + 1)[1:]
        np.maximum.at(peaks, here - 1, chance)
        if votes_of is not None:
            votes = votes_of(s + corner[0])[window][there]
            for k in range(folds):
                bit = (votes >> votes.dtype.type(k)) & votes.dtype.type(1)
                shares[k] += np.bincount(here, bit, minlength=count + 1)[1:]
    shares /= sizes
    order = np.lexsort((np.arange(count), -sizes))
    return [
        Lesion(
            number=number,
            limb=LIMBS[0] if in_left[n] else LIMBS[1],
            region=region[n],
            label=label[n],
            volume_ml=float(sizes[n] * grid.voxel_ml),
            centre_lps_mm=(float(centres[n, 0]), float(centres[n, 1]), float(centres[n, 2])),
            slice_number=int(slices[n]),
            probability_mean=float(chances[n] / sizes[n]),
            probability_peak=float(peaks[n]),
            agreement_mean=None if votes_of is None else float(shares[:, n].mean()),
            agreement_min=None if votes_of is None else float(shares[:, n].min()),
        )
        for number, n in enumerate(order.tolist(), start=1)
    ]


def _regions(labels: np.ndarray, window: Grid, whole: Grid, levels: Levels | None, ids: np.ndarray) -> list[str | None]:
    """The regions of each lesion."""
    count = int(ids.max())
    if levels is None:
        return [None] * count
    # The window's own middle is not that of the legs.
    levels = replace(levels, midline_mm=regions.midline_of(whole, levels))
    of_voxels = regions.by_level(labels, window, levels)[labels > 0]
    found = [np.bincount(ids, of_voxels == k, minlength=count + 1)[1:] for k in (1, 2)]
    return [
        " and ".join(name for name, counts in zip(PROXIMAL_DISTAL, found, strict=True) if counts[n])
        for n in range(count)
    ]


def _classes(values: np.ndarray, ids: np.ndarray, classes: dict[str, int] | None) -> list[str | None]:
    """The class of most voxels of each lesion, where there are several classes."""
    count = int(ids.max())
    if classes is None or len(classes) < 2:
        return [None] * count
    names = list(classes)
    most = np.stack([np.bincount(ids, values == classes[name], minlength=count + 1)[1:] for name in names]).argmax(0)
    return [names[k] for k in most]
