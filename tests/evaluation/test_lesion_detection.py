"""Which lesions were found: components, matched by overlap."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dvtplan.evaluation.lesion_detection import OVERLAP, VOLUMES, VOLUMES_ML, Lesions, match_lesions

SHAPE = (3, 5, 6)
MASKS = hnp.arrays(bool, SHAPE, elements=st.sampled_from([False, False, True]))


def drawn(rows: str) -> np.ndarray:
    """A one-slice mask from rows of characters; '.' is background."""
    return np.array([[[c != "." for c in row] for row in rows.split()]])


def row(*runs: int) -> np.ndarray:
    """A mask of one row in which runs of voxels and of background alternate, voxels first."""
    parts = [np.full(n, i % 2 == 0) for i, n in enumerate(runs)]
    return np.concatenate(parts)[None, None, :]


def components(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Components by walking from voxel to touching voxel."""
    left = {tuple(map(int, v)) for v in np.argwhere(mask)}
    found = []
    while left:
        border, component = [left.pop()], set()
        while border:
            voxel = border.pop()
            component.add(voxel)
            near = {tuple(np.add(voxel, s).tolist()) for s in itertools.product((-1, 0, 1), repeat=3)} & left
            left -= near
            border += near
        found.append(component)
    return found


# --- by hand --------------------------------------------------------------------------------------


def test_lesions_of_a_drawn_case() -> None:
    truth = drawn("""
        11...1
        11...1
        ......
        1....1
    """)
    predicted = drawn("""
        1.1..1
        ..1...
        ......
        ..11..
    """)
    # Truth: four voxels at the left, two and one at the right, one below. The first two are detected, by 1 of 4 and by
    # 1 of 2. Predicted: one voxel, a column, one voxel, a pair; the single ones are all true, the others not at all.
    found = match_lesions(truth, predicted, voxel_ml=0.1)
    assert (found.true, found.detected) == (4, 2)
    assert (found.predicted, found.true_positives, found.false_positives) == (4, 2, 2)
    assert (found.sensitivity, found.precision, found.f1) == pytest.approx((2 / 4, 2 / 4, 1 / 2))
    # Volumes 0.4, 0.2, 0.1 and 0.1 mL: all from 0.1 to below 0.5.
    assert found.true_by_volume == (0, 4, 0, 0)
    assert found.detected_by_volume == (0, 2, 0, 0)


@pytest.mark.parametrize(
    ("second", "lesions"), [((0, 0, 1), 1), ((0, 1, 1), 1), ((1, 1, 1), 1), ((0, 0, 2), 2)],
    ids=["face", "edge", "corner", "gap"],
)  # fmt: skip
def test_voxels_that_touch_by_a_corner_are_one_lesion(second: tuple[int, int, int], lesions: int) -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[second] = True
    assert match_lesions(mask, mask, 1.0).true == lesions


@pytest.mark.parametrize(
    ("size", "overlap", "detected"), [(30, 3, 1), (30, 2, 0), (10, 1, 1), (11, 1, 0), (70, 7, 1), (1, 1, 1), (5, 0, 0)]
)
def test_a_lesion_is_detected_from_a_tenth_of_its_voxels_on(size: int, overlap: int, detected: int) -> None:
    assert OVERLAP == 0.1
    lesion, other = row(size, 5), row(overlap, size + 5 - overlap)
    assert match_lesions(lesion, other, 1.0).detected == detected
    assert match_lesions(other, lesion, 1.0).true_positives == detected


def test_one_blob_over_everything_detects_and_is_not_confirmed() -> None:
    found = match_lesions(row(1, 20, 1, 20), row(42), 1.0)
    assert (found.true, found.detected, found.predicted, found.true_positives) == (2, 2, 1, 0)
    assert (found.sensitivity, found.precision, found.f1) == (1, 0, 0)


def test_a_lesion_found_as_several_components_is_detected() -> None:
    # Each component holds a twentieth of the lesion, both together a tenth.
    found = match_lesions(row(20, 5), row(1, 10, 1, 13), 1.0)
    assert (found.detected, found.predicted, found.true_positives) == (1, 2, 2)


def test_one_prediction_can_find_two_lesions() -> None:
    found = match_lesions(row(3, 2, 3), row(8), 1.0)
    assert (found.true, found.detected, found.predicted, found.true_positives) == (2, 2, 1, 1)


# --- volumes --------------------------------------------------------------------------------------


def test_lesions_are_counted_by_volume_with_an_edge_in_the_larger_bin() -> None:
    # 99, 100, 499, 500, 1999 and 2000 voxels of a microlitre.
    truth = row(99, 1, 100, 1, 499, 1, 500, 1, 1999, 1, 2000)
    found = match_lesions(truth, truth, voxel_ml=0.001)
    assert found.true_by_volume == found.detected_by_volume == (1, 2, 2, 1)
    assert len(VOLUMES) == len(VOLUMES_ML) + 1


def test_a_volume_short_of_an_edge_by_rounding_is_on_it() -> None:
    rounded_ml = float(np.float32(1.25)) * float(np.float32(0.8)) * (1 - 1e-8) / 1000
    assert match_lesions(row(100), row(100), rounded_ml).true_by_volume == (0, 1, 0, 0)


def test_sensitivity_by_volume_does_not_exist_without_lesions_in_the_bin() -> None:
    found = Lesions(true_by_volume=(4, 0, 2, 1), detected_by_volume=(1, 0, 2, 0), predicted=3, true_positives=3)
    assert found.sensitivity_by_volume == pytest.approx((0.25, math.nan, 1.0, 0.0), nan_ok=True)
    assert found.sensitivity == pytest.approx(3 / 7)


# --- empty masks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "predicted", "score", "false_positives"),
    [("11..", "....", 0.0, 0), ("....", "1.1.", math.nan, 2), ("....", "....", math.nan, 0), ("1...", "..1.", 0.0, 1)],
    ids=["missed", "false positive", "neither", "apart"],
)
def test_every_row_of_the_empty_mask_table(truth: str, predicted: str, score: float, false_positives: int) -> None:
    found = match_lesions(drawn(truth), drawn(predicted), 1.0)
    assert (found.sensitivity, found.precision, found.f1) == pytest.approx((score,) * 3, nan_ok=True)
    assert found.false_positives == false_positives


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        match_lesions(drawn("1.."), drawn("1..."), 1.0)


# --- invariants -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(MASKS, MASKS)
def test_counts_equal_those_of_walking_from_voxel_to_voxel(truth: np.ndarray, predicted: np.ndarray) -> None:
    found = match_lesions(truth, predicted, 0.04)
    true, guessed = components(truth), components(predicted)
    all_true, all_guessed = set().union(*true), set().union(*guessed)
    detected = [component for component in true if 10 * len(component & all_guessed) >= len(component)]
    assert (found.true, found.detected) == (len(true), len(detected))
    assert found.predicted == len(guessed)
    assert found.true_positives == sum(10 * len(component & all_true) >= len(component) for component in guessed)
    small = [component for component in true if len(component) * 0.04 < 0.1]
    assert found.true_by_volume[0] == len(small)


@settings(deadline=None)
@given(MASKS, MASKS)
def test_swapping_truth_and_prediction_swaps_detected_and_confirmed(a: np.ndarray, b: np.ndarray) -> None:
    one, other = match_lesions(a, b, 1.0), match_lesions(b, a, 1.0)
    assert (one.true, one.detected) == (other.predicted, other.true_positives)


@settings(deadline=None)
@given(MASKS, MASKS, st.permutations([0, 1, 2]))
def test_counts_do_not_depend_on_the_order_of_axes(a: np.ndarray, b: np.ndarray, order: list[int]) -> None:
    assert match_lesions(a.transpose(order), b.transpose(order), 1.0) == match_lesions(a, b, 1.0)
