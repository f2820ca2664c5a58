"""What one case looks like, measured on volumes small enough to count by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers.datasets import tiny_image, tiny_label
from helpers.grids import AXIAL, all_orientations

from dvtplan.imaging.geometry import Grid, Reorientation, anatomical_axes
from dvtplan.planning import measurement
from dvtplan.planning.fingerprint import CaseFingerprint
from dvtplan.planning.measurement import measure, unlabelled

GRID = Grid(shape=(4, 3, 2), spacing_mm=(5.0, 2.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=AXIAL)
"""Axes z, y, x: 4 voxels head-foot, 3 front-back, 2 left-right; 0.01 mL each."""
LABELS = {"proximal": 1, "distal": 2, "other": 7}


def measured(image: np.ndarray, label: np.ndarray, grid: Grid = GRID) -> CaseFingerprint:
    return measure("a", "P", [image], label, grid, LABELS, "digest")


def counting() -> np.ndarray:
    """Intensities 0 to 23 in file order: slice z holds 6 z to 6 z + 5."""
    return np.arange(24.0).reshape(GRID.shape)


def test_shapes_and_spacings_are_named_by_anatomy() -> None:
    found = measured(counting(), np.zeros(GRID.shape, np.uint8))
    assert (found.id, found.patient, found.source_digest) == ("a", "P", "digest")
    assert found.shape == {"LR": 2, "AP": 3, "SI": 4}
    assert found.spacing_mm == {"LR": 1.0, "AP": 2.0, "SI": 5.0}
    assert found.orientation == "LPS"


def test_intensities() -> None:
    (channel,) = measured(counting(), np.zeros(GRID.shape, np.uint8)).channels
    assert (channel.minimum, channel.maximum) == (0, 23)
    # Of 24 values 0 to 23, percentile p lies at 23 p / 100.
    assert (channel.low, channel.high) == pytest.approx((0.115, 22.885))


def test_the_spread_of_slice_maxima_is_the_90th_over_the_10th_percentile() -> None:
    (channel,) = measured(counting(), np.zeros(GRID.shape, np.uint8)).channels
    # Along SI the maxima are 5, 11, 17, 23: percentiles at 0.3 and 2.7 steps of 6 above 5.
    assert channel.slice_maximum_spread["SI"] == pytest.approx((5 + 2.7 * 6) / (5 + 0.3 * 6))
    # Along LR they are 22 and 23.
    assert channel.slice_maximum_spread["LR"] == pytest.approx(22.9 / 22.1)


def test_the_spread_does_not_depend_on_where_intensities_begin() -> None:
    empty = np.zeros(GRID.shape, np.uint8)
    (low,), (high,) = (measured(counting() + offset, empty).channels for offset in (0.0, 1000.0))
    assert low.slice_maximum_spread == pytest.approx(high.slice_maximum_spread)


def test_slices_without_signal_count_as_the_largest_spread() -> None:
    image = np.zeros(GRID.shape)
    image[3] = 9.0
    (channel,) = measured(image, np.zeros(GRID.shape, np.uint8)).channels
    assert channel.slice_maximum_spread["SI"] == 4.0
    assert channel.slice_maximum_spread["AP"] == 1.0


def test_positive_slices_are_counted_along_each_axis() -> None:
    label = np.zeros(GRID.shape, np.uint8)
    label[0, 1, 0] = label[2, 1, 1] = 1
    assert measured(counting(), label).positive_slices == {"LR": 2, "AP": 1, "SI": 2}


def test_regions_in_voxels_millilitres_and_pieces() -> None:
    label = np.zeros(GRID.shape, np.uint8)
    label[0, 0, 0] = label[1, 1, 1] = 1  # corner to corner: one piece
    label[3, 0, 0] = label[3, 2, 0] = 2  # a voxel apart: two
    regions = measured(counting(), label).regions
    assert [(r.voxels, r.components) for r in regions.values()] == [(2, 1), (2, 2), (0, 0)]
    assert [r.ml for r in regions.values()] == pytest.approx([0.02, 0.02, 0])
    assert list(regions) == list(LABELS)


def test_the_share_on_the_left_is_counted_from_the_middle_of_the_image() -> None:
    """Columns at x 0, 1 and 2 mm: the middle one counts half. Turned by 180 degrees they are at 0, -1 and -2 mm."""
    grid = Grid(shape=(4, 3, 3), spacing_mm=(5.0, 2.0, 1.0), origin_mm=(0.1, 0.0, 0.0), direction=AXIAL)
    label = np.zeros(grid.shape, np.uint8)
    label[0, 0, :] = label[1, 0, 2] = 1
    label[2, 0, 0] = 2
    found = measured(np.zeros(grid.shape), label, grid).regions
    assert [found[name].left_share for name in LABELS] == [(2 + 0.5) / 4, 0.0, None]
    turned = replace(grid, direction=tuple(tuple(-x for x in row) for row in AXIAL))
    found = measured(np.zeros(grid.shape), label, turned).regions
    assert [found[name].left_share for name in LABELS] == [(1 + 0.5) / 4, 1.0, None]


@pytest.mark.parametrize("kind", ["u1", "i2", "f4"])
def test_the_number_type_does_not_matter(kind: str) -> None:
    label = np.ones(GRID.shape)
    assert measured(counting().astype(kind), label.astype(kind)) == measured(counting(), label)


@pytest.mark.parametrize("number", range(0, 48, 5))
def test_the_same_patient_in_another_file_order_looks_the_same_but_for_the_orientation(number: int) -> None:
    image, label = tiny_image(0), tiny_label([1, 2])
    here = Grid(shape=(20, 3, 18), spacing_mm=(2.0, 5.0, 2.5), origin_mm=(0.0, 0.0, 0.0), direction=AXIAL)
    rows = np.asarray(all_orientations()[number])
    order = tuple(int(a) for a in (2 - np.abs(rows).argmax(axis=1)))
    flips = tuple(bool(s < 0) for s in rows.sum(axis=1))
    turn = Reorientation((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
    there = turn.grid(here)
    assert np.array_equal(there.direction, rows)
    before = measured(image, label, here)
    after = measured(turn.apply(image), turn.apply(label), there)
    assert after.shape == before.shape
    assert after.spacing_mm == before.spacing_mm
    assert after.positive_slices == before.positive_slices
    assert after.regions == before.regions
    assert after.channels == before.channels
    assert (after.orientation == before.orientation) == (anatomical_axes(there) == anatomical_axes(here))


def test_everything_measured_is_finite() -> None:
    for channel in measured(np.eye(4, 6).reshape(4, 3, 2), np.zeros(GRID.shape, np.uint8)).channels:
        values = (channel.minimum, channel.low, channel.high, channel.maximum)
        assert all(map(math.isfinite, (*values, *channel.slice_maximum_spread.values())))


def test_shares_are_counted_between_the_outlier_percentiles() -> None:
    """0 to 23, from 0.115 to 22.885: below 2.392 lie 0, 1 and 2; below 11.5 twelve of 24."""
    assert measurement.channel(counting(), GRID).shares_below == (3 / 24, 12 / 24)


def test_a_scan_without_truth_has_the_geometry_of_one_with_it() -> None:
    whole = measured(counting(), np.zeros(GRID.shape, np.uint8))
    alone = unlabelled("a", [measurement.channel(counting(), GRID)], GRID)
    assert (alone.shape, alone.spacing_mm, alone.channels) == (whole.shape, whole.spacing_mm, whole.channels)
    assert alone.regions == {} and alone.source_digest == ""
