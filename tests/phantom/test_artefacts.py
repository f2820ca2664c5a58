"""The phantom's scanner: stations, coils, blur, ghosts, wrap and noise, on images that show one thing at a time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom import artefacts
from phantom.anatomy import Anatomy, draw_anatomy
from phantom.artefacts import Scan, Station, acquire, draw_scan, paint_wrap, station_rows
from phantom.contrast import Pulsation
from phantom.difficulty import DIFFICULTIES
from phantom.grid import MATRICES, SCALES, Frame

TINY = Frame.of(SCALES["tiny"])
"""12 x 161 x 69 voxels; stations are rows 0-58, 52-110 and 103-161."""
ONLY = (slice(12, 50), slice(60, 100), slice(112, 150))
"""Rows of each station that no other one sees, away from where the coils end."""
STILL = ((0, 0),) * 3
NOTHING_BEATS = Pulsation(*(np.zeros(0, int),) * 3, signal=np.zeros(0, np.float32))
BLOOD = 400.0
"""Stored value of signal 1."""


def scan_of(
    gains: tuple[float, ...] = (1.0, 1.0, 1.0), shifts: tuple[tuple[int, int], ...] = STILL, **kinds: object
) -> Scan:
    """A scan at tiny scale without bias, flares, ghosts and arm."""
    stations = tuple(Station(*each) for each in zip(station_rows(TINY), gains, shifts, strict=True))
    scan = Scan(
        stations=stations, blend_rows=4, bias=(0.0, 0.0), flares=(), ghost=0.0, ghost_shift=(12, 12, 12), arm=None
    )
    return replace(scan, **kinds)  # type: ignore[arg-type]


def picture(
    image: np.ndarray,
    scan: Scan,
    noise: float = 0.0,
    pulsation: Pulsation = NOTHING_BEATS,
    coil: int = 1,
    hiss: int = 2,
) -> np.ndarray:
    """What is stored of an image at tiny scale."""
    difficulty = replace(DIFFICULTIES["default"], noise=noise)
    generators = (np.random.default_rng(seed) for seed in (coil, hiss))
    return acquire(image.astype(np.complex64), pulsation, TINY, scan, difficulty, *generators)


def block(rows: slice, columns: slice, slices: slice = slice(None), signal: float = 1.0) -> np.ndarray:
    image = np.zeros(TINY.shape, np.complex64)
    image[slices, rows, columns] = signal
    return image


@pytest.fixture
def even_coils(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coils that are equally sensitive all over a station."""
    monkeypatch.setattr(artefacts, "BIAS_REST", 0.0)
    monkeypatch.setattr(artefacts, "EDGE_DROP", 0.0)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return draw_anatomy(np.random.default_rng(0), boost=1.0, step_mm=10.0)


# ---- stations --------------------------------------------------------------------------------------


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


# ---- moved patients --------------------------------------------------------------------------------


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


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (-1, 2), (0, -3)])
@pytest.mark.usefixtures("even_coils")
def test_image_and_label_move_alike(shift: tuple[int, int]) -> None:
    scan = scan_of(shifts=((0, 0), shift, (0, 0)))
    image = block(slice(70, 90), slice(30, 36), slice(5, 8))
    shown, label = picture(image, scan), scan.move((image.real > 0).astype(np.uint8))
    assert np.array_equal(shown > BLOOD / 2, label == 1)


# ---- draws -----------------------------------------------------------------------------------------


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


# ---- what a scan does to an image -------------------------------------------------------------------


@pytest.mark.usefixtures("even_coils")
def test_an_even_image_stays_even_inside() -> None:
    shown = picture(np.ones(TINY.shape), scan_of())
    assert shown.dtype == np.int16 and shown.shape == TINY.shape
    # Less than 1 %, which is how far the end of the coils rings.
    assert shown[:, 15:-15] == pytest.approx(BLOOD, abs=4)


@pytest.mark.usefixtures("even_coils")
def test_coils_end_with_the_field_of_view() -> None:
    # sin(pi / 2 * 20 / 90) = .34 in the first and last row, everything 70 mm (8 rows of 8.7 mm) further in.
    column = picture(np.ones(TINY.shape), scan_of())[6, :, 30] / BLOOD
    assert column[[0, -1]] == pytest.approx(0.34, abs=0.05)
    assert np.all(np.diff(column[:8]) > 0) and column[[9, -10]] == pytest.approx(1, abs=0.02)
    assert column == pytest.approx(column[::-1], abs=0.01)


@pytest.mark.usefixtures("even_coils")
def test_stations_differ_by_their_gains_and_are_faded_in_between() -> None:
    shown = picture(np.ones(TINY.shape), scan_of(gains=(0.8, 1.0, 1.25)))[6, :, 30] / BLOOD
    for rows, gain in zip(ONLY, (0.8, 1.0, 1.25), strict=True):
        assert shown[rows] == pytest.approx(gain, abs=0.01)
    # Rows 52-57 are shared, faded over 4 of them about 54.5: shares 0, 1/8, 3/8, 5/8, 7/8, 1.
    assert shown[52:58] == pytest.approx(0.8 + 0.2 * np.array([0, 1, 3, 5, 7, 8]) / 8, abs=0.01)


def test_a_station_loses_signal_towards_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefacts, "BIAS_REST", 0.0)
    shown = picture(np.ones(TINY.shape), scan_of())[6, :, 30] / BLOOD
    # 18 % times the fourth power of the way from its middle (81) to its end: at rows 59 and 103, (22 / 28.5)**4.
    assert shown[81] == pytest.approx(1, abs=0.01)
    assert shown[[59, 102]] == pytest.approx(1 - 0.18 * (np.array([22, 21]) / 28.5) ** 4, abs=0.01)


def test_sensitivity_varies_smoothly_and_by_no_more_than_the_design_says() -> None:
    shown = picture(np.ones(TINY.shape), scan_of(bias=(0.25, -0.12)))[:, ONLY[1]] / BLOOD
    front, back, right, left = (shown[part].mean() for part in (0, -1, np.s_[:, :, 1], np.s_[:, :, -2]))
    assert back / front == pytest.approx(1.25 / 0.75, rel=0.2)
    assert left / right == pytest.approx(0.88 / 1.12, rel=0.2)
    # Away from the sides, where one end of a row rings into the other.
    assert np.abs(np.diff(shown[:, :, 8:-8], axis=2)).max() < 0.03


@pytest.mark.usefixtures("even_coils")
def test_a_flare_multiplies_what_lies_near_a_spot() -> None:
    x, y, z = float(TINY.x[40]), float(TINY.y[4]), float(TINY.z[80])
    shown = picture(np.ones(TINY.shape), scan_of(flares=((x, y, z, 30.0, 1.0),))) / BLOOD
    assert shown[4, 80, 40] == pytest.approx(2, abs=0.12)  # blurred over a pixel of a spot of four
    # One reach (30 mm, 4.1 columns) away: 1 + exp(-1/2) = 1.61. Beyond three reaches, nothing.
    assert shown[4, 80, 44] == pytest.approx(1.61, abs=0.1)
    assert shown[4, 80, 15] == pytest.approx(1, abs=0.02) and shown[4, 120, 40] == pytest.approx(1, abs=0.02)
    assert shown[11, 80, 40] == pytest.approx(1 + np.exp(-0.5 * (7 * 9.7 / 30) ** 2), abs=0.05)


@pytest.mark.usefixtures("even_coils")
def test_an_edge_is_blurred_and_rings() -> None:
    shown = picture(block(slice(None), slice(30, 50)), scan_of())[6, 81] / BLOOD
    # The middle between dark and bright lies between pixels 29 and 30; what PSF_PIXELS blurs is one pixel wide.
    assert shown[28] < 0.1 < shown[29] < 0.3 and 0.7 < shown[30] < 0.9 < shown[31]
    # Sampling that ends sharply overshoots, and the light and dark bands decay away from the edge.
    assert 1.01 < shown[31:34].max() < 1.1
    assert np.abs(shown[38:42] - 1).max() < 0.02


@pytest.mark.usefixtures("even_coils")
def test_columns_are_sampled_to_85_percent_and_blurred_by_1_2_pixels() -> None:
    step = np.zeros(69)
    step[30:50] = 1
    cycles = np.fft.fftfreq(69)  # a pixel
    # A Gaussian of sigma 1.2 / 2.355 pixels is exp(-2 (pi sigma f)**2); the highest of .5 cycles that are left: .425.
    window = np.exp(-2 * (np.pi * 1.2 / 2.355 * cycles) ** 2) * (np.abs(cycles) < 0.425)
    expected = np.abs(np.fft.ifft(np.fft.fft(step) * window))
    shown = picture(block(slice(None), slice(30, 50)), scan_of())[6, 81] / BLOOD
    assert shown == pytest.approx(expected, abs=0.004)


@pytest.mark.usefixtures("even_coils")
def test_the_image_is_blurred_across_slices_too() -> None:
    shown = picture(block(slice(60, 100), slice(20, 50), slice(6, 7)), scan_of())[:, 81, 35] / BLOOD
    # A Gaussian of 1.2 pixels at half maximum: exp(-.5 / .51**2) = .146 next to the centre; 1 / 1.292 and .146 / 1.292.
    assert shown[5:8] == pytest.approx([0.113, 0.774, 0.113], abs=0.01)
    assert not shown[:5].any() and not shown[8:].any()


@pytest.mark.usefixtures("even_coils")
def test_one_end_of_a_station_does_not_leak_into_the_other() -> None:
    # Bright from the lower end of the first station on: its upper end, opposite in the Fourier transform, is dark.
    shown = picture(block(slice(50, None), slice(None)), scan_of()) / BLOOD
    assert shown[:, :20].max() < 0.02
    shown = picture(block(slice(0, 112), slice(None)), scan_of()) / BLOOD
    assert shown[:, -20:].max() < 0.02


@pytest.mark.usefixtures("even_coils")
def test_a_bright_voxel_does_not_overflow() -> None:
    shown = picture(np.full(TINY.shape, 1000.0), scan_of())
    assert shown.min() > 0 and shown.max() == np.iinfo(np.int16).max


# ---- noise -----------------------------------------------------------------------------------------


def test_noise_in_air_is_rayleigh_distributed() -> None:
    # sigma .05: mean sigma sqrt(pi / 2), standard deviation sigma sqrt(2 - pi / 2), times 400 and the station's gain.
    shown = picture(np.zeros(TINY.shape), scan_of(gains=(0.8, 1.0, 1.25)), noise=0.05)
    for rows, gain in zip(ONLY, (0.8, 1.0, 1.25), strict=True):
        air = shown[:, rows].astype(float) / (0.05 * BLOOD * gain)
        # 12 * 38 * 69 = 31 000 voxels: standard errors of .004.
        assert air.mean() == pytest.approx(np.sqrt(np.pi / 2), abs=0.02)
        assert air.std() == pytest.approx(np.sqrt(2 - np.pi / 2), abs=0.02)


@pytest.mark.usefixtures("even_coils")
def test_noise_in_blood_is_gaussian_and_lifts_it_a_little() -> None:
    shown = picture(np.ones(TINY.shape), scan_of(), noise=0.05)[:, ONLY[1]] / BLOOD
    assert shown.std() == pytest.approx(0.05, abs=0.002)
    assert shown.mean() == pytest.approx(1 + 0.05**2 / 2, abs=0.003)


def test_neighbours_have_independent_noise() -> None:
    air = picture(np.zeros(TINY.shape), scan_of(), noise=0.05)[:, ONLY[1]].astype(float)
    air -= air.mean()
    for axis in range(3):
        along = np.moveaxis(air, axis, 0)
        assert np.mean(along[1:] * along[:-1]) / air.var() == pytest.approx(0, abs=0.03)


def test_noise_does_not_depend_on_the_image() -> None:
    one = np.full(TINY.shape, 0.5, np.complex64)
    other = one.copy()
    other[5, 70:90, 30:35] = 0.9
    a, b = (picture(image, scan_of(), noise=0.05) for image in (one, other))
    assert not np.array_equal(a[5], b[5])
    # Blur reaches one slice further, ringing to the ends of the station, and nothing any further.
    far = np.ones(12, bool)
    far[4:7] = False
    assert np.array_equal(a[far], b[far])
    assert np.array_equal(a[:, :52], b[:, :52]) and np.array_equal(a[:, 110:], b[:, 110:])


@pytest.mark.parametrize("difficulty", ["easy", "default", "hard"])
def test_an_acquisition_is_its_seeds(difficulty: str, anatomy: Anatomy) -> None:
    image = block(slice(20, 140), slice(10, 60), signal=0.5)
    scan = draw_scan(np.random.default_rng(5), TINY, anatomy, DIFFICULTIES[difficulty])
    sd = DIFFICULTIES[difficulty].noise
    first, again, coil, hiss = (picture(image, scan, sd, coil=c, hiss=h) for c, h in ((1, 2), (1, 2), (3, 2), (1, 3)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, coil) and not np.array_equal(first, hiss)


def test_a_harder_scan_has_more_noise() -> None:
    sds = [
        picture(np.zeros(TINY.shape), scan_of(), DIFFICULTIES[name].noise).std() for name in ("easy", "default", "hard")
    ]
    assert sds[0] < sds[1] < sds[2]


# ---- ghosts and wrap -------------------------------------------------------------------------------


def beating(rows: range, columns: range, s: int, signal: float) -> Pulsation:
    h, w = (index.ravel() for index in np.meshgrid(rows, columns, indexing="ij"))
    return Pulsation(np.full(len(h), s), h, w, np.full(len(h), signal, np.float32))


@pytest.mark.usefixtures("even_coils")
def test_ghosts_lie_at_their_shift_with_their_strength() -> None:
    # An artery of signal 2, columns 31-37 wide, and ghosts of 5 %: .1 one shift away, .05 two shifts away.
    beat = beating(range(76, 86), range(31, 38), s=5, signal=2.0)
    shown = picture(np.zeros(TINY.shape), scan_of(ghost=0.05, ghost_shift=(9, 14, 9)), pulsation=beat) / BLOOD
    across = shown[5, 81]
    assert across[[34 - 14, 34 + 14]] == pytest.approx(0.1, abs=0.01)
    assert across[[34 - 28, 34 + 28]] == pytest.approx(0.05, abs=0.005)
    assert across[[34, 27, 41, 13, 55]] == pytest.approx(0, abs=0.01)  # the artery itself is another's to paint
    assert not shown[:5].any() and not shown[6:].any()
    assert shown[5, :74].max() < 0.01 and shown[5, 89:].max() < 0.01


@pytest.mark.usefixtures("even_coils")
def test_a_ghost_that_leaves_one_side_enters_the_other() -> None:
    beat = beating(range(76, 86), range(57, 64), s=5, signal=2.0)
    across = picture(np.zeros(TINY.shape), scan_of(ghost=0.05, ghost_shift=(9, 20, 9)), pulsation=beat)[5, 81] / BLOOD
    # 60 + 20 and 60 + 40 are columns 11 and 31 of 69.
    assert across[[11, 40]] == pytest.approx(0.1, abs=0.01) and across[[31, 20]] == pytest.approx(0.05, abs=0.005)


@pytest.mark.usefixtures("even_coils")
def test_ghosts_move_with_the_patient_and_each_station_has_its_own() -> None:
    beat = beating(range(10, 150), range(31, 38), s=5, signal=2.0)
    scan = scan_of(shifts=((0, 0), (0, 3), (1, 0)), ghost=0.05, ghost_shift=(9, 14, 20))
    shown = picture(np.zeros(TINY.shape), scan, pulsation=beat) / BLOOD
    for rows, column, s in ((30, 34 + 9, 5), (81, 34 + 3 + 14, 5), (130, 34 + 20, 4)):
        assert shown[s, rows, column] == pytest.approx(0.1, abs=0.01)
    assert not shown[5, 112:].any()


@pytest.mark.usefixtures("even_coils")
def test_without_strength_there_is_no_ghost() -> None:
    beat = beating(range(76, 86), range(31, 38), s=5, signal=2.0)
    assert not picture(np.zeros(TINY.shape), scan_of(ghost=0.0), pulsation=beat).any()


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
