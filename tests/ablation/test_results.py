"""Means over seeds and patients, and paired tests against the reference."""

from __future__ import annotations

import math

import pytest
from ablation_study.results import Finished, compare
from helpers.ablations import finished

from dvtplan.core.errors import DvtError


def test_the_mean_over_the_seeds_comes_first() -> None:
    runs = [
        finished("modern", 0, {"all": [1, 2, 3, 4, 5, 6]}),
        finished("modern", 1, {"all": [3, 4, 5, 6, 7, 8]}),
        finished("context_0", 0, {"all": [3, 4, 5, 6, 7, 8]}),
        finished("context_0", 1, {"all": [3, 4, 5, 6, 7, 8]}),
    ]
    reference, changed = compare(runs)
    assert reference.regions["all"].difference is None and math.isnan(reference.regions["all"].gain)
    assert math.isnan(reference.regions["all"].p_holm)
    assert reference.regions["all"].by_seed == pytest.approx((0.35, 0.55))
    region = changed.regions["all"]
    assert (region.n, region.mean) == (6, pytest.approx(0.55)) and region.difference is not None
    assert region.gain == pytest.approx(0.1) and region.difference.n == 6
    assert region.p_holm == region.difference.p == pytest.approx(0.0143, abs=1e-4)


def test_every_seed_of_both_counts() -> None:
    """More runs of the reference make the table better, whichever their seeds are."""
    runs = [
        finished("modern", 0, {"all": [1, 2]}),
        finished("modern", 1, {"all": [9, 9]}),
        finished("context_0", 0, {"all": [2, 3]}),
    ]
    region = compare(runs)[1].regions["all"]
    assert region.gain == pytest.approx(0.25 - (0.15 + 0.9) / 2) and region.difference is not None
    assert region.difference.estimate == pytest.approx(region.gain)
    assert compare([runs[1], runs[2]])[1].regions["all"].gain == pytest.approx(0.25 - 0.9)


def test_p_is_corrected_over_the_levers_of_a_region() -> None:
    levers: list[Finished] = [finished("modern", 0, {"all": [1, 2, 3, 4, 5, 6], "distal": [1, 1]})]
    for shift, name in enumerate(("context_0", "no_dice", "paper"), start=1):
        levers.append(finished(name, 0, {"all": [n + shift for n in range(1, 7)], "distal": [1, 1]}))
    found = {lever.name: lever.regions for lever in compare(levers)}
    one = found["paper"]["all"]
    assert one.difference is not None and one.p_holm == pytest.approx(3 * one.difference.p)
    assert math.isnan(found["paper"]["distal"].p_holm)  # no patient differs


def test_the_reference_may_be_missing_and_other_patients_are_refused() -> None:
    (alone,) = compare([finished("context_0", 0, {"all": [1, 2]})])
    assert alone.regions["all"].difference is None
    with pytest.raises(DvtError, match="no_dice, seed 0"):
        compare([finished("modern", 0, {"all": [1, 2]}), finished("no_dice", 0, {"all": [1]})])
