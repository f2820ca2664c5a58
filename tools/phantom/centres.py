"""Differences between the scanners of several centres."""

from __future__ import annotations

from dataclasses import dataclass, replace

from phantom.difficulty import Difficulty


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """How the scans of a centre differ from those of centre 1. Patients and clots do not depend on the centre."""

    voxel: tuple[float, float, float]
    """Factors on the voxel size along S, H, W; the field of view stays, so the matrix changes."""
    noise: float
    """Factor on the noise of a voxel."""
    calf: float
    """Factor on the contrast agent in the veins below the knee."""
    gain: float
    """Factor on the steps of gain between stations."""


CENTRES = (
    Centre(voxel=(1.0, 1.0, 1.0), noise=1.0, calf=1.0, gain=1.0),
    Centre(voxel=(1.2, 1.1, 1.1), noise=0.85, calf=0.8, gain=1.0),
    Centre(voxel=(0.9, 0.95, 0.95), noise=1.4, calf=0.9, gain=1.6),
)
"""Centres 1, 2, ...: the scanner of all other cohorts; thicker slices, larger pixels and less contrast in the calf;
smaller voxels with more noise and larger steps between the stations. Plausible, not measured."""

NO_CENTRE = 0
"""Number of the centre in a cohort without centres, which is scanned like centre 1."""


def centre(number: int) -> Centre:
    """Return a centre by its number; ``NO_CENTRE`` is scanned like centre 1."""
    return CENTRES[max(number, 1) - 1]


def scanned_at(number: int, difficulty: Difficulty) -> Difficulty:
    """Return the ranges of a difficulty for the scans of a centre."""
    here = centre(number)
    low, high = difficulty.station_gain
    return replace(
        difficulty,
        noise=difficulty.noise * here.noise,
        calf_mM=(difficulty.calf_mM[0] * here.calf, difficulty.calf_mM[1] * here.calf),
        station_gain=(1 + here.gain * (low - 1), 1 + here.gain * (high - 1)),
    )
