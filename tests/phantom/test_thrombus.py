"""The phantom's clots: where they lie, how often, how they look, and the truth about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom import signals
from phantom.anatomy import LIMBS, Anatomy, draw_anatomy
from phantom.grid import SCALES, Frame
from phantom.shapes import Tube
from phantom.signals import Look
from phantom.thrombus import (
    AGES,
    GAP_MM,
    MIN_LENGTH_MM,
    MIN_VOXELS,
    REGIONS,
    TRUNK_EXTENTS,
    Clot,
    draw_clots,
    lesions_of,
    paint_clots,
    truth_label,
    widen,
)

TRUNK = ("EIV", "CFV", "FV", "PV")
PATTERNS = ("proximal", "both", "distal")
PATIENTS = 400
LOOK = Look(fat=1.0, muscle_mM=0.1, artery_mM=1.2)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """A patient with real calibres."""
    return draw_anatomy(np.random.default_rng(1), boost=1.0, step_mm=5.0)


@pytest.fixture(scope="module")
def drawn(anatomy: Anatomy) -> dict[str, list[list[Clot]]]:
    """The clots of many patients with that anatomy, by pattern."""
    return {
        pattern: [draw_clots(np.random.default_rng([i, k]), anatomy, pattern, bilateral=False) for i in range(PATIENTS)]
        for k, pattern in enumerate(PATTERNS)
    }


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


def assert_share(count: int, of: int, share: float) -> None:
    """Binomial: within three standard deviations."""
    assert abs(count - share * of) <= 3 * np.sqrt(of * share * (1 - share))


def groups(clots: list[Clot]) -> set[str]:
    """Calf groups with clot, by three letters."""
    return {str(name)[:3] for clot in clots if clot.region == "distal" for name in clot.vein} - {"TPT"}


# ---- which veins -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_says_which_regions_hold_clot(drawn: dict[str, list[list[Clot]]], pattern: str) -> None:
    expected = {"proximal", "distal"} if pattern == "both" else {pattern}
    for clots in drawn[pattern]:
        assert {clot.region for clot in clots} == expected
        assert len({clot.limb for clot in clots}) == len({clot.age for clot in clots}) == 1


def test_bilateral_patients_have_proximal_clot_in_both_limbs(anatomy: Anatomy) -> None:
    for i in range(20):
        clots = draw_clots(np.random.default_rng(i), anatomy, "proximal", bilateral=True)
        assert {(clot.limb, clot.region) for clot in clots} == {("left", "proximal"), ("right", "proximal")}


def test_the_vein_decides_the_region(drawn: dict[str, list[list[Clot]]]) -> None:
    for clot in (clot for pattern in PATTERNS for clots in drawn[pattern] for clot in clots):
        names = list(dict.fromkeys(clot.vein.tolist()))
        assert clot.tube.name == "+".join(names)
        assert all((name in TRUNK) == (clot.region == "proximal") for name in names)
        assert len(names) == 1 or names == [name for name in TRUNK if name in names]  # in order, from above to below


def test_left_and_right_are_equally_frequent(drawn: dict[str, list[list[Clot]]]) -> None:
    limbs = Counter(clots[0].limb for pattern in PATTERNS for clots in drawn[pattern])
    assert set(limbs) == set(LIMBS)
    assert_share(limbs["left"], 3 * PATIENTS, 0.5)


def test_ages_are_as_frequent_as_at_venography(drawn: dict[str, list[list[Clot]]]) -> None:
    ages = Counter(clots[0].age for pattern in PATTERNS for clots in drawn[pattern])
    for age, share in (("acute", 0.48), ("subacute", 0.30), ("old", 0.22)):
        assert_share(ages[age], 3 * PATIENTS, share)


def test_proximal_clot_spans_the_stretches_of_the_design(drawn: dict[str, list[list[Clot]]]) -> None:
    # Iliac to popliteal .12, common femoral to popliteal .22, distal femoral to popliteal .25 and .26 (part) of
    # those patients; common and proximal femoral .15. The part of .26 ends within the femoral vein.
    spans = Counter(
        "+".join(name for name in TRUNK if any(name in clot.vein for clot in clots)) for clots in drawn["proximal"]
    )
    assert sum(extent[0] for extent in TRUNK_EXTENTS) == pytest.approx(1)
    assert set(spans) == {"EIV+CFV+FV+PV", "CFV+FV+PV", "FV", "FV+PV", "CFV+FV"}
    for span, share in (("EIV+CFV+FV+PV", 0.12), ("CFV+FV+PV", 0.22), ("FV", 0.26), ("FV+PV", 0.25), ("CFV+FV", 0.15)):
        assert_share(spans[span], PATIENTS, share)


@pytest.mark.parametrize(
    ("pattern", "shares"), [("both", (0.35, 0.30, 0.22, 0.13)), ("distal", (0.645, 0.27, 0.07, 0.015))]
)
def test_as_many_calf_groups_clot_as_in_the_literature(
    drawn: dict[str, list[list[Clot]]], pattern: str, shares: tuple[float, ...]
) -> None:
    counts = Counter(len(groups(clots)) for clots in drawn[pattern])
    for number, share in enumerate(shares, start=1):
        assert_share(counts[number], PATIENTS, share)
    assert sum(counts.values()) == PATIENTS


def test_the_tibioperoneal_trunk_clots_whole_in_three_of_five_with_both_regions(
    drawn: dict[str, list[list[Clot]]], anatomy: Anatomy
) -> None:
    trunks = [clot for clots in drawn["both"] for clot in clots if clot.tube.name == "TPT"]
    assert_share(len(trunks), PATIENTS, 0.6)
    for clot in trunks:
        assert len(clot.tube.points) == len(anatomy.veins[clot.limb]["TPT"].points)
    assert not any(clot.tube.name == "TPT" for clots in drawn["distal"] for clot in clots)


# ---- how they lie ----------------------------------------------------------------------------------


def test_clot_lies_in_its_vein(drawn: dict[str, list[list[Clot]]], anatomy: Anatomy) -> None:
    for clot in (clot for clots in drawn["both"] for clot in clots):
        in_order = list(dict.fromkeys(clot.vein.tolist()))
        veins = [anatomy.veins[clot.limb][name] for name in in_order]
        axis = np.concatenate([vein.points for vein in veins])
        off_axis = np.linalg.norm(clot.tube.points[:, None] - axis, axis=2).min(axis=1)
        if clot.occlusive:
            assert off_axis.max() < 1e-6
            assert np.all(clot.tube.radius_mm <= AGES[clot.age].width[1] * clot.lumen_mm + 1e-9)
        else:  # against one wall: off by (1 - share) radii, with a radius of share radii at most
            assert np.all(off_axis + clot.tube.radius_mm <= clot.lumen_mm + 1e-6)
            assert np.all(clot.tube.radius_mm <= 0.85 * clot.lumen_mm + 1e-9)


@pytest.mark.parametrize(("age", "low", "high"), [("acute", 1, 1.2), ("subacute", 1, 1.12), ("old", 0.7, 0.95)])
def test_fresh_clot_distends_its_vein_and_old_clot_shrinks_it(
    drawn: dict[str, list[list[Clot]]], age: str, low: float, high: float
) -> None:
    widths = [
        float((clot.tube.radius_mm / clot.lumen_mm).max())
        for clot in (clot for pattern in PATTERNS for clots in drawn[pattern] for clot in clots)
        # Long enough for both ends (30 mm at most) to have reached their full width.
        if clot.age == age and clot.occlusive and clot.tube.arc_mm()[-1] > 70
    ]
    assert len(widths) > 30
    assert low - 1e-9 <= min(widths) and max(widths) <= high + 1e-9
    assert np.mean(widths) == pytest.approx((low + high) / 2, abs=0.03)


def test_ends_taper_to_two_fifths(drawn: dict[str, list[list[Clot]]]) -> None:
    for clots in (clots for clots in drawn["proximal"] if clots[0].occlusive):
        shares = [clot.tube.radius_mm / clot.lumen_mm for clot in clots]
        full = max(share.max() for share in shares)
        assert shares[0][0] == pytest.approx(0.4 * full) and shares[-1][-1] == pytest.approx(0.4 * full)
        for share in shares:  # rises to its full width and falls again
            assert share.min() >= 0.4 * full - 1e-9
            top = share.argmax()
            assert np.all(np.diff(share[: top + 1]) > -1e-9) and np.all(np.diff(share[top:]) < 1e-9)


def test_seven_of_ten_clots_fill_their_vein(drawn: dict[str, list[list[Clot]]]) -> None:
    each = [clots[0].occlusive for pattern in PATTERNS for clots in drawn[pattern]]
    assert_share(sum(each), 3 * PATIENTS, 0.7)


def test_one_of_five_long_clots_has_a_gap_of_10_to_25_mm(drawn: dict[str, list[list[Clot]]]) -> None:
    broken = [clots for clots in drawn["proximal"] if len(clots) == 2]
    for first, second in broken:
        # Both ends are sampled every 5 mm, tapered or not.
        gap = np.linalg.norm(second.tube.points[0] - first.tube.points[-1])
        assert GAP_MM[0] - 1e-6 <= gap <= GAP_MM[1] + 2 * 5.5
        assert (first.age, first.occlusive, first.rim) == (second.age, second.occlusive, second.rim)
    assert {len(clots) for clots in drawn["proximal"]} == {1, 2}
    # Shorter than 2.5 gaps and 60 mm none has one, and 'distal femoral' clots may be that short.
    long = [clots for clots in drawn["proximal"] if sum(clot.tube.arc_mm()[-1] for clot in clots) > 150]
    assert_share(sum(len(clots) == 2 for clots in long), len(long), 0.2)


def test_a_calf_clot_takes_a_fifth_to_three_fifths_of_its_vein(
    drawn: dict[str, list[list[Clot]]], anatomy: Anatomy
) -> None:
    shares = []
    for clots in drawn["distal"]:
        lengths: Counter[str] = Counter()
        for clot in clots:
            lengths[clot.tube.name] += clot.tube.arc_mm()[-1]
        pieces = Counter(clot.tube.name for clot in clots)
        for name, length in lengths.items():
            whole = anatomy.veins[clots[0].limb][name].arc_mm()[-1]
            assert length <= 0.6 * whole + 1e-6 or length <= MIN_LENGTH_MM
            if pieces[name] == 1:  # points are 5 mm apart: both ends may lie one inside
                assert length > max(0.2 * whole, MIN_LENGTH_MM) - 2 * 5.5
                shares.append(length / whole)
    assert 0.3 < np.mean(shares) < 0.42  # U(.2, .6), less up to 10 mm of some 200


@pytest.mark.parametrize(("age", "low", "high"), [("acute", 0.19, 0.27), ("subacute", 0.28, 0.45), ("old", 0.2, 0.28)])
def test_signal_of_clot_by_age(drawn: dict[str, list[list[Clot]]], age: str, low: float, high: float) -> None:
    t1_ms = AGES[age].t1_ms
    darkest, brightest = (float(signals.spgr(replace(AGES[age].tissue, t1_ms=t1)).real) for t1 in t1_ms[::-1])
    assert (darkest, brightest) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    seen = np.concatenate(
        [clot.signal for pattern in PATTERNS for clots in drawn[pattern] for clot in clots if clot.age == age]
    )
    # Its texture has a standard deviation of .03, cut at .12.
    assert low - 0.13 < seen.min() and seen.min() >= 0.12 and seen.max() < high + 0.13
    assert low < seen.mean() < high


def test_only_old_occlusive_clot_has_a_channel_and_some_walls_enhance(drawn: dict[str, list[list[Clot]]]) -> None:
    each = [clots[0] for pattern in PATTERNS for clots in drawn[pattern]]
    old = [clot for clot in each if clot.age == "old" and clot.occlusive]
    assert all(clot.channel is None for clot in each if clot.age != "old" or not clot.occlusive)
    assert_share(sum(clot.channel is not None for clot in old), len(old), 0.4)
    assert_share(sum(clot.rim is not None for clot in each), len(each), 0.6)
    assert all(0.35 <= clot.rim <= 0.6 for clot in each if clot.rim is not None)


def test_clots_are_the_seed_s(anatomy: Anatomy) -> None:
    first, again, other = (
        draw_clots(np.random.default_rng(seed), anatomy, "both", bilateral=False) for seed in (3, 3, 4)
    )
    assert [c.tube.name for c in first] == [c.tube.name for c in again]
    assert all(np.array_equal(a.tube.points, b.tube.points) for a, b in zip(first, again, strict=True))
    assert [c.tube.points.tolist() for c in first] != [c.tube.points.tolist() for c in other]


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
