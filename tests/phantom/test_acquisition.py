"""What the phantom's scanner does to an image: coils, blur, noise and ghosts, one thing at a time."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.scans import ONLY, TINY, block, picture, scan_of
from phantom import artefacts
from phantom.contrast import Pulsation
from phantom.difficulty import DIFFICULTIES

BLOOD = 400.0
"""Stored value of signal 1."""


@pytest.fixture
def even_coils(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coils that are equally sensitive all over a station."""
    monkeypatch.setattr(artefacts, "BIAS_REST", 0.0)
    monkeypatch.setattr(artefacts, "EDGE_DROP", 0.0)


# ---- coils and blur ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (-1, 2), (0, -3)])
@pytest.mark.usefixtures("even_coils")
def test_image_and_label_move_alike(shift: tuple[int, int]) -> None:
    scan = scan_of(shifts=((0, 0), shift, (0, 0)))
    image = block(slice(70, 90), slice(30, 36), slice(5, 8))
    shown, label = picture(image, scan), scan.move((image.real > 0).astype(np.uint8))
    assert np.array_equal(shown > BLOOD / 2, label == 1)


# ---- noise ------------------------------------------------------------------------------------------


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


def test_a_harder_scan_has_more_noise() -> None:
    sds = [
        picture(np.zeros(TINY.shape), scan_of(), DIFFICULTIES[name].noise).std() for name in ("easy", "default", "hard")
    ]
    assert sds[0] < sds[1] < sds[2]


# ---- ghosts -----------------------------------------------------------------------------------------


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
