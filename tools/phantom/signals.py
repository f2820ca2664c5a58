"""Signal of tissues in a spoiled gradient echo, relative to venous blood at 1 mM of gadolinium.

Water lies on the real axis and fat on the imaginary axis. At an echo time of 1.13 ms and 1.5 T their phases differ by
about 90 degrees, so a voxel with both has less signal than their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TR_MS, TE_MS, FLIP_DEG = 3.17, 1.13, 25.0
"""Sequence of Huang 2019, section 2.1."""
RELAXIVITY = 4.1
"""1/(mM s) at 1.5 T; published values in plasma are 3.3 to 4.8."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """Relaxation at 1.5 T."""

    t1_ms: float
    """T1 without contrast agent."""
    t2_star_ms: float = 40.0
    """T2*; assumed where unknown, since it matters little at this echo time."""
    density: float = 1.0
    """Proton density relative to blood; assumed."""
    fat: bool = False
    """Whether it is fat, whose phase is 90 degrees behind water."""


BLOOD = Tissue(1400, 150)
MUSCLE = Tissue(1000, 30)
FAT = Tissue(265, 40, fat=True)
MARROW_YELLOW = Tissue(290, 30, 0.85, fat=True)
MARROW_RED = Tissue(600, 25, 0.9)
CORTEX = Tissue(800, 0.5, 0.15)
TENDON = Tissue(900, 2.0, 0.7)
SKIN = Tissue(900, 20)
FLUID = Tissue(3000, 500, 1.1)
OEDEMA = Tissue(1700, 80, 1.05)
NODE = Tissue(900, 60)
DISC = Tissue(1000, 60)
CLOT = Tissue(1000, 60)
HAEMATOMA = Tissue(400, 60)


def spgr(tissue: Tissue, gadolinium_mM: float | np.ndarray = 0.0) -> np.ndarray:
    """Return the steady state ``PD sin a (1 - E1) / (1 - E1 cos a) exp(-TE/T2*)``, venous blood at 1 mM = 1.

    Args:
        tissue: tissue parameters.
        gadolinium_mM: concentration of contrast agent, any shape; its effect on T2* is neglected.

    Returns:
        complex64 of the same shape: real for water, imaginary for fat.
    """
    signal = _steady_state(tissue, np.asarray(gadolinium_mM, float)) / _steady_state(BLOOD, np.asarray(1.0))
    return (signal * (1j if tissue.fat else 1.0)).astype(np.complex64)


@dataclass(frozen=True, slots=True)
class Look:
    """Differences between patients in signal."""

    fat: float
    """Factor on the signal of fat (fat suppression)."""
    muscle_mM: float
    """Contrast agent in muscle."""
    artery_mM: float
    """Contrast agent in arteries at equilibrium."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Look:
        """Draw a patient in the venous phase; fat is .55 to .85 of venous blood, muscle .27 to .37."""
        return cls(float(rng.uniform(0.7, 1.05)), float(rng.uniform(0.05, 0.17)), float(rng.uniform(1.0, 1.35)))

    def fat_signal(self) -> complex:
        """Return the signal of subcutaneous and intermuscular fat."""
        return complex(self.fat * spgr(FAT))

    def muscle_signal(self) -> float:
        """Return the signal of muscle without its texture."""
        return float(spgr(MUSCLE, self.muscle_mM).real)


def _steady_state(tissue: Tissue, gadolinium_mM: np.ndarray) -> np.ndarray:
    flip = np.deg2rad(FLIP_DEG)
    rate = 1000 / tissue.t1_ms + RELAXIVITY * gadolinium_mM  # 1/s
    e1 = np.exp(-TR_MS / 1000 * rate)
    return tissue.density * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * np.exp(-TE_MS / tissue.t2_star_ms)
