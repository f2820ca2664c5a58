"""The probes of a phantom, on arrays small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from phantom import probes

SHAPE = (2, 3, 4)
IMAGES = hnp.arrays(np.int16, SHAPE, elements=st.integers(0, 6))
MASKS = hnp.arrays(bool, SHAPE)
LABELS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 2))


def drawn(rows: str) -> np.ndarray:
    """A one-slice uint8 label from rows of digits; '.' is background."""
    return np.array([[[0 if c == "." else int(c) for c in row] for row in rows.split()]], np.uint8)


def dice_by_counting(truth: np.ndarray, predicted: np.ndarray) -> float:
    a, b = set(np.flatnonzero(truth)), set(np.flatnonzero(predicted))
    return 2 * len(a & b) / (len(a) + len(b)) if a else math.nan


# ---- overlap -------------------------------------------------------------------------------------


def test_dice_of_drawn_labels_by_region() -> None:
    truth = drawn("11.. 11.. ..22 ....")
    predicted = drawn("11.. 1... ...2 ..2.")
    scores = probes.region_dice(truth, predicted)
    assert scores["all"] == pytest.approx(2 * 4 / (6 + 5))
    assert scores["proximal"] == pytest.approx(2 * 3 / (4 + 3))
    assert scores["distal"] == pytest.approx(2 * 1 / (2 + 2))


def test_an_empty_truth_has_no_dice_and_an_empty_prediction_scores_zero() -> None:
    some, none = drawn("11.."), drawn("....")
    assert math.isnan(probes.dice(none, some)) and math.isnan(probes.dice(none, none))
    assert probes.dice(some, none) == 0
    assert math.isnan(probes.region_dice(some, some)["distal"])


@given(MASKS, MASKS)
def test_dice_equals_that_of_sets_and_is_symmetric(a: np.ndarray, b: np.ndarray) -> None:
    assert probes.dice(a, b) == pytest.approx(dice_by_counting(a, b), nan_ok=True)
    if a.any() and b.any():
        assert probes.dice(a, b) == probes.dice(b, a)


def test_positive_slices_are_a_share_of_the_coronal_slices() -> None:
    label = np.zeros((4, 2, 2), np.uint8)
    assert probes.positive_slices(label) == 0
    label[1, 0, 0], label[3, 1, 1] = 1, 2
    assert probes.positive_slices(label) == 0.5


def test_a_shift_goes_across_the_vessel_and_not_along_it() -> None:
    # Two columns wide: a shift by one leaves half of it, 2 * 8 / (16 + 16).
    label = drawn("..11.. " * 8)
    assert probes.moved_dice(label)["shifted"]["proximal"] == pytest.approx(0.5)


def test_dilation_and_erosion_of_a_square_of_three_pixels() -> None:
    # 9 pixels; dilated by four neighbours 9 + 12; eroded 1.
    scores = probes.moved_dice(drawn("..... .222. .222. .222. ....."))
    assert scores["dilated"]["distal"] == pytest.approx(2 * 9 / (9 + 21))
    assert scores["eroded"]["distal"] == pytest.approx(2 * 1 / (9 + 1))
    assert math.isnan(scores["eroded"]["proximal"])
    assert scores["dilated"]["all"] == scores["dilated"]["distal"]


def test_a_dilation_stays_in_its_slice() -> None:
    # One pixel in the middle of three slices: 5 pixels after a 2-D dilation, 7 after a 3-D one.
    label = np.zeros((3, 3, 3), np.uint8)
    label[1, 1, 1] = 1
    assert probes.moved_dice(label)["dilated"]["all"] == pytest.approx(2 * 1 / (1 + 5))


def test_the_edge_of_the_volume_does_not_change_the_dice_of_moved_masks() -> None:
    inside, at_the_edge = (probes.moved_dice(drawn(rows)) for rows in (".... .11. .11. ....", "11 11"))
    for edge, scores in inside.items():
        assert scores == pytest.approx(at_the_edge[edge], nan_ok=True)


@given(LABELS)
def test_the_dice_of_moved_masks_is_valid_or_nan(label: np.ndarray) -> None:
    for scores in probes.moved_dice(label).values():
        assert math.isnan(scores["all"]) is not np.any(label)
        assert all(math.isnan(value) or 0 <= value <= 1 for value in scores.values())


# ---- naive methods with oracle parameters ----------------------------------------------------------


def test_best_interval_of_a_drawn_image() -> None:
    # Truth 3 and 5. Both: 2 hits of 4 chosen (3, 4, 4, 5). Only 5: 1 hit of 1. 2*2/(4+2) and 2*1/(1+2) are equal.
    image = np.array([[[1, 3, 4, 4, 5, 9]]], np.int16)
    mask = np.array([[[0, 1, 0, 0, 1, 0]]], bool)
    assert probes.best_interval_dice(image, mask) == pytest.approx(2 / 3)
    mask[0, 0, 3] = True  # three hits of four
    assert probes.best_interval_dice(image, mask) == pytest.approx(2 * 3 / (4 + 3))


def test_a_mask_of_one_intensity_is_found_if_nothing_else_has_it() -> None:
    image = np.array([[[7, 7, 8, 6]]], np.int16)
    assert probes.best_interval_dice(image, image == 7) == 1
    assert probes.best_interval_dice(np.full((1, 1, 4), 7, np.int16), image == 7) == pytest.approx(2 * 2 / (4 + 2))


def test_a_rare_mask_in_a_common_intensity_is_not_found() -> None:
    # One voxel of truth among 1000 of its intensity.
    mask = np.zeros((1, 10, 100), bool)
    mask[0, 5, 5] = True
    assert probes.best_interval_dice(np.ones(mask.shape, np.float32), mask) == pytest.approx(2 / 1001)


@given(IMAGES, MASKS)
def test_best_interval_equals_a_search_over_all_intervals(image: np.ndarray, mask: np.ndarray) -> None:
    ends = range(7)
    tried = [dice_by_counting(mask, (image >= low) & (image <= high)) for low in ends for high in ends]
    found = probes.best_interval_dice(image, mask)
    assert found == pytest.approx(max(tried) if mask.any() else math.nan, nan_ok=True)


@given(IMAGES, MASKS, st.integers(1, 50), st.integers(-100, 100))
def test_best_interval_does_not_depend_on_the_unit(image: np.ndarray, mask: np.ndarray, gain: int, shift: int) -> None:
    other = image.astype(np.float64) * gain + shift
    assert probes.best_interval_dice(other, mask) == pytest.approx(probes.best_interval_dice(image, mask), nan_ok=True)


def test_top_hat_finds_a_dark_line_and_not_a_dark_half() -> None:
    image = np.full((1, 9, 9), 100, np.int16)
    image[0, :, 2] = 40
    image[0, :, 6:] = 40
    line, half = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    line[0, :, 2], half[0, :, 6:] = True, True
    # 3 x 3 pixels close a line of one and leave a half of three as it is.
    assert probes.top_hat_dice(image, line, (1, 1, 1), sizes_mm=(3,)) == 1
    # Without response anywhere, every threshold takes all or nothing: 27 of 81 pixels.
    assert probes.top_hat_dice(image, half, (1, 1, 1), sizes_mm=(3,)) == pytest.approx(2 * 27 / (81 + 27))


def test_top_hat_is_measured_in_mm() -> None:
    # A line of three pixels of 2 mm: 7 pixels (14 mm) close it, 3 pixels (6 mm) do not.
    image = np.full((1, 15, 15), 100, np.int16)
    image[0, :, 6:9] = 40
    wide, narrow = (probes.top_hat_dice(image, image < 50, (5, 2, 2), sizes_mm=(mm,)) for mm in (14, 6))
    assert (wide, narrow) == (1, pytest.approx(2 * 45 / (225 + 45)))
    assert probes.top_hat_dice(image, image < 50, (5, 2, 2), sizes_mm=(6, 14)) == 1


def test_top_hat_without_truth_is_nan() -> None:
    assert math.isnan(probes.top_hat_dice(np.zeros(SHAPE, np.int16), np.zeros(SHAPE, bool), (1, 1, 1)))


def atlas(masks: list[np.ndarray]) -> list[float]:
    return probes.atlas_dice([(mask, (1, 1, 1)) for mask in masks], SHAPE, (1, 1, 1))


def test_atlas_of_three_drawn_cases() -> None:
    # Others of the first: 12.. -> at a cut of 2 it takes '2' (no hit), at 1 both (one hit of two).
    masks = [drawn(rows) > 0 for rows in ("1..1", "11..", ".1..")]
    scores = probes.atlas_dice([(mask, (1, 1, 1)) for mask in masks], (1, 1, 4), (1, 1, 1))
    assert scores[0] == pytest.approx(2 * 1 / (2 + 2))
    # Others of the second: 11.1 -> two hits of three; of the third: 21.1 -> one hit of three.
    assert scores[1] == pytest.approx(2 * 2 / (3 + 2))
    assert scores[2] == pytest.approx(2 * 1 / (3 + 1))


def test_a_single_case_has_an_empty_atlas_and_no_case_none() -> None:
    assert atlas([np.ones(SHAPE, bool)]) == [0]
    assert atlas([]) == []
    assert math.isnan(atlas([np.zeros(SHAPE, bool), np.ones(SHAPE, bool)])[0])


@given(st.lists(MASKS, min_size=2, max_size=5))
def test_atlas_equals_a_search_over_all_cuts(masks: list[np.ndarray]) -> None:
    scores = atlas(masks)
    for i, mask in enumerate(masks):
        mean = sum(other.astype(int) for j, other in enumerate(masks) if j != i)
        tried = max(dice_by_counting(mask, mean >= cut) for cut in range(1, len(masks)))
        assert scores[i] == pytest.approx(tried, nan_ok=True)


def test_atlas_lays_grids_centre_onto_centre() -> None:
    wide = drawn(".1..1.") > 0  # at -1.5 and 1.5 mm
    cut = drawn("1..1") > 0  # the same field without its two outer columns
    fine = np.repeat(wide, 2, axis=2)
    masks = [(wide, (1, 1, 1)), (cut, (1, 1, 1)), (fine, (1, 1, 0.5))]
    assert probes.atlas_dice(masks, (1, 1, 6), (1, 1, 1)) == [1, 1, 1]


def test_lumen_threshold_of_a_drawn_vein() -> None:
    # Sorted inside the lumen: 2*, 3, 4*, 8 in proximal and 5*, 9 in distal veins, stars are truth.
    image = np.array([[[2, 3, 4, 8, 5, 9, 0, 0]]], np.int16)
    lumen = drawn("11112...").copy()
    lumen[0, 0, 5] = 2
    truth = drawn("1.1.2...")
    scores = probes.oracle_lumen_dice(image, lumen, truth)
    # Below 8 lie 2, 3, 4, 5: three hits of four called; the dark voxels outside the veins do not count.
    assert scores["all"] == pytest.approx(2 * 3 / (4 + 3))
    assert scores["proximal"] == pytest.approx(2 * 2 / (3 + 2))
    assert scores["distal"] == 1


def test_clot_outside_the_lumen_is_missed_and_equal_intensities_stay_together() -> None:
    image = np.array([[[1, 1, 5, 1]]], np.int16)
    scores = probes.oracle_lumen_dice(image, drawn("111."), drawn("1..1"))
    assert scores["all"] == pytest.approx(2 * 1 / (2 + 2))
    assert math.isnan(scores["distal"])


@given(IMAGES, LABELS, LABELS)
def test_lumen_threshold_equals_a_search(image: np.ndarray, lumen: np.ndarray, truth: np.ndarray) -> None:
    tried = [dice_by_counting(truth, (lumen > 0) & (image < cut)) for cut in range(8)]
    found = probes.oracle_lumen_dice(image, lumen, truth)["all"]
    assert found == pytest.approx(max(tried) if truth.any() else math.nan, nan_ok=True)


# ---- the same patient without clot -----------------------------------------------------------------


def test_a_difference_counts_only_beyond_its_reach() -> None:
    without = np.zeros((1, 5, 7), np.int16)
    clot = np.zeros(without.shape, bool)
    clot[0, 2, 2] = True
    image = without.copy()
    image[0, 2, 2], image[0, 1, 3], image[0, 2, 4] = 50, 9, -3  # 0, 1 (diagonally) and 2 voxels away
    assert probes.twin_difference(image, without, clot, 0) == probes.Difference(9, 2)
    assert probes.twin_difference(image, without, clot, 1) == probes.Difference(3, 1)
    assert probes.twin_difference(image, without, clot, 2) == probes.Difference(0, 0)
    assert probes.twin_difference(image, without, clot, 0, tolerance=3) == probes.Difference(9, 1)


def test_without_clot_every_difference_counts_and_none_overflows() -> None:
    image = np.zeros(SHAPE, np.int16)
    image[0, 0, 0], image[1, 2, 3] = 32767, 1
    other = image.copy()
    other[0, 0, 0] = -32768
    assert probes.twin_difference(image, other, np.zeros(SHAPE, bool), 3) == probes.Difference(65535, 1)


# ---- information in global statistics --------------------------------------------------------------


def test_global_statistics_of_a_drawn_image() -> None:
    # Air is 0; the body has 100 in the upper third, 200 in the middle, 300 in the lower.
    image = np.zeros((2, 6, 8), np.int16)
    for third, value in enumerate((100, 200, 300)):
        image[:, 2 * third : 2 * third + 2, :4] = value
    found = dict(zip(probes.STATISTICS, probes.global_statistics(image), strict=True))
    assert found["mean"] == pytest.approx(200) and found["maximum"] == 300
    assert found["sd"] == pytest.approx(math.sqrt(2 / 3) * 100)
    assert found["skewness"] == pytest.approx(0, abs=1e-6) and found["body share"] == 0.5
    assert (found["percentile 50"], found["percentile 5"], found["percentile 95"]) == (200, 100, 300)
    assert [found[f"mean of the {third} third"] for third in ("upper", "middle", "lower")] == [100, 200, 300]


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_has_finite_statistics(value: int) -> None:
    assert np.isfinite(probes.global_statistics(np.full((1, 4, 4), value, np.int16))).all()


def patients(n_with: int, n_without: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Three features, of which the first differs by ``gap`` SD, and a constant one."""
    has_region = np.arange(n_with + n_without) < n_with
    features = np.random.default_rng(5).normal(size=(len(has_region), 4))
    features[:, 0] += gap * has_region
    features[:, 3] = 12.0
    return features, has_region


def test_an_informative_feature_is_found() -> None:
    features, has_region = patients(20, 12, gap=4.0)
    leak = probes.leak_auc(features, has_region, permutations=20)
    assert leak.auc > 0.95 and leak.low > 0.5
    assert (leak.n_with, leak.n_without, leak.reason) == (20, 12, "")


def test_auc_does_not_depend_on_the_unit_of_a_feature() -> None:
    features, has_region = patients(12, 9, gap=1.0)
    plain, other = (probes.leak_auc(f, has_region, permutations=2).auc for f in (features, 1000 * features - 7))
    assert plain == pytest.approx(other, abs=0.01)  # the optimiser stops elsewhere


def test_useless_features_give_an_auc_of_one_half_and_not_less() -> None:
    # The mean of 60 AUCs of SD 0.24 has a standard error of 0.03; 0.1 is three of them. Leaving out one
    # patient at a time and pooling the scores gives 0.31 here.
    has_region = np.arange(16) < 11
    rng = np.random.default_rng(2)
    aucs = [probes.leak_auc(rng.normal(size=(16, 2)), has_region, k, 2, permutations=1).auc for k in range(60)]
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.1)


def test_the_interval_of_useless_features_contains_one_half_in_most_cohorts() -> None:
    # A 95 % interval misses 5 or more times in 20 with a probability of 0.003.
    has_region = np.arange(20) < 12
    rng = np.random.default_rng(3)
    leaks = [probes.leak_auc(rng.normal(size=(20, 3)), has_region, k, 2, permutations=20) for k in range(20)]
    assert sum(leak.low < 0.5 < leak.high for leak in leaks) >= 16
    assert leaks[0].high - leaks[0].auc == pytest.approx(leaks[0].auc - leaks[0].low)


@pytest.mark.parametrize(("n_with", "n_without"), [(5, 1), (0, 6), (1, 1)])
def test_a_class_of_fewer_than_two_has_no_auc_but_a_reason(n_with: int, n_without: int) -> None:
    leak = probes.leak_auc(*patients(n_with, n_without, gap=1.0))
    assert math.isnan(leak.auc) and math.isnan(leak.low) and math.isnan(leak.high)
    assert f"{n_with} with" in leak.reason and f"{n_without} without" in leak.reason


@settings(max_examples=10)
@given(st.integers(2, 6), st.integers(2, 6))
def test_two_of_each_class_suffice(n_with: int, n_without: int) -> None:
    leak = probes.leak_auc(*patients(n_with, n_without, gap=0.5), repeats=1, permutations=2)
    assert 0 <= leak.low <= leak.auc <= leak.high <= 1
