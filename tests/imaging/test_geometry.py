"""Positions of voxels, equal grids, and the slice order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.grids import AXIAL, OBLIQUE, Rows, all_orientations, as_rows, in_source_order, rotation
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.imaging.geometry import (
    AXES,
    GRID_TOLERANCE_MM,
    SLICE_ORDER,
    Grid,
    Reorientation,
    anatomical_axes,
    distance_mm,
    orientation_code,
    reorientation_between,
    same_grid,
    to_slice_order,
)


def grid(
    shape: tuple[int, int, int] = (2, 3, 4),
    spacing: tuple[float, float, float] = (5.0, 2.0, 1.0),
    origin: tuple[float, float, float] = (10.0, 20.0, 30.0),
    direction: Rows = AXIAL,
) -> Grid:
    return Grid(shape=shape, spacing_mm=spacing, origin_mm=origin, direction=direction)


def test_a_position_is_the_origin_plus_steps_along_each_axis() -> None:
    # 1 step of 5 mm along z, 2 of 2 mm along y, 3 of 1 mm along x.
    assert grid().position_mm(np.array([1, 2, 3])).tolist() == [10 + 3, 20 + 4, 30 + 5]


def test_positions_of_many_and_of_fractional_indices() -> None:
    found = grid().position_mm(np.array([[0.5, 0.0, 0.0], [0.0, 0.0, -1.0]]))
    assert found.tolist() == [[10.0, 20.0, 32.5], [9.0, 20.0, 30.0]]


def test_a_voxel_of_5_by_2_by_1_mm_has_a_hundredth_of_a_millilitre() -> None:
    assert grid().voxel_ml == pytest.approx(0.01)


def test_corners_are_the_outermost_voxel_centres() -> None:
    corners = grid().corners_mm()
    assert corners.shape == (8, 3)
    assert corners.min(axis=0).tolist() == [10, 20, 30]
    assert corners.max(axis=0).tolist() == [13, 24, 35]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (2, 0, 4)},
        {"spacing": (1.0, 0.0, 1.0)},
        {"spacing": (1.0, -2.0, 1.0)},
        {"spacing": (1.0, math.nan, 1.0)},
        {"origin": (0.0, math.nan, 0.0)},
        {"origin": (0.0, math.inf, 0.0)},
        {"direction": ((math.nan, 0.0, 1.0), *AXIAL[1:])},
    ],
)
def test_an_impossible_grid_is_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match=r"grid needs|spacing must|must be finite"):
        grid(**wrong)  # type: ignore[arg-type]


def test_grids_are_the_same_up_to_a_thousandth_of_a_millimetre() -> None:
    assert GRID_TOLERANCE_MM == 1e-3
    assert same_grid(grid(), grid(origin=(10.0, 20.0, 30.0009)))
    assert not same_grid(grid(), grid(origin=(10.0, 20.0, 30.0011)))


def test_a_wrong_spacing_counts_where_it_matters_most_at_the_far_corner() -> None:
    # 2e-4 mm too much a step: 3 steps are within the tolerance, 8 are not.
    assert same_grid(grid((2, 3, 4)), grid((2, 3, 4), spacing=(5.0, 2.0, 1.0002)))
    assert not same_grid(grid((2, 3, 9)), grid((2, 3, 9), spacing=(5.0, 2.0, 1.0002)))


def test_grids_of_different_shape_are_infinitely_far_apart() -> None:
    assert distance_mm(grid((2, 3, 4)), grid((2, 3, 5))) == math.inf


def test_the_same_positions_in_another_axis_order_are_another_grid() -> None:
    turned = grid((4, 4, 4), direction=(AXIAL[1], AXIAL[0], AXIAL[2]))
    assert not same_grid(grid((4, 4, 4)), turned)


@pytest.mark.parametrize(
    ("direction", "code"),
    [
        (AXIAL, "LPS"),
        (((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)), "RAI"),
        (((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)), "PSR"),
    ],
)
def test_orientation_codes_name_where_the_fastest_axis_points_first(direction: Rows, code: str) -> None:
    assert orientation_code(grid(direction=direction)) == code


def test_all_48_orientations_have_different_codes() -> None:
    assert len({orientation_code(grid(direction=d)) for d in all_orientations()}) == 48


@given(OBLIQUE)
def test_an_oblique_grid_uses_each_anatomical_axis_once(direction: Rows) -> None:
    assert sorted(name for name, _ in anatomical_axes(grid(direction=direction))) == sorted(AXES)


@given(st.sampled_from(all_orientations()), st.tuples(*[st.floats(-30, 30)] * 3))
def test_a_tilt_of_a_gantry_does_not_change_the_anatomical_axes(
    direction: Rows, angles: tuple[float, float, float]
) -> None:
    # Three turns of up to 30 degrees may add up to more than 45 about one axis.
    turned = np.asarray(direction) @ rotation(*(a / 2 for a in angles)).T
    assert anatomical_axes(grid(direction=as_rows(turned))) == anatomical_axes(grid(direction=direction))


@pytest.mark.parametrize("slice_axis", AXES)
@pytest.mark.parametrize("direction", all_orientations(), ids=lambda d: orientation_code(grid(direction=d)))
def test_slice_order_is_that_of_the_film_for_any_file_order(direction: Rows, slice_axis: str) -> None:
    here = grid(direction=direction)
    order = to_slice_order(here, slice_axis)
    there = order.grid(here)
    assert anatomical_axes(there) == SLICE_ORDER[slice_axis]
    check_round_trip(here, slice_axis)


@given(OBLIQUE, st.sampled_from(AXES))
def test_slice_order_of_oblique_grids_moves_no_voxel(direction: Rows, slice_axis: str) -> None:
    check_round_trip(grid(direction=direction), slice_axis)


def check_round_trip(here: Grid, slice_axis: str) -> None:
    """An array can be written back in its own order, and every voxel keeps its position in the patient."""
    order = to_slice_order(here, slice_axis)
    numbers = np.arange(24).reshape(here.shape)
    turned, there = order.apply(numbers), order.grid(here)
    assert np.array_equal(in_source_order(order, turned, here.shape), numbers)
    assert turned.shape == there.shape
    assert there.voxel_ml == pytest.approx(here.voxel_ml)
    before = here.position_mm(np.moveaxis(np.indices(here.shape), 0, -1).reshape(-1, 3))
    after = there.position_mm(np.moveaxis(np.indices(there.shape), 0, -1).reshape(-1, 3))
    # Voxel number k is at before[k]; positions differ by the rounding of a sum of four products.
    np.testing.assert_allclose(after, before[turned.ravel()], atol=1e-9)


def test_coronal_film_of_an_lps_file_has_the_head_up_and_the_patients_right_on_the_left() -> None:
    here = grid()
    there = to_slice_order(here, "AP").grid(here)
    first, below, beside, behind = (
        there.position_mm(np.array(i)) for i in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0))
    )
    assert (below - first).tolist() == [0, 0, -5]
    assert (beside - first).tolist() == [1, 0, 0]
    assert (behind - first).tolist() == [0, 2, 0]


@pytest.mark.parametrize(("slice_axis", "code"), [("AP", "LIP"), ("SI", "LPI"), ("LR", "PIL")])
def test_columns_run_left_or_back_rows_run_down_or_back(slice_axis: str, code: str) -> None:
    # Coronal and axial: the patient's right on the left. Sagittal: the front on the left.
    here = grid()
    assert orientation_code(to_slice_order(here, slice_axis).grid(here)) == code


def test_reorientation_copies_nothing() -> None:
    numbers = np.arange(24).reshape(2, 3, 4)
    order = to_slice_order(grid(), "LR")
    assert np.shares_memory(order.apply(numbers), numbers)


@given(OBLIQUE, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_the_same_voxels_in_any_order_are_reoriented(
    direction: Rows, order: list[int], flips: tuple[bool, bool, bool]
) -> None:
    here = grid(direction=direction)
    turn = Reorientation((order[0], order[1], order[2]), flips)
    back = reorientation_between(turn.grid(here), here)
    numbers = np.arange(24).reshape(here.shape)
    assert back is not None and np.array_equal(back.apply(turn.apply(numbers)), numbers)


def test_other_voxels_cannot_be_reoriented_to_a_grid() -> None:
    assert reorientation_between(grid(origin=(10.5, 20, 30)), grid()) is None
    assert reorientation_between(grid(origin=(10.5, 20, 30)), grid(), tolerance_mm=0.6) is not None
    assert reorientation_between(grid(shape=(2, 3, 5)), grid()) is None
