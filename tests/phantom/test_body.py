"""Skin, fat and muscle of the phantom: each in its place, with its signal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantom import signals
from phantom.anatomy import LIMBS, Anatomy, Pose, draw_anatomy
from phantom.body import FASCICLE, paint_tissue
from phantom.grid import SCALES, Frame
from phantom.signals import Look

LOOK = Look(fat=0.9, muscle_mM=0.1, artery_mM=1.2)


def upright(fat_mm: float = 15.0) -> Anatomy:
    """A patient of template size who lies straight in the middle of the table."""
    anatomy = draw_anatomy(np.random.default_rng(0), boost=1.0, step_mm=20.0)
    pose = Pose(1, 1.0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0))
    limbs = {limb: replace(pose, side=side, abduction=0.02) for limb, side in LIMBS.items()}
    return replace(anatomy, trunk=pose, limbs=limbs, fat_mm=fat_mm)


def window(template_z: float, half_width_mm: float = 220.0, mm: float = 2.0) -> Frame:
    """The slab about a template height of ``upright``, 20 mm high, with cubic voxels."""
    y = np.arange(-56, 56 + mm / 2, mm)
    x = np.arange(-half_width_mm, half_width_mm + mm / 2, mm)
    z = 300 - 430 + template_z + np.arange(10, -10 - mm / 2, -mm)
    return Frame(y=y, z=z, x=x, spacing_mm=(mm, mm, mm))


def painted(frame: Frame, anatomy: Anatomy, texture: int = 1, look: Look = LOOK) -> np.ndarray:
    return paint_tissue(frame, anatomy, look, np.random.default_rng(texture))


@pytest.fixture(scope="module")
def thigh() -> tuple[Frame, np.ndarray]:
    """Both thighs, 250 mm above the knee."""
    frame = window(250)
    return frame, painted(frame, upright())


def test_a_thigh_from_outside_to_inside_is_air_skin_fat_and_muscle(thigh: tuple[Frame, np.ndarray]) -> None:
    frame, image = thigh
    middle = image[frame.shape[0] // 2, frame.shape[1] // 2]
    # LEG_PROFILE between 180 and 260 mm: centre 87.9 mm, abducted by .02 * 180 mm; half width 82.1 mm.
    outside = 87.9 + 3.6 + 82.1
    at = {mm: middle[frame.column(outside - mm)] for mm in (-6, 7, 30)}
    assert at[-6] == 0
    assert at[7].real == 0 and at[7].imag == pytest.approx(LOOK.fat_signal().imag, rel=0.15)
    assert at[30].imag == pytest.approx(0, abs=0.05)
    # A belly's own brightness varies by 15 %, its fibres by 10 % (standard deviation).
    assert at[30].real == pytest.approx(LOOK.muscle_signal(), rel=0.4)
    skin = middle.real[frame.column(outside - 5) : frame.column(outside + 5)]
    assert 0.05 < skin.max() < float(signals.spgr(signals.SKIN, 0.1).real) + 1e-6


@pytest.mark.parametrize("fat_mm", [8.0, 15.0, 25.0])
def test_fat_is_as_thick_as_the_anatomy_says(fat_mm: float) -> None:
    frame = window(250, mm=1.0)  # where FAT_PROFILE is 1
    image = painted(frame, upright(fat_mm))
    lateral = np.abs(image[frame.shape[0] // 2, frame.shape[1] // 2])[frame.column(150) :]
    fatty = image[frame.shape[0] // 2, frame.shape[1] // 2].imag[frame.column(150) :] > 0.35
    # From the skin (1.6 mm of it) inwards; a voxel of 1 mm on either side.
    assert np.count_nonzero(fatty & (lateral > 0.35)) == pytest.approx(fat_mm - 1.6, abs=2)


def test_fat_is_twice_as_bright_as_muscle(thigh: tuple[Frame, np.ndarray]) -> None:
    _, image = thigh
    fat, muscle = (np.abs(image[part]) for part in (image.imag > 0.5, image.real > 0.2))
    assert np.median(fat) > 2 * np.median(muscle)
    assert np.median(fat) == pytest.approx(LOOK.fat_signal().imag, rel=0.05)
    assert np.median(muscle) == pytest.approx(LOOK.muscle_signal(), rel=0.1)


def test_muscle_has_a_pattern_of_its_own(thigh: tuple[Frame, np.ndarray]) -> None:
    frame, image = thigh
    inner = image[frame.shape[0] // 2, :, frame.column(60) : frame.column(120)].real
    meat = inner[inner > 0.2]
    # Fibres 10 %, bellies 5 %, less what the cut at .2 takes.
    assert 0.5 * FASCICLE < meat.std() / meat.mean() < 1.5 * FASCICLE


def test_water_is_real_fat_imaginary_and_nothing_negative(thigh: tuple[Frame, np.ndarray]) -> None:
    _, image = thigh
    assert image.dtype == np.complex64
    assert image.real.min() >= 0 and image.imag.min() >= -1e-6 and np.abs(image).max() < 1.1


def test_air_is_zero_around_and_between_the_legs() -> None:
    frame = window(0)  # knees are 58 mm wide each way about 84 + 8.6 mm
    image = painted(frame, upright())
    air = np.abs(frame.x) < 25
    assert not image[:, :, air].any()
    assert not image[:, :, np.abs(frame.x) > 165].any()
    assert all(image[:, :, part].any() for part in (frame.x < -30, frame.x > 30))


def test_legs_of_an_upright_patient_mirror_each_other() -> None:
    for z in (250, -100, -150):
        image = painted(window(z), upright())
        inside, fat = image != 0, image.imag > 0.3
        assert np.mean(inside == inside[:, :, ::-1]) > 0.999
        # Bellies of both legs vary a little on their own.
        assert np.mean((fat == fat[:, :, ::-1])[inside]) > 0.88


def test_texture_does_not_change_the_outline() -> None:
    frame = window(250)
    one, same, other = (painted(frame, upright(), texture=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(one == 0, other == 0)


def test_a_patient_s_look_scales_fat_and_muscle() -> None:
    frame = window(250)
    pale, bright = (
        painted(frame, upright(), look=Look(fat, muscle, 1.2)) for fat, muscle in ((0.7, 0.05), (1.05, 0.17))
    )
    assert np.median(bright.imag[pale.imag > 0.3] / pale.imag[pale.imag > 0.3]) == pytest.approx(1.5, rel=0.01)
    ratio = signals.spgr(signals.MUSCLE, 0.17).real / signals.spgr(signals.MUSCLE, 0.05).real
    inner = (slice(None), slice(None), slice(frame.column(60), frame.column(120)))
    meat = pale[inner].real > 0.2
    assert np.median(bright[inner].real[meat] / pale[inner].real[meat]) == pytest.approx(ratio, rel=0.01)


def test_looks_are_those_of_the_venous_phase() -> None:
    looks = [Look.draw(np.random.default_rng(i)) for i in range(300)]
    fat, muscle = [abs(look.fat_signal()) for look in looks], [look.muscle_signal() for look in looks]
    assert all(0.55 <= signal <= 0.85 for signal in fat) and max(fat) - min(fat) > 0.25
    assert all(0.265 <= signal <= 0.38 for signal in muscle) and max(muscle) - min(muscle) > 0.09
    assert all(1.0 <= look.artery_mM <= 1.35 for look in looks)


def test_the_abdomen_holds_fat_and_bowel() -> None:
    frame = window(620, half_width_mm=80)
    image = painted(frame, upright())[frame.shape[0] // 2]
    assert np.mean(image.imag > 0.5 * LOOK.fat_signal().imag) > 0.2
    assert np.mean(image.real > 0.2) > 0.2
    # The wall of a loop is brighter than muscle.
    assert image.real.max() > 1.4 * LOOK.muscle_signal()


def test_a_whole_patient_stands_in_the_field_of_view_from_sole_to_abdomen() -> None:
    frame = Frame.of(SCALES["tiny"])
    body = np.abs(painted(frame, upright())) > 0
    rows = body.any(axis=(0, 2))
    # Sole at 300 - (430 + 474) = -604 mm; the abdomen leaves the volume at the top.
    assert rows[0] and frame.z[np.flatnonzero(rows)[-1]] == pytest.approx(-604, abs=8.7)
    width_mm = np.count_nonzero(body[6], axis=1) * 7.3
    # Both thighs near the groin are wider than both calves: 4 x 93 against 4 x 35 mm.
    assert width_mm[frame.row(300 - 40)] > 330 and width_mm[frame.row(300 - 430 - 385)] < 200
