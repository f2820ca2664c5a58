"""The phantom's clots as they are drawn: where they lie, how often, and how they look."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from phantom import signals
from phantom.anatomy import LIMBS, Anatomy, draw_anatomy
from phantom.case import PATTERNS
from phantom.thrombus import (
    AGES,
    GAP_MM,
    MIN_LENGTH_MM,
    TRUNK_EXTENTS,
    Clot,
    draw_clots,
)

TRUNK = ("EIV", "CFV", "FV", "PV")
PATIENTS = 400


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
