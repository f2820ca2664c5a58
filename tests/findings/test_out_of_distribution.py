"""Properties out of range: outside the range of the training scans by more than a tenth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.grids import all_orientations
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.findings.out_of_distribution import compares_intensities, find_out_of_range
from dvtplan.imaging.geometry import Grid
from dvtplan.planning import measurement
from dvtplan.planning.fingerprint import CaseFingerprint, ChannelFingerprint, Fingerprint
from dvtplan.planning.training_ranges import TrainingData, summarize, thickest_axis

CHANNEL = ChannelFingerprint(
    minimum=0,
    low=1,
    high=9,
    maximum=10,
    slice_maximum_spread={"LR": 1.0, "AP": 1.0, "SI": 1.0},
    shares_below=(0.5, 0.8),
)


def case(
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0),
    shape: tuple[int, int, int] = (100, 50, 200),
    *shares: tuple[float, float] | None,
) -> CaseFingerprint:
    """Axes LR, AP, SI; a channel for each pair of shares, one like ``CHANNEL`` without any."""
    return CaseFingerprint(
        id="a",
        patient="a",
        shape=dict(zip(("LR", "AP", "SI"), shape, strict=True)),
        spacing_mm=dict(zip(("LR", "AP", "SI"), spacing, strict=True)),
        orientation="LPS",
        channels=tuple(replace(CHANNEL, shares_below=s) for s in shares or (CHANNEL.shares_below,)),
        positive_slices={},
        regions={},
        source_digest="",
    )


def training(*cases: CaseFingerprint) -> TrainingData:
    channels = tuple(f"MR{k}" for k in range(len(cases[0].channels)))
    named = tuple(replace(one, id=str(k)) for k, one in enumerate(cases))
    whole = Fingerprint(dataset="D", channels=channels, labels={}, cases=named)
    return summarize(whole, [one.id for one in named], phantom=True)


TWO = training(case(), case((2.0, 2.0, 2.5), (100, 50, 160)))
"""Spacing from head to foot 2 to 2.5 mm, field of view 400 mm in both."""


def test_a_training_scan_is_in_range() -> None:
    assert [find_out_of_range(one, TWO) for one in (case(), case((2.0, 2.0, 2.5), (100, 50, 160)))] == [[], []]


@pytest.mark.parametrize(("spacing", "out"), [(2.75, False), (2.76, True), (1.8, False), (1.79, True)])
def test_a_tenth_outside_either_end_is_tolerated_and_no_more(spacing: float, out: bool) -> None:
    """2.5 x 1.1 = 2.75, 2 x 0.9 = 1.8; the field of view stays at 400 mm but for rounding."""
    found = find_out_of_range(case((2.0, 2.0, spacing), (100, 50, round(400 / spacing))), TWO)
    assert [one.quantity for one in found] == (["voxel spacing from head to foot"] if out else [])


def test_a_finding_has_the_property_its_value_the_range_and_the_distance() -> None:
    (found,) = find_out_of_range(case((2.0, 2.0, 1.0), (100, 50, 400)), TWO)
    assert (found.value, found.low, found.high, found.unit, found.relative_excess) == (1.0, 2.0, 2.5, "mm", 0.5)
    assert found.in_words == "voxel spacing from head to foot 1 mm (training 2 to 2.5 mm, 50 % below)"


def test_a_larger_field_of_view_is_out_of_range_with_equal_voxels() -> None:
    (found,) = find_out_of_range(case(shape=(150, 50, 200)), TWO)
    assert found.in_words == "field of view from right to left 300 mm (training 200 mm, 50 % above)"


def test_another_direction_of_thick_slices_is_out_of_range() -> None:
    coronal = training(case((2.0, 5.0, 2.0)))
    found = find_out_of_range(case((2.0, 2.0, 5.0)), coronal)
    assert "voxels are clearly thickest from head to foot (training scans: from front to back)" in [
        one.in_words for one in found
    ]
    found = find_out_of_range(case((2.0, 2.0, 5.0)), training(case((7.3, 9.7, 8.7))))
    (line,) = [one.in_words for one in found if "thickest" in one.in_words]
    assert "equal" not in line and line.endswith("(training scans: in no direction)")
    found = find_out_of_range(case((7.3, 9.7, 8.7)), coronal)
    (line,) = [one.in_words for one in found if "thickest" in one.in_words]
    assert "thickest in no direction" in line and "equal" not in line
    assert [thickest_axis(case(s)) for s in ((2.0, 3.0, 2.0), (2.0, 2.9, 2.0))] == ["AP", None]


def test_shares_of_background_and_dark_voxels_are_compared_per_channel() -> None:
    both = training(case((2.0,) * 3, (100, 50, 200), (0.5, 0.8), (0.4, 0.6)))
    found = find_out_of_range(case((2.0,) * 3, (100, 50, 200), (0.5, 0.8), (0.6, 0.6)), both)
    assert [one.in_words for one in found] == [
        "share of voxels that are background in channel MR1 60 % (training 40 %, 50 % above)"
    ]


def test_a_training_without_measured_intensities_is_compared_in_geometry_only() -> None:
    old = training(case((2.0,) * 3, (100, 50, 200), None))
    assert not compares_intensities(old) and compares_intensities(TWO)
    assert find_out_of_range(case((2.0,) * 3, (100, 50, 200), (0.0, 0.1)), old) == []


IMAGE = np.random.default_rng(0).gamma(1.0, 100.0, (12, 16, 20))
GRID = Grid(shape=(12, 16, 20), spacing_mm=(3.0, 2.0, 1.0), origin_mm=(0.0, 0.0, 0.0),
            direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)))  # fmt: skip


def fingerprint_of(image: np.ndarray, grid: Grid = GRID) -> CaseFingerprint:
    return measurement.unlabelled("a", [measurement.channel(image, grid)], grid)


@settings(deadline=None)
@given(gain=st.floats(0.01, 1000), offset=st.floats(-1000, 1000))
def test_units_of_the_scanner_make_no_difference(gain: float, offset: float) -> None:
    assert find_out_of_range(fingerprint_of(gain * IMAGE + offset), training(fingerprint_of(IMAGE))) == []


@pytest.mark.parametrize("direction", all_orientations()[::5])
def test_the_order_of_a_file_makes_no_difference(direction: tuple[tuple[float, float, float], ...]) -> None:
    """The same spacings along the patient's axes, whatever axis of the array runs along them."""
    along = [int(np.argmax(np.abs(row))) for row in direction]
    of_axis = {"shape": (20, 12, 16), "spacing_mm": (1.0, 3.0, 2.0)}  # x, y, z
    turned = Grid(
        shape=tuple(of_axis["shape"][a] for a in along),  # type: ignore[arg-type]
        spacing_mm=tuple(of_axis["spacing_mm"][a] for a in along),  # type: ignore[arg-type]
        origin_mm=(0.0, 0.0, 0.0),
        direction=direction,
    )
    image = IMAGE.transpose(2, 0, 1).transpose(along)  # array axes x, y, z, then those of the file
    assert find_out_of_range(fingerprint_of(image, turned), training(fingerprint_of(IMAGE))) == []


def test_an_image_with_dark_and_bright_exchanged_is_out_of_range() -> None:
    quantities = {
        one.quantity for one in find_out_of_range(fingerprint_of(IMAGE.max() - IMAGE), training(fingerprint_of(IMAGE)))
    }
    assert quantities == {"share of voxels that are background", "share of voxels that are darker than half"}
