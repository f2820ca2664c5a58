"""A synthetic CE-MR venography cohort of leg vein thrombosis, written in the nnU-Net raw layout.

Phantom scores rank methods and catch bugs; they say nothing about clinical accuracy. Everything is
drawn in mm and sampled last, so a seed gives nearly the same patient at every scale.

Axes: S anterior to posterior, H superior to inferior, W patient's right to left (a coronal volume).
Two frames, in mm: *patient* positions are LPS (x, y, z); *template* positions describe one leg as
(z up from the knee joint line, x lateral from the midline, y up from the table).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.interpolate import PchipInterpolator
from scipy.sparse import csr_array
from tqdm import tqdm

VERSION = "0.1"
LIMBS = {"right": -1, "left": 1}
"""Sign of the LPS x coordinate of each limb, seen from the midline."""
REGIONS = {"proximal": 1, "distal": 2}
"""Label value of each region. The vein decides, not the height: popliteal and above is proximal."""
STREAMS = {"cohort": 0, "anatomy": 1, "thrombus": 2, "contrast": 3, "artefact": 4}
"""Independent random streams of a case, so that one may change and leave the others alone."""
DIRECTION = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0))
"""LPS unit vector along S, H, W, as in ``dvtplan.geometry.Grid``."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Sampling of the field of view, which is about 116 x 1400 x 500 mm at every scale."""

    shape: tuple[int, int, int]
    """Voxels along S, H, W."""
    spacing_mm: tuple[float, float, float]
    """Voxel size along S, H, W."""
    boost: float
    """Factor on vessel calibres that keeps a calf vein wider than a voxel."""
    cases: int
    """Cases in a cohort unless told otherwise."""


SCALES = {
    "tiny": Scale((12, 161, 69), (9.7, 8.7, 7.3), boost=3.0, cases=8),
    "small": Scale((32, 321, 121), (3.6, 4.35, 4.15), boost=1.8, cases=16),
    "half": Scale((46, 481, 173), (2.5, 2.9, 2.9), boost=1.35, cases=58),
    "paper": Scale((93, 961, 345), (1.25, 1.45, 1.45), boost=1.0, cases=58),
}
"""Only `paper` has a patient's calibres; the others are caricatures for demos and tests."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What separates an easy cohort from a hard one."""

    noise: float
    """Rician sigma, where fully opacified venous blood is 1."""
    calf_signal: tuple[float, float]
    """Range of venous signal below the knee; the groin is 1."""
    unfilled: float
    """Probability that a calf vein stays without contrast."""


DIFFICULTIES = {
    "easy": Difficulty(noise=0.025, calf_signal=(0.85, 1.0), unfilled=0.0),
    "default": Difficulty(noise=0.05, calf_signal=(0.45, 0.85), unfilled=0.15),
    "hard": Difficulty(noise=0.09, calf_signal=(0.3, 0.6), unfilled=0.3),
}


@dataclass(frozen=True, slots=True)
class Lesion:
    """One clot."""

    limb: str
    """'left' or 'right' of the patient."""
    region: str
    """'proximal' or 'distal'."""
    vein: str
    """The vein, or the veins from above to below joined by '+'."""
    age: str
    """'acute', 'subacute' or 'old'."""
    length_mm: float
    """Along the centreline."""
    volume_ml: float
    """Of its label voxels; where two clots meet, both count the shared ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomCase:
    """One sampled patient; the placement follows ``dvtplan.geometry.Grid``."""

    image: np.ndarray
    """int16 (S, H, W); fully opacified venous blood is about 1000."""
    label: np.ndarray
    """uint8 (S, H, W): 0 background, 1 proximal, 2 distal thrombus."""
    spacing_mm: tuple[float, float, float]
    """Voxel size along S, H, W."""
    origin_mm: tuple[float, float, float]
    """LPS position of the centre of voxel (0, 0, 0)."""
    direction: tuple[tuple[float, float, float], ...]
    """LPS unit vector along S, H, W."""
    level_left_mm: float
    """LPS z of the left tibial confluence, where the popliteal vein begins."""
    level_right_mm: float
    """The same of the right leg."""
    midline_mm: float
    """LPS x between the legs."""
    lesions: tuple[Lesion, ...]
    """Proximal before distal; empty where thrombus is switched off."""


# ---- grid: where the voxels are ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """LPS coordinates in mm of the voxel centres, one array per axis S, H, W."""

    y: np.ndarray
    z: np.ndarray
    x: np.ndarray
    voxel_mm: float
    """Geometric mean of the spacing: the width over which a surface blurs."""

    @classmethod
    def of(cls, scale: Scale) -> Frame:
        """The volume centred on the isocentre."""
        axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(scale.shape, scale.spacing_mm, strict=True)]
        return cls(y=axes[0], z=-axes[1], x=axes[2], voxel_mm=float(np.cbrt(np.prod(scale.spacing_mm))))

    def box(self, low_xyz: np.ndarray, high_xyz: np.ndarray) -> tuple[slice, ...]:
        """Index ranges along S, H, W of the voxels between two LPS corners; may be empty."""
        found = [
            np.flatnonzero((axis >= low_xyz[i]) & (axis <= high_xyz[i]))
            for axis, i in ((self.y, 1), (self.z, 2), (self.x, 0))
        ]
        return tuple(slice(f[0], f[-1] + 1) if len(f) else slice(0, 0) for f in found)

    def cover(self, depth_mm: np.ndarray) -> np.ndarray:
        """The share of each voxel inside a surface, from the depth of its centre below it."""
        return np.clip(depth_mm / self.voxel_mm + 0.5, 0, 1)


class SmoothField:
    """A Gaussian random field of mean 0 and variance 1, one slice at a time to save memory.

    Its white noise sits on nodes fixed in mm, so that a place has the same value at every scale.
    The weights are sparse: the same sums on any number of threads.
    """

    def __init__(self, rng: np.random.Generator, frame: Frame, y_mm: float, z_mm: float, x_mm: float) -> None:
        """Take a frame and the correlation lengths along AP, SI and LR."""
        weights = []
        for axis, end_mm, length_mm in ((frame.y, 60, y_mm), (frame.z, 705, z_mm), (frame.x, 255, x_mm)):
            nodes = np.arange(-end_mm - 3 * length_mm, end_mm + 3 * length_mm, length_mm)
            distance = np.abs(axis[:, None] - nodes) / length_mm
            weight = np.where(distance < 3, np.exp(-0.5 * distance**2), 0)
            weight /= np.linalg.norm(weight, axis=1, keepdims=True)
            weights.append(csr_array(weight.astype(np.float32)))
        along_s, self._along_h, self._along_w = weights
        nodes_shape = [weight.shape[1] for weight in weights]
        noise = rng.standard_normal(nodes_shape, dtype=np.float32)
        self._slices = (along_s @ noise.reshape(nodes_shape[0], -1)).reshape(-1, *nodes_shape[1:])

    def at_slice(self, s: int) -> np.ndarray:
        """float32 (H, W)."""
        return (self._along_w @ (self._along_h @ self._slices[s]).T).T


# ---- anatomy: bodies, bones and vessel courses, without signal -------------------------------------

HIP_Z_MM, HIP_Y_MM = 430.0, 90.0
"""Template point about which a leg is scaled and abducted, so that it stays on the trunk."""
GROIN_Z_MM = 300.0
"""LPS z of the hip before shifts; the volume then reaches from below the sole to the upper abdomen."""
PERINEUM_Z_MM = 470.0
"""Template z below which the trunk fades out between the legs; an arch, highest at the midline."""

LEG_PROFILE = (  # template z from below; centre x, centre y; half width, half depth
    (-474, -462, -440, -415, -385, -320, -200, -120, -50, 10, 100, 250, 380, 900),
    (76, 76, 76, 77, 78, 80, 82, 82, 83, 85, 87, 88, 94, 94),
    (92, 92, 90, 76, 68, 70, 72, 74, 80, 86, 86, 92, 96, 98),
    (4, 30, 36, 34, 36, 40, 53, 57, 54, 58, 65, 78, 90, 92),
    (6, 66, 76, 54, 40, 43, 57, 61, 60, 63, 68, 82, 92, 94),
)
TRUNK_PROFILE = (
    (200, 330, 440, 520, 620, 720, 900),
    (0, 0, 0, 0, 0, 0, 0),
    (98, 98, 100, 100, 100, 100, 100),
    (100, 160, 182, 180, 154, 148, 164),
    (90, 95, 106, 108, 104, 100, 108),
)
FAT_PROFILE = ((-440, -320, 0, 100, 250, 440, 900), (0.3, 0.5, 0.6, 0.8, 1.0, 1.2, 1.0))
"""Template z, and thickness of subcutaneous fat relative to mid-thigh."""
LEG_BONES = (  # thickness of the dark shell in mm; then a chain of spheres: template z, x, y, radius
    (2.5, ((458, 88, 94, 23), (446, 94, 94, 19), (428, 108, 92, 15), (408, 120, 92, 20))),
    (5.0, ((395, 120, 92, 17), (330, 116, 96, 14.5), (200, 102, 98, 13.5), (95, 92, 98, 16))),
    (2.0, ((95, 92, 98, 16), (48, 87, 101, 25), (26, 85, 104, 31), (20, 85, 105, 32))),
    (2.0, ((-16, 84, 103, 31), (-30, 83, 103, 29), (-62, 79, 104, 19), (-85, 75, 101, 15))),
    (4.5, ((-85, 75, 101, 15), (-200, 71, 98, 12.5), (-330, 67, 82, 12), (-370, 70, 76, 15))),
    (2.0, ((-370, 70, 76, 15), (-400, 74, 74, 19), (-425, 76, 80, 18))),
    (2.5, ((-30, 112, 84, 9), (-80, 108, 84, 6), (-330, 105, 78, 5.5), (-395, 104, 70, 8))),
    (2.5, ((480, 98, 78, 24), (530, 108, 58, 15), (585, 128, 62, 13), (625, 132, 72, 7))),
    (2.5, ((462, 62, 104, 12), (436, 28, 118, 10), (424, 12, 118, 11))),
)
TRUNK_BONES = ((2.0, ((450, 0, 16, 14), (520, 0, 22, 24), (580, 0, 40, 26), (900, 0, 40, 24))),)


@dataclass(frozen=True, slots=True)
class Course:
    """A vein of the template, or a pair of veins, with its artery."""

    name: str
    """Anatomical abbreviation."""
    region: str | None
    """None where this cohort places no clot."""
    path: tuple[tuple[float, float, float], ...]
    """Template z, x, y from above to below."""
    vein_mm: tuple[float, float]
    """Diameter at the upper and lower end."""
    artery_mm: tuple[float, float] | None = None
    """The same of the artery; that of a pair runs between its veins."""
    sides: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (1.0, 0.0))
    """Lateral and anterior part of the way from vein to artery, at both ends."""
    paired: bool = False
    """Whether two veins accompany the artery."""


GROIN, THIGH, KNEE = (1.0, 0.1), (0.7, 0.7), (0.3, 1.0)
CIV = ((640, 8, 82), (600, 28, 72), (560, 45, 70))
EIV = ((560, 45, 70), (510, 47, 104), (455, 52, 128), (440, 52, 136))
CFV = ((440, 52, 136), (415, 57, 138), (395, 60, 136))
FV = ((395, 60, 136), (330, 66, 126), (230, 70, 108), (110, 72, 72))
PV = ((110, 72, 72), (60, 78, 64), (0, 80, 60), (-65, 80, 68))
PFV = ((395, 60, 136), (330, 82, 110), (260, 95, 88), (200, 98, 74))
PTV = ((-100, 80, 74), (-150, 71, 72), (-200, 66, 75), (-300, 61, 66), (-390, 56, 51))
PER = ((-100, 80, 74), (-150, 89, 76), (-200, 94, 79), (-370, 97, 59))
ATV = ((-65, 84, 72), (-85, 96, 92), (-200, 94, 96), (-390, 78, 92))
TRUNK_COURSES = (  # diameters of groin and thigh: Hertzberg 1997
    Course("EIV", "proximal", EIV, (11, 10.5), (8.5, 8), (GROIN, GROIN)),
    Course("CFV", "proximal", CFV, (10.5, 10), (8, 7.5), (GROIN, GROIN)),
    Course("FV", "proximal", FV, (8.5, 6.6), (6.2, 5.5), (GROIN, THIGH)),
    Course("PV", "proximal", PV, (6.8, 7.2), (5.5, 5), (THIGH, KNEE)),
)
"""The deep trunk from above to below; one clot may span several of these."""
BRANCH_COURSES = (  # calf diameters: usual values, source not checked
    Course("CIV", None, CIV, (12, 11), (9, 8.5), (GROIN, GROIN)),
    Course("PFV", None, PFV, (6.5, 3.5), (5, 3)),
    Course("TPT", "distal", ((-65, 80, 68), (-100, 80, 74)), (5.5, 5), (4, 3.5), (KNEE, KNEE)),
    Course("PTV", "distal", PTV, (3.4, 2.6), (2.8, 2.2), paired=True),
    Course("PER", "distal", PER, (3.6, 2.6), (2.8, 2.0), paired=True),
    Course("ATV", "distal", ATV, (3.2, 2.4), (2.8, 2.2)),
    Course("SOL-1", "distal", ((-105, 79, 66), (-140, 72, 60), (-250, 68, 52)), (4.6, 2.8)),
    Course("SOL-2", "distal", ((-110, 82, 66), (-150, 84, 58), (-245, 88, 52)), (4.4, 2.8)),
    Course("GAS", "distal", ((-30, 74, 56), (-80, 66, 46), (-150, 60, 40)), (4.2, 2.6)),
)
CAVA = Course("IVC", None, ((900, -12, 84), (680, -11, 84), (640, -8, 82)), (18, 18))
AORTA = Course("aorta", None, ((900, 12, 86), (690, 10, 88), (640, 14, 84)), (14, 14))


@dataclass(frozen=True, slots=True)
class Tube:
    """A vessel, or a stretch of one, in the patient."""

    name: str
    """Of its course; '-1' and '-2' for a pair of veins."""
    region: str | None
    """As in ``Course``."""
    points: np.ndarray
    """(n, 3) LPS in mm along the centreline, from above to below."""
    radius_mm: np.ndarray
    """(n,)."""

    def arc_mm(self) -> np.ndarray:
        """(n,) length of the centreline from its upper end."""
        return np.append(0.0, np.cumsum(np.linalg.norm(np.diff(self.points, axis=0), axis=1)))

    def stretch(self, start_mm: float, end_mm: float) -> Tube:
        """The part between two lengths along the centreline."""
        part = (self.arc_mm() >= start_mm) & (self.arc_mm() <= end_mm)
        return replace(self, points=self.points[part], radius_mm=self.radius_mm[part])


@dataclass(frozen=True, slots=True)
class Pose:
    """How the template leg, or the trunk, lies in the scanner."""

    side: int
    """+1 where template x grows to the patient's left, -1 to the right."""
    scale: float
    """Size relative to the template."""
    abduction: float
    """Sideways shift per mm below the hip."""
    shift_mm: tuple[float, float, float]
    """LPS displacement of the patient; its x is the midline."""

    def place(self, template_zxy: np.ndarray) -> np.ndarray:
        """LPS positions (n, 3) of template positions (n, 3)."""
        z, x, y = np.asarray(template_zxy, float).T
        below_hip = self.scale * (HIP_Z_MM - z)
        lateral = self.scale * x + self.abduction * np.maximum(below_hip, 0)
        lps = np.stack([self.side * lateral, self.scale * (HIP_Y_MM - y), GROIN_Z_MM - below_hip], axis=1)
        return lps + np.array(self.shift_mm)

    def template_z(self, z_mm: np.ndarray) -> np.ndarray:
        """The inverse of ``place`` for heights alone."""
        return HIP_Z_MM - (GROIN_Z_MM + self.shift_mm[2] - z_mm) / self.scale


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One patient without contrast and without clot."""

    trunk: Pose
    """Of pelvis and abdomen."""
    limbs: dict[str, Pose]
    """Of each leg."""
    veins: dict[str, dict[str, Tube]]
    """By leg and name; the right leg also keeps the vena cava."""
    arteries: list[Tube]
    """Of the whole body."""
    fat_mm: float
    """Thickness of subcutaneous fat at mid-thigh."""

    def level_mm(self, limb: str) -> float:
        """LPS z of the tibial confluence, the lower end of the popliteal vein."""
        return float(self.veins[limb]["PV"].points[-1, 2])


def draw_anatomy(rng: np.random.Generator, boost: float, step_mm: float) -> Anatomy:
    """Draw a patient; ``boost`` widens vessels, ``step_mm`` separates points of a centreline."""
    scale = float(np.clip(rng.normal(1, 0.05), 0.92, 1.08))
    shift_mm = (float(rng.uniform(-8, 8)), float(rng.uniform(-2, 2)), float(rng.uniform(-12, 12)))
    trunk = Pose(1, scale, 0.0, shift_mm)
    arteries, _ = _vessels(trunk, AORTA, boost, step_mm, rng)
    cava, _ = _vessels(trunk, CAVA, boost, step_mm, rng)
    limbs: dict[str, Pose] = {}
    veins: dict[str, dict[str, Tube]] = {"right": {"IVC": cava[0]}, "left": {}}
    for limb, side in LIMBS.items():
        limbs[limb] = Pose(side, scale * rng.uniform(0.985, 1.015), rng.uniform(-0.015, 0.045), shift_mm)
        calibre = boost * rng.uniform(0.85, 1.15)
        for course in TRUNK_COURSES + BRANCH_COURSES:
            its_veins, its_arteries = _vessels(limbs[limb], course, calibre, step_mm, rng)
            veins[limb] |= {vein.name: vein for vein in its_veins}
            arteries += its_arteries
    return Anatomy(trunk, limbs, veins, arteries, fat_mm=float(rng.uniform(8, 22)))


def skin_depth(anatomy: Anatomy, frame: Frame, s: int) -> np.ndarray:
    """Depth (H, W) in mm below the skin in slice ``s``, negative in air."""
    legs = np.maximum(*(_section_depth(pose, LEG_PROFILE, frame, s) for pose in anatomy.limbs.values()))
    trunk = _section_depth(anatomy.trunk, TRUNK_PROFILE, frame, s)
    arch = PERINEUM_Z_MM - np.minimum((frame.x - anatomy.trunk.shift_mm[0]) ** 2 / 12, 150)
    trunk -= 0.8 * np.maximum(arch - anatomy.trunk.template_z(frame.z)[:, None], 0)
    # A rounded maximum: the plain one leaves a knife edge where a leg meets the trunk.
    round_mm = 12.0
    mix = np.clip(0.5 + (legs - trunk) / (2 * round_mm), 0, 1)
    return trunk + mix * (legs - trunk) + round_mm * mix * (1 - mix)


def _section_depth(pose: Pose, profile: tuple[tuple[float, ...], ...], frame: Frame, s: int) -> np.ndarray:
    """Depth (H, W) below a cylinder of elliptic sections, exact along their shorter axis."""
    heights, *columns = profile
    z = pose.template_z(frame.z)
    centre_x, centre_y, half_x, half_y = (np.interp(z, heights, column) for column in columns)
    centre = pose.place(np.stack([z, centre_x, centre_y], axis=1))
    across = (frame.x - centre[:, :1]) / (pose.scale * half_x)[:, None]
    along = (frame.y[s] - centre[:, 1:2]) / (pose.scale * half_y)[:, None]
    depth = (1 - np.sqrt(across**2 + along**2)) * (pose.scale * np.minimum(half_x, half_y))[:, None]
    return np.minimum(depth, pose.scale * (z - heights[0])[:, None])


def _vessels(
    pose: Pose, course: Course, calibre: float, step_mm: float, rng: np.random.Generator
) -> tuple[list[Tube], list[Tube]]:
    """The vein or veins of a course, and the artery if it has one."""
    points = _smooth(pose.place(np.array(course.path)), step_mm)
    along = np.linspace(0, 1, len(points))
    # Tortuosity vanishes at both ends, so that courses still meet.
    points[:, :2] += np.sin(np.pi * along[:, None] * np.arange(2, 5)) @ rng.normal(0, 0.9, (3, 2))
    vein = calibre * np.interp(along, (0, 1), course.vein_mm) / 2
    if course.artery_mm is None:
        return [Tube(course.name, course.region, points, vein)], []
    artery = calibre * np.interp(along, (0, 1), course.artery_mm) / 2
    above, below = course.sides
    sides = np.linspace(above, below, len(points))
    apart = np.stack([pose.side * sides[:, 0], -sides[:, 1], np.zeros_like(along)], axis=1)
    apart *= (1.1 * (vein + artery) / np.linalg.norm(apart, axis=1))[:, None]
    if not course.paired:
        beside = Tube(course.name, None, points + apart, artery)
        return [Tube(course.name, course.region, points, vein)], [beside]
    # A pair leaves the trunk at one place and diverges over its first tenth.
    apart *= np.minimum(along / 0.1, 1)[:, None]
    pair = [Tube(f"{course.name}-{i}", course.region, points + way * apart, vein) for i, way in ((1, -1), (2, 1))]
    return pair, [Tube(course.name, None, points, artery)]


def _smooth(nodes: np.ndarray, step_mm: float) -> np.ndarray:
    """Points (n, d) about ``step_mm`` apart on a curve through nodes (k, d); x, y, z come first."""
    chord = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(nodes[:, :3], axis=0), axis=1)))
    steps = max(int(np.ceil(chord[-1] / step_mm)), 8)
    return PchipInterpolator(chord, nodes)(np.linspace(0, chord[-1], steps + 1))


# ---- signal: what a spoiled gradient echo shows, relative to venous blood at 1 mM gadolinium ---------

FAT, MARROW, CORTEX = 0.72, 0.62, 0.03
"""From the steady state at TR 3.17 ms, TE 1.13 ms, 25 degrees, without fat suppression."""
MUSCLE = (0.24, 0.34)
"""Range over patients, who take up contrast differently. Thrombus (.19-.45) lies on both sides."""
ARTERY = (1.0, 1.3)
"""Range over patients in the venous phase."""
SHEATH_MM, CALF_SHEATH_MM = 3.0, 1.0
"""Fat around the deep trunk and around other veins, before the boost."""
RIM_MM = 0.8
"""Wall that may enhance around a clot, before the boost."""
UNFILLED = (0.16, 0.4)
"""A patent vein without contrast: thrombus, but for its calibre and its wall."""
UNIT = 1000.0
"""Stored value of signal 1."""


def paint_body(
    frame: Frame,
    anatomy: Anatomy,
    boost: float,
    contrast: np.random.Generator,
    texture: np.random.Generator,
) -> np.ndarray:
    """Everything but the veins, clean float32 (S, H, W).

    ``boost`` is that of the vessels; ``contrast`` draws the levels of muscle and arteries,
    ``texture`` the pattern of muscle.
    """
    muscle, artery = contrast.uniform(*MUSCLE), contrast.uniform(*ARTERY)
    fibres = SmoothField(texture, frame, y_mm=5, z_mm=14, x_mm=5)
    septa = SmoothField(texture, frame, y_mm=14, z_mm=60, x_mm=14)
    factor = np.interp(anatomy.trunk.template_z(frame.z), *FAT_PROFILE)
    fat_mm = anatomy.fat_mm * factor[:, None]
    image = np.empty((len(frame.y), len(frame.z), len(frame.x)), np.float32)
    for s in range(len(frame.y)):
        depth = skin_depth(anatomy, frame, s).astype(np.float32)
        lean = frame.cover(depth - fat_mm)
        septum = 0.7 * np.exp(-((septa.at_slice(s) / 0.07) ** 2))
        meat = muscle * (1 + 0.1 * fibres.at_slice(s)) * (1 - septum) + FAT * septum
        image[s] = frame.cover(depth) * (FAT + lean * (meat - FAT))
    for vein in (vein for veins in anatomy.veins.values() for vein in veins.values()):
        sheath_mm = boost * (SHEATH_MM if vein.region == "proximal" else CALF_SHEATH_MM)
        paint_tube(image, frame, vein.points, vein.radius_mm + sheath_mm, FAT)
    for pose, bones in ((anatomy.trunk, TRUNK_BONES), *((p, LEG_BONES) for p in anatomy.limbs.values())):
        for cortex_mm, spheres in bones:
            nodes = np.array(spheres, float)
            nodes = np.column_stack([pose.place(nodes[:, :3]), pose.scale * nodes[:, 3]])
            # Spheres a third of a radius apart leave ripples of 1-2 % of the radius.
            chain = _smooth(nodes, step_mm=float(nodes[:, 3].min()) / 3)
            paint_tube(image, frame, chain[:, :3], chain[:, 3], CORTEX)
            paint_tube(image, frame, chain[:, :3], chain[:, 3] - cortex_mm, MARROW)
    for tube in anatomy.arteries:
        paint_tube(image, frame, tube.points, tube.radius_mm, artery)
    return image


def paint_veins(
    image: np.ndarray, frame: Frame, anatomy: Anatomy, rng: np.random.Generator, difficulty: Difficulty
) -> None:
    """Fill the veins in place: bright at the groin, paler below the knee, some not at all."""
    calf = rng.uniform(*difficulty.calf_signal)
    for limb, veins in anatomy.veins.items():
        for vein in veins.values():
            signal = np.interp(vein.points[:, 2], (anatomy.level_mm(limb), GROIN_Z_MM), (calf, 1.0))
            share, fills, empty = rng.uniform(0.9, 1.1), rng.random(), rng.uniform(*UNFILLED)
            if vein.region == "distal":
                signal = share * signal if fills >= difficulty.unfilled else np.full_like(signal, empty)
            paint_tube(image, frame, vein.points, vein.radius_mm, signal)


def paint_tube(
    image: np.ndarray, frame: Frame, points: np.ndarray, radius_mm: np.ndarray, signal: np.ndarray | float
) -> None:
    """Blend a tube into the image in place; the signal may vary along its points, (n,)."""
    box, depth, nearest = rasterise(frame, points, radius_mm)
    along = np.broadcast_to(np.asarray(signal, np.float32), len(points))
    image[box] += frame.cover(depth) * (along[nearest] - image[box])


def rasterise(
    frame: Frame, points: np.ndarray, radius_mm: np.ndarray
) -> tuple[tuple[slice, ...], np.ndarray, np.ndarray]:
    """How deep voxels lie in a chain of spheres, points (n, 3) in LPS and radius (n,).

    Goes through the chain in short pieces, each in its own bounding box: a vein is long and thin,
    and most of its full box is far away.

    Returns:
        The box (S, H, W) around the chain; the depth in mm below the surface in that box, float32
        and very negative far outside; the index of the sphere that gives the depth.
    """
    reach = (radius_mm + frame.voxel_mm)[:, None]
    low, high = points - reach, points + reach
    box = frame.box(low.min(axis=0), high.max(axis=0))
    shape = [b.stop - b.start for b in box]
    depth, nearest = np.full(shape, -1e6, np.float32), np.zeros(shape, np.int32)
    axes = [axis.astype(np.float32) for axis in (frame.y, frame.z, frame.x)]
    for start in range(0, len(points), 8):
        piece = slice(start, start + 8)
        near = frame.box(low[piece].min(axis=0), high[piece].max(axis=0))
        x, y, z = points[piece].T.astype(np.float32)
        dy, dz, dx = ((axis[n, None] - centre) ** 2 for axis, n, centre in zip(axes, near, (y, z, x), strict=True))
        distance = np.sqrt(dy[:, None, None] + dz[None, :, None] + dx[None, None])
        depths = radius_mm[piece].astype(np.float32) - distance
        best = depths.argmax(axis=-1)
        deepest = np.take_along_axis(depths, best[..., None], axis=-1)[..., 0]
        inner = tuple(slice(n.start - b.start, n.stop - b.start) for n, b in zip(near, box, strict=True))
        closer = deepest > depth[inner]
        depth[inner][closer] = deepest[closer]
        nearest[inner][closer] = best[closer] + start
    return box, depth, nearest


def scan(image: np.ndarray, frame: Frame, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Coil sensitivity and Rician noise over a clean image (S, H, W); returns int16.

    Noise never depends on the image, so a patient with and without clot gets the same.
    """
    sensitivity = SmoothField(rng, frame, y_mm=90, z_mm=170, x_mm=150)
    # The coil ends with the field of view.
    fade = np.sin(np.pi / 2 * np.clip((frame.z[0] + 20 - np.abs(frame.z)) / 90, 0, 1))[:, None]
    stored = np.empty(image.shape, np.int16)
    for s, clean in enumerate(image):
        real, imaginary = noise * rng.standard_normal((2, *clean.shape), dtype=np.float32)
        magnitude = np.hypot(clean * fade * np.exp(0.12 * sensitivity.at_slice(s)) + real, imaginary)
        stored[s] = np.clip(np.rint(UNIT * magnitude), 0, np.iinfo(np.int16).max)
    return stored


# ---- thrombus: where clots lie and how they look -----------------------------------------------------

PATTERNS = {"proximal": 15, "both": 39, "distal": 4}
"""Regions with clot, and how many of the 58 patients of Huang 2019 have them."""
TRUNK_EXTENTS = (
    (0.12, (0.3, 0.8), (3.4, 4.0)),
    (0.22, (1.0, 1.5), (3.4, 4.0)),
    (0.26, (2.0, 2.4), (2.65, 2.95)),
    (0.25, (2.5, 2.8), (3.4, 4.0)),
    (0.15, (1.0, 1.4), (2.15, 2.5)),
)
"""Probability and ranges of the upper and lower end; 2.4 is 40 % down TRUNK_COURSES[2]."""
CALF_GROUPS = ("PER", "PTV", "SOL", "GAS")
"""Veins that tend to clot together, by the first letters of their names."""
CALF_WEIGHTS = {"both": (0.32, 0.29, 0.29, 0.10), "distal": (0.28, 0.25, 0.27, 0.20)}
"""Odds of each group; without proximal clot from Labropoulos 1999."""
CALF_COUNTS = {"both": (0.35, 0.30, 0.22, 0.13), "distal": (0.64, 0.27, 0.07, 0.02)}
"""Probability of 1 to 4 groups; source as above."""
MIN_LENGTH_MM = 30.0
"""Shortest clot of a calf vein."""
MIN_VOXELS = 4
"""Fewest label voxels of a region: a coarse grid must not lose a planned clot."""
AGES = {
    "acute": (0.48, (0.19, 0.28), (1.05, 1.2)),
    "subacute": (0.30, (0.30, 0.45), (1.0, 1.12)),
    "old": (0.22, (0.20, 0.30), (0.8, 0.95)),
}
"""Share of clots, range of signal (muscle: .24-.34), and of width relative to the vein, which fresh
clot distends and old clot shrinks."""


@dataclass(frozen=True, slots=True)
class Clot:
    """A clot in the patient, not yet on a grid."""

    limb: str
    """'left' or 'right'."""
    age: str
    """A key of ``AGES``."""
    tube: Tube
    """The stretch of vein, with the radius of the clot."""
    signal: np.ndarray
    """(n,) along the tube."""
    rim: float | None
    """Signal of the enhancing wall; None where it does not enhance."""


def draw_clots(rng: np.random.Generator, anatomy: Anatomy, pattern: str) -> list[Clot]:
    """Draw the clots of one limb; ``pattern`` is a key of ``PATTERNS``."""
    limb = str(rng.choice(list(LIMBS)))
    age = str(rng.choice(list(AGES), p=[share for share, _, _ in AGES.values()]))
    veins = anatomy.veins[limb]
    stretches = []
    if pattern != "proximal":
        if pattern == "both" and rng.random() < 0.6:
            stretches.append(veins["TPT"])
        groups = 1 + int(rng.choice(4, p=CALF_COUNTS[pattern]))
        for group in rng.choice(CALF_GROUPS, groups, replace=False, p=CALF_WEIGHTS[pattern]):
            members = [name for name in veins if name.startswith(str(group))]
            count = len(members) if rng.random() < 0.5 else 1
            stretches += [_calf_stretch(rng, veins[str(name)]) for name in rng.permutation(members)[:count]]
    if pattern != "distal":
        stretches.append(_trunk_stretch(rng, [veins[course.name] for course in TRUNK_COURSES]))
    return [_clot(rng, limb, age, stretch) for stretch in stretches]


def paint_clots(
    image: np.ndarray, frame: Frame, clots: list[Clot], rim_mm: float
) -> tuple[np.ndarray, tuple[Lesion, ...]]:
    """Draw clots over the blood in place.

    A voxel belongs to the label where clot covers at least half of it. All clots of a region are
    widened until it has ``MIN_VOXELS``. Where two regions meet, distal prevails: it has few voxels
    to lose.

    Returns:
        The label, uint8 (S, H, W), and one lesion per clot.
    """
    label = np.zeros(image.shape, np.uint8)
    clots = [clot for region in REGIONS for clot in _wide_enough(label, frame, clots, region)]
    for clot in clots:
        if clot.rim is not None:
            paint_tube(image, frame, clot.tube.points, clot.tube.radius_mm + rim_mm, clot.rim)
    lesions = []
    for clot in clots:
        tube = clot.tube
        paint_tube(image, frame, tube.points, tube.radius_mm, clot.signal)
        box, depth, _ = rasterise(frame, tube.points, tube.radius_mm)
        label[box][depth >= 0] = REGIONS[str(tube.region)]
        volume_ml = float(np.count_nonzero(depth >= 0)) * frame.voxel_mm**3 / 1000
        length_mm = float(tube.arc_mm()[-1])
        lesion = Lesion(clot.limb, str(tube.region), tube.name, clot.age, round(length_mm, 1), round(volume_ml, 3))
        lesions.append(lesion)
    return label, tuple(lesions)


def _wide_enough(label: np.ndarray, frame: Frame, clots: list[Clot], region: str) -> list[Clot]:
    """The clots of a region, wide enough to leave ``MIN_VOXELS`` in a label of this shape."""
    here = [clot for clot in clots if clot.tube.region == region]
    while here:
        covered = np.zeros(label.shape, bool)
        for clot in here:
            box, depth, _ = rasterise(frame, clot.tube.points, clot.tube.radius_mm)
            covered[box] |= depth >= 0
        if np.count_nonzero(covered) >= MIN_VOXELS:
            break
        here = [replace(c, tube=replace(c.tube, radius_mm=1.15 * c.tube.radius_mm)) for c in here]
    return here


def _calf_stretch(rng: np.random.Generator, vein: Tube) -> Tube:
    """20-60 % of a calf vein."""
    whole_mm = float(vein.arc_mm()[-1])
    length_mm = max(MIN_LENGTH_MM, whole_mm * rng.uniform(0.2, 0.6))
    start_mm = rng.uniform(0, whole_mm - length_mm)
    return vein.stretch(start_mm, start_mm + length_mm)


def _trunk_stretch(rng: np.random.Generator, veins: list[Tube]) -> Tube:
    """A stretch of the deep trunk, named after the veins that it spans."""
    _, upper, lower = TRUNK_EXTENTS[rng.choice(len(TRUNK_EXTENTS), p=[e[0] for e in TRUNK_EXTENTS])]
    start, end = rng.uniform(*upper), rng.uniform(*lower)
    points, radius_mm = (np.concatenate([getattr(v, f) for v in veins]) for f in ("points", "radius_mm"))
    name = "+".join(vein.name for vein in veins[int(start) : int(np.ceil(end))])
    trunk = Tube(name, "proximal", points, radius_mm)
    bounds_mm = np.append(0.0, np.cumsum([vein.arc_mm()[-1] for vein in veins]))
    return trunk.stretch(*np.interp((start, end), np.arange(len(bounds_mm)), bounds_mm))


def _clot(rng: np.random.Generator, limb: str, age: str, stretch: Tube) -> Clot:
    """Fill a stretch of vein: tapered ends, uneven signal, sometimes along one wall only."""
    _, levels, widths = AGES[age]
    radius = stretch.radius_mm * rng.uniform(*widths)
    share, angle = rng.uniform(0.65, 0.85), rng.uniform(0, 2 * np.pi)
    points = stretch.points
    if rng.random() < 0.3:  # not occlusive: the clot lies against the wall and blood passes it
        points = points + np.outer((1 - share) * radius, (np.cos(angle), np.sin(angle), 0))
        radius = share * radius
    arc = stretch.arc_mm()
    radius = radius * np.clip(np.minimum(arc, arc[-1] - arc) / 12, 0.4, 1)
    patches = np.interp(np.linspace(0, 1, len(points)), np.linspace(0, 1, 24), rng.normal(0, 0.03, 24))
    signal = np.clip(rng.uniform(*levels) + patches, 0.12, None)
    rim = rng.uniform(0.35, 0.6) if rng.random() < 0.6 else None
    return Clot(limb, age, replace(stretch, points=points, radius_mm=radius), signal, rim)


# ---- cohort: cases, files and the command ----------------------------------------------------------

OUR_FILE = re.compile(
    r"\.?(dataset\.json|cases\.csv)|metadata/\.?leg_\d+\.json"
    r"|(imagesTr/\.?(?P<image>leg_\d+)_0000|labelsTr/\.?(?P<label>leg_\d+))\.nii\.gz"
)
"""Every path that this tool writes in a dataset folder; a leading dot marks an interrupted write."""


def make_case(
    scale: str, seed: int, index: int, pattern: str, difficulty: str = "default", thrombus: bool = True
) -> PhantomCase:
    """Draw and sample one patient.

    Args:
        scale: a key of ``SCALES``.
        seed: of the cohort.
        index: number of the case in the cohort, from 1.
        pattern: a key of ``PATTERNS``.
        difficulty: a key of ``DIFFICULTIES``.
        thrombus: False gives the same patient, scanned with the same noise, without clot.
    """
    size, level = SCALES[scale], DIFFICULTIES[difficulty]
    rng = {name: np.random.default_rng([seed, index, stream]) for name, stream in STREAMS.items()}
    frame = Frame.of(size)
    anatomy = draw_anatomy(rng["anatomy"], size.boost, step_mm=0.4 * frame.voxel_mm)
    image = paint_body(frame, anatomy, size.boost, rng["contrast"], rng["anatomy"])
    paint_veins(image, frame, anatomy, rng["contrast"], level)
    clots = draw_clots(rng["thrombus"], anatomy, pattern) if thrombus else []
    label, lesions = paint_clots(image, frame, clots, rim_mm=RIM_MM * size.boost)
    return PhantomCase(
        image=scan(image, frame, rng["artefact"], level.noise),
        label=label,
        spacing_mm=size.spacing_mm,
        origin_mm=(float(frame.x[0]), float(frame.y[0]), float(frame.z[0])),
        direction=DIRECTION,
        level_left_mm=anatomy.level_mm("left"),
        level_right_mm=anatomy.level_mm("right"),
        midline_mm=anatomy.trunk.shift_mm[0],
        lesions=lesions,
    )


def draw_patterns(cases: int, seed: int) -> list[str]:
    """The pattern of each case, in the proportions of ``PATTERNS``; all three from 8 cases on."""
    if cases < 1:
        raise ValueError(f"a cohort needs at least one case, not {cases}")
    total = sum(PATTERNS.values())
    counts = {p: max(cases * n // total, int(cases >= 8)) for p, n in PATTERNS.items()}
    counts["both"] += cases - sum(counts.values())
    rng = np.random.default_rng([seed, 0, STREAMS["cohort"]])
    return [str(p) for p in rng.permutation([p for p, n in counts.items() for _ in range(n)])]


def make_cohort(
    root: Path,
    dataset: str = "Phantom",
    scale: str = "tiny",
    cases: int | None = None,
    seed: int = 0,
    difficulty: str = "default",
    jobs: int = 1,
    thrombus: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write a cohort to ``root/datasets_raw/dataset`` and return that folder.

    ``dataset.json`` comes last: a folder without it is incomplete.

    Args:
        cases: how many; None takes the default of the scale.
        jobs: processes; they have no influence on what is written.
        overwrite: replace an earlier cohort of this tool and this name.

    Raises:
        FileExistsError: if the folder holds anything that may not be replaced. Nothing is written.
    """
    folder = Path(root) / "datasets_raw" / dataset
    patterns = draw_patterns(SCALES[scale].cases if cases is None else cases, seed)
    present = sorted(folder.rglob("*")) if folder.exists() else []
    if present and not overwrite:
        raise FileExistsError(f"{folder} already holds files; name another --dataset or add --overwrite.")
    if foreign := _foreign(folder, present):
        raise FileExistsError(f"{folder}: {foreign}, so --overwrite spares it; name another --dataset.")
    # In this order metadata goes last, and what an interruption leaves is still known as ours.
    for path in (p for p in present if not p.is_dir()):
        path.unlink()
    for name in ("imagesTr", "labelsTr", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    work = [(folder, scale, seed, i, p, difficulty, thrombus) for i, p in enumerate(patterns, start=1)]
    with ProcessPoolExecutor(jobs) if jobs > 1 else nullcontext() as pool:
        written = pool.map(_write_case, work) if pool else map(_write_case, work)
        rows = list(tqdm(written, desc=dataset, total=len(work), unit="case"))
    table = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"
    _replace(folder / "cases.csv", lambda temporary: temporary.write_text(table))
    description = {
        "name": dataset,
        "channel_names": {"0": "CE-MR"},
        "labels": {"background": 0, **REGIONS},
        "numTraining": len(rows),
        "file_ending": ".nii.gz",
    }
    _write_json(folder / "dataset.json", description)
    return folder


def _foreign(folder: Path, present: list[Path]) -> str | None:
    """Why these paths of a folder are not all an earlier cohort of the same name; None if they are."""
    names = {p.relative_to(folder).as_posix(): p for p in present if not p.is_dir()}
    for name, path in names.items():
        match = OUR_FILE.fullmatch(name)
        if not match:
            return f"{name} is no file of this tool"
        case = match["image"] or match["label"]
        if case and f"metadata/{case}.json" not in names:
            return f"{name} has no metadata of this tool"
        if name == "dataset.json" and f'"name": "{folder.name}"' not in path.read_text():
            return "dataset.json names another dataset"
    return None


def _write_case(work: tuple[Path, str, int, int, str, str, bool]) -> dict[str, str]:
    """Make and write one case; returns its row of ``cases.csv``."""
    folder, scale, seed, index, pattern, difficulty, thrombus = work
    case = make_case(scale, seed, index, pattern, difficulty, thrombus)
    name = f"leg_{index:03d}"
    levels = {
        "level_left_mm": round(case.level_left_mm, 2),
        "level_right_mm": round(case.level_right_mm, 2),
        "midline_mm": round(case.midline_mm, 2),
    }
    metadata = {
        "case": name,
        "seed": seed,
        "version": VERSION,
        "scale": scale,
        "difficulty": difficulty,
        "pattern": pattern,
        "thrombus": thrombus,
        "spacing_mm": case.spacing_mm,
        **levels,
        "lesions": [asdict(lesion) for lesion in case.lesions],
    }
    _write_json(folder / "metadata" / f"{name}.json", metadata)
    _write_nifti(folder / "imagesTr" / f"{name}_0000.nii.gz", case.image, case)
    _write_nifti(folder / "labelsTr" / f"{name}.nii.gz", case.label, case)
    return {"case_id": name, "patient_id": f"patient_{index:03d}", **{k: str(v) for k, v in levels.items()}}


def _write_nifti(path: Path, array: np.ndarray, case: PhantomCase) -> None:
    """Write an array (S, H, W) on the grid of a case."""
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(case.spacing_mm[::-1])
    volume.SetOrigin(case.origin_mm)
    volume.SetDirection(np.array(case.direction[::-1]).T.ravel().tolist())
    _replace(path, lambda temporary: sitk.WriteImage(volume, str(temporary), useCompression=True))


def _write_json(path: Path, content: dict[str, object]) -> None:
    _replace(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the path and rename, so that nobody meets half a file."""
    temporary = path.with_name(f".{path.name}")
    write(temporary)
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Write a synthetic leg vein thrombosis cohort.")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds datasets_raw/")
    parser.add_argument("--dataset", type=_dataset_name, default="Phantom", help="name of the dataset")
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="size of the volumes")
    parser.add_argument("--cases", type=_at_least(1), help="how many; default depends on the scale")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="equal seeds give equal cohorts")
    parser.add_argument("--difficulty", choices=DIFFICULTIES, default="default")
    parser.add_argument("--jobs", type=_at_least(1), default=1, help="cases made at the same time")
    parser.add_argument("--thrombus-off", action="store_true", help="the same patients without clot")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier cohort of this name")
    options = vars(parser.parse_args(arguments))
    try:
        folder = make_cohort(thrombus=not options.pop("thrombus_off"), **options)
    except OSError as error:
        print(f"make_phantom: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


def _dataset_name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder name of letters, digits, '_', '-' and '.'")
    return text


def _at_least(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} up")
        return int(text)

    return parse


if __name__ == "__main__":
    sys.exit(main())
