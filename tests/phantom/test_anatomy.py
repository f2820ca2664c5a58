"""Where the phantom's vessels run, how wide they are, and which variants there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom import template
from phantom.anatomy import DUPLICATED_FV, DUPLICATED_PV, LIMBS, VALVE_GAP_MM, Anatomy, Pose, draw_anatomy
from phantom.grid import SCALES, Frame
from phantom.shapes import Tube

PAIRS = ("PTV", "PER", "ATV")
TRUNK = ("EIV", "CFV", "FV", "PV")
PATIENTS = 150

POSES = st.builds(
    Pose,
    st.sampled_from((-1, 1)),
    st.floats(0.9, 1.1),
    st.floats(-0.012, 0.045),
    st.tuples(st.floats(-8, 8), st.floats(-2, 2), st.floats(-12, 12)),
    st.tuples(st.floats(-0.02, 0.02), st.floats(-0.008, 0.008)),
)


@pytest.fixture(scope="module")
def patients() -> list[Anatomy]:
    """Many patients with real calibres, centrelines in steps of 10 mm at most."""
    return [draw_anatomy(np.random.default_rng([7, i]), boost=1.0, step_mm=10.0) for i in range(PATIENTS)]


@pytest.fixture(scope="module")
def limbs(patients: list[Anatomy]) -> list[tuple[Anatomy, str]]:
    """Each leg of each patient."""
    return [(anatomy, limb) for anatomy in patients for limb in LIMBS]


def apart_mm(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def mean_diameters(tubes: list[Tube]) -> tuple[float, float]:
    """At the upper and at the lower end, over many limbs."""
    upper, lower = (2 * float(np.mean([tube.radius_mm[end] for tube in tubes])) for end in (0, -1))
    return upper, lower


# ---- pose ------------------------------------------------------------------------------------------


def test_position_of_a_template_point_computed_by_hand() -> None:
    # Left leg, scale 0.9: the point 100 mm below the hip lies 90 mm below z = 300, abducted by 0.01 * 90 = 0.9 mm,
    # at x = 0.9 * 60 + 0.9 = 54.9 and y = 0.9 * (90 - 130) = -36, and the shift is added.
    pose = Pose(1, 0.9, 0.01, (2.0, 1.0, -5.0), (0.0, 0.0))
    assert pose.place(np.array([(330, 60, 130)]))[0] == pytest.approx((56.9, -35.0, 205.0))
    # On the right x is mirrored before the shift; above the hip nothing is abducted.
    pose = Pose(-1, 0.9, 0.01, (2.0, 1.0, -5.0), (0.0, 0.0))
    assert pose.place(np.array([(330, 60, 130), (530, 60, 130)])) == pytest.approx(
        np.array([(-52.9, -35.0, 205.0), (-52.0, -35.0, 385.0)])
    )


def test_a_tilted_patient_leans_about_the_isocentre() -> None:
    straight, leaning = (Pose(1, 1.0, 0.0, (0.0, 0.0, 0.0), tilt) for tilt in ((0.0, 0.0), (0.02, -0.01)))
    points = np.array([(430, 60, 130), (130, 60, 130), (0, 60, 130)], float)  # z 300, 0 and -130
    assert leaning.place(points) - straight.place(points) == pytest.approx(
        np.array([(6, -3, 0), (0, 0, 0), (-2.6, 1.3, 0)])
    )


@given(POSES, st.floats(-470, 900))
def test_heights_there_and_back(pose: Pose, z: float) -> None:
    assert pose.template_z(np.array(pose.height_mm(z))) == pytest.approx(z, abs=1e-6)


@given(POSES, st.floats(430, 900))
def test_midline_is_where_the_template_has_it(pose: Pose, z: float) -> None:
    at = pose.place(np.array([(z, 0, 90)]))[0]
    assert pose.midline_mm(at[2]) == pytest.approx(at[0])


# ---- veins -----------------------------------------------------------------------------------------


def test_every_leg_has_the_veins_of_the_template(limbs: list[tuple[Anatomy, str]]) -> None:
    single = {"CIV", "EIV", "CFV", "FV", "PV", "PFV", "TPT", "SOL-1", "SOL-2", "GAS-1", "GAS-2", "GSV", "SSV"}
    expected = single | {f"{name}-{i}" for name in PAIRS for i in (1, 2)}
    for anatomy, limb in limbs:
        variants = {"FV-double", "PV-double"} | ({"IVC"} if limb == "right" else set())
        assert expected <= set(anatomy.veins[limb]) <= expected | variants
        assert all(name == tube.name for name, tube in anatomy.veins[limb].items())


def test_the_vein_decides_the_region(patients: list[Anatomy]) -> None:
    regions = {name: tube.region for limb in LIMBS for name, tube in patients[0].veins[limb].items()}
    assert {n for n, r in regions.items() if r == "proximal"} - {"FV-double", "PV-double"} == set(TRUNK)
    calf = {"TPT", "SOL-1", "SOL-2", "GAS-1", "GAS-2", *(f"{name}-{i}" for name in PAIRS for i in (1, 2))}
    assert {n for n, r in regions.items() if r == "distal"} == calf
    assert all(artery.region is None for artery in patients[0].arteries)


def test_the_deep_trunk_is_connected(limbs: list[tuple[Anatomy, str]]) -> None:
    branches = [("CFV", "PFV"), *(("TPT", f"{name}-{i}") for name in ("PTV", "PER") for i in (1, 2))]
    for anatomy, limb in limbs:
        veins = anatomy.veins[limb]
        for above, below in [*itertools.pairwise(("CIV", *TRUNK, "TPT")), *branches]:
            assert apart_mm(veins[above].points[-1], veins[below].points[0]) < 1e-6


def test_side_branches_begin_at_the_vein_that_they_join(limbs: list[tuple[Anatomy, str]]) -> None:
    # Their template ends at the wall of the other vein, which has a calibre of its own: up to 2 mm of play.
    for anatomy, limb in limbs:
        veins = anatomy.veins[limb]
        for branch, into in (("ATV-1", "PV"), ("ATV-2", "PV"), ("GSV", "CFV")):
            start, other = veins[branch], veins[into]
            from_axis = np.linalg.norm(other.points - start.points[0], axis=1)
            assert np.min(from_axis - other.radius_mm - start.radius_mm[0]) < 2


def test_a_second_vein_is_parallel_to_the_first_and_joins_it_at_both_ends(limbs: list[tuple[Anatomy, str]]) -> None:
    found = [(anatomy.veins[limb], name) for anatomy, limb in limbs for name in ("FV", "PV")]
    found = [(veins, name) for veins, name in found if f"{name}-double" in veins]
    assert len(found) > 20
    for veins, name in found:
        first, second = veins[name], veins[f"{name}-double"]
        assert second.region == "proximal"
        gap = np.linalg.norm(first.points[:, None] - second.points, axis=2)
        at_ends, width = gap.min(axis=0), first.radius_mm.max()
        assert at_ends[0] == pytest.approx(0, abs=1e-6) and at_ends[-1] == pytest.approx(0, abs=1e-6)
        # 2.1 radii of the first between the centres; the second has three quarters of it: no overlap, no gap.
        assert 1.75 * first.radius_mm.min() < at_ends.max() < 2.2 * width
        assert second.radius_mm.max() < 0.8 * width


def test_as_many_veins_are_double_as_in_the_literature(limbs: list[tuple[Anatomy, str]]) -> None:
    for name, share in (("FV", 0.21), ("PV", 0.02)):
        assert {"FV": DUPLICATED_FV, "PV": DUPLICATED_PV}[name] == share
        count = sum(f"{name}-double" in anatomy.veins[limb] for anatomy, limb in limbs)
        # Binomial: three standard deviations of 300 limbs.
        assert abs(count - share * len(limbs)) < 3 * np.sqrt(len(limbs) * share * (1 - share))


def test_left_and_right_lie_on_their_side_of_the_midline(limbs: list[tuple[Anatomy, str]]) -> None:
    for anatomy, limb in limbs:
        for name, tube in anatomy.veins[limb].items():
            if name == "IVC":
                continue
            midline = anatomy.limbs[limb].midline_mm(tube.points[:, 2])
            lateral = LIMBS[limb] * (tube.points[:, 0] - midline)
            assert lateral.min() > (5 if name == "CIV" else 10)
    assert LIMBS == {"right": -1, "left": 1}


def test_veins_run_from_above_to_below(patients: list[Anatomy]) -> None:
    for anatomy in patients[:30]:
        for tube in (tube for veins in anatomy.veins.values() for tube in veins.values()):
            assert np.all(np.diff(tube.points[:, 2]) < 0)


# ---- calibres --------------------------------------------------------------------------------------


def test_calibres_of_the_deep_veins_are_those_of_ultrasound(limbs: list[tuple[Anatomy, str]]) -> None:
    # Hertzberg 1997: CFV 10.5 mm, femoral vein in the lower thigh 6.4 to 6.8. A factor U(.85, 1.15) of sd .087 over
    # 300 limbs leaves .5 %.
    ends = {name: mean_diameters([a.veins[limb][name] for a, limb in limbs]) for name in TRUNK}
    assert ends["CFV"][0] == pytest.approx(10.5, rel=0.02)
    assert 6.4 <= ends["FV"][1] <= 6.8
    assert 6.4 <= ends["PV"][0] <= 7.4 and 6.4 <= ends["PV"][1] <= 7.4


def test_no_vein_is_wider_or_narrower_than_its_template_by_more_than_15_percent(
    limbs: list[tuple[Anatomy, str]],
) -> None:
    for course in template.TRUNK_COURSES + template.BRANCH_COURSES:
        names = [f"{course.name}-1", f"{course.name}-2"] if course.pair_gap_mm else [course.name]
        for anatomy, limb in limbs:
            for name in names:
                ends = np.array(course.vein_mm)[[0, -1]]
                factors = 2 * anatomy.veins[limb][name].radius_mm[[0, -1]] / ends
                assert factors[0] == pytest.approx(factors[1])
                assert 0.85 <= factors[0] <= 1.15


def test_calf_veins_are_2_to_6_mm_wide(limbs: list[tuple[Anatomy, str]]) -> None:
    for name, (low, high) in {"PTV-1": (2.5, 4), "PER-1": (2.5, 4), "SOL-1": (2.5, 6), "GAS-1": (2.5, 6)}.items():
        upper, lower = mean_diameters([a.veins[limb][name] for a, limb in limbs])
        assert low <= lower < upper <= high


def test_arteries_stay_below_the_upper_limits_of_healthy_men(patients: list[Anatomy]) -> None:
    # Lorbeer 2018, 95th percentiles in mm.
    limits = {"CFV": 10.2, "FV": 10.2, "PV": 7.7, "ATV": 4.2, "PTV": 3.8, "PER": 4.0}
    for anatomy in patients:
        for artery in anatomy.arteries:
            assert 2 * artery.radius_mm.max() < limits.get(artery.name, np.inf)


def test_a_vein_is_wider_than_its_artery(limbs: list[tuple[Anatomy, str]], patients: list[Anatomy]) -> None:
    # Hertzberg 1997: 1.3 at the groin, 1.2 elsewhere.
    for name, low, high in (("CFV", 1.25, 1.35), ("FV", 1.15, 1.4), ("PV", 1.15, 1.45)):
        vein = mean_diameters([a.veins[limb][name] for a, limb in limbs])
        artery = mean_diameters([tube for a in patients for tube in a.arteries if tube.name == name])
        assert low < vein[0] / artery[0] < high and low < vein[1] / artery[1] < high


def test_boost_widens_vessels_and_leaves_their_courses() -> None:
    one, three = (draw_anatomy(np.random.default_rng(3), boost, step_mm=10.0) for boost in (1.0, 3.0))
    for limb in LIMBS:
        assert one.limbs[limb] == three.limbs[limb]
        for name, tube in one.veins[limb].items():
            assert three.veins[limb][name].radius_mm == pytest.approx(3 * tube.radius_mm)
        for name in TRUNK:
            assert np.array_equal(one.veins[limb][name].points, three.veins[limb][name].points)


# ---- arteries --------------------------------------------------------------------------------------


def test_calf_arteries_run_between_their_two_veins(limbs: list[tuple[Anatomy, str]]) -> None:
    for (anatomy, limb), name in itertools.product(limbs, PAIRS):
        first, second = (anatomy.veins[limb][f"{name}-{i}"] for i in (1, 2))
        middle = (first.points + second.points) / 2
        (artery,) = [a for a in anatomy.arteries if a.name == name and LIMBS[limb] * a.points[-1, 0] > 20]
        assert artery.points == pytest.approx(middle)
        beyond = np.linspace(0, 1, len(middle)) >= 0.1  # over the first tenth a pair diverges from the trunk
        apart = np.linalg.norm(first.points - second.points, axis=1)[beyond]
        touch = 2 * (first.radius_mm + artery.radius_mm)[beyond]
        assert np.all(apart > touch - 1e-6)
        assert np.all(apart - 2 * first.radius_mm[beyond] > 3 - 1e-6)  # the way between two walls: 3 mm or more


def test_arteries_touch_no_deep_vein_of_their_own(limbs: list[tuple[Anatomy, str]]) -> None:
    for (anatomy, limb), name in itertools.product(limbs[:60], (*TRUNK, "TPT")):
        vein = anatomy.veins[limb][name]
        arteries = [a for a in anatomy.arteries if a.name == name and LIMBS[limb] * a.points[-1, 0] > 20]
        assert len(arteries) == 1
        apart = np.linalg.norm(arteries[0].points - vein.points, axis=1)
        assert apart == pytest.approx(1.1 * (vein.radius_mm + arteries[0].radius_mm))


def test_the_artery_is_lateral_at_the_groin_and_in_front_at_the_knee(limbs: list[tuple[Anatomy, str]]) -> None:
    for anatomy, limb in limbs:
        way = {}
        for name, end in (("CFV", 0), ("PV", -1)):
            vein = anatomy.veins[limb][name].points[end]
            artery = min((a.points[end] for a in anatomy.arteries if a.name == name), key=lambda p: abs(p[0] - vein[0]))
            way[name] = (artery - vein) * (LIMBS[limb], -1, 1)  # lateral, anterior, up
        assert way["CFV"][0] > 2 * abs(way["CFV"][1])
        assert way["PV"][1] > 2 * abs(way["PV"][0]) > 0


# ---- heights, valves, field of view ----------------------------------------------------------------


def test_the_tibial_confluence_lies_60_to_70_mm_below_the_knee(limbs: list[tuple[Anatomy, str]]) -> None:
    # 65 mm in the template; legs are scaled by .92 * .985 to 1.08 * 1.015.
    for anatomy, limb in limbs:
        below = anatomy.knee_mm(limb) - anatomy.confluence_mm(limb)
        assert 65 * 0.92 * 0.985 - 1e-6 <= below <= 65 * 1.08 * 1.015 + 1e-6
        assert anatomy.confluence_mm(limb) == pytest.approx(anatomy.veins[limb]["TPT"].points[0, 2])
        assert anatomy.knee_mm(limb) == pytest.approx(anatomy.limbs[limb].height_mm(0))


def test_valves_sit_30_to_60_mm_apart_and_not_at_the_end(limbs: list[tuple[Anatomy, str]]) -> None:
    low, high = VALVE_GAP_MM
    assert (low, high) == (30, 60)
    for anatomy, limb in limbs:
        assert set(anatomy.valves[limb]) == set(anatomy.veins[limb]) - {"IVC"}
        for name, places in anatomy.valves[limb].items():
            whole = anatomy.veins[limb][name].arc_mm()[-1]
            gaps = np.diff(places, prepend=0)
            assert np.all((gaps >= low) & (gaps <= high)) and np.all(places < whole - 5)
            assert whole - 5 - (places[-1] if len(places) else 0) <= high


@pytest.mark.parametrize("scale", SCALES)
def test_veins_that_may_clot_lie_inside_the_field_of_view(scale: str, patients: list[Anatomy]) -> None:
    frame = Frame.of(SCALES[scale])
    # The slab is thin: from front to back a centreline may leave it by a pixel.
    half = np.array([frame.x.max(), frame.y.max() + frame.spacing_mm[0] / 2 + 1.45, frame.z.max()])
    furthest = np.zeros(3)
    for tube in (tube for a in patients for veins in a.veins.values() for tube in veins.values()):
        if tube.region is not None:
            furthest = np.maximum(furthest, np.abs(tube.points).max(axis=0))
    assert np.all(furthest < half)


def test_size_and_posture_stay_in_their_ranges(patients: list[Anatomy]) -> None:
    for anatomy in patients:
        assert 0.92 <= anatomy.trunk.scale <= 1.08 and 8 <= anatomy.fat_mm <= 25
        for limb, pose in anatomy.limbs.items():
            assert pose.side == LIMBS[limb] and -0.012 <= pose.abduction <= 0.045
            assert 0.985 <= pose.scale / anatomy.trunk.scale <= 1.015
            assert pose.shift_mm == anatomy.trunk.shift_mm and pose.tilt == anatomy.trunk.tilt
    scales = [anatomy.trunk.scale for anatomy in patients]
    # N(1, .05) clipped at 1.6 standard deviations has a standard deviation of .043.
    assert np.mean(scales) == pytest.approx(1, abs=0.012) and np.std(scales) == pytest.approx(0.043, abs=0.008)


def test_a_patient_is_the_seed_s() -> None:
    first, again, other = (draw_anatomy(np.random.default_rng(seed), 1.0, 10.0) for seed in (5, 5, 6))
    assert first.limbs == again.limbs != other.limbs
    for limb, name in itertools.product(LIMBS, TRUNK):
        assert np.array_equal(first.veins[limb][name].points, again.veins[limb][name].points)


def test_denser_centrelines_run_the_same_way() -> None:
    coarse, dense = (draw_anatomy(np.random.default_rng(8), 1.0, step_mm=step) for step in (10.0, 2.0))
    for name in (*TRUNK, "PTV-1", "SOL-1"):
        a, b = (anatomy.veins["right"][name] for anatomy in (coarse, dense))
        assert len(b.points) > len(a.points)
        nearest = np.linalg.norm(a.points[:, None] - b.points, axis=2).min(axis=1)
        assert nearest.max() < 1.5  # at most half a step of 2 mm along, and what a chord of 10 mm cuts off
