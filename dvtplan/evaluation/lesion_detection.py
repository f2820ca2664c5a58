"""Lesion detection: connected components of truth and prediction, matched by overlap.

A *lesion* is a 26-connected component of a mask: voxels that share a face, an edge or a corner. There is no minimum
size, because it would exclude thrombi in calf veins; the bins of ``VOLUMES`` report sizes. The rule:

    A true lesion counts as *detected*, and a predicted one as a *true positive*, if at least 10 % of its voxels
    overlap the other mask.

The number of components in the other mask does not matter. Alternatives, and why they are not used:

- One voxel of overlap: a long thrombus would count as detected after a marginal overlap, and one component over half
  the leg would be a detection and not a false positive. Here this component detects, but is not a true positive.
- One-to-one matching with an IoU of 0.5 (panoptica): the paper's mean distal DSC, 0.57, is an IoU of 0.40, so the
  average distal segmentation would be a miss and a false positive. A thrombus found as two components would be missed.

For one region of one case or patient:

| truth | prediction | sensitivity    | precision                | F1             | false positives |
|-------|------------|----------------|--------------------------|----------------|-----------------|
| some  | some       | detected/true  | true pos./predicted      | harmonic mean  | counted         |
| some  | none       | 0              | 0                        | 0              | 0               |
| none  | some       | none           | none                     | none           | counted         |
| none  | none       | none           | none                     | none           | 0               |

In a volume bin without true lesions, sensitivity is undefined, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dvtplan.imaging import array_ops

OVERLAP = 0.1
"""Smallest share of a lesion's voxels in the other mask that counts as overlap (ours)."""

VOLUMES_ML = (0.1, 0.5, 2.0)
"""Edges of the volume bins in mL; a volume on an edge is in the larger bin."""

VOLUMES = {
    "under_0.1_ml": "under 0.1 mL",
    "from_0.1_ml": "0.1 to 0.5 mL",
    "from_0.5_ml": "0.5 to 2 mL",
    "from_2_ml": "2 mL and more",
}
"""Bin in column names -> in tables. 0.1 mL are 38 voxels of the paper's grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesions:
    """Lesion counts of one region, and the scores that follow from them. Counts add up over cases."""

    true_by_volume: tuple[int, ...]
    """Lesions of the truth in each bin of ``VOLUMES``."""
    detected_by_volume: tuple[int, ...]
    """Number of these that the prediction overlaps."""
    predicted: int
    """Lesions of the prediction."""
    true_positives: int
    """Number of these that the truth overlaps."""

    @property
    def true(self) -> int:
        return sum(self.true_by_volume)

    @property
    def detected(self) -> int:
        return sum(self.detected_by_volume)

    @property
    def false_positives(self) -> int:
        return self.predicted - self.true_positives

    @property
    def sensitivity(self) -> float:
        """Share of the true lesions that were detected; NaN without any."""
        return self.detected / self.true if self.true else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are true positives; NaN without true lesions."""
        if not self.true:
            return math.nan
        return self.true_positives / self.predicted if self.predicted else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision, which count different lesions; 0 if both are 0."""
        total = self.sensitivity + self.precision
        return 2 * self.sensitivity * self.precision / total if total else 0.0

    @property
    def sensitivity_by_volume(self) -> tuple[float, ...]:
        """Sensitivity in each bin; NaN in a bin without true lesions."""
        pairs = zip(self.detected_by_volume, self.true_by_volume, strict=True)
        return tuple(detected / true if true else math.nan for detected, true in pairs)


def match_lesions(truth: np.ndarray, predicted: np.ndarray, voxel_ml: float) -> Lesions:
    """Find and match the lesions of two masks.

    Args:
        truth: bool, three axes, one region or all thrombus.
        predicted: bool, same shape.
        voxel_ml: volume of a voxel.

    Raises:
        ValueError: if shapes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} differ in shape")
    sizes, detected = _overlaps(truth, predicted)
    predicted_sizes, true_positives = _overlaps(predicted, truth)
    # A product of rounded spacings may be just below an edge; 1e-6 mL is far less than a voxel.
    bins = np.digitize(np.round(sizes * voxel_ml, 6), VOLUMES_ML)
    return Lesions(
        true_by_volume=_per_bin(bins),
        detected_by_volume=_per_bin(bins[detected]),
        predicted=len(predicted_sizes),
        true_positives=int(true_positives.sum()),
    )


def _overlaps(mask: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of each lesion of a mask, and whether the other mask overlaps it."""
    box = array_ops.bounding_box(mask)
    if box is None:
        return np.zeros(0, int), np.zeros(0, bool)
    from scipy import ndimage

    mask, other = mask[box], other[box]
    labels, n = ndimage.label(mask, array_ops.CONNECTIVITY_26)
    sizes = np.bincount(labels[mask], minlength=n + 1)[1:]
    shared = np.bincount(labels[mask & other], minlength=n + 1)[1:]
    return sizes, shared / sizes >= OVERLAP


def _per_bin(bins: np.ndarray) -> tuple[int, ...]:
    return tuple(np.bincount(bins, minlength=len(VOLUMES)).tolist())
