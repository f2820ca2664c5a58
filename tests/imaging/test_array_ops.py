"""The fast functions give the same results as NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dvtplan.imaging import array_ops

KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
SHARES = st.lists(st.floats(0, 100), min_size=1, max_size=4)


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    """Small ones of every type, often of few values and often with zeros."""
    kind = np.dtype(draw(st.sampled_from(KINDS)))
    low, high = (-50, 50) if kind.kind == "f" else (max(np.iinfo(kind).min, -30000), min(np.iinfo(kind).max, 30000))
    whole = st.integers(low, high) | st.integers(max(low, -2), 2)
    values = whole.map(float) if kind.kind == "f" else whole
    return draw(arrays(kind, st.tuples(*[st.integers(1, 5)] * 3), elements=values))


@given(images(), SHARES)
def test_percentiles_equal_numpy(image: np.ndarray, wanted: list[float]) -> None:
    np.testing.assert_allclose(
        array_ops.percentiles(image, wanted), np.percentile(image.astype(float), wanted), rtol=1e-12, atol=1e-12
    )


@given(images())
def test_indices_and_values_equal_numpy(image: np.ndarray) -> None:
    assert np.array_equal(array_ops.nonzero_indices(image), np.flatnonzero(image))
    found = array_ops.unique_values(image)
    assert np.array_equal(found, np.unique(image)) and found.dtype == image.dtype


@given(images(), images())
def test_the_box_contains_every_voxel_of_both_and_has_no_empty_side(image: np.ndarray, other: np.ndarray) -> None:
    other = np.resize(other, image.shape)
    box = array_ops.bounding_box(image, other)
    there = (image != 0) | (other != 0)
    if box is None:
        assert not there.any()
        return
    assert there[box].sum() == there.sum()
    assert all(there[box].take(end, axis=axis).any() for axis in range(3) for end in (0, -1))


def test_indices_of_bytes_do_not_depend_on_the_alignment() -> None:
    for length in range(1, 20):
        for at in range(length):
            mask = np.zeros(length + 1, np.uint8)[1:]
            mask[at] = 7
            assert array_ops.nonzero_indices(mask).tolist() == [at]
            assert array_ops.nonzero_indices(mask != 0).tolist() == [at]


@pytest.mark.parametrize("kind", ["i2", "u2", "u1"])
def test_a_volume_of_real_size_is_counted_in_blocks(kind: str) -> None:
    image = np.random.default_rng(3).integers(0, 200, (3, array_ops.BLOCK // 2, 1)).astype(kind)
    assert np.array_equal(
        array_ops.percentiles(image, (0, 0.5, 50, 99.5, 100)), np.percentile(image, (0, 0.5, 50, 99.5, 100))
    )


def test_extremes_of_a_type_do_not_overflow() -> None:
    image = np.array([[[-32768, 32767]]], np.int16)
    assert array_ops.percentiles(image, (0, 50, 100)).tolist() == [-32768, -0.5, 32767]


def test_nan_is_a_value() -> None:
    assert np.array_equal(array_ops.unique_values(np.array([0.0, np.nan, 1.0, np.nan])), [0, 1, np.nan], equal_nan=True)
