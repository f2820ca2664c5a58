"""Where the phantom's voxels are, and the random fields that live there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom.grid import DIRECTION, HALF_FIELD_MM, MATRICES, SCALES, Frame, SmoothField

QUARTERS = st.integers(-200, 200).map(lambda n: n / 4)
"""mm, exact in binary, within and beyond ``small_frame``."""


def small_frame() -> Frame:
    """5 x 7 x 6 voxels of 2.5 x 3 x 2 mm: y -5..5, z 9..-9, x -5..5."""
    y, z, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in ((5, 2.5), (7, 3.0), (6, 2.0)))
    return Frame(y=y, z=-z, x=x, spacing_mm=(2.5, 3.0, 2.0))


def frame_of(spacing_mm: tuple[float, float, float], shape: tuple[int, int, int]) -> Frame:
    """A frame centred on the isocentre."""
    y, z, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True))
    return Frame(y=y, z=-z, x=x, spacing_mm=spacing_mm)


# ---- scales and matrices ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "shape", "spacing_mm", "boost", "cases"),
    [
        ("tiny", (12, 161, 69), (9.7, 8.7, 7.3), 3.0, 8),
        ("small", (32, 321, 121), (3.6, 4.35, 4.15), 1.8, 16),
        ("half", (46, 481, 173), (2.5, 2.9, 2.9), 1.35, 58),
        ("paper", (93, 961, 345), (1.25, 1.45, 1.45), 1.0, 58),
    ],
)
def test_a_scale_has_its_specified_size(
    scale: str, shape: tuple[int, ...], spacing_mm: tuple[float, ...], boost: float, cases: int
) -> None:
    size, frame = SCALES[scale], Frame.of(SCALES[scale])
    assert frame.shape == shape and frame.spacing_mm == spacing_mm
    assert (size.boost, size.cases) == (boost, cases)
    # Rows and columns of all scales stay within 1 % of one another: 12 x 9.7 = 116.4, 93 x 1.25 = 116.25.
    assert np.multiply(shape, spacing_mm) == pytest.approx((116, 1393, 500), rel=0.01)


@pytest.mark.parametrize(
    ("matrix", "rows", "columns"),
    [("standard", 961, 345), ("short", 897, 345), ("narrow", 961, 321), ("fine", 1024, 384)],
)
def test_matrices_at_paper_scale(matrix: str, rows: int, columns: int) -> None:
    frame = Frame.of(SCALES["paper"], matrix)
    assert frame.shape == (93, rows, columns)


@pytest.mark.parametrize("scale", SCALES)
def test_a_fine_matrix_has_the_same_field_of_view_and_others_the_same_voxels(scale: str) -> None:
    standard, fine = Frame.of(SCALES[scale]), Frame.of(SCALES[scale], "fine")
    # Rounding to whole voxels leaves less than one voxel.
    for axis in range(3):
        there, here = (f.shape[axis] * f.spacing_mm[axis] for f in (standard, fine))
        assert abs(there - here) < fine.spacing_mm[axis]
    for matrix in ("short", "narrow"):
        assert Frame.of(SCALES[scale], matrix).spacing_mm == standard.spacing_mm


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("matrix", MATRICES)
def test_axes_run_posterior_inferior_left_about_the_centre(scale: str, matrix: str) -> None:
    frame = Frame.of(SCALES[scale], matrix)
    assert frame.shape == (len(frame.y), len(frame.z), len(frame.x))
    for axis, step in ((frame.y, frame.spacing_mm[0]), (frame.z, -frame.spacing_mm[1]), (frame.x, frame.spacing_mm[2])):
        assert np.diff(axis) == pytest.approx(step)
        assert axis.mean() == pytest.approx(0, abs=1e-9)
        assert -axis[0] == pytest.approx(axis[-1])


def test_directions_are_those_of_the_axes() -> None:
    # LPS: slices to posterior (+y), rows to inferior (-z), columns to the left (+x).
    assert DIRECTION == ((0, 1, 0), (0, 0, -1), (1, 0, 0))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("matrix", MATRICES)
def test_no_frame_reaches_beyond_the_field_that_random_fields_cover(scale: str, matrix: str) -> None:
    frame = Frame.of(SCALES[scale], matrix)
    for axis, half_mm in zip((frame.y, frame.z, frame.x), HALF_FIELD_MM, strict=True):
        assert np.abs(axis).max() <= half_mm


def test_voxel_and_pixel_are_geometric_means() -> None:
    frame = frame_of((2.0, 4.0, 1.0), (2, 2, 2))
    assert frame.voxel_mm == pytest.approx(2)  # (2 * 4 * 1) ** (1/3)
    assert frame.pixel_mm == pytest.approx(2)  # (4 * 1) ** (1/2)


# ---- from mm to indices ----------------------------------------------------------------------------


def test_box_of_a_drawn_example() -> None:
    frame = small_frame()
    # y -5 -2.5 0 2.5 5 | z 9 6 3 0 -3 -6 -9 | x -5 -3 -1 1 3 5; both ends belong to the box.
    box = frame.box(np.array([-3, -1, -4]), np.array([1, 2.5, 6]))
    assert box == (slice(2, 4), slice(1, 5), slice(1, 4))


@given(*[st.tuples(QUARTERS, QUARTERS).map(sorted)] * 3)
def test_box_holds_the_voxels_between_two_corners_and_no_other(x: list, y: list, z: list) -> None:
    frame = small_frame()
    inside = np.zeros(frame.shape, bool)
    inside[frame.box(*np.array([x, y, z]).T)] = True
    between = [(axis >= low) & (axis <= high) for axis, (low, high) in ((frame.y, y), (frame.z, z), (frame.x, x))]
    assert np.array_equal(inside, np.einsum("s,h,w->shw", *between))


@pytest.mark.parametrize(
    ("low", "high"),
    [((100,) * 3, (200,) * 3), ((-200,) * 3, (-100,) * 3), ((0.25, 0.25, 0.25), (0.5, 0.5, 0.5))],
    ids=["beyond one end", "beyond the other", "between voxel centres"],
)
def test_an_empty_box_indexes_nothing(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    frame = small_frame()
    box = frame.box(np.array(low), np.array(high))
    assert all(b.stop - b.start == 0 for b in box)
    assert np.zeros(frame.shape)[box].shape == (0, 0, 0)


@given(QUARTERS)
def test_row_and_column_are_the_nearest(mm: float) -> None:
    frame = small_frame()
    for axis, index in ((frame.z, frame.row(mm)), (frame.x, frame.column(mm))):
        assert abs(axis[index] - mm) == np.abs(axis - mm).min()


@pytest.mark.parametrize("scale", SCALES)
def test_row_and_column_of_a_voxel_centre_are_its_own(scale: str) -> None:
    frame = Frame.of(SCALES[scale])
    assert [frame.row(z) for z in frame.z] == list(range(frame.shape[1]))
    assert [frame.column(x) for x in frame.x] == list(range(frame.shape[2]))


def test_cover_rises_over_one_voxel() -> None:
    frame = frame_of((2.0, 4.0, 1.0), (2, 2, 2))  # voxel_mm 2
    depths = np.array([-5, -1, -0.5, 0, 0.5, 1, 5], np.float32)
    assert frame.cover(depths) == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1])


@given(st.floats(-1, 1))
def test_cover_of_a_half_space_adds_up_to_what_lies_inside(edge: float) -> None:
    # Voxels of 1 mm at -4..4; the half space x > edge holds 4.5 - edge of them.
    frame = frame_of((1.0, 1.0, 1.0), (9, 9, 9))
    assert frame.cover(np.float32(frame.x - edge)).sum() == pytest.approx(4.5 - edge, abs=1e-4)


# ---- random fields ---------------------------------------------------------------------------------


def volume(field: SmoothField, slices: int) -> np.ndarray:
    return np.stack([field.at_slice(s) for s in range(slices)])


def test_a_field_has_mean_zero_and_variance_one() -> None:
    frame = frame_of((4.0, 4.0, 4.0), (29, 300, 120))
    values = volume(SmoothField(np.random.default_rng(0), frame, 4, 4, 4), 29)
    assert values.dtype == np.float32 and values.shape == frame.shape
    # Some 29 * 300 * 120 / 45 independent values (a Gaussian of sd 4 mm fills (2 sqrt(pi))**3 voxels): sd .007.
    assert values.mean() == pytest.approx(0, abs=0.025)
    assert values.var() == pytest.approx(1, abs=0.03)


def test_the_variance_is_one_everywhere_at_the_edges_too() -> None:
    frame = Frame.of(SCALES["tiny"])
    draws = np.stack([SmoothField(np.random.default_rng(i), frame, 60, 200, 90).at_slice(0) for i in range(400)])
    # 400 draws: the variance of a place has a standard deviation of sqrt(2 / 400) = .07.
    assert np.abs(draws.var(axis=0) - 1).max() < 5 * 0.07
    assert np.abs(draws.mean(axis=0)).max() < 5 / np.sqrt(400)


def test_values_a_length_apart_correlate_as_smoothed_noise_does() -> None:
    # White noise under exp(-d**2 / 2) has the correlation exp(-d**2 / 4): .78 at one length, .37 at two.
    frame = frame_of((4.0, 4.0, 4.0), (28, 340, 120))
    values = volume(SmoothField(np.random.default_rng(1), frame, y_mm=8, z_mm=16, x_mm=4), 28)
    for axis, voxels in ((0, 2), (1, 4), (2, 1)):
        for lengths in (1, 2):
            along, apart = np.moveaxis(values, axis, 0), lengths * voxels
            assert np.mean(along[apart:] * along[:-apart]) == pytest.approx(np.exp(-(lengths**2) / 4), abs=0.06)


def test_a_place_has_the_same_value_at_two_scales() -> None:
    # The coarse frame is also larger: 5 x 21 x 11 voxels, of which the fine one holds the inner 3 x 19 x 9.
    coarse, fine = frame_of((10.0, 8.0, 6.0), (5, 21, 11)), frame_of((5.0, 4.0, 3.0), (5, 37, 17))
    a, b = (volume(SmoothField(np.random.default_rng(2), f, 20, 30, 15), f.shape[0]) for f in (coarse, fine))
    assert np.array_equal(coarse.z[1:-1], fine.z[::2])
    assert b[::2, ::2, ::2] == pytest.approx(a[1:-1, 1:-1, 1:-1], abs=1e-5)  # float32


def test_a_field_is_its_seed_s() -> None:
    frame = Frame.of(SCALES["tiny"])
    first, again, other = (
        SmoothField(np.random.default_rng(seed), frame, 20, 30, 15).at_slice(3) for seed in (4, 4, 5)
    )
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2


def test_a_part_of_a_slice_is_that_part_of_the_whole() -> None:
    field = SmoothField(np.random.default_rng(6), Frame.of(SCALES["tiny"]), 20, 30, 15)
    whole = field.at_slice(7)
    assert np.array_equal(field.at_slice(7, slice(10, 50), slice(3, 40)), whole[10:50, 3:40])
    assert field.at_slice(7, slice(5, 5)).shape == (0, 69)
