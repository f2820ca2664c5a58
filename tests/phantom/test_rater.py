"""The rater who draws the label: near the truth, unbiased, never the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from phantom import grid, rater
from phantom.grid import Frame
from phantom.rater import draw_label
from phantom.shapes import Tube, rasterise
from phantom.thrombus import REGIONS, Clot, truth_label

MM = (1.25, 1.45, 1.45)
"""Of the paper's scale."""


def frame_of(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float] = MM) -> Frame:
    """A frame centred on the isocentre."""
    y, z, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True))
    return Frame(y=y, z=-z, x=x, spacing_mm=spacing_mm)


def clot_of(points: np.ndarray, radius_mm: float, region: str = "proximal", radii_mm: np.ndarray | None = None) -> Clot:
    radii = np.full(len(points), radius_mm) if radii_mm is None else radii_mm
    return Clot(
        limb="left",
        age="acute",
        occlusive=True,
        tube=Tube("FV" if region == "proximal" else "PTV-1", region, points, radii),
        vein=np.full(len(points), "FV"),
        lumen_mm=radii,
        signal=np.full(len(points), 0.25),
        rim=None,
        channel=None,
    )


def straight(length_mm: float, slope: float = 0.0, at_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Points along z every half millimetre; x grows by ``slope`` a mm."""
    z = np.arange(length_mm / 2, -length_mm / 2 - 1e-9, -0.5)
    return np.stack([slope * z, 0 * z, z], axis=1) + np.array(at_mm)


def drawn(frame: Frame, clots: list[Clot], seed: int, boost: float = 1.0) -> np.ndarray:
    return draw_label(frame, clots, boost, np.random.default_rng(seed))


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random fields as large as the frames below: a hundredth of the time."""
    monkeypatch.setattr(grid, "HALF_FIELD_MM", (20.0, 70.0, 32.0))


@pytest.fixture
def steady_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No jitter."""
    monkeypatch.setattr(rater, "JITTER_MM", 0.0)


@pytest.fixture
def exact_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends are drawn where they are."""
    monkeypatch.setattr(rater, "END_MM", 0.0)


@pytest.fixture
def nothing_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No island is overlooked."""
    monkeypatch.setattr(rater, "MISSED", 0.0)


LEG = frame_of((15, 90, 17))
CLOT = clot_of(straight(80, slope=0.05), 5.0)

# ---- the boundary ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("steady_hand", "exact_ends", "nothing_missed")
def test_a_rater_without_a_fault_draws_the_truth() -> None:
    clots = [CLOT, clot_of(straight(40, at_mm=(6, 4, -10)), 3.0, "distal")]
    label = drawn(LEG, clots, 0)
    assert label.dtype == np.uint8
    assert np.array_equal(label, truth_label(LEG, clots))


@pytest.mark.usefixtures("exact_ends", "nothing_missed")
def test_a_drawn_boundary_stays_within_a_few_jitters_of_the_truth() -> None:
    box, depth, _ = rasterise(LEG, CLOT.tube.points, CLOT.tube.radius_mm)
    for seed in range(10):
        label = drawn(LEG, [CLOT], seed) > 0
        wrong = label[box] != (depth >= 0)
        assert wrong.any()
        # Five standard deviations of .36 mm: nothing further from the surface is ever wrong.
        assert np.abs(depth[wrong]).max() < 5 * 0.25 * 1.45
        outside = label.copy()
        outside[box] = False
        assert not outside.any()


@pytest.mark.usefixtures("exact_ends", "nothing_missed")
def test_jitter_has_the_stated_standard_deviation() -> None:
    # A voxel at depth d is drawn with probability Phi(d / .3625): .5 on the surface, .84 one deviation inside.
    box, depth, _ = rasterise(LEG, CLOT.tube.points, CLOT.tube.radius_mm)
    often = np.mean([drawn(LEG, [CLOT], seed)[box] > 0 for seed in range(60)], axis=0)
    for low, high, share in ((-0.05, 0.05, 0.5), (0.3125, 0.4125, 0.841), (-0.4125, -0.3125, 0.159)):
        shell = (depth > low) & (depth < high)
        assert np.count_nonzero(shell) > 80
        assert often[shell].mean() == pytest.approx(share, abs=0.03)


@pytest.mark.usefixtures("exact_ends", "nothing_missed")
def test_jitter_grows_with_the_boost() -> None:
    truth = truth_label(LEG, [CLOT])
    wrong = [np.mean([np.count_nonzero(drawn(LEG, [CLOT], s, boost) != truth) for s in range(6)]) for boost in (1, 3)]
    assert wrong[1] == pytest.approx(3 * wrong[0], rel=0.25)


@pytest.mark.usefixtures("exact_ends", "nothing_missed")
def test_slices_are_drawn_one_by_one_and_a_line_within_a_slice_is_smooth() -> None:
    # What the hand adds, where the truth is a wide flat clot: its surface runs along many voxels.
    frame = frame_of((15, 90, 41))
    plate = clot_of(straight(110), 15.0)
    area = []
    for seed in range(25):
        label = drawn(frame, [plate], seed)
        area.append(np.count_nonzero(label[:, 20:70], axis=2))  # (S, rows): the width drawn
    width = np.array(area, float)
    width -= width.mean(axis=0)
    across_slices = np.mean(width[:, 5:9] * width[:, 6:10]) / width[:, 5:10].var()
    along_rows = np.mean(width[..., 1:] * width[..., :-1]) / width.var()
    assert abs(across_slices) < 0.15  # exp(-(1 / .3)**2 / 4) = .06
    assert along_rows > 0.4


def test_the_mean_volume_is_the_truth_s() -> None:
    # A cylinder of 80.1 mm (it is slightly askew) with round ends of 5 mm, in voxels of 1.25 * 1.45 * 1.45 mm.
    truth = (np.pi * 25 * 80.1 + 4 / 3 * np.pi * 125) / (1.25 * 1.45 * 1.45)
    volumes = [np.count_nonzero(drawn(LEG, [CLOT], seed)) for seed in range(60)]
    # A wandering surface gains (.36 / 5)**2 = .5 %; ends vary by sqrt(2) * 2.3 of 80 mm: 4 % / sqrt(60) = .5 %.
    assert np.mean(volumes) == pytest.approx(1.005 * truth, rel=0.015)
    assert 0.02 < np.std(volumes) / truth < 0.06


def test_two_raters_differ_and_each_is_his_seed_s() -> None:
    first, again, other = (drawn(LEG, [CLOT], seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    both = np.count_nonzero((first > 0) & (other > 0))
    dice = 2 * both / (np.count_nonzero(first) + np.count_nonzero(other))
    # Two raters of .25 pixels (SD) differ by .25 * sqrt(2) * sqrt(2 / pi) = .28 pixels of a radius of 3.4: .92.
    assert 0.85 < dice < 0.96


# ---- ends ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("steady_hand", "nothing_missed")
def test_ends_are_drawn_at_most_4_mm_off() -> None:
    frame = frame_of((9, 90, 9), (1.0, 1.0, 1.0))
    clot = clot_of(straight(60), 3.0)
    z = [(frame.z[np.any(drawn(frame, [clot], seed), axis=(0, 2))]) for seed in range(60)]
    tops, bottoms = (np.array([end[i] for end in z]) for i in (0, -1))
    for drawn_at, truth in ((tops, 33), (-bottoms, 33)):  # half of 60 mm, and the round end of 3 mm
        off = drawn_at - truth
        # The last row is the last centre inside, up to 1 mm (0.5 on average) short of the end; so is the last point of
        # a shortened clot, by up to 0.5 mm (0.12 on average, as half of them are shortened).
        assert -4 - 1.5 <= off.min() < -2.5 and 2 < off.max() <= 4
        assert off.mean() == pytest.approx(-0.62, abs=3 * 2.3 / np.sqrt(60))  # U(-4, 4) has a deviation of 2.3
    assert abs(np.corrcoef(tops, bottoms)[0, 1]) < 0.4


@pytest.mark.usefixtures("steady_hand", "nothing_missed")
def test_a_longer_end_goes_on_in_the_direction_of_the_clot() -> None:
    frame = frame_of((9, 90, 41), (1.0, 1.0, 1.0))
    clot = clot_of(straight(60, slope=0.3), 3.0)
    for seed in range(20):
        _, h, w = np.nonzero(drawn(frame, [clot], seed))
        off_axis = np.abs(frame.x[w] - 0.3 * frame.z[h]) / np.hypot(1, 0.3)
        assert off_axis.max() <= 3 + 1e-6


@pytest.mark.usefixtures("steady_hand", "nothing_missed")
def test_a_short_clot_keeps_at_least_half_of_its_length() -> None:
    # 6 mm: each end is moved inwards by a quarter at most.
    frame = frame_of((7, 30, 7), (1.0, 1.0, 1.0))
    clot = clot_of(straight(6), 1.2)
    lengths = [np.count_nonzero(np.any(drawn(frame, [clot], seed), axis=(0, 2))) for seed in range(40)]
    assert min(lengths) >= 3 and max(lengths) <= 6 + 8 + 3


@pytest.mark.parametrize("points", [1, 3])
def test_a_clot_of_few_points_is_drawn(points: int) -> None:
    # At coarse scales the stretch behind a gap may have at most three.
    frame = frame_of((9, 20, 9), (4.0, 4.0, 4.0))
    clot = clot_of(straight(12)[::12][:points], 9.0)
    assert len(clot.tube.points) == points
    for seed in range(20):
        assert drawn(frame, [clot], seed).any()


# ---- what is overlooked ----------------------------------------------------------------------------


def islands(slice_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Islands that touch at sides or corners; their sizes, the background's first."""
    found, _ = scipy.ndimage.label(slice_HW, np.ones((3, 3)))
    return found, np.bincount(found.ravel())


def beads() -> tuple[Frame, list[Clot]]:
    """Many small clots of 1 to 5 pixels in each of 3 slices, and one of 21."""
    frame = frame_of((3, 60, 60), (10.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    places = np.array([(x, y, z) for x in range(-27, 28, 6) for z in range(-27, 22, 6) for y in (-10, 0, 10)], float)
    places[:, ::2] += rng.uniform(-0.5, 0.5, (len(places), 2))
    small = [clot_of(place[None], radius) for place, radius in zip(places, rng.uniform(0.75, 1.3, 270), strict=True)]
    return frame, [*small, clot_of(np.array([[0.5, 0.0, 26.5]]), 2.5)]


@pytest.mark.usefixtures("steady_hand", "exact_ends")
def test_only_islands_below_three_pixels_are_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, clots = beads()
    truth = truth_label(frame, clots)
    monkeypatch.setattr(rater, "MISSED", 1.0)
    label = drawn(frame, clots, 0)
    seen: set[int] = set()
    for before, after in zip(truth, label, strict=True):
        found, sizes = islands(before)
        seen |= set(sizes[1:].tolist())
        for number, size in enumerate(sizes[1:], start=1):
            assert np.any(after[found == number]) == (size >= 3)
        assert not np.any(after[found == 0])
    assert seen >= {1, 2, 3, 21}


@pytest.mark.usefixtures("steady_hand", "exact_ends")
def test_one_in_twenty_small_islands_is_overlooked() -> None:
    frame, clots = beads()
    truth = truth_label(frame, clots)
    small = missed = 0
    for seed in range(15):
        label = drawn(frame, clots, seed)
        for before, after in zip(truth, label, strict=True):
            found, sizes = islands(before)
            tiny = np.flatnonzero(sizes < 3)
            small += len(tiny)
            missed += np.count_nonzero(scipy.ndimage.maximum(after, found, tiny) == 0)
    assert small > 500
    assert abs(missed - 0.05 * small) <= 3 * np.sqrt(small * 0.05 * 0.95)


@pytest.mark.parametrize("region", ["proximal", "distal"])
def test_a_region_is_never_lost(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    # A clot of one voxel, which every jitter may erase and every glance overlook.
    monkeypatch.setattr(rater, "MISSED", 1.0)
    frame = frame_of((3, 9, 9), (2.0, 2.0, 2.0))
    tiny = clot_of(np.zeros((1, 3)), 0.3, region)
    assert np.count_nonzero(truth_label(frame, [tiny])) == 1
    labels = [drawn(frame, [tiny], seed, boost=3.0) for seed in range(20)]
    assert all(set(np.unique(label)) == {0, REGIONS[region]} for label in labels)
    assert any(np.array_equal(label, truth_label(frame, [tiny])) for label in labels)


def test_the_region_of_the_other_vein_is_not_touched_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rater, "MISSED", 1.0)
    tiny = clot_of(np.array([[10.0, 6.0, -40.0]]), 0.8, "distal")
    for seed in range(5):
        alone, both = (drawn(LEG, clots, seed) for clots in ([CLOT], [CLOT, tiny]))
        assert np.any(both == 2) and np.array_equal(alone == 1, both == 1)


def test_distal_prevails_where_regions_meet() -> None:
    clots = [clot_of(straight(30, at_mm=(0, 0, -10)), 4.0, "distal"), clot_of(straight(30, at_mm=(0, 0, 10)), 4.0)]
    label = drawn(LEG, clots, 0)
    # Both hold the isocentre.
    assert label[7, 45, 8] == 2 and set(np.unique(label)) == {0, 1, 2}


def test_without_clot_nothing_is_drawn() -> None:
    assert not drawn(LEG, [], 0).any()
