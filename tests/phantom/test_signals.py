"""Signals of the spoiled gradient echo: against pulses one by one, and against the table of the design."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom import signals
from phantom.signals import Tissue, spgr

T1_MS = st.floats(100, 4000)
GADOLINIUM_MM = st.floats(0, 10)


def after_many_pulses(tissue: Tissue, gadolinium_mM: float) -> float:
    """Signal of the 20 000th pulse of 25 degrees, 3.17 ms apart, read out 1.13 ms later."""
    t1_s = 1 / (1000 / tissue.t1_ms + 4.1 * gadolinium_mM)
    along, flip = 1.0, np.pi * 25 / 180
    for _ in range(20_000):
        signal = along * np.sin(flip)
        along = 1 + (along * np.cos(flip) - 1) * np.exp(-0.00317 / t1_s)
    return tissue.density * signal * float(np.exp(-1.13 / tissue.t2_star_ms))


@pytest.mark.parametrize(
    ("tissue", "gadolinium_mM"),
    [(signals.BLOOD, 0.0), (signals.BLOOD, 3.0), (signals.MUSCLE, 0.1), (signals.FAT, 0.0), (signals.CORTEX, 0.0)],
)
def test_the_steady_state_is_what_many_pulses_lead_to(tissue: Tissue, gadolinium_mM: float) -> None:
    expected = after_many_pulses(tissue, gadolinium_mM) / after_many_pulses(signals.BLOOD, 1.0)
    assert abs(spgr(tissue, gadolinium_mM)) == pytest.approx(expected, rel=1e-4)


def test_venous_blood_at_one_millimolar_is_one() -> None:
    assert spgr(signals.BLOOD, 1.0) == pytest.approx(1)


@pytest.mark.parametrize(
    ("tissue", "gadolinium_mM", "expected"),
    [
        (signals.BLOOD, 0.0, 0.16),
        (signals.BLOOD, 0.3, 0.44),
        (signals.BLOOD, 0.6, 0.69),
        (signals.BLOOD, 1.5, 1.34),
        (signals.BLOOD, 3.0, 2.2),
        (signals.BLOOD, 5.0, 3.0),
        (signals.MUSCLE, 0.0, 0.22),
        (signals.MUSCLE, 0.1, 0.30),
        (signals.MUSCLE, 0.2, 0.39),
        (signals.NODE, 0.3, 0.52),
        (signals.HAEMATOMA, 0.0, 0.54),
        (signals.OEDEMA, 0.0, 0.13),
        (signals.TENDON, 0.0, 0.12),
        (signals.CORTEX, 0.0, 0.01),
        (replace(signals.CLOT, t1_ms=1200), 0.0, 0.19),
        (replace(signals.CLOT, t1_ms=600), 0.0, 0.37),
        (replace(signals.CLOT, t1_ms=400), 0.0, 0.54),
    ],
)
def test_signals_of_the_design_s_table(tissue: Tissue, gadolinium_mM: float, expected: float) -> None:
    # The table rounds to .01, and T1 of a tissue is known to 5 %: .02 of a signal below .6, in proportion above.
    assert abs(spgr(tissue, gadolinium_mM)) == pytest.approx(expected, rel=0.02, abs=0.02)


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [(signals.FAT, 0.78, 0.89), (signals.MARROW_YELLOW, 0.6, 0.7), (signals.MARROW_RED, 0.3, 0.4)],
)
def test_fat_and_marrow_are_nearly_as_bright_as_veins(tissue: Tissue, low: float, high: float) -> None:
    # Density and T2* of marrow are guesses, here and in the design's .67 and .35: .05 either way.
    assert low <= abs(spgr(tissue)) <= high


@given(T1_MS, GADOLINIUM_MM, st.floats(0.01, 5))
def test_more_gadolinium_is_brighter(t1_ms: float, gadolinium_mM: float, more: float) -> None:
    less, richer = spgr(Tissue(t1_ms), np.array([gadolinium_mM, gadolinium_mM + more])).real
    assert less < richer


@given(T1_MS, st.floats(1.02, 3))
def test_a_shorter_t1_is_brighter(t1_ms: float, factor: float) -> None:
    assert spgr(Tissue(t1_ms)).real < spgr(Tissue(t1_ms / factor)).real


@given(T1_MS, GADOLINIUM_MM)
def test_gadolinium_adds_to_the_rate_of_relaxation(t1_ms: float, gadolinium_mM: float) -> None:
    rate = 1000 / t1_ms + signals.RELAXIVITY * gadolinium_mM
    assert spgr(Tissue(t1_ms), gadolinium_mM) == pytest.approx(spgr(Tissue(1000 / rate)), rel=1e-5)


@given(T1_MS, GADOLINIUM_MM, st.floats(0.1, 2))
def test_signal_is_in_proportion_to_density(t1_ms: float, gadolinium_mM: float, density: float) -> None:
    one, some = (spgr(Tissue(t1_ms, density=d), gadolinium_mM) for d in (1.0, density))
    assert some == pytest.approx(density * one, rel=1e-5)


def test_water_is_real_and_fat_a_quarter_turn_from_it() -> None:
    for tissue in (signals.BLOOD, signals.MUSCLE, signals.CLOT, signals.MARROW_RED):
        assert spgr(tissue).imag == 0 and spgr(tissue).real > 0
    for tissue in (signals.FAT, signals.MARROW_YELLOW):
        assert spgr(tissue).real == 0 and spgr(tissue).imag > 0


def test_a_voxel_of_fat_and_blood_shows_less_than_their_sum() -> None:
    # Halves of 1 and 1i: sqrt(.5**2 + .5**2) = .71, a loss of 29 %.
    water, fat = spgr(signals.BLOOD, 1.0), spgr(replace(signals.FAT, density=1 / 0.791))
    assert abs(fat) == pytest.approx(1, abs=1e-3)
    assert abs(0.5 * water + 0.5 * fat) == pytest.approx(0.707, abs=1e-3)


def test_signal_has_the_shape_of_the_concentration() -> None:
    assert spgr(signals.BLOOD).shape == ()
    assert spgr(signals.BLOOD, np.zeros((2, 3))).shape == (2, 3)
    assert spgr(signals.BLOOD, np.zeros(4)).dtype == np.complex64


def test_fat_is_brightest_at_its_ernst_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    # cos a = exp(-3.17 / 265): 8.9 degrees. The sequence's 25 degrees trade signal for contrast.
    brightness = {}
    for flip in np.arange(2, 40, 0.1):
        monkeypatch.setattr(signals, "FLIP_DEG", flip)
        brightness[flip] = float(signals._steady_state(signals.FAT, np.zeros(())))
    best = max(brightness, key=lambda flip: brightness[flip])
    assert best == pytest.approx(np.degrees(np.arccos(np.exp(-3.17 / 265))), abs=0.1)
    assert 8 < best < 10
