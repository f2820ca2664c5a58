"""Voxel counts of a prediction against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dvtplan.anatomy.levels import UNASSIGNED
from dvtplan.evaluation.confusion import Confusion, count_voxels

SHAPE = (3, 4, 4)
MAPS = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, UNASSIGNED]))


def drawn(rows: str) -> np.ndarray:
    """A one-slice map from rows of digits; '.' is background and '?' is unassigned."""
    values = {".": 0, "?": UNASSIGNED}
    return np.array([[[values[c] if c in values else int(c) for c in row] for row in rows.split()]], np.uint8)


def test_counts_and_scores_of_a_drawn_case() -> None:
    truth = drawn("11.. 11.. ..22 ....")
    predicted = drawn("11.. 1... ...2 ..2.")
    first, second, whole = count_voxels(truth, predicted, 2)
    assert first == Confusion(tp=3, fp=0, fn=1)
    assert second == Confusion(tp=1, fp=1, fn=1)
    assert whole == Confusion(tp=4, fp=1, fn=2)
    assert whole.dsc == pytest.approx(8 / 11)
    assert whole.precision == pytest.approx(4 / 5)
    assert whole.recall == pytest.approx(4 / 6)
    assert whole.iou == pytest.approx(4 / 7)


def test_a_voxel_of_the_wrong_region_is_wrong_twice_and_still_right_over_all() -> None:
    first, second, whole = count_voxels(drawn("1..."), drawn("2..."), 2)
    assert first == Confusion(tp=0, fp=0, fn=1)
    assert second == Confusion(tp=0, fp=1, fn=0)
    assert whole == Confusion(tp=1, fp=0, fn=0)


def test_an_unassigned_voxel_counts_over_all_only() -> None:
    assert count_voxels(drawn("1..."), drawn("1.?."), 1) == (Confusion(1, 0, 0), Confusion(1, 1, 0))


def test_without_regions_only_the_whole_is_counted() -> None:
    assert count_voxels(drawn("12.."), drawn("1.2."), 0) == (Confusion(tp=1, fp=1, fn=1),)


@pytest.mark.parametrize(
    ("truth", "predicted", "score", "false_positives"),
    [
        ("11..", ".11.", 0.5, 1),
        ("11..", "....", 0.0, 0),
        ("....", ".11.", math.nan, 2),
        ("....", "....", math.nan, 0),
    ],
    ids=["both", "missed", "false positive", "neither"],
)
def test_every_row_of_the_empty_mask_table(truth: str, predicted: str, score: float, false_positives: int) -> None:
    region, whole = count_voxels(drawn(truth), drawn(predicted), 1)
    assert region == whole
    assert (region.dsc, region.precision, region.recall) == pytest.approx((score,) * 3, nan_ok=True)
    assert region.iou == pytest.approx(score / (2 - score), nan_ok=True)
    assert region.fp == false_positives
    assert (region.truth > 0) is not math.isnan(score)


def test_maps_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        count_voxels(np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 5), np.uint8), 1)


@given(MAPS, MAPS)
def test_counts_equal_those_of_sets_of_voxels(truth: np.ndarray, predicted: np.ndarray) -> None:
    *regions, whole = count_voxels(truth, predicted, 2)
    for number, found in enumerate(regions, start=1):
        t, p = (set(zip(*np.nonzero(m == number), strict=True)) for m in (truth, predicted))
        assert found == Confusion(tp=len(t & p), fp=len(p - t), fn=len(t - p))
    t, p = (set(zip(*np.nonzero(m), strict=True)) for m in (truth, predicted))
    assert whole == Confusion(tp=len(t & p), fp=len(p - t), fn=len(t - p))


@given(MAPS, MAPS)
def test_swapping_truth_and_prediction_swaps_false_positives_and_negatives(a: np.ndarray, b: np.ndarray) -> None:
    assert [Confusion(c.tp, c.fn, c.fp) for c in count_voxels(a, b, 2)] == list(count_voxels(b, a, 2))


@given(MAPS, MAPS, st.permutations([0, 1, 2]))
def test_counts_do_not_depend_on_the_order_of_axes(a: np.ndarray, b: np.ndarray, order: list[int]) -> None:
    assert count_voxels(a.transpose(order), b.transpose(order), 2) == count_voxels(a, b, 2)
