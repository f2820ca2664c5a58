"""Paint vessels with contrast agent: arteries, sheaths, veins that fill less below the knee, valves, mixing blood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phantom import signals
from phantom.anatomy import Anatomy
from phantom.difficulty import Difficulty
from phantom.grid import Frame
from phantom.shapes import Tube, paint_tube
from phantom.signals import Look
from phantom.template import GROIN_Z_MM

SHEATH_MM = {"trunk": (2.0, 5.0), "calf": (0.0, 1.0)}
"""Ranges of the thickness of fat around the deep trunk and around other veins, before the boost."""
UNFILLED_MM = (0.0, 0.25)
"""Range of contrast agent (mM) in an unfilled patent vein; its signal is that of thrombus, .17 to .4."""
VALVE_MM, SINUS_MM, CUSPS = 1.2, 6.0, 0.45
"""Thickness of the cusps of a valve, length of the sinus behind them, and the factor of cusps on the signal."""
STREAKS = (1, 3)
"""Fewest and most streaks of unopacified blood in a patient."""
STREAK_PLACES = (("CFV", 0.0), ("FV", 0.0), ("EIV", 0.3), ("PV", 0.6), ("FV", 0.5))
"""Vein, and share of its length where a tributary enters. Blood mixes there and may look like clot."""
PLAQUES = 6
"""Largest number of calcified plaques in the arteries of a patient (from memory)."""


@dataclass(frozen=True, slots=True)
class Pulsation:
    """Signal of the arteries by voxel: the source of their ghosts."""

    slices: np.ndarray
    """(n,) index along S, ascending."""
    rows: np.ndarray
    """(n,) index along H."""
    columns: np.ndarray
    """(n,) index along W."""
    signal: np.ndarray
    """(n,) real."""


def vein_ids(anatomy: Anatomy) -> dict[tuple[str, str], int]:
    """Return the number of each vein in the map of veins, from 1, by limb and name."""
    names = [(limb, name) for limb, veins in anatomy.veins.items() for name in veins]
    return {key: number for number, key in enumerate(names, start=1)}


def paint_vessels(
    image: np.ndarray,
    frame: Frame,
    anatomy: Anatomy,
    look: Look,
    difficulty: Difficulty,
    boost: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, Pulsation]:
    """Paint all vessels in place, without clot.

    Returns:
        The map of veins, uint8 (S, H, W), with 0 or a number of ``vein_ids``, and the signal of the arteries.
    """
    fat = look.fat_signal()
    sheath_mm = {part: boost * float(rng.uniform(*ends)) for part, ends in SHEATH_MM.items()}
    for veins in anatomy.veins.values():
        for vein in veins.values():
            around = sheath_mm["trunk" if vein.region == "proximal" else "calf"]
            paint_tube(image, frame, vein.points, vein.radius_mm + around, fat)
    pulsation = _paint_arteries(image, frame, anatomy, look, rng)

    veins_map = np.zeros(frame.shape, np.uint8)
    calf_mM = rng.uniform(*difficulty.calf_mM)
    for (limb, name), number in vein_ids(anatomy).items():
        vein = anatomy.veins[limb][name]
        radius_mm = vein.radius_mm.copy()
        filling = _filling(vein, anatomy.confluence_mm(limb), calf_mM, difficulty.unfilled, rng)
        signal = signals.spgr(signals.BLOOD, filling).real
        for at_mm in anatomy.valves[limb].get(name, ()):
            beyond = vein.arc_mm() - at_mm  # blood flows up, so the sinus lies above the cusps
            radius_mm *= 1 + 0.12 * np.exp(-(((beyond + SINUS_MM / 2) / (SINUS_MM / 2)) ** 2))
            signal = np.where(np.abs(beyond) < VALVE_MM / 2, CUSPS * signal, signal)
        box, depth = paint_tube(image, frame, vein.points, radius_mm, signal)
        veins_map[box][depth >= 0] = number
    _paint_streaks(image, frame, anatomy, rng)
    return veins_map, pulsation


def _filling(vein: Tube, confluence_mm: float, calf_mM: float, unfilled: float, rng: np.random.Generator) -> np.ndarray:
    """Return contrast agent (n,) in mM along a vein. The number of random draws does not depend on the vein."""
    share, fills, empty_mM = rng.uniform(0.9, 1.1), rng.random(), rng.uniform(*UNFILLED_MM)
    waves = np.interp(np.linspace(0, 1, len(vein.points)), np.linspace(0, 1, 9), rng.normal(0, 0.1, 9))
    filling = np.interp(vein.points[:, 2], (confluence_mm, GROIN_Z_MM), (calf_mM, 1.0))
    if vein.region == "distal":
        filling = np.full_like(filling, empty_mM) if fills < unfilled else filling * share
    return filling * np.clip(1 + waves, 0.6, 1.4)


def _paint_arteries(
    image: np.ndarray, frame: Frame, anatomy: Anatomy, look: Look, rng: np.random.Generator
) -> Pulsation:
    blood = float(signals.spgr(signals.BLOOD, look.artery_mM).real)
    calcium = complex(signals.spgr(signals.CORTEX))
    found = []
    for tube in anatomy.arteries:
        box, depth = paint_tube(image, frame, tube.points, tube.radius_mm, blood)
        share = frame.cover(depth)
        inside = np.flatnonzero(share)
        where = np.unravel_index(inside, share.shape)
        found.append((*(i + b.start for i, b in zip(where, box, strict=True)), blood * share.reshape(-1)[inside]))
    for _ in range(int(rng.integers(PLAQUES + 1))):
        tube = anatomy.arteries[int(rng.integers(1, len(anatomy.arteries)))]
        start = rng.uniform(0, 0.95) * tube.arc_mm()[-1]
        angle = rng.uniform(0, 2 * np.pi)
        part = tube.stretch(start, start + rng.uniform(3, 9))
        offset = np.outer(0.6 * part.radius_mm, (np.cos(angle), np.sin(angle), 0))
        if len(part.points):
            paint_tube(image, frame, part.points + offset, 0.5 * part.radius_mm, calcium)
    s, h, w, signal = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(s, kind="stable")
    return Pulsation(s[order], h[order], w[order], signal[order].astype(np.float32))


def _paint_streaks(image: np.ndarray, frame: Frame, anatomy: Anatomy, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(STREAKS[0], STREAKS[1] + 1))):
        limb = str(rng.choice(list(anatomy.limbs)))
        name, share = STREAK_PLACES[int(rng.integers(len(STREAK_PLACES)))]
        vein = anatomy.veins[limb][name]
        start = share * vein.arc_mm()[-1]
        part = vein.stretch(start, start + rng.uniform(20, 60))
        angle, off, thick, pale = (
            rng.uniform(0, 2 * np.pi),
            rng.uniform(0.1, 0.5),
            rng.uniform(0.35, 0.6),
            rng.uniform(0.02, 0.35),
        )
        points = part.points + np.outer(off * part.radius_mm, (np.cos(angle), np.sin(angle), 0))
        taper = np.clip(1.2 * np.sin(np.pi * np.linspace(0.02, 0.98, len(points))), 0.2, 1)
        paint_tube(image, frame, points, thick * taper * part.radius_mm, signals.spgr(signals.BLOOD, pale))
