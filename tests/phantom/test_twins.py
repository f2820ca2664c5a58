"""Twins of phantom patients, without clot or without oedema: the scan is the same elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantom.case import PATTERNS, Request, draw_patient, make_case
from scipy.ndimage import binary_dilation

# ---- without clot ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_thrombus_off_is_the_same_scan_without_the_clot(pattern: str) -> None:
    request = Request("tiny", 2, 4, pattern)
    ill, well = make_case(request), make_case(replace(request, thrombus=False))
    assert not well.label.any() and well.truth is not None and not well.truth.any()
    assert not np.array_equal(ill.image, well.image)
    # A clot rings along its row and column: what counts is a difference above 4 % of venous blood, less than noise.
    clot = ill.truth > 0  # type: ignore[operator]
    differs = np.abs(ill.image.astype(int) - well.image) > 0.04 * 400
    assert not np.any(differs & ~binary_dilation(clot, np.ones((3, 3, 3)), iterations=4))
    # Blur reaches the slice next to a clot, and its wall may reach one more slice; nothing changes beyond that.
    slices = np.flatnonzero(clot.any(axis=(1, 2)))
    beyond = np.ones(len(clot), bool)
    beyond[max(slices[0] - 3, 0) : slices[-1] + 4] = False
    assert np.array_equal(ill.image[beyond], well.image[beyond])
    changed = {"thrombus", "lesions", "sha256"}
    assert {key for key in ill.metadata if ill.metadata[key] != well.metadata[key]} == changed
    assert well.metadata["lesions"] == []


def test_clot_is_darker_than_the_blood_that_it_replaces() -> None:
    request = Request("tiny", 0, 1, "proximal", "easy")
    ill, well = make_case(request), make_case(replace(request, thrombus=False))
    inside = ill.truth > 0  # type: ignore[operator]
    assert np.median(ill.image[inside]) < 0.6 * np.median(well.image[inside])


# ---- without oedema --------------------------------------------------------------------------------


def patient_with_oedema(age_is_old: bool) -> Request:
    """A tiny patient whose calf swells."""
    for index in range(1, 200):
        request = Request("tiny", 0, index, "proximal")
        old = draw_patient(request).clots[0].age == "old"
        if old == age_is_old and request.rng("confounders").random() < 0.5:
            return request
    raise AssertionError("no such patient among 200")


def oedema_off_leaves_the_thigh(request: Request) -> None:
    with_, without = (make_case(r) for r in (request, replace(request, oedema=False)))
    assert with_.metadata["confounders"]["oedema"] and not without.metadata["confounders"]["oedema"]
    assert np.array_equal(with_.label, without.label)
    differs = with_.image != without.image
    # Oedema begins at the knee, which the lowest two stations see; the uppermost sees none of it.
    above = with_.metadata["stations"][1]["rows"][0]
    assert with_.metadata["knee_row"]["left"] > with_.metadata["stations"][0]["rows"][1]
    assert differs.any() and not differs[:, :above].any()
    middle = with_.metadata["midline_column"]
    limb = with_.metadata["lesions"][0]["limb"]
    sides = {"right": differs[:, :, :middle].sum(), "left": differs[:, :, middle:].sum()}
    assert sides[limb] > 3 * (sum(sides.values()) - sides[limb])  # ringing crosses the midline


def test_oedema_off_is_the_same_scan_without_oedema() -> None:
    oedema_off_leaves_the_thigh(patient_with_oedema(age_is_old=False))


def test_oedema_off_keeps_the_collaterals_of_an_old_clot() -> None:
    oedema_off_leaves_the_thigh(patient_with_oedema(age_is_old=True))


def test_collaterals_come_with_old_proximal_clot_alone() -> None:
    old, fresh = (patient_with_oedema(age_is_old) for age_is_old in (True, False))
    for request, expected in ((old, True), (replace(old, pattern="distal"), False), (fresh, False)):
        assert make_case(request, diagnostics=False).metadata["confounders"]["collaterals"] is expected
