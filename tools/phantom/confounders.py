"""Confounders, which may look like thrombus or hide it but are unrelated to it; and oedema, which is related.

Shapes and frequencies are from memory unless docs/phantom.md names a source.
"""

from __future__ import annotations

import numpy as np

from phantom import signals
from phantom.anatomy import LIMBS, Anatomy, Pose
from phantom.grid import Frame, SmoothField
from phantom.shapes import Tube, paint_tube, smooth_curve
from phantom.signals import Look

CYST, HAEMATOMA, VARICES, OEDEMA = 0.1, 0.08, 0.2, 0.5
"""Shares of patients. Oedema is a share of patients with thrombus, in the same limb: the only cue related to it."""
NODES = (2, 6)
"""Fewest and most lymph nodes in the groins of a patient."""


def paint_confounders(
    image: np.ndarray, frame: Frame, anatomy: Anatomy, look: Look, boost: float, rng: np.random.Generator
) -> dict[str, bool | int]:
    """Paint nodes, cyst, haematoma and varices in place; return which are present."""
    nodes = int(rng.integers(NODES[0], NODES[1] + 1))
    for _ in range(nodes):
        _paint_node(image, frame, _any_limb(anatomy, rng), look, rng)
    present = {
        name: bool(rng.random() < share)
        for name, share in (("cyst", CYST), ("haematoma", HAEMATOMA), ("varices", VARICES))
    }
    limb = str(rng.choice(list(LIMBS)))
    pose = anatomy.limbs[limb]
    radius = rng.uniform(7, 13)
    if present["cyst"]:
        centre = (rng.uniform(-25, 5), rng.uniform(60, 68), rng.uniform(46, 54))
        _paint_blob(image, frame, pose, centre, (22, 2, 3), radius, signals.spgr(signals.FLUID))
    centre = (rng.uniform(60, 330), rng.uniform(70, 120), rng.uniform(60, 120))
    radius = rng.uniform(8, 18)
    if present["haematoma"]:
        way = (rng.uniform(20, 45), 3, 3)
        _paint_blob(image, frame, pose, centre, way, radius + 2, signals.spgr(signals.TENDON))
        _paint_blob(image, frame, pose, centre, way, radius, signals.spgr(signals.HAEMATOMA))
    winding = np.random.default_rng(rng.integers(2**63))
    if present["varices"]:
        saphenous = anatomy.veins[limb]["GSV"]
        for _ in range(int(winding.integers(2, 5))):
            start = winding.uniform(0.3, 0.8) * saphenous.arc_mm()[-1]
            part = saphenous.stretch(start, start + winding.uniform(60, 180))
            _paint_winding(image, frame, part, 7, boost * winding.uniform(1.4, 2.4), winding.uniform(0.3, 0.8), winding)
    return {"nodes": nodes, **present}


def paint_collaterals(image: np.ndarray, frame: Frame, occlusion: Tube, boost: float, rng: np.random.Generator) -> None:
    """Paint small tortuous veins along an old occlusion, in place."""
    for _ in range(int(rng.integers(2, 4))):
        angle = rng.uniform(0, 2 * np.pi)
        away = rng.uniform(10, 22) * np.array((np.cos(angle), np.sin(angle), 0))
        part = Tube("collateral", None, occlusion.points + away, occlusion.radius_mm)
        _paint_winding(image, frame, part, 5, boost * rng.uniform(0.8, 1.5), rng.uniform(0.5, 1.0), rng)


def paint_oedema(
    image: np.ndarray, frame: Frame, anatomy: Anatomy, limb: str, look: Look, rng: np.random.Generator
) -> None:
    """Paint reticular fluid in the fat of a calf, in place; bones are painted later."""
    field = SmoothField(rng, frame, y_mm=6, z_mm=9, x_mm=6)
    rows = slice(frame.row(anatomy.knee_mm(limb)), len(frame.z))
    fade = 0.6 * np.clip((anatomy.knee_mm(limb) - frame.z[rows]) / 120, 0, 1).astype(np.float32)[:, None]
    midline = frame.column(float(anatomy.limbs[limb].midline_mm(anatomy.knee_mm(limb))))
    columns = slice(midline, None) if LIMBS[limb] > 0 else slice(0, midline)
    fluid, fat = complex(signals.spgr(signals.OEDEMA)), look.fat_signal().imag
    for s in range(frame.shape[0]):
        part = image[s, rows, columns]
        net = fade * np.exp(-((field.at_slice(s, rows, columns) / 0.3) ** 2))
        net *= np.clip(part.imag / fat, 0, 1)
        part += net * (fluid - part)


def _any_limb(anatomy: Anatomy, rng: np.random.Generator) -> Pose:
    return anatomy.limbs[str(rng.choice(list(LIMBS)))]


def _paint_node(image: np.ndarray, frame: Frame, pose: Pose, look: Look, rng: np.random.Generator) -> None:
    """Paint an inguinal lymph node: bean-shaped, with a fatty hilum."""
    centre = (rng.uniform(375, 460), rng.uniform(44, 88), rng.uniform(136, 152))
    way = tuple(rng.uniform((3, -4, -2), (9, 4, 2)))
    radius = rng.uniform(2.5, 5.0)
    _paint_blob(image, frame, pose, centre, way, radius, signals.spgr(signals.NODE, 0.3))
    _paint_blob(image, frame, pose, centre, way, 0.4 * radius, look.fat_signal())


def _paint_blob(
    image: np.ndarray,
    frame: Frame,
    pose: Pose,
    centre: tuple[float, ...],
    way: tuple[float, ...],
    radius_mm: float,
    signal: complex | np.ndarray,
) -> None:
    """Paint an elongated ball along a template direction; its ends are narrower than its middle."""
    nodes = np.array([np.subtract(centre, way), centre, np.add(centre, way)], float)
    radius = np.array([0.7, 1.0, 0.7]) * radius_mm
    chain = smooth_curve(np.column_stack([pose.place(nodes), radius]), step_mm=max(radius_mm / 4, 1))
    paint_tube(image, frame, chain[:, :3], chain[:, 3], complex(signal))


def _paint_winding(
    image: np.ndarray,
    frame: Frame,
    along: Tube,
    amplitude_mm: float,
    radius_mm: float,
    gadolinium_mM: float,
    rng: np.random.Generator,
) -> None:
    """Paint a vein that winds about a course."""
    if len(along.points) < 4:
        return
    arc = along.arc_mm()
    turns, phase = arc / rng.uniform(18, 34) * 2 * np.pi, rng.uniform(0, 2 * np.pi, 2)
    size = amplitude_mm * (0.5 + 0.5 * np.sin(turns / 2.7 + phase[1]) ** 2)
    sway = np.stack([np.cos(turns + phase[0]), 0.6 * np.sin(turns + phase[0]), np.zeros_like(arc)], axis=1)
    points = along.points + size[:, None] * sway
    paint_tube(image, frame, points, np.full(len(points), radius_mm), signals.spgr(signals.BLOOD, gadolinium_mM))
