"""How the phantom's vessels fill, on a block of muscle without anything else in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantom import contrast, signals
from phantom.anatomy import LIMBS, Anatomy, draw_anatomy
from phantom.contrast import Pulsation, paint_vessels, vein_ids
from phantom.difficulty import DIFFICULTIES, Difficulty
from phantom.grid import Frame
from phantom.shapes import Tube
from phantom.signals import Look

LOOK = Look(fat=1.0, muscle_mM=0.1, artery_mM=1.2)
FLESH = 0.3
EVEN = Difficulty(noise=0.0, calf_mM=(0.4, 0.4), unfilled=0.0, station_gain=(1.0, 1.0))
CALF = ("PTV-1", "PTV-2", "PER-1", "PER-2", "ATV-1", "ATV-2", "SOL-1", "SOL-2")
"""Veins 170 mm below the knee."""


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """A patient with real calibres, without a second femoral vein on the left."""
    drawn = draw_anatomy(np.random.default_rng(0), boost=1.0, step_mm=1.0)
    assert "FV-double" not in drawn.veins["left"]
    return drawn


@pytest.fixture
def no_streaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Veins without streaks, arteries without plaques."""
    monkeypatch.setattr(contrast, "STREAKS", (0, 0))
    monkeypatch.setattr(contrast, "PLAQUES", 0)


def only(anatomy: Anatomy, *names: str) -> Anatomy:
    """Some veins of the left leg and the aorta, without valves: quicker, and every vein fills as ever."""
    veins = {"right": {}, "left": {name: anatomy.veins["left"][name] for name in names}}
    return replace(anatomy, veins=veins, valves={limb: {} for limb in LIMBS}, arteries=anatomy.arteries[:1])


def window(anatomy: Anatomy, template_z: float, high_mm: float = 6.0, mm: float = 1.0) -> Frame:
    """The left leg about a template height."""
    pose = anatomy.limbs["left"]
    x, _, z = pose.place(np.array([(template_z, 80, 90)]))[0]
    across, up = np.arange(-60, 60 + mm / 2, mm), np.arange(high_mm / 2, -high_mm / 2 - mm / 2, -mm)
    return Frame(y=across, z=z + up, x=x + across, spacing_mm=(mm, mm, mm))


def painted(
    frame: Frame, anatomy: Anatomy, seed: int = 1, difficulty: Difficulty = EVEN, boost: float = 1.0
) -> tuple[np.ndarray, np.ndarray, Pulsation]:
    """Image, map of veins and pulsation."""
    image = np.full(frame.shape, FLESH, np.complex64)
    veins, pulsation = paint_vessels(image, frame, anatomy, LOOK, difficulty, boost, np.random.default_rng(seed))
    return image, veins, pulsation


def centre(frame: Frame, tube: Tube, z_mm: float | None = None) -> tuple[int, int, int]:
    """The voxel on the axis of a vessel in the middle of a window, or at a height."""
    height = frame.z[len(frame.z) // 2] if z_mm is None else z_mm
    x, y, _ = tube.points[np.abs(tube.points[:, 2] - height).argmin()]
    return int(np.abs(frame.y - y).argmin()), frame.row(height), frame.column(x)


def blood(gadolinium_mM: float) -> float:
    return float(signals.spgr(signals.BLOOD, gadolinium_mM).real)


# ---- map of veins ----------------------------------------------------------------------------------


def test_every_vein_has_a_number_from_one_up(anatomy: Anatomy) -> None:
    ids = vein_ids(anatomy)
    assert sorted(ids.values()) == list(range(1, len(ids) + 1))
    assert set(ids) == {(limb, name) for limb in LIMBS for name in anatomy.veins[limb]}
    assert len(ids) < 256  # the map is uint8


def test_the_map_has_each_vein_where_it_runs(anatomy: Anatomy) -> None:
    ids = vein_ids(anatomy)
    for z, names in ((250, ("FV", "PFV", "GSV")), (40, ("PV", "GSV")), (-170, CALF)):
        frame = window(anatomy, z)
        image, veins, _ = painted(frame, anatomy)
        assert veins.dtype == np.uint8 and veins.shape == image.shape
        expected = {ids["left", name] for name in names}
        assert (
            expected <= set(np.unique(veins)) <= {0, *(number for (limb, _), number in ids.items() if limb == "left")}
        )
        for name in names:
            assert veins[centre(frame, anatomy.veins["left"][name])] == ids["left", name]


def test_a_vein_has_its_calibre_in_the_map(anatomy: Anatomy) -> None:
    frame = window(anatomy, 250, high_mm=2, mm=0.5)
    vein = anatomy.veins["left"]["FV"]
    plain = replace(anatomy, valves={limb: {} for limb in LIMBS})
    _, veins, _ = painted(frame, plain)
    _, h, _ = centre(frame, vein)
    radius = vein.radius_mm[np.abs(vein.points[:, 2] - frame.z[h]).argmin()]
    area = np.count_nonzero(veins[:, h] == vein_ids(anatomy)["left", "FV"]) * 0.25
    # The vein runs obliquely, at most 20 degrees from the long axis of the leg: 1 / cos(20 degrees) = 1.06.
    assert 0.97 * np.pi * radius**2 < area < 1.1 * np.pi * radius**2


# ---- filling ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_streaks")
def test_veins_hold_one_millimolar_at_the_groin_and_pale_below_the_knee(anatomy: Anatomy) -> None:
    groin, calf = window(anatomy, 420, high_mm=2), window(anatomy, -170, high_mm=2)
    seen: dict[str, list[float]] = {"CFV": [], "PTV-1": [], "SOL-1": []}
    few = only(anatomy, "PV", *seen)
    for seed in range(40):
        for frame, names in ((groin, ("CFV",)), (calf, ("PTV-1", "SOL-1"))):
            image, _, _ = painted(frame, few, seed)
            for name in names:
                seen[name].append(float(image[centre(frame, few.veins["left"][name])].real))
    # Uneven by 10 % along a vein and U(.9, 1.1) between calf veins: means of 40 within 2 %, thrice that here.
    assert np.mean(seen["CFV"]) == pytest.approx(1, rel=0.05)
    assert np.mean(seen["PTV-1"]) == pytest.approx(blood(0.4), rel=0.06)
    assert np.mean(seen["SOL-1"]) == pytest.approx(blood(0.4), rel=0.06)
    assert 0.02 < np.std(seen["CFV"]) < 0.12


@pytest.mark.parametrize(("name", "low", "high"), [("easy", 0.85, 1.0), ("default", 0.7, 1.0), ("hard", 0.44, 0.85)])
def test_calf_signals_of_the_difficulties(name: str, low: float, high: float) -> None:
    assert [blood(mM) for mM in DIFFICULTIES[name].calf_mM] == pytest.approx([low, high], abs=0.01)


def test_an_unfilled_vein_shows_what_thrombus_shows() -> None:
    assert [blood(mM) for mM in contrast.UNFILLED_MM] == pytest.approx([0.17, 0.4], abs=0.01)


@pytest.mark.usefixtures("no_streaks")
def test_as_many_calf_veins_stay_unfilled_as_the_difficulty_says() -> None:
    # Veins twice as wide, so that the axis shows the vein alone. Filled 1 mM * .9 * .6 = .54 mM or more: signal .64;
    # unfilled .25 mM * 1.4 = .35 mM or less: .48.
    wide = only(draw_anatomy(np.random.default_rng(0), boost=2.0, step_mm=2.0), "PV", *CALF)
    frame = window(wide, -170, high_mm=2)
    places = [centre(frame, wide.veins["left"][name]) for name in CALF]
    for unfilled, patients in ((0.0, 4), (0.15, 40), (1.0, 4)):
        difficulty = replace(EVEN, calf_mM=(1.0, 1.0), unfilled=unfilled)
        dark = 0
        for seed in range(patients):
            image, _, _ = painted(frame, wide, seed, difficulty, boost=2.0)
            dark += sum(image[place].real < 0.56 for place in places)
        of = patients * len(places)
        assert abs(dark - unfilled * of) <= 3 * np.sqrt(of * unfilled * (1 - unfilled))


@pytest.mark.usefixtures("no_streaks")
def test_unfilled_calf_veins_change_nothing_above(anatomy: Anatomy) -> None:
    for z, same in ((250, True), (420, True), (-170, False)):
        frame = window(anatomy, z)
        filled, empty = (painted(frame, anatomy, 3, replace(EVEN, unfilled=share))[0] for share in (0.0, 1.0))
        assert np.array_equal(filled, empty) is same


def test_vessels_are_the_seed_s(anatomy: Anatomy) -> None:
    frame = window(anatomy, 420)
    first, again, other = (painted(frame, anatomy, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


# ---- valves, sheaths, streaks ----------------------------------------------------------------------


@pytest.mark.usefixtures("no_streaks")
def test_a_valve_has_dark_cusps_and_a_wider_sinus_above(anatomy: Anatomy) -> None:
    vein = anatomy.veins["left"]["FV"]
    arc = vein.arc_mm()
    at_mm = arc[-1] / 2
    z = float(np.interp(at_mm, arc, vein.points[:, 2]))
    x = float(np.interp(at_mm, arc, vein.points[:, 0]))
    mm, across = 0.5, np.arange(-12, 12.25, 0.5)
    y = float(np.interp(at_mm, arc, vein.points[:, 1]))
    frame = Frame(y=y + across, z=z + across[::-1], x=x + across, spacing_mm=(mm, mm, mm))
    valves: dict[str, dict[str, np.ndarray]] = {limb: {} for limb in LIMBS}
    plain, none_map, _ = painted(frame, replace(anatomy, valves=valves))
    valves["left"] = {"FV": np.array([at_mm])}
    valved, map_, _ = painted(frame, replace(anatomy, valves=valves))
    middle = len(across) // 2
    axis, plain_axis = valved.real[middle, :, middle], plain.real[middle, :, middle]
    assert axis[middle] / plain_axis[middle] == pytest.approx(contrast.CUSPS, abs=0.02)
    for up in (-4, 4):
        assert axis[frame.row(z + up)] == plain_axis[frame.row(z + up)]
    sections = [[np.count_nonzero(m[:, frame.row(z + up)]) for m in (map_, none_map)] for up in (3, -6)]
    wider = [with_valve / without for with_valve, without in sections]
    # The sinus: 12 % more radius 3 mm above the cusps, 1.12**2 = 1.25; 6 mm below, .01 %.
    assert wider[0] == pytest.approx(1.25, abs=0.06) and wider[1] == pytest.approx(1, abs=0.02)


@pytest.mark.usefixtures("no_streaks")
def test_fat_sheathes_the_deep_trunk_and_hardly_the_calf_veins(anatomy: Anatomy) -> None:
    def fat_around(z: float, name: str, boost: float = 1.0) -> float:
        frame = window(anatomy, z, high_mm=1, mm=0.5)
        image, _, _ = painted(frame, only(anatomy, "PV", name), boost=boost)
        s, h, w = centre(frame, anatomy.veins["left"][name])
        line = image[s, h, w - 30 : w + 31]
        return np.count_nonzero(line.imag > 0.4) * 0.5 / 2

    # 2 to 5 mm and 0 to 1 mm; a voxel of half a millimetre on either side.
    assert 2 - 0.5 <= fat_around(300, "FV") <= 5 + 0.5
    assert fat_around(300, "FV", boost=2.0) == pytest.approx(2 * fat_around(300, "FV"), abs=0.5)
    assert fat_around(-170, "PTV-1") <= 1 + 0.5


def test_streaks_lie_in_veins_and_are_darker_than_blood(anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "PLAQUES", 0)
    few = only(anatomy, "EIV", "CFV", "FV", "PV")
    few = replace(few, limbs={"left": few.limbs["left"]})
    frame = window(anatomy, 395, high_mm=60)
    darker = 0
    for seed in range(8):
        with_streaks, veins, _ = painted(frame, few, seed)
        with monkeypatch.context() as patch:
            patch.setattr(contrast, "_paint_streaks", lambda *_: None)
            without, _, _ = painted(frame, few, seed)
        changed = np.abs(with_streaks - without) > 0.1
        darker += np.count_nonzero(changed)
        # A streak may reach .5 + .6 radii from the axis: a tenth of 5 mm and half a voxel outside.
        assert np.count_nonzero(changed & (veins == 0)) <= 0.25 * np.count_nonzero(changed)
        assert np.all(with_streaks.real[changed & (veins > 0)] < without.real[changed & (veins > 0)])
    assert darker > 100


# ---- arteries --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_streaks")
def test_arteries_are_brighter_than_muscle_and_beat_where_they_are(anatomy: Anatomy) -> None:
    for z, name in ((300, "FV"), (40, "PV"), (-170, "PTV")):
        frame = window(anatomy, z)
        image, veins, pulsation = painted(frame, anatomy)
        (artery,) = [a for a in anatomy.arteries if a.name == name and a.points[-1, 0] > 20]
        place = centre(frame, artery)
        assert image[place].real == pytest.approx(blood(LOOK.artery_mM), rel=0.12) and image[place].real > 2 * FLESH
        beat = np.zeros(frame.shape, np.float32)
        np.maximum.at(beat, (pulsation.slices, pulsation.rows, pulsation.columns), pulsation.signal)
        assert beat[place] == pytest.approx(blood(LOOK.artery_mM), rel=0.12)
        assert np.all(np.diff(pulsation.slices) >= 0)
        # Nothing beats that is not in an artery: all of it has been painted with blood, then by a vein at most.
        full = (beat > 0.99 * blood(LOOK.artery_mM)) & (veins == 0)
        assert np.all(image.real[full] > 2 * FLESH)
        far = np.abs(image - np.complex64(FLESH)) == 0
        assert not beat[far].any()


def test_plaques_are_dark_spots_in_arteries(anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "STREAKS", (0, 0))
    artery = next(a for a in anatomy.arteries if a.name == "FV" and a.points[-1, 0] > 20)
    alone = replace(only(anatomy), arteries=[artery] * 2)  # the first of all is the aorta, which has none
    frame = window(anatomy, 250, high_mm=100, mm=2.0)
    dark = []
    for seed in range(20):
        image, _, pulsation = painted(frame, alone, seed)
        full = pulsation.signal > 0.99 * blood(LOOK.artery_mM)
        inside = pulsation.slices[full], pulsation.rows[full], pulsation.columns[full]
        dark.append(np.count_nonzero(np.abs(image[inside]) < 0.5))
    # None to six plaques of a few mm.
    assert min(dark) == 0 < max(dark)
