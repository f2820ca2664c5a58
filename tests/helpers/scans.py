"""Scans of the phantom at tiny scale, and what they store."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from phantom.artefacts import Scan, Station, acquire, station_rows
from phantom.contrast import Pulsation
from phantom.difficulty import DIFFICULTIES
from phantom.grid import SCALES, Frame

TINY = Frame.of(SCALES["tiny"])
"""12 x 161 x 69 voxels; stations are rows 0-58, 52-110 and 103-161."""
ONLY = (slice(12, 50), slice(60, 100), slice(112, 150))
"""Rows of each station that no other one sees, away from where the coils end."""
STILL = ((0, 0),) * 3
NOTHING_BEATS = Pulsation(*(np.zeros(0, int),) * 3, signal=np.zeros(0, np.float32))


def scan_of(
    gains: tuple[float, ...] = (1.0, 1.0, 1.0), shifts: tuple[tuple[int, int], ...] = STILL, **kinds: object
) -> Scan:
    """Return a scan at tiny scale without bias, flares, ghosts and arm."""
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
    """Return what is stored of an image at tiny scale."""
    difficulty = replace(DIFFICULTIES["default"], noise=noise)
    generators = (np.random.default_rng(seed) for seed in (coil, hiss))
    return acquire(image.astype(np.complex64), pulsation, TINY, scan, difficulty, *generators)


def block(rows: slice, columns: slice, slices: slice = slice(None), signal: float = 1.0) -> np.ndarray:
    """Return an image of one box."""
    image = np.zeros(TINY.shape, np.complex64)
    image[slices, rows, columns] = signal
    return image
