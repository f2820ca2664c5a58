"""Thrombus burden of bodies whose volume, length and cross-section are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.tubes import GRID, LEVELS, tube
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.anatomy.levels import Levels
from dvtplan.findings.burden import Burden, category, measure


def of(found: list[Burden], limb: str, region: str = "all") -> Burden:
    return next(b for b in found if (b.limb, b.region) == (limb, region))


def test_an_empty_mask_holds_nothing_in_every_region() -> None:
    found = measure(np.zeros(GRID.shape, np.uint8), GRID, LEVELS)
    assert [(b.limb, b.region) for b in found] == [
        (limb, region) for limb in ("left", "right") for region in ("all", "proximal", "distal")
    ]
    assert all(b == Burden(limb=b.limb, region=b.region) for b in found)
    assert category(found) == "No voxel was marked as thrombus."


def test_a_straight_tube_has_its_length_volume_and_section() -> None:
    """100 mm and both caps of 4 mm."""
    found = measure(tube([(20, 2, 60), (20, 2, -40)], 4.0), GRID, LEVELS)
    whole = of(found, "left")
    assert of(found, "right").volume_ml == 0 and whole.pieces == 1
    assert whole.volume_ml == pytest.approx((np.pi * 16 * 100 + 4 / 3 * np.pi * 64) / 1000, rel=0.05)
    assert whole.length_mm == pytest.approx(108, abs=3)
    assert whole.largest_section_mm2 == pytest.approx(np.pi * 16, rel=0.1)
    assert whole.top_mm == pytest.approx(64, abs=1.5) and whole.bottom_mm == pytest.approx(-44, abs=1.5)


def test_a_level_divides_volume_and_length() -> None:
    found = measure(tube([(20, 2, 60), (20, 2, -40)], 4.0), GRID, LEVELS)
    whole, above, below = (of(found, "left", region) for region in ("all", "proximal", "distal"))
    assert above.volume_ml + below.volume_ml == pytest.approx(whole.volume_ml)
    assert above.length_mm == pytest.approx(64, abs=3) and below.length_mm == pytest.approx(44, abs=3)
    assert above.bottom_mm == pytest.approx(0, abs=1.5) and (above.pieces, below.pieces) == (1, 1)
    assert category(found) == "Voxels were marked as thrombus above and below the level (proximal and distal)."


def test_each_limb_has_its_own_level() -> None:
    """The same height is distal on the right, whose level is higher."""
    left, right = tube([(20, 2, 11), (20, 2, 4)], 3.0), tube([(-20, 2, 11), (-20, 2, 4)], 3.0)
    assert of(measure(left, GRID, LEVELS), "left", "distal").volume_ml == 0
    found = measure(right, GRID, LEVELS)
    assert of(found, "right", "proximal").volume_ml == 0 and of(found, "right", "distal").volume_ml > 0
    assert category(found) == "Voxels were marked as thrombus below the level only (distal)."
    assert category(measure(left, GRID, LEVELS)) == "Voxels were marked as thrombus above the level (proximal)."


def test_without_a_midline_the_limbs_meet_in_the_middle_of_the_scan() -> None:
    """Not of what was found: a wide clot of the left leg lies on one side of its own level, whole."""
    levels = Levels(left_mm=0.0, right_mm=60.0)
    found = measure(tube([(8, 2, 30), (40, 2, 30)], 4.0), GRID, levels)
    assert of(found, "left", "proximal") == replace(of(found, "left"), region="proximal")
    assert of(found, "left", "distal").volume_ml == 0


def test_a_bent_tube_is_as_long_as_its_way() -> None:
    way = [(20.0, 2.0, 60.0), (20.0, 2.0, 0.0), (38.0, 2.0, -24.0)]
    assert of(measure(tube(way, 3.0), GRID, LEVELS), "left").length_mm == pytest.approx(90 + 6, abs=4)


def test_pieces_are_counted_and_their_lengths_added() -> None:
    two = tube([(20, 2, 60), (20, 2, 30)], 3.0) | tube([(20, 2, 0), (20, 2, -30)], 3.0)
    found = of(measure(two, GRID, None), "left")
    assert found.pieces == 2 and found.length_mm == pytest.approx(60 + 2 * 6, abs=4) and found.top_mm is None
    assert category(measure(two, GRID, None)).startswith("Voxels were marked as thrombus; without a level")


def test_a_single_voxel_is_a_piece_of_a_voxels_length() -> None:
    mask = np.zeros(GRID.shape, np.uint8)
    mask[5, 10, 50] = 1
    found = of(measure(mask, GRID, LEVELS), "left")
    assert (found.pieces, found.length_mm) == (1, 1.25)
    assert found.volume_ml == pytest.approx(1.25 * 1.5 * 1.5 / 1000)
    assert found.largest_section_mm2 == pytest.approx(1.25 * 1.5)


@settings(deadline=None)
@given(axes=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
def test_no_measure_depends_on_how_the_file_runs(axes: list[int], flips: tuple[bool, bool, bool]) -> None:
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
        assert (a.limb, a.region, a.pieces) == (b.limb, b.region, b.pieces)
        assert a.volume_ml == pytest.approx(b.volume_ml) and a.top_mm == pytest.approx(b.top_mm)
        assert a.largest_section_mm2 == pytest.approx(b.largest_section_mm2)
        assert a.length_mm == pytest.approx(b.length_mm, rel=0.03)  # either end may be the first
