"""The phantom's clots on a grid: the exact label, lesions, and paint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom.anatomy import draw_anatomy
from phantom.case import PATTERNS
from phantom.grid import SCALES, Frame
from phantom.shapes import Tube
from phantom.signals import Look
from phantom.thrombus import (
    MIN_VOXELS,
    REGIONS,
    Clot,
    draw_clots,
    lesions_of,
    paint_clots,
    truth_label,
    widen,
)

LOOK = Look(fat=1.0, muscle_mM=0.1, artery_mM=1.2)


def frame_of(spacing_mm: tuple[float, float, float], shape: tuple[int, int, int]) -> Frame:
    """A frame centred on the isocentre."""
    y, z, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True))
    return Frame(y=y, z=-z, x=x, spacing_mm=spacing_mm)


def straight_clot(
    region: str = "proximal",
    radius_mm: float = 4.0,
    length_mm: float = 20.0,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    limb: str = "left",
    **kinds: object,
) -> Clot:
    """A cylinder along z with points every half millimetre."""
    z = np.arange(length_mm / 2, -length_mm / 2 - 1e-9, -0.5)
    points = np.stack([np.zeros_like(z), np.zeros_like(z), z], axis=1) + np.array(centre_mm)
    name = "FV" if region == "proximal" else "PER-1"
    full = np.full(len(z), 1.0)
    clot = Clot(
        limb=limb,
        age="acute",
        occlusive=True,
        tube=Tube(name, region, points, radius_mm * full),
        vein=np.full(len(z), name),
        lumen_mm=radius_mm * full,
        signal=0.25 * full,
        rim=None,
        channel=None,
    )
    return replace(clot, **kinds)  # type: ignore[arg-type]


# ---- the truth -------------------------------------------------------------------------------------


def test_truth_of_a_drawn_clot() -> None:
    # Columns at -4..4 mm, a cylinder of 2.5 mm: in its middle the centres at -2..2 mm lie inside. Rows from 5 to -5 mm
    # and a clot from 2 to -2 mm with round ends of 2.5 mm: on the axis up to 4.5 mm.
    frame = frame_of((1.0, 1.0, 1.0), (9, 11, 9))
    label = truth_label(frame, [straight_clot("distal", radius_mm=2.5, length_mm=4)])
    assert label.dtype == np.uint8 and set(np.unique(label)) == {0, 2}
    assert label[4, 5].tolist() == [0, 0, 2, 2, 2, 2, 2, 0, 0]
    assert label[4, :, 4].tolist() == [0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0]
    assert label[2, 5].tolist() == [0, 0, 0, 2, 2, 2, 0, 0, 0]  # 2 mm in front: sqrt(2.5**2 - 2**2) = 1.5 mm


def test_truth_is_where_clot_covers_half_of_a_voxel() -> None:
    frame = frame_of((1.25, 1.45, 1.45), (13, 13, 13))
    clot = straight_clot(radius_mm=4.0, length_mm=40.0, centre_mm=(0.3, -0.2, 0.0))
    label = truth_label(frame, [clot])
    parts = (np.arange(9) - 4) / 9
    y = (frame.y[:, None] + 1.25 * parts).ravel() + 0.2
    x = (frame.x[:, None] + 1.45 * parts).ravel() - 0.3
    inside = (y[:, None] ** 2 + x**2 <= 4.0**2).reshape(13, 9, 13, 9)
    coverage = inside.mean(axis=(1, 3))
    here = label[:, 6] > 0
    # The surface bends within a voxel, so the middle of a voxel decides a little otherwise: by at most 5 %.
    assert coverage[here].min() > 0.45 and coverage[~here].max() < 0.55
    assert here.sum() == pytest.approx((coverage >= 0.5).sum(), abs=1)


def test_distal_prevails_where_regions_meet() -> None:
    frame = frame_of((1.0, 1.0, 1.0), (11, 21, 11))
    clots = [straight_clot("distal", length_mm=10), straight_clot("proximal", length_mm=10, centre_mm=(0, 0, 4))]
    alone = truth_label(frame, clots[:1]) > 0
    for order in (clots, clots[::-1]):
        label = truth_label(frame, order)
        assert np.all(label[alone] == REGIONS["distal"]) and np.any(label == REGIONS["proximal"])


def test_no_clot_no_truth() -> None:
    frame = frame_of((1.0, 1.0, 1.0), (3, 3, 3))
    assert not truth_label(frame, []).any() and lesions_of(frame, []) == [] and widen(frame, []) == []


def test_a_clot_between_voxels_is_widened_until_the_label_has_it() -> None:
    # Voxels of 8 mm, a clot of 1 mm: no centre is inside.
    frame = frame_of((8.0, 8.0, 8.0), (4, 6, 4))
    thin = straight_clot("distal", radius_mm=1.0)
    assert not truth_label(frame, [thin]).any()
    (wide,) = widen(frame, [thin])
    assert np.count_nonzero(truth_label(frame, [wide])) >= MIN_VOXELS
    factor = wide.tube.radius_mm / thin.tube.radius_mm
    steps = np.log(factor[0]) / np.log(1.15)
    assert factor == pytest.approx(factor[0]) and steps == pytest.approx(round(steps))
    # No wider than it has to be.
    narrower = replace(wide, tube=replace(wide.tube, radius_mm=wide.tube.radius_mm / 1.15))
    assert np.count_nonzero(truth_label(frame, [narrower])) < MIN_VOXELS
    assert np.array_equal(wide.tube.points, thin.tube.points) and np.array_equal(wide.lumen_mm, thin.lumen_mm)


def test_a_clot_that_shows_is_not_widened_and_regions_do_not_help_each_other() -> None:
    frame = frame_of((8.0, 8.0, 8.0), (4, 6, 4))
    thick, thin = straight_clot("proximal", radius_mm=9.0), straight_clot("distal", radius_mm=1.0)
    wide = widen(frame, [thin, thick])
    assert [clot.region for clot in wide] == ["proximal", "distal"]
    assert wide[0] is thick
    assert np.count_nonzero(truth_label(frame, wide[1:])) >= MIN_VOXELS


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_planned_clot_is_lost_on_the_coarsest_grid(pattern: str) -> None:
    frame = Frame.of(SCALES["tiny"])
    for i in range(15):
        rng = np.random.default_rng([9, i])
        patient = draw_anatomy(rng, SCALES["tiny"].boost, step_mm=0.6 * frame.voxel_mm)
        clots = draw_clots(rng, patient, pattern, bilateral=False)
        for region in {clot.region for clot in clots}:
            here = [clot for clot in widen(frame, clots) if clot.region == region]
            assert np.count_nonzero(truth_label(frame, here)) >= MIN_VOXELS


@given(st.floats(1.5, 6), st.floats(4, 30))
def test_a_wider_clot_covers_what_a_narrower_one_does(radius_mm: float, length_mm: float) -> None:
    frame = frame_of((3.0, 4.0, 3.5), (7, 13, 7))
    narrow, wide = (straight_clot(radius_mm=r, length_mm=length_mm) for r in (radius_mm, 1.15 * radius_mm))
    assert not np.any((truth_label(frame, [narrow]) > 0) & (truth_label(frame, [wide]) == 0))


# ---- lesions ---------------------------------------------------------------------------------------


def test_a_lesion_of_drawn_clots() -> None:
    # Voxels of 2 x 2 x 2 mm = .008 mL; centrelines of 20 and 10 mm.
    frame = frame_of((2.0, 2.0, 2.0), (7, 31, 21))
    pieces = [
        straight_clot("distal", length_mm=20, centre_mm=(10, 0, 10)),
        straight_clot("distal", length_mm=10, centre_mm=(10, 0, -20), occlusive=False, vein=np.full(21, "PER-2")),
    ]
    (lesion,) = lesions_of(frame, pieces)
    assert (lesion.limb, lesion.region, lesion.age) == ("left", "distal", "acute")
    assert lesion.veins == ("PER-1", "PER-2") and lesion.pieces == 2 and not lesion.occlusive
    assert lesion.length_mm == 30.0
    assert lesion.volume_ml == round(0.008 * np.count_nonzero(truth_label(frame, pieces)), 3)
    # Two cylinders with round ends: pi 16 (20 + 10) + 2 * 4/3 pi 64 = 2044 mm3, sampled at 2 mm.
    assert lesion.volume_ml == pytest.approx(2.044, rel=0.06)


def test_there_is_a_lesion_for_each_limb_and_region_proximal_first() -> None:
    frame = frame_of((2.0, 2.0, 2.0), (7, 31, 41))
    clots = [
        straight_clot(
            region, limb=limb, centre_mm=(20 if limb == "left" else -20, 0, 15 if region == "proximal" else -15)
        )
        for region in ("distal", "proximal")
        for limb in ("left", "right")
    ]
    found = [(lesion.region, lesion.limb) for lesion in lesions_of(frame, clots)]
    assert found == [(region, limb) for region in ("proximal", "distal") for limb in ("right", "left")]


# ---- paint -----------------------------------------------------------------------------------------


def painted(clot: Clot, boost: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The middle row of blood (1) with a clot in it, as magnitude from the axis outwards every mm; the map of veins."""
    frame = frame_of((1.0, 1.0, 1.0), (21, 9, 21))
    image, veins = np.ones(frame.shape, np.complex64), np.zeros(frame.shape, np.uint8)
    paint_clots(image, veins, frame, [clot], LOOK, boost, {("left", "FV"): 7})
    return np.abs(image[10, 4, 10:]), veins


def test_a_painted_clot_has_its_signal_and_its_place_in_the_map_of_veins() -> None:
    across, veins = painted(straight_clot(radius_mm=4.5))
    assert across[:5] == pytest.approx(0.25) and across[6:] == pytest.approx(1)
    frame = frame_of((1.0, 1.0, 1.0), (21, 9, 21))
    assert np.array_equal(veins == 7, truth_label(frame, [straight_clot(radius_mm=4.5)]) > 0)


def test_an_enhancing_wall_lies_around_the_clot_and_grows_with_the_boost() -> None:
    # Wall from 4 mm on, 0.8 mm and 2.4 mm thick: at 5 mm, half a voxel's blur away, blood or wall.
    thin, _ = painted(straight_clot(radius_mm=4.0, rim=0.5))
    thick, _ = painted(straight_clot(radius_mm=4.0, rim=0.5), boost=3.0)
    assert thin[:4] == pytest.approx(0.25) and thin[6:] == pytest.approx(1)
    assert thick[:4] == pytest.approx(0.25) and thick[5:6] == pytest.approx(0.5) and thick[7:] == pytest.approx(1)
    assert 0.5 < thin[5] < 1


def test_a_channel_runs_through_the_middle() -> None:
    across, veins = painted(straight_clot(radius_mm=7.0, channel=0.8))
    assert across[:2] == pytest.approx(0.8) and across[3:6] == pytest.approx(0.25)  # .3 * 7 = 2.1 mm
    assert veins[10, 4, 10] == 7  # and belongs to the clot


def test_the_vein_has_shrunk_about_old_clot_and_fat_fills_the_space() -> None:
    old = straight_clot(radius_mm=3.0, age="old", lumen_mm=np.full(41, 6.0))
    across, _ = painted(old)
    fat = abs(LOOK.fat_signal())
    assert across[:3] == pytest.approx(0.25) and across[4:6] == pytest.approx(fat) and across[7:] == pytest.approx(1)
    mural, _ = painted(replace(old, occlusive=False))
    assert mural[4:] == pytest.approx(1)  # blood flows past a mural clot
