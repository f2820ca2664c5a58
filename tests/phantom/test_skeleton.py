"""Bones, discs, tendons and organs of the phantom, where the template has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantom import signals, template
from phantom.anatomy import LIMBS, Anatomy, Pose, draw_anatomy
from phantom.grid import Frame
from phantom.shapes import rasterise, smooth_curve
from phantom.signals import Look
from phantom.skeleton import paint_bones

LOOK = Look(fat=0.9, muscle_mM=0.1, artery_mM=1.2)
FLESH = 0.3
"""Real signal of everything before bones are painted."""


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """A patient of template size who lies straight: LPS is (x, 90 - y, z - 130) of the template, on the left."""
    drawn = draw_anatomy(np.random.default_rng(0), boost=1.0, step_mm=20.0)
    pose = Pose(1, 1.0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0))
    return replace(drawn, trunk=pose, limbs={limb: replace(pose, side=side) for limb, side in LIMBS.items()})


def window(template_z: float, high_mm: float = 20.0, mm: float = 1.5) -> Frame:
    """Left leg about a template height, with cubic voxels."""
    y, x = np.arange(-60, 60 + mm / 2, mm), np.arange(-12, 168 + mm / 2, mm)
    z = template_z - 130 + np.arange(high_mm / 2, -high_mm / 2 - mm / 2, -mm)
    return Frame(y=y, z=z, x=x, spacing_mm=(mm, mm, mm))


def painted(frame: Frame, anatomy: Anatomy) -> np.ndarray:
    image = np.full(frame.shape, FLESH, np.complex64)
    paint_bones(image, frame, anatomy, LOOK)
    return image


def at(image: np.ndarray, frame: Frame, z: float, x: float, y: float) -> complex:
    """The signal at a template place of the left leg."""
    s = int(np.abs(frame.y - (90 - y)).argmin())
    return complex(image[s, frame.row(z - 130), frame.column(x)])


def test_a_long_bone_is_a_dark_ring_around_bright_marrow(anatomy: Anatomy) -> None:
    # The femur at 200 mm: centre (103, 99), radius 13.8 mm, of which 6 mm are cortex.
    frame = window(200)
    image = painted(frame, anatomy)
    marrow = at(image, frame, 200, 103, 99)
    # .05 of it red marrow, which has no fat.
    assert marrow.imag == pytest.approx(0.95 * 0.9 * abs(signals.spgr(signals.MARROW_YELLOW)), abs=0.01)
    for away in (-10.8, 10.8):
        assert abs(at(image, frame, 200, 103 + away, 99)) < 0.02
        assert abs(at(image, frame, 200, 103, 99 + away)) < 0.02
        assert at(image, frame, 200, 103 + 1.5 * away, 99) == pytest.approx(FLESH)


def test_cortex_is_thick_along_a_shaft_and_thin_at_a_joint(anatomy: Anatomy) -> None:
    # Femur: 6 mm at 200 mm, 1 mm at 45 mm, of radii 13.8 and 24 mm.
    dark = {}
    for z, x in ((200, 103), (45, 88)):
        frame = window(z)
        image = painted(frame, anatomy)
        row = np.abs(image[int(np.abs(frame.y - (90 - 100)).argmin()), frame.row(z - 130)])
        dark[z] = np.count_nonzero(row[np.abs(frame.x - x) < 40] < 0.1) * 1.5 / 2
    assert dark[200] == pytest.approx(6, abs=1.5) and dark[45] < 2.5


def test_the_calf_has_two_bones(anatomy: Anatomy) -> None:
    frame = window(-200, mm=1.0)
    image = painted(frame, anatomy)
    # Tibia (71, 99), radius 12.5 mm with 5 mm of cortex; fibula (106.5, 82), radius 6 mm with 2.3 mm.
    for x, y, cortex in ((71, 99, 10), (106.5, 82, 5)):
        assert at(image, frame, -200, x, y).imag > 0.4
        assert abs(at(image, frame, -200, x + cortex, y)) < 0.02
    assert at(image, frame, -200, 91, 90) == pytest.approx(FLESH)  # no bone between them


def test_marrow_is_redder_towards_the_pelvis(anatomy: Anatomy) -> None:
    # Half red in the femoral head: 470 mm, (88, 92); a twentieth at the knee: 45 mm, (88, 101).
    signal = {}
    for z, x, y in ((462, 88, 93), (45, 88, 101)):
        frame = window(z)
        signal[z] = at(painted(frame, anatomy), frame, z, x, y)
    assert signal[462].real > 5 * signal[45].real > 0
    assert signal[462].imag < 0.65 * signal[45].imag


def test_all_shells_of_a_joint_are_painted_before_any_marrow(anatomy: Anatomy) -> None:
    # The condyles and the end of the femur are chains of their own: no dark wall between them at 45 mm.
    frame = window(45)
    row = painted(frame, anatomy)[int(np.abs(frame.y + 11).argmin()), frame.row(45 - 130)]
    inside = row[(frame.x > 74) & (frame.x < 102)]
    assert np.abs(inside).min() > 0.4


def test_tendons_are_dark(anatomy: Anatomy) -> None:
    frame = window(6)
    cruciate = at(painted(frame, anatomy), frame, 6, 88, 104)
    assert abs(cruciate) < 0.2  # .10, and 3 mm thin
    frame = window(-385)
    assert abs(at(painted(frame, anatomy), frame, -385, 79, 34.5)) == pytest.approx(0.10, abs=0.03)


def test_nothing_but_bones_tendons_and_organs_is_touched(anatomy: Anatomy) -> None:
    frame = window(200)
    image = painted(frame, anatomy)
    near = np.zeros(frame.shape, bool)
    for spheres in template.LEG_BONES:
        nodes = np.array(spheres, float)
        chain = smooth_curve(np.column_stack([anatomy.limbs["left"].place(nodes[:, :3]), nodes[:, 3]]), step_mm=2)
        box, depth, _ = rasterise(frame, chain[:, :3], chain[:, 3])
        near[box] |= depth > -frame.voxel_mm
    assert 0.02 < near.mean() < 0.2
    assert np.all(image[~near] == np.complex64(FLESH))


def test_discs_lie_between_vertebrae(anatomy: Anatomy) -> None:
    # The spine: radius 24 mm about (0, 46); discs of 9 mm every 36 mm from 582 mm.
    y, x = np.arange(-60, 61, 2.0), np.arange(-60, 61, 2.0)
    frame = Frame(y=y, z=np.arange(520, 440, -2.0), x=x, spacing_mm=(2.0, 2.0, 2.0))  # 650 down to 572
    image = painted(frame, anatomy)
    disc = abs(signals.spgr(signals.DISC))
    for z in (586, 622):
        assert at(image, frame, z, 0, 46) == pytest.approx(disc, abs=1e-3)
    for z in (604, 640):
        assert at(image, frame, z, 0, 46).imag > 0.2
    assert at(image, frame, 586, 40, 46) == pytest.approx(FLESH)


def test_urine_is_dark_and_the_kidneys_bright(anatomy: Anatomy) -> None:
    frame = window(500)
    assert abs(at(painted(frame, anatomy), frame, 500, 0, 128)) == pytest.approx(
        abs(signals.spgr(signals.FLUID)), abs=0.01
    )
    frame = window(740)
    assert at(painted(frame, anatomy), frame, 740, 68, 60).real > 2 * FLESH


def test_both_legs_have_the_same_bones(anatomy: Anatomy) -> None:
    mm = 2.0
    y, x = np.arange(-60, 61, mm), np.arange(-160, 161, mm)
    for z in (200, -200):
        frame = Frame(y=y, z=z - 130 + np.arange(6, -7, -mm), x=x, spacing_mm=(mm, mm, mm))
        image = painted(frame, anatomy)
        assert np.abs(image - image[:, :, ::-1]).max() < 1e-4
