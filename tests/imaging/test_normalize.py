"""Min-max normalization, eq. (1) of the paper, per slice and per volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dvtplan.imaging.normalize import Normalization, limits, scale

SLICE, VOLUME = Normalization(scope="slice"), Normalization(scope="volume")
TWO_SLICES = np.array([[[10, 20], [30, 50]], [[0, 25], [50, 100]]], np.int16)

INTENSITIES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
    elements=st.floats(-(2.0**80), 2.0**80, width=32),
)


def normalized(image_SHW: np.ndarray, how: Normalization) -> np.ndarray:
    return scale(image_SHW, limits(image_SHW, how))


def test_equation_1_by_slice() -> None:
    # (10, 20, 30, 50): (x - 10) / 40; (0, 25, 50, 100): x / 100.
    expected = [[[0, 0.25], [0.5, 1]], [[0, 0.25], [0.5, 1]]]
    assert normalized(TWO_SLICES, SLICE).tolist() == expected
    assert limits(TWO_SLICES, SLICE).tolist() == [[10, 50], [0, 100]]


def test_equation_1_by_volume() -> None:
    expected = np.array([[[0.1, 0.2], [0.3, 0.5]], [[0, 0.25], [0.5, 1]]], np.float32)
    assert np.array_equal(normalized(TWO_SLICES, VOLUME), expected)
    assert limits(TWO_SLICES, VOLUME).tolist() == [[0, 100], [0, 100]]


def test_clipping_replaces_the_extremes_by_percentiles() -> None:
    image = np.arange(101.0).reshape(1, 1, 101)  # percentile p is the value p
    how = Normalization(scope="volume", clip_percentiles=(10.0, 90.0))
    found = normalized(image, how)[0, 0]
    assert limits(image, how).tolist() == [[10, 90]]
    assert found[[0, 10, 50, 90, 100]].tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("how", [SLICE, VOLUME, Normalization(scope="slice", clip_percentiles=(0.5, 99.5))])
def test_a_constant_slice_becomes_zero(how: Normalization) -> None:
    assert not normalized(np.full((2, 3, 3), 7.0), how).any()


def test_a_constant_slice_with_clipped_outliers_becomes_zero() -> None:
    image = np.zeros((1, 10, 10))
    image[0, 0, 0] = 5.0
    assert not normalized(image, Normalization(scope="slice", clip_percentiles=(0.5, 95.0))).any()


def test_a_constant_slice_does_not_disturb_the_others() -> None:
    image = np.stack([np.full((2, 2), 7.0), [[0.0, 1.0], [2.0, 4.0]]])
    assert normalized(image, SLICE).tolist() == [[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]]]


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_no_number_type_overflows(kind: str) -> None:
    dtype = np.dtype(kind)
    ends = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (-1e30, 1e30)
    found = normalized(np.array([[[ends[0], ends[1]]]], dtype), SLICE)
    assert found.dtype == np.float32
    assert found.tolist() == [[[0, 1]]]


@given(INTENSITIES, st.sampled_from([SLICE, VOLUME]))
def test_values_fill_zero_to_one_in_the_same_order(image: np.ndarray, how: Normalization) -> None:
    found = normalized(image, how)
    assert found.shape == image.shape
    assert np.isfinite(found).all()
    for before, after in zip(image, found, strict=True) if how is SLICE else [(image, found)]:
        assert (after.min(), after.max()) == ((0, 1) if before.min() < before.max() else (0, 0))
        in_order = after.ravel()[np.argsort(before, axis=None, kind="stable")]
        assert (np.diff(in_order) >= 0).all()


@given(hnp.arrays(np.int16, (2, 2, 3)), st.integers(-100, 100), st.sampled_from([0.5, 2.0, 4.0]))
def test_scanner_units_do_not_matter(image: np.ndarray, offset: int, gain: float) -> None:
    # Whole numbers and powers of two: nothing rounds but the last division.
    assert np.array_equal(normalized(image * gain + offset, SLICE), normalized(image, SLICE))


def test_the_smallest_range_is_a_range() -> None:
    tiny = np.nextafter(0.0, 1.0)
    assert normalized(np.array([[[0.0, tiny]]]), VOLUME).tolist() == [[[0, 1]]]


def test_a_single_row_of_bytes_is_normalized() -> None:
    assert normalized(np.array([[[3, 1, 2]]], np.uint8), VOLUME).tolist() == [[[1, 0, 0.5]]]
