"""What separates an easy cohort from a hard one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Ranges that a patient and a scan are drawn from."""

    noise: float
    """Standard deviation in each of the real and imaginary channel, where venous blood at 1 mM is 1."""
    calf_mM: tuple[float, float]
    """Contrast agent in the veins below the knee; the groin has 1 mM."""
    unfilled: float
    """Probability that a calf vein stays without contrast."""
    station_gain: tuple[float, float]
    """Factor between table stations."""


DIFFICULTIES = {
    "easy": Difficulty(noise=0.025, calf_mM=(0.8, 1.0), unfilled=0.0, station_gain=(0.97, 1.03)),
    "default": Difficulty(noise=0.04, calf_mM=(0.6, 1.0), unfilled=0.05, station_gain=(0.85, 1.15)),
    "hard": Difficulty(noise=0.05, calf_mM=(0.3, 0.8), unfilled=0.15, station_gain=(0.7, 1.3)),
}
"""The signal of a calf vein is .85 to 1, .7 to 1 and .44 to .85 of the groin's. As `default` was first specified
(noise, calf and unfilled veins as `hard` has them now) neither a reader nor a trained network found distal clot."""
