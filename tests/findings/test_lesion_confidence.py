"""Probability and agreement of lesions, on masks that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.scenes import GRID, LEVELS, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dvtplan.anatomy.levels import Levels
from dvtplan.findings.burden import measure
from dvtplan.findings.lesion_confidence import ConfidenceCounter, Lesion, measure_lesions, measure_removed, vote_type


def found(levels: Levels | None = LEVELS, *, voted: bool = True, **more: object) -> list[Lesion]:
    """Measure the lesions of the scene."""
    mask, probability, votes = scene()
    read_votes = votes.__getitem__ if voted else None
    return measure_lesions(mask, GRID, levels, probability.__getitem__, read_votes, 2 if voted else 1, **more)  # type: ignore[arg-type]


def test_lesions_are_numbered_by_volume_and_placed() -> None:
    large, small = found()
    assert (large.number, large.limb, large.slice_number) == (1, "left", 2)
    assert (small.number, small.limb, small.slice_number) == (2, "right", 1)
    assert large.volume_ml == pytest.approx(0.4) and small.volume_ml == pytest.approx(0.1)
    # Rows 1, 2, 3, 4 at z 98, 96, 94, 92; slices 1, 1, 1, 2 at y 5, 5, 5, 10.
    assert large.centre_lps_mm == pytest.approx((25.0, 6.25, 95.0))
    assert small.centre_lps_mm == pytest.approx((-25.0, 0.0, 100.0))


def test_probability_is_the_mean_and_the_peak_over_a_lesions_voxels() -> None:
    large, small = found()
    assert large.probability_mean == pytest.approx((0.6 + 0.7 + 0.8 + 0.9) / 4)
    assert large.probability_peak == pytest.approx(0.9)
    assert small.probability_mean == small.probability_peak == 0.5


def test_agreement_is_the_share_that_each_fold_alone_would_segment() -> None:
    """Fold 0 segments all four voxels, fold 1 three; of the small lesion fold 0 segments none, fold 1 all."""
    large, small = found()
    assert (large.agreement_mean, large.agreement_min) == (0.875, 0.75)
    assert (small.agreement_mean, small.agreement_min) == (0.5, 0.0)


def test_a_single_fold_has_no_agreement() -> None:
    assert all(one.agreement_mean is None and one.agreement_min is None for one in found(voted=False))


def test_a_lesion_across_the_level_is_in_both_regions_and_without_levels_in_none() -> None:
    assert [one.region for one in found()] == ["proximal and distal", "proximal"]
    assert [one.region for one in found(None)] == [None, None]


def test_the_most_frequent_of_several_classes_is_the_label_of_a_lesion() -> None:
    mask, probability, _ = scene()
    mask[1, 1:3, 6], mask[1, 3, 6] = 7, 3
    mask[2, 4, 6], mask[0, 0, 1] = 7, 3
    result = measure_lesions(mask, GRID, None, probability.__getitem__, classes={"anterior": 3, "posterior": 7})
    assert [one.label for one in result] == ["posterior", "anterior"]
    assert [one.label for one in found(classes={"thrombus": 1})] == [None, None]


def test_an_empty_mask_has_no_lesion_and_reads_no_probability() -> None:
    assert measure_lesions(np.zeros(GRID.shape, np.uint8), GRID, LEVELS, lambda s: pytest.fail("read")) == []


def test_slices_without_a_lesion_are_never_read() -> None:
    mask, probability, _ = scene()
    mask[0] = 0
    seen: list[int] = []
    measure_lesions(mask, GRID, None, lambda s: seen.append(s) or probability[s])  # type: ignore[func-returns-value]
    assert seen == [1, 2]


@settings(deadline=None)
@given(arrays(bool, GRID.shape))
def test_lesions_divide_the_mask_as_the_burden_does(mask: np.ndarray) -> None:
    result = measure_lesions(mask, GRID, None, lambda s: np.ones(GRID.shape[1:]))
    assert sum(one.volume_ml for one in result) == pytest.approx(mask.sum() * GRID.voxel_ml)
    assert [one.volume_ml for one in result] == sorted((one.volume_ml for one in result), reverse=True)
    components = sum(b.components for b in measure(mask, GRID, None))
    assert len(result) <= components  # one across the middle counts in both limbs


@settings(deadline=None)
@given(st.integers(1, 6))
def test_sub_threshold_voxels_do_not_depend_on_blocks(block: int) -> None:
    """0.25 and 0.49 count if they were not segmented; 0.24 and segmented voxels do not."""
    probability, mask = np.zeros(GRID.shape), np.zeros(GRID.shape, np.uint8)
    probability[0, 0, :4] = 0.25, 0.24, 0.49, 0.6
    mask[0, 0, 3] = 1
    probability[2, 5, 7] = 0.3
    counter = ConfidenceCounter(grid=GRID, levels=None)
    for start in range(0, 3, block):
        counter.add(probability[start : start + block], mask[start : start + block])
    assert counter.sub_threshold_ml == pytest.approx({"left": 0.1, "right": 0.2}) and counter.highest == 0.6


def test_removed_components_are_counted_in_the_limb_with_most_of_their_voxels() -> None:
    assert measure_removed(np.zeros(GRID.shape, bool), GRID, LEVELS) == []
    (left, right) = measure_removed(scene()[0] != 0, GRID, LEVELS)  # the scene's lesions
    assert (left.limb, left.components, left.volume_ml) == ("left", 1, pytest.approx(0.4))
    assert (right.limb, right.components, right.volume_ml) == ("right", 1, pytest.approx(0.1))
    across = np.zeros(GRID.shape, bool)
    across[0, 0, 1:6] = True
    (one,) = measure_removed(across, GRID, None)
    assert one.components == 1 and one.volume_ml == pytest.approx(0.5)


@pytest.mark.parametrize(("folds", "kind"), [(1, "u1"), (8, "u1"), (9, "u2"), (17, "u4"), (33, "u8")])
def test_votes_take_a_bit_for_each_fold(folds: int, kind: str) -> None:
    assert vote_type(folds) == np.dtype(kind)


def test_more_folds_than_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="65 folds"):
        vote_type(65)
