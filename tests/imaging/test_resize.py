"""Resizing equals MATLAB's imresize."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.imaging.resize import cubic, imresize, nearest, triangle, weights

SIZES = st.integers(1, 40)

# Keys' kernel with a = -0.5 at the distances that doubling and halving meet, in 128ths:
# k(1/4) = 1.5/64 - 2.5/16 + 1 = 111/128      k(3/4) = 1.5 27/64 - 2.5 9/16 + 1 = 29/128
# k(5/4) = -0.5 125/64 + 2.5 25/16 - 5 + 2 = -9/128
# k(7/4) = -0.5 343/64 + 2.5 49/16 - 7 + 2 = -3/128         111 + 29 - 9 - 3 = 128
NEAR, NEXT, THIRD, LAST = 111 / 128, 29 / 128, -9 / 128, -3 / 128


def dense(n_in: int, n_out: int) -> np.ndarray:
    return weights(n_in, n_out).toarray()


def matlab_contributions(n_in: int, n_out: int) -> np.ndarray:
    """MATLAB's `contributions` of imresize.m, loop by loop, counting from 1 as it does."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    scale = n_out / n_in
    width = 4.0 / scale if scale < 1 else 4.0
    mirrored = [*range(1, n_in + 1), *range(n_in, 0, -1)]
    matrix = np.zeros((n_out, n_in))
    for x in range(1, n_out + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - width / 2)
        indices = [left + k for k in range(math.ceil(width) + 2)]
        row = [scale * kernel(scale * (u - i)) if scale < 1 else kernel(u - i) for i in indices]
        for index, weight in zip(indices, row, strict=True):
            matrix[x - 1, mirrored[(index - 1) % len(mirrored)] - 1] += weight / sum(row)
    return matrix


# --- by hand --------------------------------------------------------------------------------------


def test_keys_kernel() -> None:
    assert cubic(np.array([0.25, -0.75, 1.25, -1.75])).tolist() == [NEAR, NEXT, THIRD, LAST]
    assert cubic(np.array([0.0, 1.0, -2.0, 2.5])).tolist() == [1, 0, 0, 0]


def test_doubling_an_impulse() -> None:
    # Output i lies at i/2 - 1/4; pixel 3 of 8 is 1/4 away from outputs 6 and 7, 3/4 from 5 and 8, ...
    found = dense(8, 16)[:, 3]
    expected = np.zeros(16)
    expected[3:11] = [LAST, THIRD, NEXT, NEAR, NEAR, NEXT, THIRD, LAST]
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_halving_takes_eight_pixels_with_half_the_kernel() -> None:
    # Output 2 of 5 lies at 4.5, between pixels 4 and 5; the kernel is stretched twofold, so pixel
    # distances 1/2, 3/2, 5/2, 7/2 count as 1/4, 3/4, 5/4, 7/4.
    expected = np.array([0, LAST, THIRD, NEXT, NEAR, NEAR, NEXT, THIRD, LAST, 0]) / 2
    np.testing.assert_allclose(dense(10, 5)[2], expected, atol=1e-15)


def test_beyond_the_edge_the_signal_is_mirrored_with_its_edge_pixel() -> None:
    # Output 0 of 4 -> 8 lies at -1/4: pixels -2 -1 0 1 count 7/4 3/4 1/4 5/4, and -1, -2 are 0, 1.
    np.testing.assert_allclose(dense(4, 8)[0], [NEAR + NEXT, THIRD + LAST, 0, 0], atol=1e-15)


def test_doubling_a_step_overshoots_on_both_sides() -> None:
    found = imresize(np.array([[0.0, 0, 0, 1, 1, 1]]), (1, 12))[0]
    # Outputs 3, 4, 5 lie at 1.25, 1.75, 2.25; of the pixels at 1 they reach 3; 3; 3 and 4.
    expected = np.zeros(12)
    expected[3:6] = [LAST, THIRD, NEXT + LAST]
    expected[6:] = 1 - expected[5::-1]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.min() < 0 < 1 < found.max()


def test_both_axes_are_resized_at_once() -> None:
    image = np.random.default_rng(0).normal(size=(7, 11))
    found = imresize(image, (5, 20))
    np.testing.assert_allclose(found, dense(7, 5) @ image @ dense(11, 20).T, atol=1e-6)
    assert found.dtype == np.float32


def test_nearest_follows_matlabs_convention() -> None:
    # Output i lies at (i + 1/2) n_in / n_out - 1/2; ties go to the later pixel.
    assert nearest(np.array([[1, 2, 3, 4]]), (1, 2)).tolist() == [[2, 4]]
    assert nearest(np.array([[1, 2]]), (1, 4)).tolist() == [[1, 1, 2, 2]]
    assert nearest(np.array([[1, 2, 3]]), (1, 2)).tolist() == [[1, 3]]
    assert nearest(np.array([[1], [2], [3]], np.uint8), (6, 1)).ravel().tolist() == [1, 1, 2, 2, 3, 3]


def test_the_papers_shape() -> None:
    image = np.random.default_rng(0).random((961, 345))
    found = imresize(image, (960, 320))
    assert found.shape == (960, 320)
    # 345 -> 320 stretches the kernel by 345/320: up to ceil(4 x 345/320) + 1 = 6 pixels count.
    assert max(np.diff(weights(345, 320).indptr)) <= 6
    assert abs(float(found.mean()) - float(image.mean())) < 1e-3


# --- for all sizes --------------------------------------------------------------------------------


@settings(deadline=None)
@given(SIZES, SIZES)
def test_weights_equal_matlabs(n_in: int, n_out: int) -> None:
    # Where a stretched kernel ends exactly at a pixel the two may round its zero differently.
    np.testing.assert_allclose(dense(n_in, n_out), matlab_contributions(n_in, n_out), atol=1e-12)


@pytest.mark.parametrize(("n_in", "n_out"), [(961, 960), (345, 320), (161, 160), (69, 64), (320, 345), (35, 64)])
def test_weights_equal_matlabs_at_the_sizes_of_the_data(n_in: int, n_out: int) -> None:
    np.testing.assert_allclose(dense(n_in, n_out), matlab_contributions(n_in, n_out), atol=1e-12)


@given(SIZES, SIZES, st.sampled_from([cubic, triangle]))
def test_rows_sum_to_one_so_a_constant_is_unchanged(n_in: int, n_out: int, kernel) -> None:  # type: ignore[no-untyped-def]
    np.testing.assert_allclose(weights(n_in, n_out, kernel).sum(axis=1), 1, atol=1e-12)
    assert np.array_equal(imresize(np.full((n_in, 3), 7.0), (n_out, 2), kernel), np.full((n_out, 2), 7.0))


@given(SIZES, SIZES)
def test_weights_are_symmetric_so_resizing_commutes_with_flips(n_in: int, n_out: int) -> None:
    matrix = dense(n_in, n_out)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)
    image = np.random.default_rng(n_in).normal(size=(n_in, 5))
    np.testing.assert_allclose(
        imresize(image[::-1, ::-1], (n_out, 4)), imresize(image, (n_out, 4))[::-1, ::-1], atol=1e-6
    )


@given(SIZES, st.sampled_from([cubic, triangle]))
def test_the_same_size_changes_nothing(n: int, kernel) -> None:  # type: ignore[no-untyped-def]
    assert np.array_equal(weights(n, n, kernel).toarray(), np.eye(n))


@given(st.integers(8, 40), st.integers(8, 40))
def test_a_ramp_stays_a_ramp_inside(n_in: int, n_out: int) -> None:
    """Cubic convolution reproduces lines, so the field of view neither shifts nor stretches."""
    places = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    reach = 2 * max(1.0, n_in / n_out) + 1
    inside = (places >= reach) & (places <= n_in - 1 - reach)
    found = dense(n_in, n_out) @ np.arange(n_in)
    if n_out >= n_in:  # a stretched kernel is sampled at other places and so not quite exact
        np.testing.assert_allclose(found[inside], places[inside], atol=1e-9)
    else:
        np.testing.assert_allclose(found[inside], places[inside], atol=0.15)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_nearest_takes_the_pixel_whose_area_contains_the_output(n_in: int, n_out: int) -> None:
    expected = [(2 * i + 1) * n_in // (2 * n_out) for i in range(n_out)]  # whole numbers: no rounding
    assert nearest(np.arange(n_in)[None], (1, n_out)).tolist() == [expected]


@given(SIZES, SIZES, st.sampled_from(["u1", "i4", "f4"]))
def test_nearest_keeps_the_type_and_adds_no_value(n_in: int, n_out: int, kind: str) -> None:
    label = (np.arange(n_in * 3).reshape(n_in, 3) % 200).astype(kind)
    found = nearest(label, (n_out, 5))
    assert found.dtype == label.dtype
    assert set(found.ravel().tolist()) <= set(label.ravel().tolist())


@given(SIZES, st.integers(1, 4))
def test_nearest_up_by_a_whole_factor_and_back_is_the_identity(n: int, factor: int) -> None:
    label = np.arange(n)[:, None]
    assert np.array_equal(nearest(nearest(label, (n * factor, 1)), (n, 1)), label)
