"""The phantom's scanner: its stations, the patient's motion between them, random draws, and wrap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.scans import ONLY, TINY, block, picture, scan_of
from hypothesis import given
from hypothesis import strategies as st
from phantom.anatomy import Anatomy, draw_anatomy
from phantom.artefacts import Scan, Station, draw_scan, paint_wrap, station_rows
from phantom.difficulty import DIFFICULTIES
from phantom.grid import MATRICES, SCALES, Frame


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return draw_anatomy(np.random.default_rng(0), boost=1.0, step_mm=10.0)


# ---- stations ---------------------------------------------------------------------------------------


def test_stations_at_paper_scale_are_three_of_345_rows_with_37_in_common() -> None:
    # 3 * 345 - 2 * 37 = 961.
    assert station_rows(Frame.of(SCALES["paper"])) == [(0, 345), (308, 653), (616, 961)]
    # The short matrix has 897 rows: 3 * 345 - 897 = 138 in common, 69 at each seam.
    assert station_rows(Frame.of(SCALES["paper"], "short")) == [(0, 345), (276, 621), (552, 897)]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("matrix", MATRICES)
def test_stations_cover_every_row_and_overlap_their_neighbours(scale: str, matrix: str) -> None:
    frame = Frame.of(SCALES[scale], matrix)
    rows = station_rows(frame)
    assert len(rows) == 3 and rows[0][0] == 0 and rows[-1][1] == frame.shape[1]
    for start, stop in rows:
        assert (stop - start) * frame.spacing_mm[1] == pytest.approx(500.25, abs=frame.spacing_mm[1] / 2 + 1e-9)
    common = [above[1] - below[0] for above, below in itertools.pairwise(rows)]
    assert min(common) >= 5 and max(common) - min(common) <= 1
    assert rows[0][1] <= rows[2][0]  # never three in one row


def test_shares_of_two_stations_computed_by_hand() -> None:
    # Rows 4 and 5 in common, faded over 2 rows about 4.5.
    stations = tuple(Station(rows, 1.0, (0, 0)) for rows in ((0, 6), (4, 10)))
    shares = scan_of(stations=stations, blend_rows=2).weights(10)
    assert shares[0].tolist() == [1, 1, 1, 1, 0.75, 0.25, 0, 0, 0, 0]
    assert shares[1].tolist() == [0, 0, 0, 0, 0.25, 0.75, 1, 1, 1, 1]


@given(st.sampled_from(sorted(SCALES)), st.sampled_from(sorted(MATRICES)), st.floats(0, 1))
def test_shares_add_up_to_one_and_a_station_has_none_outside_its_rows(scale: str, matrix: str, blend: float) -> None:
    frame = Frame.of(SCALES[scale], matrix)
    places = station_rows(frame)
    common = min(above[1] - below[0] for above, below in itertools.pairwise(places))
    stations = tuple(Station(rows, 1.0, (0, 0)) for rows in places)
    shares = scan_of(stations=stations, blend_rows=max(1, round(blend * common))).weights(frame.shape[1])
    assert shares.sum(axis=0) == pytest.approx(1)
    assert shares.min() >= 0
    for share, (start, stop) in zip(shares, places, strict=True):
        assert not share[:start].any() and not share[stop:].any()
        steps, top = np.diff(share), share.argmax()
        assert np.all(steps[:top] >= 0) and np.all(steps[top:] <= 0)


# ---- moved patients ---------------------------------------------------------------------------------


def test_move_of_a_drawn_label() -> None:
    # Rows 0-4 of the upper station, 5-9 of the lower one, which sees the patient one column further to the left.
    stations = (Station((0, 6), 1.0, (0, 0)), Station((4, 10), 1.0, (0, 1)))
    scan = scan_of(stations=stations, blend_rows=2)
    label = np.zeros((1, 10, 4), np.uint8)
    label[0, :, 1], label[0, :, 3] = 1, 2
    moved = scan.move(label)
    assert moved.dtype == np.uint8
    assert moved[0, :5].tolist() == [[0, 1, 0, 2]] * 5
    assert moved[0, 5:].tolist() == [[2, 0, 1, 0]] * 5  # what leaves one side enters the other, as in the image


def test_move_across_slices_repeats_the_last_one() -> None:
    # A station that sees everything one slice nearer to the front.
    label = np.broadcast_to(np.array([1, 2, 3], np.uint8)[:, None, None], (3, 161, 2))
    moved = scan_of(shifts=((0, 0), (1, 0), (-1, 0))).move(label)
    assert moved[:, ONLY[0], 0].T.tolist() == [[1, 2, 3]] * 38
    assert moved[:, ONLY[1], 0].T.tolist() == [[2, 3, 3]] * 40
    assert moved[:, ONLY[2], 0].T.tolist() == [[1, 1, 2]] * 38


def test_a_patient_at_rest_is_not_moved() -> None:
    label = np.random.default_rng(0).integers(0, 3, TINY.shape, np.uint8)
    assert np.array_equal(scan_of().move(label), label)


def test_the_station_with_the_larger_share_gives_a_row() -> None:
    scan = scan_of(shifts=((0, 1), (0, 2), (0, 3)), blend_rows=6)
    label = np.zeros(TINY.shape, np.uint8)
    label[:, :, 10] = 1
    column = scan.move(label)[0].argmax(axis=1)
    assert np.array_equal(column - 11, scan.weights(161).argmax(axis=0))


# ---- draws ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scans(anatomy: Anatomy) -> list[Scan]:
    """Many examinations at paper scale."""
    frame = Frame.of(SCALES["paper"])
    return [draw_scan(np.random.default_rng([3, i]), frame, anatomy, DIFFICULTIES["default"]) for i in range(300)]


def test_a_patient_moves_by_three_pixels_at_most(scans: list[Scan]) -> None:
    shifts = np.array([station.shift for scan in scans for station in scan.stations])
    assert set(shifts[:, 1]) == {-3, -2, -1, 0, 1, 2, 3}
    # From front to back by .35 of that: 1.54 mm, one slice of 1.25 mm.
    assert set(shifts[:, 0]) == {-1, 0, 1}
    assert np.abs(shifts.mean(axis=0)).max() < 0.3


def test_gains_are_those_of_the_difficulty(anatomy: Anatomy) -> None:
    frame = Frame.of(SCALES["paper"])
    for name, low, high in (("easy", 0.97, 1.03), ("default", 0.85, 1.15), ("hard", 0.7, 1.3)):
        drawn = [draw_scan(np.random.default_rng(i), frame, anatomy, DIFFICULTIES[name]) for i in range(60)]
        gains = [station.gain for scan in drawn for station in scan.stations]
        assert low <= min(gains) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(gains) <= high


def test_draws_stay_in_the_ranges_of_the_design(scans: list[Scan]) -> None:
    assert {scan.blend_rows for scan in scans} == set(range(10, 38))
    assert all(abs(scan.bias[0]) <= 0.25 and abs(scan.bias[1]) <= 0.12 for scan in scans)
    assert {len(scan.flares) for scan in scans} == {2, 3, 4, 5}
    factors = [1 + flare[-1] for scan in scans for flare in scan.flares]
    assert all(1.5 <= factor <= 2.5 for factor in factors)
    ghosts = [scan.ghost for scan in scans]
    assert all(0 <= ghost <= 0.08 for ghost in ghosts) and np.mean(ghosts) == pytest.approx(0.04, abs=0.005)
    assert all(0.15 * 345 - 1 < shift < 0.45 * 345 for scan in scans for shift in scan.ghost_shift)
    # A quarter of 300, three standard deviations of 7.5.
    assert abs(sum(scan.arm is not None for scan in scans) - 75) < 3 * 7.5


def test_flares_lie_within_reach_of_the_skin_of_a_leg(scans: list[Scan], anatomy: Anatomy) -> None:
    for scan in scans[:50]:
        for x, y, z, reach, _ in scan.flares:
            away = [
                abs(x - pose.place(np.array([(pose.template_z(z), 86, 90)]))[0, 0]) for pose in anatomy.limbs.values()
            ]
            assert min(away) < 110 and -150 < y < 80 and 25 <= reach <= 45


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("matrix", MATRICES)
def test_stations_never_fade_over_more_rows_than_they_share(scale: str, matrix: str, anatomy: Anatomy) -> None:
    frame = Frame.of(SCALES[scale], matrix)
    for i in range(10):
        scan = draw_scan(np.random.default_rng(i), frame, anatomy, DIFFICULTIES["default"])
        common = [above.rows[1] - below.rows[0] for above, below in itertools.pairwise(scan.stations)]
        assert 1 <= scan.blend_rows <= min(common)


def test_a_scan_is_the_seed_s(anatomy: Anatomy) -> None:
    first, again, other = (
        draw_scan(np.random.default_rng(seed), TINY, anatomy, DIFFICULTIES["default"]) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("difficulty", ["easy", "default", "hard"])
def test_an_acquisition_is_its_seeds(difficulty: str, anatomy: Anatomy) -> None:
    image = block(slice(20, 140), slice(10, 60), signal=0.5)
    scan = draw_scan(np.random.default_rng(5), TINY, anatomy, DIFFICULTIES[difficulty])
    sd = DIFFICULTIES[difficulty].noise
    first, again, coil, hiss = (picture(image, scan, sd, coil=c, hiss=h) for c, h in ((1, 2), (1, 2), (3, 2), (1, 3)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, coil) and not np.array_equal(first, hiss)


# ---- wrap -------------------------------------------------------------------------------------------


def test_a_folded_arm_adds_to_one_side_of_the_abdomen(anatomy: Anatomy) -> None:
    image = np.full(TINY.shape, 0.5, np.complex64)
    paint_wrap(image, TINY, anatomy, scan_of(arm=(-220.0, 0.0, 0.5)))
    added = image - np.complex64(0.5)
    touched = np.argwhere(added)
    assert len(touched) > 20 and added.real.min() == 0
    assert TINY.x[touched[:, 2].max()] < -180 and TINY.z[touched[:, 1].max()] > anatomy.trunk.height_mm(440)
    # Half of muscle with a little contrast agent, .31 (.30 in the design's table).
    assert added.real.max() == pytest.approx(0.5 * 0.31, abs=0.01)


def test_without_an_arm_nothing_is_folded(anatomy: Anatomy) -> None:
    image = np.full(TINY.shape, 0.5, np.complex64)
    paint_wrap(image, TINY, anatomy, scan_of())
    assert np.all(image == np.complex64(0.5))
