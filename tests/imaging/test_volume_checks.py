"""Checks of images: a mask is not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dvtplan.imaging.volume_checks import image_faults


def mask(*values: float) -> np.ndarray:
    """Return mostly zeros with a few voxels of each value."""
    array = np.zeros((20, 30, 40), np.float32)
    for k, value in enumerate(values):
        array[3, 3 * k : 3 * k + 2, 4:9] = value
    return array


@pytest.mark.parametrize("values", [(1,), (1, 2), (1, 2, 3), (255 - 1,)])
def test_few_small_whole_numbers_are_a_mask(values: tuple[float, ...]) -> None:
    (line,) = image_faults(Path("thrombus.nii.gz"), mask(*values))
    assert "thrombus.nii.gz" in line and "mask" in line and f"{values[-1]:g}" in line


@pytest.mark.parametrize("values", [(0.5,), (-1,), (1000,), (1, 2, 3, 4)])
def test_other_values_are_an_image(values: tuple[float, ...]) -> None:
    assert [*image_faults(Path("a.nii.gz"), mask(*values))] == []


def test_an_image_is_not_a_mask_if_it_is_not_mostly_background() -> None:
    assert [*image_faults(Path("a.nii.gz"), np.indices((4, 5, 6)).sum(0) % 3 + 1)] == []


def test_a_further_channel_may_be_a_mask() -> None:
    assert [*image_faults(Path("a_0001.nii.gz"), mask(1), may_be_mask=True)] == []
    assert [*image_faults(Path("a_0001.nii.gz"), np.ones((4, 5, 6)), may_be_mask=True)] != []
