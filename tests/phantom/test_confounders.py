"""Nodes, cysts, haematomas, varices, collaterals and oedema: there when they say so, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantom import confounders, signals
from phantom.anatomy import LIMBS, Anatomy, Pose, draw_anatomy
from phantom.confounders import paint_collaterals, paint_confounders, paint_oedema
from phantom.grid import Frame
from phantom.shapes import Tube
from phantom.signals import Look

LOOK = Look(fat=0.9, muscle_mM=0.1, artery_mM=1.2)
FLESH = np.complex64(0.3)
MM = 3.0
PAINTED = ("nodes", "cyst", "haematoma", "varices")


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """A patient of template size who lies straight: LPS is (+-x, 90 - y, z - 130) of the template."""
    drawn = draw_anatomy(np.random.default_rng(0), boost=1.0, step_mm=2.0)
    pose = Pose(1, 1.0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0))
    return replace(drawn, trunk=pose, limbs={limb: replace(pose, side=side) for limb, side in LIMBS.items()})


@pytest.fixture(scope="module")
def frame() -> Frame:
    """Both legs from ankle to groin, with cubic voxels of 3 mm."""
    y, x, z = np.arange(-72, 73, MM), np.arange(-165, 166, MM), np.arange(360, -541, -MM)
    return Frame(y=y, z=z, x=x, spacing_mm=(MM, MM, MM))


def just(monkeypatch: pytest.MonkeyPatch, *present: str) -> None:
    """Every patient has these, and no other confounder."""
    for name, constant in (("cyst", "CYST"), ("haematoma", "HAEMATOMA"), ("varices", "VARICES")):
        monkeypatch.setattr(confounders, constant, float(name in present))
    monkeypatch.setattr(confounders, "NODES", (4, 4) if "nodes" in present else (0, 0))


def painted(frame: Frame, anatomy: Anatomy, seed: int) -> tuple[np.ndarray, dict[str, bool | int]]:
    image = np.full(frame.shape, FLESH)
    found = paint_confounders(image, frame, anatomy, LOOK, 1.0, np.random.default_rng(seed))
    return image, found


def template_places(frame: Frame, changed: np.ndarray) -> np.ndarray:
    """(n, 3) template z, x, y of the voxels of a mask; x is lateral on both sides."""
    s, h, w = np.nonzero(changed)
    return np.stack([frame.z[h] + 130, np.abs(frame.x[w]), 90 - frame.y[s]], axis=1)


# ---- what there is ---------------------------------------------------------------------------------


def test_as_many_patients_have_each_as_the_design_says(anatomy: Anatomy) -> None:
    nowhere = Frame(y=np.arange(2) + 900.0, z=-np.arange(2) + 900.0, x=np.arange(2) + 900.0, spacing_mm=(1, 1, 1))
    found = [painted(nowhere, anatomy, seed)[1] for seed in range(300)]
    assert all(tuple(each) == PAINTED for each in found)
    for name, share in (("cyst", 0.1), ("haematoma", 0.08), ("varices", 0.2)):
        count = sum(bool(each[name]) for each in found)
        assert abs(count - 300 * share) <= 3 * np.sqrt(300 * share * (1 - share))
    assert {each["nodes"] for each in found} == {2, 3, 4, 5, 6}


def test_without_any_nothing_is_painted(frame: Frame, anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    just(monkeypatch)
    image, found = painted(frame, anatomy, 0)
    assert np.all(image == FLESH)
    assert found == {"nodes": 0, "cyst": False, "haematoma": False, "varices": False}


def test_confounders_are_the_seed_s(frame: Frame, anatomy: Anatomy) -> None:
    first, again, other = (painted(frame, anatomy, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_nodes_are_bright_beans_in_the_groin(frame: Frame, anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    just(monkeypatch, "nodes")
    for seed in range(4):
        image, found = painted(frame, anatomy, seed)
        changed = image != FLESH
        places = template_places(frame, changed)
        assert found["nodes"] == 4
        # Centres 375 to 460 mm up, 44 to 88 lateral, 136 to 152 in front; up to 14 mm and a voxel around.
        assert np.all(places > (375 - 17, 44 - 12, 136 - 10)) and np.all(places < (460 + 17, 88 + 12, 152 + 10))
        assert 0.3 < image.real.max() <= float(signals.spgr(signals.NODE, 0.3).real) + 1e-6
        assert image.imag.max() > 0  # the hilum


def test_a_cyst_is_dark_behind_one_knee(frame: Frame, anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    just(monkeypatch, "cyst")
    sides = set()
    for seed in range(8):
        image, found = painted(frame, anatomy, seed)
        assert found["cyst"]
        changed = image != FLESH
        places = template_places(frame, changed)
        assert np.all(places > (-25 - 22 - 16, 60 - 18, 46 - 20)) and np.all(places < (5 + 22 + 16, 68 + 18, 54 + 20))
        assert abs(image[changed]).min() == pytest.approx(abs(signals.spgr(signals.FLUID)), abs=1e-4)
        # Balls of 7 to 13 mm drawn out over 44 mm: 1.4 to 35 mL.
        assert 4 < np.count_nonzero(np.abs(image) < 0.2) * MM**3 / 1000 < 26
        sides |= set(np.sign(frame.x[np.nonzero(changed)[2]]))
        assert len(set(np.sign(frame.x[np.nonzero(changed)[2]]))) == 1
    assert sides == {-1, 1}


def test_a_haematoma_is_bright_with_a_dark_wall(
    frame: Frame, anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    just(monkeypatch, "haematoma")
    for seed in range(4):
        image, found = painted(frame, anatomy, seed)
        assert found["haematoma"]
        assert image.real.max() == pytest.approx(float(signals.spgr(signals.HAEMATOMA).real), abs=1e-4)
        assert image.real.min() < 0.9 * FLESH.real  # a wall of 2 mm, thinner than a voxel
        heights = template_places(frame, image != FLESH)[:, 0]
        assert heights.min() > 60 - 45 - 25 and heights.max() < 330 + 45 + 25


def test_varices_wind_about_the_great_saphenous_vein(
    frame: Frame, anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    just(monkeypatch, "varices")
    for seed in range(3):
        image, found = painted(frame, anatomy, seed)
        assert found["varices"]
        s, h, w = np.nonzero(image.real > FLESH.real + 0.05)
        assert len(s) > 10
        limb = "left" if frame.x[w].mean() > 0 else "right"
        vein = anatomy.veins[limb]["GSV"].points
        voxels = np.stack([frame.x[w], frame.y[s], frame.z[h]], axis=1)
        apart = np.array([np.linalg.norm(vein - voxel, axis=1).min() for voxel in voxels])
        assert apart.max() < 7 + 2.4 + MM  # amplitude, radius, a voxel
        assert apart.max() > 3


# ---- collaterals -----------------------------------------------------------------------------------


def test_collaterals_run_along_an_old_clot_and_not_through_it(frame: Frame) -> None:
    z = np.arange(150, -51, -2.0)
    clot = Tube("FV", "proximal", np.stack([70 + 0 * z, 0 * z, z], axis=1), np.full(len(z), 3.5))
    for seed in range(4):
        image = np.full(frame.shape, FLESH)
        paint_collaterals(image, frame, clot, 1.0, np.random.default_rng(seed))
        s, h, w = np.nonzero(image != FLESH)
        apart = np.hypot(frame.x[w] - 70, frame.y[s])
        # 10 to 22 mm away, winding by 5 mm, 1.5 mm thick, a voxel.
        assert apart.min() > 10 - 5 - 1.5 - MM and apart.max() < 22 + 5 + 1.5 + MM
        assert 10 < np.mean(apart) < 22
        assert np.all((frame.z[h] < 150 + 5) & (frame.z[h] > -50 - 5))
        assert image.real.max() > FLESH.real + 0.1


def test_a_clot_too_short_for_collaterals_is_left_alone(frame: Frame) -> None:
    image = np.full(frame.shape, FLESH)
    short = Tube("FV", "proximal", np.array([(70, 0, z) for z in (2.0, 0.0, -2.0)]), np.full(3, 3.5))
    paint_collaterals(image, frame, short, 1.0, np.random.default_rng(0))
    assert np.all(image == FLESH)


# ---- oedema ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limb", LIMBS)
def test_oedema_changes_the_fat_of_one_calf_alone(frame: Frame, anatomy: Anatomy, limb: str) -> None:
    fat = np.complex64(LOOK.fat_signal())
    image = np.full(frame.shape, fat)
    image[:, :, ::2] = FLESH  # every second column is muscle
    before = image.copy()
    paint_oedema(image, frame, anatomy, limb, LOOK, np.random.default_rng(0))
    s, h, w = np.nonzero(image != before)
    assert len(s) > 1000
    assert np.all(LIMBS[limb] * frame.x[w] >= 0)
    assert np.all(frame.z[h] <= anatomy.knee_mm(limb) + MM / 2)
    assert np.all(w % 2 == 1)  # no muscle
    # Fluid takes the place of fat, three fifths of it at most.
    fluid = complex(signals.spgr(signals.OEDEMA))
    share = np.abs(image - before)[s, h, w] / abs(fluid - fat)
    assert 0.55 < share.max() <= 0.6 + 1e-5
    assert image.imag.min() >= 0


def test_oedema_sets_in_below_the_knee_and_is_full_120_mm_further_down(frame: Frame, anatomy: Anatomy) -> None:
    fat = np.complex64(LOOK.fat_signal())
    image = np.full(frame.shape, fat)
    paint_oedema(image, frame, anatomy, "left", LOOK, np.random.default_rng(0))
    lost = np.abs(image - fat)[:, :, frame.x > 3].mean(axis=(0, 2))
    knee = frame.row(anatomy.knee_mm("left"))
    at = {mm: lost[knee + round(mm / MM) - 3 : knee + round(mm / MM) + 4].mean() for mm in (30, 60, 150, 300)}
    assert at[30] == pytest.approx(at[60] / 2, rel=0.25)
    assert at[60] == pytest.approx(at[150] / 2, rel=0.25)
    assert at[300] == pytest.approx(at[150], rel=0.25)


def test_the_nets_of_two_patients_differ(frame: Frame, anatomy: Anatomy) -> None:
    images = []
    for seed in (0, 0, 1):
        image = np.full(frame.shape, np.complex64(LOOK.fat_signal()))
        paint_oedema(image, frame, anatomy, "left", LOOK, np.random.default_rng(seed))
        images.append(image)
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])
