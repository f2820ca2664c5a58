"""Thrombus burden of shapes whose volume, length and cross-section are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.tubes import GRID, LEVELS, tube
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.anatomy.levels import Levels
from dvtplan.findings.burden import Burden, category, measure


def of(burdens: list[Burden], limb: str, region: str = "all") -> Burden:
    """Return the burden of a limb and region."""
    return next(b for b in burdens if (b.limb, b.region) == (limb, region))


def test_the_burden_of_an_empty_mask_is_zero_in_every_region() -> None:
    burdens = measure(np.zeros(GRID.shape, np.uint8), GRID, LEVELS)
    assert [(b.limb, b.region) for b in burdens] == [
        (limb, region) for limb in ("left", "right") for region in ("all", "proximal", "distal")
    ]
    assert all(b == Burden(limb=b.limb, region=b.region) for b in burdens)
    assert category(burdens) == "The model segmented no thrombus."


def test_an_edited_mask_is_not_said_to_be_the_models() -> None:
    empty = measure(np.zeros(GRID.shape, np.uint8), GRID, LEVELS)
    assert category(empty, edited=True) == "The edited mask contains no thrombus."
    tubes = measure(tube([(20, 2, 60), (20, 2, 20)], 4.0), GRID, LEVELS)
    assert category(tubes, edited=True) == "The edited mask contains thrombus above the level only (proximal)."


def test_a_straight_tube_has_its_length_volume_and_section() -> None:
    """It is 100 mm long, with caps of 4 mm at both ends."""
    burdens = measure(tube([(20, 2, 60), (20, 2, -40)], 4.0), GRID, LEVELS)
    whole = of(burdens, "left")
    assert of(burdens, "right").volume_ml == 0 and whole.components == 1
    assert whole.volume_ml == pytest.approx((np.pi * 16 * 100 + 4 / 3 * np.pi * 64) / 1000, rel=0.05)
    assert whole.length_mm == pytest.approx(108, abs=3)
    assert whole.largest_section_mm2 == pytest.approx(np.pi * 16, rel=0.1)
    assert whole.top_mm == pytest.approx(64, abs=1.5) and whole.bottom_mm == pytest.approx(-44, abs=1.5)


def test_a_level_divides_volume_and_length() -> None:
    burdens = measure(tube([(20, 2, 60), (20, 2, -40)], 4.0), GRID, LEVELS)
    whole, above, below = (of(burdens, "left", region) for region in ("all", "proximal", "distal"))
    assert above.volume_ml + below.volume_ml == pytest.approx(whole.volume_ml)
    assert above.length_mm == pytest.approx(64, abs=3) and below.length_mm == pytest.approx(44, abs=3)
    assert above.bottom_mm == pytest.approx(0, abs=1.5) and (above.components, below.components) == (1, 1)
    assert category(burdens) == "The model segmented possible thrombus above and below the level (proximal and distal)."


def test_each_limb_has_its_own_level() -> None:
    """The same height is distal on the right, where the level is higher."""
    left, right = tube([(20, 2, 11), (20, 2, 4)], 3.0), tube([(-20, 2, 11), (-20, 2, 4)], 3.0)
    assert of(measure(left, GRID, LEVELS), "left", "distal").volume_ml == 0
    burdens = measure(right, GRID, LEVELS)
    assert of(burdens, "right", "proximal").volume_ml == 0 and of(burdens, "right", "distal").volume_ml > 0
    assert category(burdens) == "The model segmented possible thrombus below the level only (distal)."
    assert (
        category(measure(left, GRID, LEVELS))
        == "The model segmented possible thrombus above the level only (proximal)."
    )


def test_without_a_midline_the_limbs_meet_in_the_middle_of_the_scan() -> None:
    """The middle of the mask does not matter: a wide thrombus of the left leg is on one side of its own level."""
    levels = Levels(left_mm=0.0, right_mm=60.0)
    burdens = measure(tube([(8, 2, 30), (40, 2, 30)], 4.0), GRID, levels)
    assert of(burdens, "left", "proximal") == replace(of(burdens, "left"), region="proximal")
    assert of(burdens, "left", "distal").volume_ml == 0


def test_a_bent_tube_is_as_long_as_its_centre_line() -> None:
    path = [(20.0, 2.0, 60.0), (20.0, 2.0, 0.0), (38.0, 2.0, -24.0)]
    assert of(measure(tube(path, 3.0), GRID, LEVELS), "left").length_mm == pytest.approx(90 + 6, abs=4)


def test_components_are_counted_and_their_lengths_added() -> None:
    two = tube([(20, 2, 60), (20, 2, 30)], 3.0) | tube([(20, 2, 0), (20, 2, -30)], 3.0)
    burdens = of(measure(two, GRID, None), "left")
    assert burdens.components == 2 and burdens.length_mm == pytest.approx(60 + 2 * 6, abs=4) and burdens.top_mm is None
    assert category(measure(two, GRID, None)).endswith("possible thrombus (proximal or distal unknown).")


def test_a_single_voxel_is_a_component_of_a_voxels_length() -> None:
    mask = np.zeros(GRID.shape, np.uint8)
    mask[5, 10, 50] = 1
    burdens = of(measure(mask, GRID, LEVELS), "left")
    assert (burdens.components, burdens.length_mm) == (1, 1.25)
    assert burdens.volume_ml == pytest.approx(1.25 * 1.5 * 1.5 / 1000)
    assert burdens.largest_section_mm2 == pytest.approx(1.25 * 1.5)


@settings(deadline=None)
@given(axes=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
def test_no_measure_depends_on_the_orientation_of_the_file(axes: list[int], flips: tuple[bool, bool, bool]) -> None:
    mask = tube([(20, 2, 40), (25, 4, -20)], 3.0) | tube([(-20, 2, 60), (-20, 2, 50)], 2.5)
    grid = replace(
        GRID,
        shape=tuple(GRID.shape[a] for a in axes),
        spacing_mm=tuple(GRID.spacing_mm[a] for a in axes),
        direction=tuple(GRID.direction[a] for a in axes),
    )
    turned = mask.transpose(axes)
    for axis, flip in enumerate(flips):
        if flip:
            corner = np.zeros(3)
            corner[axis] = grid.shape[axis] - 1
            direction = list(grid.direction)
            direction[axis] = tuple(-v for v in direction[axis])
            grid = replace(grid, origin_mm=tuple(grid.position_mm(corner)), direction=tuple(direction))
            turned = np.flip(turned, axis)
    for a, b in zip(measure(mask, GRID, LEVELS), measure(turned, grid, LEVELS), strict=True):
        assert (a.limb, a.region, a.components) == (b.limb, b.region, b.components)
        assert a.volume_ml == pytest.approx(b.volume_ml) and a.top_mm == pytest.approx(b.top_mm)
        assert a.largest_section_mm2 == pytest.approx(b.largest_section_mm2)
        assert a.length_mm == pytest.approx(b.length_mm, rel=0.03)  # either end may be the start
