"""Knees of computed legs in every orientation and contrast, and no knee if there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import SHARED
from helpers.legs import UPRIGHT, WIDTH, legs
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.anatomy.knee import Candidate, choose_in_one_leg, choose_in_two_legs, estimate
from dvtplan.anatomy.landmarks import LEVEL_BELOW_KNEE_MM, Landmarks, Limb
from dvtplan.anatomy.levels import Levels
from dvtplan.core import json_records
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, Reorientation

WITHIN_MM = 4.0
"""A voxel."""


def assert_found(found: Landmarks, left_mm: float = 12.0, right_mm: float = -10.0) -> None:
    assert found.left.knee_mm == pytest.approx(left_mm, abs=WITHIN_MM), found
    assert found.right.knee_mm == pytest.approx(right_mm, abs=WITHIN_MM), found
    assert found.midline_mm == pytest.approx(0, abs=5)


def oblique(grid: Grid, angle_deg: float, axis: int) -> Grid:
    """Rotate a grid around one axis of the body through its middle."""
    angle = np.deg2rad(angle_deg)
    i, j = (k for k in range(3) if k != axis)
    turn = np.eye(3)
    turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    middle = (np.array(grid.shape) - 1) / 2
    turned = replace(grid, direction=tuple(tuple(row) for row in (np.asarray(grid.direction) @ turn.T).tolist()))
    x, y, z = (grid.position_mm(middle) - middle @ turned.steps_mm).tolist()
    return replace(turned, origin_mm=(x, y, z))


# --- where there are knees ------------------------------------------------------------------------


def test_each_knee_is_found_and_the_level_lies_below_it() -> None:
    found = estimate(legs(), UPRIGHT)
    assert_found(found)
    assert found.left.knee_mm is not None and found.left.level_mm == found.left.knee_mm - LEVEL_BELOW_KNEE_MM
    assert found.levels == Levels(
        left_mm=found.left.level_mm, right_mm=found.right.level_mm, midline_mm=found.midline_mm
    )
    assert found.text.startswith("left: knee joint line at z ") and "right: knee joint line at z " in found.text


@settings(max_examples=4, deadline=None)
@given(order=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
def test_the_order_of_the_file_does_not_matter(order: list[int], flips: tuple[bool, bool, bool]) -> None:
    """Feet first, mirrored, coronal, sagittal: heights are the patient's."""
    a, b, c = order
    turned = Reorientation((a, b, c), flips)
    image = legs()
    here, there = estimate(image, UPRIGHT), estimate(turned.apply(image), turned.grid(UPRIGHT))
    assert there.left.knee_mm == pytest.approx(here.left.knee_mm, abs=0.01)
    assert there.right.knee_mm == pytest.approx(here.right.knee_mm, abs=0.01)
    assert there.midline_mm == pytest.approx(here.midline_mm, abs=0.01)


@pytest.mark.parametrize(("angle_deg", "axis"), [(5, 0), (5, 1), (-12, 1)])
def test_an_oblique_grid_gives_the_same_heights(angle_deg: float, axis: int) -> None:
    grid = oblique(UPRIGHT, angle_deg, axis)
    assert_found(estimate(legs(grid), grid))


@pytest.mark.parametrize("spacing_mm", [(2.0, 4.0, 2.5), (6.0, 3.0, 3.0)])
def test_voxels_may_be_fine_coarse_and_uneven(spacing_mm: tuple[float, float, float]) -> None:
    shape = tuple(
        round(n * old / new) for n, old, new in zip(UPRIGHT.shape, UPRIGHT.spacing_mm, spacing_mm, strict=True)
    )
    grid = replace(UPRIGHT, shape=shape, spacing_mm=spacing_mm)
    assert_found(estimate(legs(grid), grid))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: (image * 3000).astype(np.uint16),
        lambda image: image * 0.01 - 5.0,
        lambda image: np.where(image > 0.1, 1.1 - image, image),  # bright muscle, dark fat
        lambda image: image * np.linspace(0.5, 1.5, 80),  # a coil at one side
        lambda image: image * np.where(np.arange(200) < 95, 1.0, 0.7)[:, None, None],  # a table station's gain
    ],
    ids=["integers", "offset", "inverted", "coil", "station"],
)
def test_units_contrast_and_coils_do_not_matter(change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = change(legs())
    assert_found(estimate(image, UPRIGHT))


def test_a_single_leg_has_a_level_for_the_whole_scan_and_a_midline_next_to_it() -> None:
    found = estimate(legs(right_mm=None), UPRIGHT)
    assert found.left.knee_mm == pytest.approx(12, abs=WITHIN_MM)
    assert found.right.reason == "no second leg in view"
    assert found.levels is not None and found.levels.both_mm[0] == found.levels.both_mm[1] == found.left.level_mm
    assert found.midline_mm is not None and -20 < found.midline_mm < 10
    other = estimate(legs(left_mm=None), UPRIGHT)
    assert other.right.knee_mm == pytest.approx(-10, abs=WITHIN_MM) and other.left.knee_mm is None
    assert other.midline_mm is not None and -10 < other.midline_mm < 20


def test_knees_are_found_in_a_slab_thinner_than_the_legs() -> None:
    """Coronal slabs are thinner than a thigh."""
    slab = UPRIGHT.window(np.array([0, 6, 0]), (200, 18, 80))
    assert_found(estimate(legs(slab), slab))


# --- where there are none -------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "last"), [(0, 74), (0, 90), (110, 200), (120, 170)])
def test_without_a_knee_in_view_nothing_is_guessed(first: int, last: int) -> None:
    """Rows 0 to 73 are thighs, rows 110 and on calves; row 89 is the last above a joint line."""
    part = UPRIGHT.window(np.array([first, 0, 0]), (last - first, 30, 80))
    found = estimate(legs(part), part)
    assert found.levels is None
    assert "no knee" in found.text


def test_a_joint_in_a_cone_is_not_a_knee() -> None:
    """As wide as a knee and with its joint line, but with no calf below."""
    heights = np.arange(-446.0, 340.0, 20.0)
    cone = tuple(heights), tuple(58 * np.exp(heights / 600))
    assert estimate(legs(width=cone), UPRIGHT).levels is None
    assert_found(estimate(legs(width=WIDTH), UPRIGHT))


def test_a_step_of_the_gain_is_not_a_joint() -> None:
    """Legs without any joint line, whose signal falls by a fifth where one could be, under the skin too."""
    image = legs(joints=False) * np.where(np.arange(200) < 88, 1.0, 0.8)[:, None, None]
    assert estimate(image, UPRIGHT).levels is None


@pytest.mark.parametrize("value", [0, 7])
def test_an_empty_image_has_no_leg(value: int) -> None:
    found = estimate(np.full(UPRIGHT.shape, value, np.int16), UPRIGHT)
    assert found.levels is None and found.midline_mm is None and found.text.startswith("no leg in view")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (3, 2, 40), (40, 1, 3)])
def test_a_tiny_image_has_no_knee(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(1).normal(size=shape)
    assert estimate(image, replace(UPRIGHT, shape=shape)).levels is None


def joints(*places: tuple[float, float]) -> list[Candidate]:
    """Make candidates from heights and excesses, all equally sharp."""
    return [Candidate(z_mm=z, excess_cm2=excess, sharpness=2.4) for z, excess in sorted(places, key=lambda p: -p[1])]


def test_among_several_candidates_those_at_one_height_in_both_legs_are_the_joints() -> None:
    """The clearest candidate in the left leg is a haematoma."""
    left, right = choose_in_two_legs(joints((200, 5), (10, 3)), joints((20, 3), (90, 2)))
    assert (left.knee_mm, right.knee_mm) == (10, 20)


def test_candidates_at_different_heights_are_not_accepted() -> None:
    left, right = choose_in_two_legs(joints((90, 5)), joints((10, 3)))
    assert left.knee_mm is None and right.knee_mm is None
    assert left.reason == "no knee found: the joint lines of the two legs differ by 80 mm in height"


def test_two_similar_candidates_in_both_legs_are_not_accepted() -> None:
    left, right = choose_in_two_legs(joints((90, 5), (10, 4.8)), joints((90, 3), (10, 3)))
    assert left.knee_mm is None and right.reason == "no knee found: two places look like a joint line"
    left, right = choose_in_two_legs(joints((90, 5), (10, 4.8)), joints((10, 3)))
    assert (left.knee_mm, right.knee_mm) == (10, 10)


def test_a_candidate_in_only_one_leg_must_be_clearer() -> None:
    """A sharpness of 2.4 is enough if both legs have a candidate."""
    left, right = choose_in_two_legs(joints((10, 3)), [])
    assert left.knee_mm is None and "no clear joint line" in left.reason
    assert "no bend" in right.reason
    clear = [Candidate(z_mm=10, excess_cm2=3, sharpness=2.6)]
    assert choose_in_two_legs(clear, [])[0].knee_mm == 10 and choose_in_one_leg(clear, 2.0).knee_mm == 10


def test_two_similar_candidates_in_a_single_leg_are_not_accepted() -> None:
    assert (
        choose_in_one_leg(joints((90, 5), (10, 4.8)), 2.0).reason == "no knee found: two places look like a joint line"
    )
    assert choose_in_one_leg(joints((90, 5), (70, 4.8), (10, 4)), 2.0).knee_mm == 90


def test_an_image_that_does_not_fit_its_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit its grid"):
        estimate(np.zeros((2, 2, 2)), UPRIGHT)


@pytest.mark.skipif(not (SHARED / "legs").is_dir(), reason="the shared images are not next to this checkout")
@pytest.mark.parametrize("name", ["test_low.nii.gz", "test_up.nii.gz"])
def test_real_thighs_and_calves_have_no_knee_in_view(name: str) -> None:
    found = estimate(*volume_io.read(SHARED / "legs" / name))
    assert found.levels is None and "no knee in view" in found.text and found.midline_mm is not None


def test_landmarks_are_saved_and_loaded(tmp_path: Path) -> None:
    found = Landmarks(left=Limb(knee_mm=1.5, sharpness=3.0), right=Limb(reason="no second leg in view"), midline_mm=2.0)
    json_records.save(found, tmp_path / "a_levels.json")
    assert json_records.load(Landmarks, tmp_path / "a_levels.json", "dvt_predict") == found
