"""Parameter ranges of easy, default and hard cohorts, and of one without noise."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Ranges from which a patient and a scan are drawn."""

    noise: float
    """Standard deviation in the real and in the imaginary channel; venous blood at 1 mM is 1."""
    calf_mM: tuple[float, float]
    """Concentration of contrast agent in the veins below the knee; 1 mM in the groin."""
    unfilled: float
    """Probability that a calf vein stays without contrast."""
    station_gain: tuple[float, float]
    """Factor between table stations."""


LEVELS = {
    "easy": Difficulty(noise=0.025, calf_mM=(0.8, 1.0), unfilled=0.0, station_gain=(0.97, 1.03)),
    "default": Difficulty(noise=0.04, calf_mM=(0.6, 1.0), unfilled=0.05, station_gain=(0.85, 1.15)),
    "hard": Difficulty(noise=0.05, calf_mM=(0.3, 0.8), unfilled=0.15, station_gain=(0.7, 1.3)),
}
"""The signal of a calf vein is .85 to 1, .7 to 1 and .44 to .85 of that in the groin. `default` first had the noise,
calf contrast and unfilled veins of today's `hard`; neither a reader nor a trained network found its distal clots."""

DIFFICULTIES = {**LEVELS, "noiseless": replace(LEVELS["default"], noise=0.0)}
"""The levels, and `noiseless`: `default` without noise, to find what noise costs."""
