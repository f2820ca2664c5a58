"""Draw the anatomy of one patient: pose, vessels, valves and anatomical variants."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phantom import template
from phantom.shapes import Tube, smooth_curve
from phantom.template import BRANCH_COURSES, GROIN_Z_MM, HIP_Y_MM, HIP_Z_MM, TRUNK_COURSES, Course

LIMBS = {"right": -1, "left": 1}
"""Sign of the LPS x coordinate of each limb, seen from the midline."""
DUPLICATED_FV, DUPLICATED_PV = 0.21, 0.02
"""Shares of limbs with a duplicated femoral or popliteal vein (Park 2011, 890 limbs)."""
VALVE_GAP_MM = (30.0, 60.0)
"""Range of the distance between two valves (from memory)."""
MOST_VALVES = 40
"""More than the longest vein has."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Position of the template leg, or of the trunk, in the scanner."""

    side: int
    """+1 where template x grows to the patient's left, -1 to the right."""
    scale: float
    """Size relative to the template."""
    abduction: float
    """Sideways shift per mm below the hip."""
    shift_mm: tuple[float, float, float]
    """LPS displacement of the patient."""
    tilt: tuple[float, float]
    """LPS x and y per mm of z: the patient lies askew on the table."""

    def place(self, template_zxy: np.ndarray) -> np.ndarray:
        """Return LPS positions (n, 3) of template positions (n, 3), ordered z, x, y."""
        z, x, y = np.asarray(template_zxy, float).T
        below_hip = self.scale * (HIP_Z_MM - z)
        lateral = self.scale * x + self.abduction * np.maximum(below_hip, 0)
        lps = np.stack([self.side * lateral, self.scale * (HIP_Y_MM - y), GROIN_Z_MM - below_hip], axis=1)
        lps[:, :2] += lps[:, 2:] * np.array(self.tilt)
        return lps + np.array(self.shift_mm)

    def template_z(self, z_mm: np.ndarray) -> np.ndarray:
        """Return template heights of LPS z: the inverse of ``place`` for heights."""
        return HIP_Z_MM - (GROIN_Z_MM + self.shift_mm[2] - z_mm) / self.scale

    def height_mm(self, template_z: float) -> float:
        """Return the LPS z of a template height."""
        return float(self.place(np.array([(template_z, 0, HIP_Y_MM)]))[0, 2])

    def midline_mm(self, z_mm: np.ndarray | float) -> np.ndarray | float:
        """Return the LPS x of the midline between the legs at an LPS z."""
        return self.shift_mm[0] + self.tilt[0] * (z_mm - self.shift_mm[2])


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One patient without contrast and without clot."""

    trunk: Pose
    """Pose of pelvis and abdomen."""
    limbs: dict[str, Pose]
    """Pose of each leg."""
    veins: dict[str, dict[str, Tube]]
    """Veins by leg and name; the right leg also holds the vena cava."""
    valves: dict[str, dict[str, np.ndarray]]
    """Positions of valves along each vein in mm, (n,), by leg and vein."""
    arteries: list[Tube]
    """Arteries of the whole body."""
    fat_mm: float
    """Thickness of subcutaneous fat at mid-thigh."""

    def knee_mm(self, limb: str) -> float:
        """Return the LPS z of the knee joint line."""
        return self.limbs[limb].height_mm(template.KNEE_Z_MM)

    def confluence_mm(self, limb: str) -> float:
        """Return the LPS z of the tibial confluence, the lower end of the popliteal vein."""
        return float(self.veins[limb]["PV"].points[-1, 2])


def draw_anatomy(rng: np.random.Generator, boost: float, step_mm: float) -> Anatomy:
    """Draw a patient. ``boost`` widens vessels; ``step_mm`` is the distance of points on a centreline."""
    scale = float(np.clip(rng.normal(1, 0.05), 0.92, 1.08))
    shift_mm = (float(rng.uniform(-8, 8)), float(rng.uniform(-2, 2)), float(rng.uniform(-12, 12)))
    tilt = (float(np.clip(rng.normal(0, 0.008), -0.02, 0.02)), float(np.clip(rng.normal(0, 0.004), -0.008, 0.008)))
    trunk = Pose(1, scale, 0.0, shift_mm, tilt)
    arteries, _ = _vessels(trunk, template.AORTA, boost, step_mm, rng)
    cava, _ = _vessels(trunk, template.CAVA, boost, step_mm, rng)
    limbs: dict[str, Pose] = {}
    veins: dict[str, dict[str, Tube]] = {"right": {"IVC": cava[0]}, "left": {}}
    valves: dict[str, dict[str, np.ndarray]] = {}
    for limb, side in LIMBS.items():
        abduction = float(rng.uniform(-0.012, 0.045))
        limbs[limb] = Pose(side, scale * float(rng.uniform(0.985, 1.015)), abduction, shift_mm, tilt)
        calibre = boost * float(rng.uniform(0.85, 1.15))
        for course in TRUNK_COURSES + BRANCH_COURSES:
            its_veins, its_arteries = _vessels(limbs[limb], course, calibre, step_mm, rng)
            veins[limb] |= {vein.name: vein for vein in its_veins}
            arteries += its_arteries
        for name, share in (("FV", DUPLICATED_FV), ("PV", DUPLICATED_PV)):
            twin = _duplicate(veins[limb][name], rng)
            if rng.random() < share:
                veins[limb][twin.name] = twin
        valves[limb] = {name: _valves(vein, rng) for name, vein in veins[limb].items() if name != "IVC"}
    return Anatomy(trunk, limbs, veins, valves, arteries, fat_mm=float(rng.uniform(8, 25)))


def _vessels(
    pose: Pose, course: Course, calibre: float, step_mm: float, rng: np.random.Generator
) -> tuple[list[Tube], list[Tube]]:
    """Return the vein or veins of a course, and its artery if it has one."""
    points = smooth_curve(pose.place(np.array(course.path)), step_mm)
    along = np.linspace(0, 1, len(points))
    # Tortuosity vanishes at both ends, so that courses still meet.
    points[:, :2] += np.sin(np.pi * along[:, None] * np.arange(2, 5)) @ rng.normal(0, 0.9, (3, 2))
    vein = calibre * np.interp(along, np.linspace(0, 1, len(course.vein_mm)), course.vein_mm) / 2
    gap_mm = rng.uniform(*(course.pair_gap_mm or (0, 0)))
    if course.artery_mm is None:
        return [Tube(course.name, course.region, points, vein)], []
    artery = calibre * np.interp(along, (0, 1), course.artery_mm) / 2
    above, below = course.sides
    sides = np.linspace(above, below, len(points))
    apart = np.stack([pose.side * sides[:, 0], -sides[:, 1], np.zeros_like(along)], axis=1)
    apart /= np.linalg.norm(apart, axis=1)[:, None]
    if course.pair_gap_mm is None:
        parallel = Tube(course.name, None, points + apart * (1.1 * (vein + artery))[:, None], artery)
        return [Tube(course.name, course.region, points, vein)], [parallel]
    # A pair leaves the trunk at one place and diverges over its first tenth.
    apart *= (np.maximum(vein + artery, vein + gap_mm / 2) * np.minimum(along / 0.1, 1))[:, None]
    pair = [Tube(f"{course.name}-{i}", course.region, points + way * apart, vein) for i, way in ((1, -1), (2, 1))]
    return pair, [Tube(course.name, None, points, artery)]


def _duplicate(vein: Tube, rng: np.random.Generator) -> Tube:
    """Return a second vein that leaves the first and joins it again further down."""
    whole = vein.arc_mm()[-1]
    start, end = rng.uniform(0.05, 0.35) * whole, rng.uniform(0.65, 0.95) * whole
    part = vein.stretch(start, end)
    angle = rng.uniform(0, 2 * np.pi)
    bow = np.minimum(1, 4 * np.sin(np.pi * np.linspace(0, 1, len(part.points))))
    points = part.points + np.outer(bow * 2.1 * part.radius_mm, (np.cos(angle), np.sin(angle), 0))
    return replace(part, name=f"{vein.name}-double", points=points, radius_mm=0.75 * part.radius_mm)


def _valves(vein: Tube, rng: np.random.Generator) -> np.ndarray:
    # A fixed number of draws, so that a coarser centreline does not change later random numbers.
    gaps = rng.uniform(*VALVE_GAP_MM, size=MOST_VALVES)
    places = np.cumsum(gaps)
    return places[places < vein.arc_mm()[-1] - 5]
