"""Stations of computed legs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from dvtplan.imaging.geometry import Grid

WHOLE = Grid(
    shape=(8, 90, 24),
    spacing_mm=(1.25, 1.5, 1.5),
    origin_mm=(-100.0, -20.0, 700.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
ROWS = ((0, 36), (28, 64), (56, 90))


def legs() -> np.ndarray:
    """Return a smooth, positive image without repetition."""
    noise = np.random.default_rng(0).normal(size=WHOLE.shape)
    return (500 + 2000 * ndimage.gaussian_filter(noise, 2)).clip(50).astype(np.float32)


def station(image: np.ndarray, rows: tuple[int, int], gain: float = 1.0) -> tuple[np.ndarray, Grid]:
    top, bottom = rows
    origin = WHOLE.position_mm(np.array([0, top, 0]))
    grid = replace(WHOLE, shape=(8, bottom - top, 24), origin_mm=tuple(origin))
    return gain * image[:, top:bottom], grid


NAMES = ["pelvis", "thigh", "calf"]
