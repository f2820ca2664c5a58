"""Voxel counts of a prediction against the truth, and the scores that follow from them (Huang 2019, eqs. 2-4).

The handling of empty masks changes a mean as much as the network does, and the paper does not define it. Here, for one
region of one patient:

| truth | prediction | DSC, precision, recall | enters the region's statistics | its false positives |
|-------|------------|------------------------|--------------------------------|---------------------|
| some  | some       | from the counts        | yes                            | in precision        |
| some  | none       | 0, 0, 0                | yes                            | none                |
| none  | some       | none                   | no                             | reported in mL      |
| none  | none       | none                   | no                             | 0 mL                |

A score of 0 for a missed thrombus agrees with the paper's ranges, which start at 0.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from dvtplan.imaging import array_ops


class Confusion(NamedTuple):
    """Voxel counts of a prediction against the truth, and the scores that follow from them."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: object) -> Confusion:
        if not isinstance(other, Confusion):
            return NotImplemented
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def truth(self) -> int:
        """Voxels of the truth."""
        return self.tp + self.fn

    @property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    @property
    def dsc(self) -> float:
        """Dice similarity coefficient (eq. 2); NaN without truth, like every score."""
        return self._score("dsc")

    @property
    def precision(self) -> float:
        """Share of the prediction that is true (eq. 3); 0 if nothing was predicted."""
        return self._score("precision")

    @property
    def recall(self) -> float:
        """Share of the truth that was found (eq. 4)."""
        return self._score("recall")

    @property
    def iou(self) -> float:
        """Intersection over union; d / (2 - d) of a DSC d, for a single case."""
        return self._score("iou")

    def exact(self, score: str) -> Fraction:
        """Return a score without rounding, for comparisons of equal values.

        Args:
            score: 'dsc', 'precision', 'recall' or 'iou'.

        Raises:
            ValueError: without truth, where no score is defined.
        """
        if self.truth == 0:
            raise ValueError("no score is defined without truth")
        part, whole = self._parts(score)
        return Fraction(part, whole) if whole else Fraction(0)

    def _score(self, score: str) -> float:
        """Apply the empty-mask table: NaN without truth, 0 if nothing was predicted."""
        part, whole = self._parts(score)
        if self.truth == 0:
            return float("nan")
        return part / whole if whole else 0.0

    def _parts(self, score: str) -> tuple[int, int]:
        """Return numerator and denominator of a score."""
        return {
            "dsc": (2 * self.tp, 2 * self.tp + self.fp + self.fn),
            "precision": (self.tp, self.predicted),
            "recall": (self.tp, self.truth),
            "iou": (self.tp, self.tp + self.fp + self.fn),
        }[score]


EMPTY_MASK_RULE = (
    "Where a patient has truth in a region and nothing was predicted there, DSC, precision and recall are 0. "
    "A patient without truth in a region is not in that region's statistics; "
    "what was predicted there is reported as volume."
)
"""The table above in words, for footnotes."""


def count_voxels(truth_map: np.ndarray, predicted_map: np.ndarray, n_regions: int) -> tuple[Confusion, ...]:
    """Count true positive, false positive and false negative voxels per region and over all.

    Never add regions to get the whole. If each mask has its own regions, a voxel labelled 1 and predicted 2 is a false
    negative of region 1, a false positive of region 2, and a true positive of all thrombus.

    Args:
        truth_map: region map (see ``regions``), any shape.
        predicted_map: region map of the same shape.
        n_regions: number of regions. A larger number in a map, such as ``UNASSIGNED``, belongs to no region
            and counts in the whole only.

    Returns:
        One entry per region in the order of their numbers, then one for all thrombus (values above 0).

    Raises:
        ValueError: if shapes differ.
    """
    if truth_map.shape != predicted_map.shape:
        raise ValueError(f"truth {truth_map.shape} and prediction {predicted_map.shape} differ in shape")
    truth, predicted = truth_map.reshape(-1), predicted_map.reshape(-1)
    there = array_ops.nonzero_indices(truth | predicted)
    pairs = truth[there].astype(np.int64) * 256 + predicted[there]
    table = np.bincount(pairs, minlength=256 * 256).reshape(256, 256)
    regions = [
        Confusion(tp=int(table[k, k]), fp=int(table[:, k].sum() - table[k, k]), fn=int(table[k].sum() - table[k, k]))
        for k in range(1, n_regions + 1)
    ]
    whole = Confusion(tp=int(table[1:, 1:].sum()), fp=int(table[0, 1:].sum()), fn=int(table[1:, 0].sum()))
    return (*regions, whole)
