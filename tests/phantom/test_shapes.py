"""Chains of spheres into voxels, against distances worked out one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom.grid import Frame
from phantom.shapes import CHUNK, Tube, paint_tube, rasterise, smooth_curve

POINTS = st.tuples(st.floats(-30, 30), st.floats(-30, 30), st.floats(-30, 30), st.floats(0.5, 9))
"""x, y, z and radius in mm, within and beyond ``frame_of()``."""


def frame_of(
    spacing_mm: tuple[float, float, float] = (3.0, 2.0, 2.5), shape: tuple[int, int, int] = (9, 16, 11)
) -> Frame:
    """A frame centred on the isocentre; as it is, 27 x 32 x 27.5 mm."""
    y, z, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True))
    return Frame(y=y, z=-z, x=x, spacing_mm=spacing_mm)


def depth_by_distance(frame: Frame, points: np.ndarray, radius_mm: np.ndarray) -> np.ndarray:
    """(n, S, H, W): how deep each voxel centre lies in each sphere."""
    centres = np.stack(np.broadcast_arrays(frame.x, frame.y[:, None, None], frame.z[:, None]), axis=-1)
    distance = np.linalg.norm(centres - points[:, None, None, None], axis=-1)
    return radius_mm[:, None, None, None] - distance


def straight(length_mm: float, step_mm: float = 0.5) -> np.ndarray:
    """Points along z about the isocentre, from above to below."""
    z = np.arange(length_mm / 2, -length_mm / 2 - 1e-9, -step_mm)
    return np.stack([np.zeros_like(z), np.zeros_like(z), z], axis=1)


# ---- depth -----------------------------------------------------------------------------------------


def test_depth_of_one_sphere() -> None:
    # Voxel centres at 0 and +-3, +-6 mm along y, x, z; a sphere of 5 mm: depth 5 - distance.
    frame = frame_of((3.0, 3.0, 3.0), (5, 5, 5))
    box, depth, nearest = rasterise(frame, np.zeros((1, 3)), np.array([5.0]))
    assert box == (slice(0, 5),) * 3  # what lies within 5 mm and a voxel of 3 mm
    assert depth[2, 2] == pytest.approx([-1, 2, 5, 2, -1])
    assert depth[2, 1, 1] == pytest.approx(5 - np.sqrt(18))
    assert depth.dtype == np.float32 and not nearest.any()


@given(st.lists(POINTS, min_size=1, max_size=3 * CHUNK))
def test_depth_is_that_of_the_deepest_sphere(spheres: list[tuple[float, ...]]) -> None:
    frame, chain = frame_of(), np.array(spheres)
    points, radius = chain[:, :3], chain[:, 3]
    box, depth, nearest = rasterise(frame, points, radius)
    each = depth_by_distance(frame, points, radius)
    truth = each.max(axis=0)
    here = truth[box]
    # Exact as far out as a surface blurs; beyond, it is enough to know that it is far.
    near = here >= -frame.voxel_mm + 1e-4
    assert depth[near] == pytest.approx(here[near], abs=1e-4)
    assert np.all(depth[~near] <= here[~near] + 1e-4)
    assert np.take_along_axis(each[(slice(None), *box)], nearest[None], axis=0)[0][near] == pytest.approx(
        here[near], abs=1e-4
    )
    beyond = truth.copy()
    beyond[box] = -np.inf
    assert np.all(beyond < -frame.voxel_mm + 1e-4)


@given(st.lists(POINTS, min_size=2, max_size=2 * CHUNK))
def test_a_chain_may_be_drawn_from_either_end(spheres: list[tuple[float, ...]]) -> None:
    frame, chain = frame_of(), np.array(spheres)
    (box, depth, _), (other_box, other, _) = (rasterise(frame, c[:, :3], c[:, 3]) for c in (chain, chain[::-1]))
    assert box == other_box
    assert np.array_equal(frame.cover(depth), frame.cover(other))


@pytest.mark.parametrize("far_mm", [-500.0, 500.0])
def test_a_chain_outside_the_frame_leaves_it_alone(far_mm: float) -> None:
    frame = frame_of()
    image = np.full(frame.shape, 0.5, np.complex64)
    points = straight(40) + far_mm
    box, depth = paint_tube(image, frame, points, np.full(len(points), 4.0), 1.0)
    assert depth.size == 0 and image[box].size == 0
    assert np.all(image == 0.5)


# ---- paint -----------------------------------------------------------------------------------------


def test_a_painted_ball_has_its_volume() -> None:
    # A surface that blurs linearly over h has the mean volume of balls from R - h/2 to R + h/2:
    # 4/3 pi (R**3 + R h**2 / 4), here 1 + 1 / (4 * 4**2) = 1.016 of the ball's.
    frame = frame_of((1.0, 1.0, 1.0), (15, 15, 15))
    image = np.zeros(frame.shape, np.complex64)
    paint_tube(image, frame, np.array([[0.3, -0.2, 0.1]]), np.array([4.0]), 1.0)
    assert image.real.sum() == pytest.approx(4 / 3 * np.pi * 4**3 * 1.016, rel=0.005)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.25, 1.45, 1.45), (2.0, 1.0, 1.0)])
@pytest.mark.parametrize("radius_mm", [2.5, 4.0])
def test_a_painted_cylinder_has_its_cross_section(spacing_mm: tuple[float, float, float], radius_mm: float) -> None:
    frame = frame_of(spacing_mm, (13, 9, 13))
    image = np.zeros(frame.shape, np.complex64)
    points = straight(60) + np.array((0.2, -0.3, 0.0))
    paint_tube(image, frame, points, np.full(len(points), radius_mm), 1.0)
    section_mm2 = image[:, 4].real.sum() * spacing_mm[0] * spacing_mm[2]
    # As for the ball: pi (R**2 + h**2 / 12), at most 3 % more; the rest is sampling of a small disc.
    more = 1 + frame.voxel_mm**2 / 12 / radius_mm**2
    assert section_mm2 == pytest.approx(np.pi * radius_mm**2 * more, rel=0.04)


def test_a_thin_vessel_shows_in_proportion_to_its_section() -> None:
    # Half a voxel deep at most: 0.5 + 0.25 of a voxel of 2 mm at its centre, never a full voxel.
    frame = frame_of((2.0, 2.0, 2.0), (5, 5, 5))
    image = np.zeros(frame.shape, np.complex64)
    points = straight(40)
    paint_tube(image, frame, points, np.full(len(points), 0.5), 1.0)
    assert image[2, 2, 2].real == pytest.approx(0.75)
    assert np.count_nonzero(image[:, 2]) == 1


def test_signal_follows_the_tube() -> None:
    frame = frame_of((1.0, 1.0, 1.0), (9, 21, 9))
    image = np.zeros(frame.shape, np.complex64)
    points = straight(40)
    paint_tube(image, frame, points, np.full(len(points), 3.0), np.where(points[:, 2] > 0, 0.25, 0.75))
    middle = image[4, :, 4].real  # rows from z = 10 down to -10
    assert middle[:10] == pytest.approx(0.25) and middle[11:] == pytest.approx(0.75)


def test_a_surface_mixes_with_what_was_there() -> None:
    # Cover at 3 mm from the axis of a tube of 3 mm is a half: fat 0.8i and blood 1 give 0.5 + 0.4i.
    frame = frame_of((1.0, 1.0, 1.0), (9, 5, 9))
    image = np.full(frame.shape, 0.8j, np.complex64)
    points = straight(40)
    box, depth = paint_tube(image, frame, points, np.full(len(points), 3.0), 1.0)
    assert image[4, 2, 7] == pytest.approx(0.5 + 0.4j, abs=1e-5)
    assert image[4, 2, 4] == 1 and image[0, 2, 0] == np.complex64(0.8j)
    assert np.array_equal(image[box] != np.complex64(0.8j), frame.cover(depth) > 0)


def test_nothing_is_painted_outside_the_given_mask() -> None:
    frame = frame_of()
    image, within = np.zeros(frame.shape, np.complex64), np.zeros(frame.shape, bool)
    within[:, :8] = True
    points = straight(60)
    paint_tube(image, frame, points, np.full(len(points), 6.0), 1.0, within=within)
    assert image[:, :8].any() and not image[:, 8:].any()


@given(st.lists(POINTS, min_size=1, max_size=12), st.floats(0, 2))
def test_paint_of_the_existing_signal_changes_nothing(spheres: list[tuple[float, ...]], signal: float) -> None:
    frame, chain = frame_of(), np.array(spheres)
    image = np.full(frame.shape, signal, np.complex64)
    paint_tube(image, frame, chain[:, :3], chain[:, 3], signal)
    assert np.all(image == np.complex64(signal))


# ---- tubes and curves ------------------------------------------------------------------------------


def bent_tube() -> Tube:
    """3 mm down, 4 mm to the left and on: arcs 0, 3, 7, 12."""
    points = np.array([(0, 0, 0), (0, 0, -3), (4, 0, -3), (4, 3, -7)], float)
    return Tube("PTV-1", "distal", points, np.array([1.0, 2.0, 3.0, 4.0]))


def test_arc_is_the_length_of_the_centreline() -> None:
    assert bent_tube().arc_mm() == pytest.approx([0, 3, 7, 12])


def test_a_stretch_keeps_the_points_between_two_lengths() -> None:
    part = bent_tube().stretch(3, 8)
    assert part.points.tolist() == [[0, 0, -3], [4, 0, -3]] and part.radius_mm.tolist() == [2, 3]
    assert (part.name, part.region) == ("PTV-1", "distal")
    assert len(bent_tube().stretch(0, 12).points) == 4
    assert len(bent_tube().stretch(8, 11).points) == 0


def test_a_curve_starts_and_ends_at_its_nodes_and_has_the_requested_density() -> None:
    nodes = np.array([(0, 0, 0), (0, 0, -60), (30, 40, -60)], float)  # chords 60 and 50
    curve = smooth_curve(nodes, step_mm=2.0)
    assert len(curve) == 110 / 2 + 1
    assert curve[0] == pytest.approx(nodes[0]) and curve[-1] == pytest.approx(nodes[-1])
    assert np.linalg.norm(curve - nodes[1], axis=1).min() < 1.0
    # Even the shortest curve has eight steps.
    assert len(smooth_curve(nodes, step_mm=1000.0)) == 9


def test_a_straight_curve_stays_straight_and_what_comes_with_it_keeps_its_range() -> None:
    nodes = np.array([(0, 0, 0, 5), (0, 0, -10, 5), (0, 0, -20, 2), (0, 0, -80, 2)], float)
    curve = smooth_curve(nodes, step_mm=1.0)
    assert np.all(curve[:, :2] == 0) and np.all(np.diff(curve[:, 2]) < 0)
    assert curve[:, 3].min() == 2 and curve[:, 3].max() == 5  # no overshoot: a radius never gets below its nodes
