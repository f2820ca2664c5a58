"""How far two masks' surfaces lie apart."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dvtplan.evaluation.surface_distance import TOLERANCE_MM, SurfaceScores, surface, surface_scores

PAPER_MM = (1.25, 1.45, 1.45)
ODD_MM = (5.0, 0.7, 2.3)
SHAPE = (4, 5, 6)
MASKS = hnp.arrays(bool, SHAPE, elements=st.booleans())


def drawn(rows: str) -> np.ndarray:
    """A one-slice mask from rows of characters; '.' is background."""
    return np.array([[[c != "." for c in row] for row in rows.split()]])


def cube(side: int) -> np.ndarray:
    """A cube in the middle of 7 x 7 x 7 voxels."""
    mask = np.zeros((7, 7, 7), bool)
    part = slice((7 - side) // 2, (7 + side) // 2)
    mask[part, part, part] = True
    return mask


def by_hand(
    truth: np.ndarray, predicted: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float
) -> list[float]:
    """The same from sets of voxels and every pair of them: no erosion, no tree, no percentile of numpy's."""
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, step)) == 1]
    shells = []
    for mask in (truth, predicted):
        voxels = set(map(tuple, np.argwhere(mask).tolist()))
        inside = {(z, y, x) for z, y, x in voxels if all((z + a, y + b, x + c) in voxels for a, b, c in steps)}
        shells.append(np.array(sorted(voxels - inside)) * spacing_mm)
    apart = np.sqrt(((shells[0][:, None] - shells[1][None]) ** 2).sum(axis=-1))
    one_way = [sorted(apart.min(axis=1).tolist()), sorted(apart.min(axis=0).tolist())]
    both = one_way[0] + one_way[1]
    percentiles = []
    for distances in one_way:
        place = 0.95 * (len(distances) - 1)
        low, high = distances[math.floor(place)], distances[math.ceil(place)]
        percentiles.append(low + (place - math.floor(place)) * (high - low))
    within = sum(d <= tolerance_mm + 1e-3 for d in both)
    return [sum(both) / len(both), max(percentiles), within / len(both)]


# --- by hand --------------------------------------------------------------------------------------


def test_distances_of_a_drawn_row() -> None:
    # In one slice all voxels are surface. Columns are 5 mm apart: the truth's voxels lie 10, 5 and 0 mm from the
    # prediction, whose own lie 0 and 5 mm from the truth. 95 % of the way from first to last: 1.9 steps of 5 mm.
    scores = surface_scores(drawn("111."), drawn("..11"), (10.0, 10.0, 5.0))
    assert scores == pytest.approx(SurfaceScores(assd_mm=20 / 5, hd95_mm=9.5, surface_dice=2 / 5))
    assert surface_scores(drawn("111."), drawn("..11"), (10.0, 10.0, 5.0), 5.0).surface_dice == pytest.approx(4 / 5)


def test_distances_of_a_cube_in_a_cube() -> None:
    # The cube of 3 has 26 surface voxels, each 1 mm from the cube of 5. That has 98: 54 on faces at 1 mm, 36 on
    # edges at sqrt 2, 8 in corners at sqrt 3. Place 0.95 * 97 = 92.15 of 98 is a corner.
    scores = surface_scores(cube(3), cube(5), (1.0, 1.0, 1.0), 1.0)
    assert scores.assd_mm == pytest.approx((26 + 54 + 36 * math.sqrt(2) + 8 * math.sqrt(3)) / 124)
    assert scores.hd95_mm == pytest.approx(math.sqrt(3))
    assert scores.surface_dice == pytest.approx((26 + 54) / 124)


def test_distances_follow_the_spacing_of_each_axis() -> None:
    truth, predicted = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    truth[0, 1, 1] = True
    predicted[1, 3, 1] = True
    away_mm = math.hypot(1.25, 2 * 1.45)
    assert surface_scores(truth, predicted, PAPER_MM) == pytest.approx((away_mm, away_mm, 0.0))
    assert surface_scores(truth, predicted, PAPER_MM, away_mm).surface_dice == 1


@pytest.mark.parametrize(
    ("step", "agrees"),
    [((1, 0, 0), 1), ((0, 1, 0), 1), ((1, 0, 1), 1), ((0, 1, 1), 0), ((1, 1, 1), 0), ((2, 0, 0), 0), ((0, 0, 2), 0)],
)
def test_the_tolerance_is_one_voxel_of_the_papers_grid(step: tuple[int, int, int], agrees: int) -> None:
    truth, predicted = np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3), bool)
    truth[0, 0, 0] = predicted[step] = True
    assert surface_scores(truth, predicted, PAPER_MM, TOLERANCE_MM).surface_dice == agrees


def test_the_larger_surface_does_not_outvote_the_smaller() -> None:
    # Of 41 voxels of thrombus along a leg 38 are found; 3, which is 7 %, are missed 50 mm below.
    truth, predicted = np.zeros((1, 1, 100), bool), np.zeros((1, 1, 100), bool)
    truth[..., :38] = truth[..., 87:90] = predicted[..., :38] = True
    # Place 0.95 * 40 = 38 of the truth's distances is the first missed. Of both surfaces' it would be 0.95 * 78 = 74.1,
    # where the 76 found are still 0 mm.
    assert surface_scores(truth, predicted, (1.0, 1.0, 1.0)).hd95_mm == pytest.approx(50)


# --- surfaces -------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_surface_is_a_cube_without_the_cube_inside(side: int) -> None:
    assert surface(cube(side)).sum() == side**3 - max(0, side - 2) ** 3


def test_beyond_the_image_is_outside() -> None:
    assert surface(np.ones((3, 3, 3), bool)).sum() == 26
    assert surface(np.ones((1, 4, 4), bool)).all()


def test_the_wall_of_a_hole_is_surface() -> None:
    hollow = cube(5)
    hollow[3, 3, 3] = False
    assert surface(hollow).sum() == 98 + 6


# --- empty masks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "predicted", "dice"),
    [("11..", "....", 0.0), ("....", ".11.", math.nan), ("....", "....", math.nan)],
    ids=["missed", "false positive", "neither"],
)
def test_every_row_of_the_empty_mask_table(truth: str, predicted: str, dice: float) -> None:
    scores = surface_scores(drawn(truth), drawn(predicted), PAPER_MM)
    assert scores == pytest.approx((math.nan, math.nan, dice), nan_ok=True)


# --- invariants -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(MASKS, MASKS, st.sampled_from([PAPER_MM, ODD_MM]))
def test_scores_equal_those_of_every_pair_of_voxels(
    truth: np.ndarray, predicted: np.ndarray, spacing_mm: tuple[float, float, float]
) -> None:
    if truth.any() and predicted.any():
        expected = by_hand(truth, predicted, spacing_mm, 2.0)
        assert list(surface_scores(truth, predicted, spacing_mm)) == pytest.approx(expected)


@settings(deadline=None)
@given(MASKS)
def test_equal_masks_are_no_distance_apart(mask: np.ndarray) -> None:
    if mask.any():
        assert surface_scores(mask, mask, PAPER_MM) == (0, 0, 1)


@settings(deadline=None)
@given(MASKS, MASKS)
def test_truth_and_prediction_are_alike_to_a_distance(a: np.ndarray, b: np.ndarray) -> None:
    if a.any() and b.any():
        assert surface_scores(a, b, ODD_MM) == pytest.approx(surface_scores(b, a, ODD_MM))


@settings(deadline=None)
@given(MASKS, MASKS, st.permutations([0, 1, 2]))
def test_distances_do_not_depend_on_the_order_of_axes(a: np.ndarray, b: np.ndarray, order: list[int]) -> None:
    turned_mm = (ODD_MM[order[0]], ODD_MM[order[1]], ODD_MM[order[2]])
    turned = surface_scores(a.transpose(order), b.transpose(order), turned_mm)
    assert turned == pytest.approx(surface_scores(a, b, ODD_MM), nan_ok=True)


@settings(deadline=None)
@given(MASKS, MASKS)
def test_distances_do_not_depend_on_the_volume_around(a: np.ndarray, b: np.ndarray) -> None:
    wide = surface_scores(np.pad(a, ((9, 2), (0, 7), (3, 3))), np.pad(b, ((9, 2), (0, 7), (3, 3))), ODD_MM)
    assert wide == pytest.approx(surface_scores(a, b, ODD_MM), nan_ok=True)


def test_a_spacing_that_a_file_has_rounded_changes_no_agreement() -> None:
    truth, predicted = drawn("1.."), drawn("..1")
    assert surface_scores(truth, predicted, (1.0, 1.0, float(np.float32(1.0)) + 5e-8)).surface_dice == 1


# --- what is refused ------------------------------------------------------------------------------


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        surface_scores(drawn("1.."), drawn("1..."), PAPER_MM)


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance_mm: float) -> None:
    with pytest.raises(ValueError, match="tolerance_mm must be 0 or more"):
        surface_scores(drawn("1.."), drawn("1.."), PAPER_MM, tolerance_mm)
