"""Proximal and distal: by a level per limb, by the truth's labels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from helpers.grids import in_source_order
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dvtplan.anatomy import regions
from dvtplan.anatomy.levels import UNASSIGNED, Levels
from dvtplan.anatomy.regions import by_label, by_level
from dvtplan.evaluation.confusion import count_voxels
from dvtplan.imaging.geometry import SLICE_ORDER, Grid, Reorientation, to_slice_order

FILM = Grid(
    shape=(1, 4, 4),
    spacing_mm=(10.0, 10.0, 10.0),
    origin_mm=(0.0, 0.0, 30.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""One coronal slice, head up, patient's right on the left: rows at z 30, 20, 10, 0 mm and columns
at x 0, 10, 20, 30 mm, so the limbs meet between the second and the third column."""

FULL = np.ones(FILM.shape, np.uint8)


def film(rows: str) -> np.ndarray:
    """A map on ``FILM``; '.' is background, '?' unassigned."""
    values = {".": 0, "?": UNASSIGNED}
    return np.array([[[values[c] if c in values else int(c) for c in row] for row in rows.split()]], np.uint8)


def turned(shape: tuple[int, int, int], angle_deg: float, spacing_mm: tuple[float, float, float]) -> Grid:
    """A coronal grid turned about the anterior-posterior axis."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return Grid(
        shape=shape,
        spacing_mm=spacing_mm,
        origin_mm=(-7.0, 3.0, 11.0),
        direction=((0.0, 1.0, 0.0), (s, 0.0, -c), (c, 0.0, s)),
    )


# --- by level -------------------------------------------------------------------------------------


def test_each_limb_is_divided_at_its_own_level() -> None:
    levels = Levels(left_mm=15.0, right_mm=25.0)
    assert np.array_equal(by_level(FULL, FILM, levels), film("1111 2211 2222 2222"))


def test_only_voxels_of_the_mask_get_a_region() -> None:
    mask = film("7... .... ...7 ....")
    assert np.array_equal(by_level(mask, FILM, Levels(left_mm=15.0)), film("1... .... ...2 ...."))


@pytest.mark.parametrize("levels", [Levels(left_mm=5.0), Levels(right_mm=5.0)])
def test_one_known_level_holds_for_the_whole_volume(levels: Levels) -> None:
    assert np.array_equal(by_level(FULL, FILM, levels), film("1111 1111 1111 2222"))


def test_a_given_midline_moves_the_border_of_the_limbs() -> None:
    levels = Levels(left_mm=15.0, right_mm=25.0, midline_mm=25.0)
    assert np.array_equal(by_level(FULL, FILM, levels), film("1111 2221 2222 2222"))


def test_on_the_level_is_proximal_and_on_the_midline_is_left() -> None:
    levels = Levels(left_mm=10.0, right_mm=20.0, midline_mm=20.0)
    assert np.array_equal(by_level(FULL, FILM, levels), film("1111 1111 2211 2222"))


def test_a_header_rounded_to_float32_does_not_move_a_voxel_off_its_level() -> None:
    below = Grid(shape=FILM.shape, spacing_mm=FILM.spacing_mm, origin_mm=(0.0, 0.0, 29.9999), direction=FILM.direction)
    assert np.array_equal(by_level(FULL, below, Levels(left_mm=10.0)), film("1111 1111 1111 2222"))


def test_an_oblique_grid_is_divided_across_its_rows() -> None:
    grid = turned((1, 5, 5), 30.0, (1.0, 1.0, 1.0))
    found = by_level(np.ones(grid.shape), grid, Levels(left_mm=9.0, midline_mm=-100.0))
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    expected = [[1 if 11.0 - row * c + column * s >= 9.0 else 2 for column in range(5)] for row in range(5)]
    assert found[0].tolist() == expected
    assert expected[3] == [2, 2, 1, 1, 1]  # z 8.4, 8.9, 9.4, ...: one row holds both regions


def test_an_axial_file_order_is_divided_between_slices() -> None:
    grid = Grid(
        shape=(3, 1, 2),
        spacing_mm=(10.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    found = by_level(np.ones(grid.shape), grid, Levels(left_mm=10.0, right_mm=15.0))
    assert found[:, 0].tolist() == [[2, 2], [2, 1], [1, 1]]


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit its grid"):
        by_level(np.ones((4, 4, 1)), FILM, Levels(left_mm=0.0))


# --- by identity ----------------------------------------------------------------------------------


def test_voxels_take_the_label_of_the_truth_and_outside_it_the_nearest_label() -> None:
    truth = film("11.. .... .... ..22")
    found = by_label(truth, FULL, FILM, None)
    assert np.array_equal(found, film("1111 1112 1222 2222"))  # (1, 3): 22 mm to the 1, 20 mm to the 2


def test_nearest_is_in_mm_and_not_in_voxels() -> None:
    flat = Grid(shape=(1, 2, 4), spacing_mm=(1.0, 10.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=FILM.direction)
    truth = np.array([[[1, 0, 0, 0], [0, 0, 0, 2]]], np.uint8)
    predicted = np.array([[[0, 0, 0, 1], [0, 0, 0, 0]]], np.uint8)
    assert by_label(truth, predicted, flat, None)[0, 0, 3] == 1  # three columns are 3 mm, one row is 10 mm


def test_of_two_equally_near_regions_the_lower_number_is_used() -> None:
    truth = film("2.1. .... .... ....")
    assert by_label(truth, FULL, FILM, None)[0, 0].tolist() == [2, 1, 1, 1]


def test_without_levels_the_nearest_label_holds_at_any_distance() -> None:
    truth = film("2... .... .... ....")
    assert by_label(truth, film(".... .... .... ...1"), FILM, None)[0, 3, 3] == 2


def test_with_levels_only_a_label_within_ten_mm_holds() -> None:
    truth = film("...2 .... .... ....")
    found = by_label(truth, film("...1 ...1 ...1 ...1"), FILM, Levels(left_mm=10.0))
    assert found[0, :, 3].tolist() == [2, 2, 1, 2]  # itself, 10 mm, then by the level at 10 mm


def test_with_levels_a_label_of_the_other_limb_does_not_hold() -> None:
    truth = film(".2.. .... .... ....")
    found = by_label(truth, film("..1. .... ..1. ...."), FILM, Levels(left_mm=15.0))
    assert np.array_equal(found, film("..1. .... ..2. ...."))  # 10 mm from the right limb's label


def test_without_truth_levels_decide() -> None:
    levels = Levels(left_mm=15.0, right_mm=25.0)
    assert np.array_equal(by_label(film(".... " * 4), FULL, FILM, levels), by_level(FULL, FILM, levels))


def test_without_truth_and_levels_nothing_has_a_region() -> None:
    predicted = film("1... .... .... ...1")
    assert np.array_equal(by_label(film(".... " * 4), predicted, FILM, None), film("?... .... .... ...?"))


def test_without_prediction_there_is_nothing_to_divide() -> None:
    assert not by_label(FULL, film(".... " * 4), FILM, None).any()


# --- invariants -----------------------------------------------------------------------------------

SHAPE = (2, 4, 3)
MASKS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 1))
MAPS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 2))
GRIDS = st.builds(
    turned,
    st.just(SHAPE),
    st.sampled_from([0.0, 17.0, -40.0]),
    st.tuples(*[st.sampled_from([1.0, 1.45, 6.0])] * 3),
)
LEVELS = st.builds(
    Levels,
    left_mm=st.sampled_from([-5.0, 3.3, 8.0]),
    right_mm=st.sampled_from([None, 0.0, 9.1]),
    midline_mm=st.sampled_from([None, -6.5, -3.0]),
)
REORIENTATIONS = st.builds(
    Reorientation,
    st.permutations([0, 1, 2]).map(tuple),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)


@given(MASKS, GRIDS, LEVELS, REORIENTATIONS)
def test_levels_give_the_same_regions_in_any_order_of_axes(
    mask: np.ndarray, grid: Grid, levels: Levels, turn: Reorientation
) -> None:
    found = by_level(turn.apply(mask), turn.grid(grid), levels)
    assert np.array_equal(in_source_order(turn, found, grid.shape), by_level(mask, grid, levels))


@given(MAPS, MASKS, GRIDS, st.one_of(st.none(), LEVELS), REORIENTATIONS)
def test_labels_give_the_same_regions_in_any_order_of_axes(
    truth: np.ndarray, predicted: np.ndarray, grid: Grid, levels: Levels | None, turn: Reorientation
) -> None:
    found = by_label(turn.apply(truth), turn.apply(predicted), turn.grid(grid), levels)
    assert np.array_equal(in_source_order(turn, found, grid.shape), by_label(truth, predicted, grid, levels))


@given(MASKS, MASKS, GRIDS, LEVELS)
def test_the_parts_of_a_level_add_up_to_the_whole(
    truth: np.ndarray, predicted: np.ndarray, grid: Grid, levels: Levels
) -> None:
    proximal, distal, whole = count_voxels(by_level(truth, grid, levels), by_level(predicted, grid, levels), 2)
    assert proximal + distal == whole


@given(MAPS, MASKS, GRIDS, LEVELS)
def test_identity_gives_every_predicted_voxel_one_region(
    truth: np.ndarray, predicted: np.ndarray, grid: Grid, levels: Levels
) -> None:
    divided = by_label(truth, predicted, grid, levels)
    assert np.array_equal(divided > 0, predicted > 0)
    proximal, distal, whole = count_voxels(truth, divided, 2)
    assert proximal + distal == whole  # on the truth the prediction takes its label, so no voxel is wrong twice


@settings(max_examples=40)
@given(MAPS, MASKS, GRIDS)
def test_identity_equals_a_search_over_all_truth_voxels(truth: np.ndarray, predicted: np.ndarray, grid: Grid) -> None:
    found = by_label(truth, predicted, grid, None)
    steps = np.asarray(grid.direction) * np.asarray(grid.spacing_mm)[:, None]
    labelled = [(np.array(i) @ steps, truth[i]) for i in itertools.product(*map(range, SHAPE)) if truth[i]]
    for index in zip(*np.nonzero(predicted), strict=True):
        here = np.array(index) @ steps
        nearest = {k: min((math.dist(here, p) for p, r in labelled if r == k), default=math.inf) for k in (1, 2)}
        if not labelled:
            assert found[index] == UNASSIGNED
        elif truth[index]:
            assert found[index] == truth[index]
        elif abs(nearest[1] - nearest[2]) > 0.01:  # ties within the tolerance have a test of their own
            assert found[index] == min(nearest, key=lambda k: nearest[k])


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, levels = film("1... .... .... ..22"), Levels(left_mm=15.0, right_mm=25.0)
    whole = [
        by_level(FULL, FILM, levels),
        by_label(truth, FULL, FILM, None),
        by_label(truth, FULL, FILM, levels),
    ]
    monkeypatch.setattr(regions, "BLOCK", 3)
    parts = [
        by_level(FULL, FILM, levels),
        by_label(truth, FULL, FILM, None),
        by_label(truth, FULL, FILM, levels),
    ]
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("slice_axis", sorted(SLICE_ORDER))
def test_slice_order_divides_as_file_order_does(slice_axis: str) -> None:
    turn, levels = to_slice_order(FILM, slice_axis), Levels(left_mm=15.0, right_mm=25.0)
    found = by_level(turn.apply(FULL), turn.grid(FILM), levels)
    assert np.array_equal(in_source_order(turn, found, FULL.shape), by_level(FULL, FILM, levels))
