"""Draw clots (location, extent, appearance), paint them, and give their exact label."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phantom import signals
from phantom.anatomy import LIMBS, Anatomy
from phantom.grid import Frame
from phantom.shapes import Tube, paint_tube, rasterise
from phantom.signals import Look
from phantom.template import TRUNK_COURSES

REGIONS = {"proximal": 1, "distal": 2}
"""Label value of each region. The vein decides, not the height: popliteal vein and above are proximal."""
TRUNK_EXTENTS = (
    (0.12, (0.3, 0.8), (3.4, 4.0)),
    (0.22, (1.0, 1.5), (3.4, 4.0)),
    (0.26, (2.05, 2.4), (2.6, 2.9)),
    (0.25, (2.55, 2.85), (3.3, 4.0)),
    (0.15, (1.0, 1.4), (2.1, 2.4)),
)
"""Probability, and ranges of the upper and lower end; 2.4 is 40 % along TRUNK_COURSES[2]."""
CALF_GROUPS = ("PER", "PTV", "SOL", "GAS")
"""Veins that tend to clot together, by the prefix of their names."""
CALF_WEIGHTS = {"both": (0.32, 0.29, 0.29, 0.10), "distal": (0.28, 0.25, 0.27, 0.20)}
"""Probability of each group; without proximal clot from Labropoulos 1999."""
CALF_COUNTS = {"both": (0.35, 0.30, 0.22, 0.13), "distal": (0.645, 0.27, 0.07, 0.015)}
"""Probabilities of 1 to 4 groups; source as above."""
TIBIOPERONEAL = 0.6
"""Probability that the tibioperoneal trunk is clotted too, if popliteal and calf veins are."""
CALF_SHARE = (0.2, 0.6)
"""Range of the share of a calf vein that is clotted."""
MIN_LENGTH_MM = 30.0
"""Shortest clot of a calf vein."""
MIN_VOXELS = 4
"""Fewest label voxels of a region, so that a coarse grid does not lose a planned clot."""


@dataclass(frozen=True, slots=True)
class Age:
    """Appearance of thrombus of one age."""

    share: float
    """Share of patients (CAVA venography: 27, 17 and 12 of 56)."""
    tissue: signals.Tissue
    """Tissue parameters except T1."""
    t1_ms: tuple[float, float]
    """Range of T1; the longer, the darker."""
    width: tuple[float, float]
    """Range of the diameter relative to the vein, which fresh clot distends and old clot shrinks."""


AGES = {
    "acute": Age(0.48, signals.CLOT, (850, 1200), (1.0, 1.2)),
    "subacute": Age(0.30, signals.CLOT, (500, 800), (1.0, 1.12)),
    "old": Age(0.22, signals.CLOT, (800, 1150), (0.7, 0.95)),
}
"""Signal .19 to .27, .28 to .45 and .20 to .28; muscle is .27 to .37."""
TEXTURE, TEXTURE_MM = 0.03, 6.0
"""Standard deviation of the signal along a clot, and its correlation length."""
TEXTURE_NODES = 160
"""More than the longest clot needs."""
OCCLUSIVE = 0.7
"""Share of clots that fill the vein; blood flows past the others."""
RIM_MM = 0.8
"""Thickness of the wall that may enhance around a clot, before the boost."""
RIM, RIM_SIGNAL = 0.6, (0.35, 0.6)
GAP, GAP_MM = 0.2, (10.0, 25.0)
"""Probability of a gap in a clot, and its length."""
CHANNEL = 0.4
"""Probability that an old clot is recanalised; the label includes the channel."""
TAPER_MM = (6.0, 30.0)
"""Range of the length over which an end grows to full width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clot:
    """A continuous stretch of thrombus in the patient, not yet on a grid."""

    limb: str
    """'left' or 'right'."""
    age: str
    """A key of ``AGES``."""
    occlusive: bool
    """Whether it fills its vein."""
    tube: Tube
    """The stretch of vein with the radius of the clot; its name joins the veins from upper to lower by '+'."""
    vein: np.ndarray
    """(n,) name of the vein at each point."""
    lumen_mm: np.ndarray
    """(n,) radius of the vein without clot."""
    signal: np.ndarray
    """(n,) signal along the tube."""
    rim: float | None
    """Signal of the enhancing wall; None where it does not enhance."""
    channel: float | None
    """Signal of a channel through its centre; None without a channel."""

    @property
    def region(self) -> str:
        """Region of its vein: a key of ``REGIONS``."""
        return str(self.tube.region)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """All thrombus of one region of one limb: the unit that Huang 2019 counts."""

    limb: str
    region: str
    veins: tuple[str, ...]
    """Every vein with clot."""
    age: str
    """'acute', 'subacute' or 'old'."""
    occlusive: bool
    """Whether every stretch fills its vein."""
    pieces: int
    """Number of continuous stretches."""
    length_mm: float
    """Sum of the centreline lengths."""
    volume_ml: float
    """Volume of the voxels of the exact label."""


def draw_clots(rng: np.random.Generator, anatomy: Anatomy, pattern: str, bilateral: bool) -> list[Clot]:
    """Draw the clots of a patient.

    Args:
        rng: random stream of the thrombus.
        anatomy: the patient.
        pattern: 'proximal', 'distal' or 'both'.
        bilateral: whether the other limb has proximal clot too.
    """
    limb = str(rng.choice(list(LIMBS)))
    age = str(rng.choice(list(AGES), p=[age.share for age in AGES.values()]))
    veins = anatomy.veins[limb]
    stretches = []
    if pattern != "proximal":
        if pattern == "both" and rng.random() < TIBIOPERONEAL:
            stretches.append(veins["TPT"])
        groups = 1 + int(rng.choice(4, p=CALF_COUNTS[pattern]))
        for group in rng.choice(CALF_GROUPS, groups, replace=False, p=CALF_WEIGHTS[pattern]):
            members = [name for name in veins if name.startswith(str(group))]
            count = len(members) if rng.random() < 0.5 else 1
            stretches += [_calf_stretch(rng, veins[str(name)]) for name in rng.permutation(members)[:count]]
    clots = [clot for stretch in stretches for clot in _clots(rng, limb, age, stretch, None)]
    if pattern != "distal":
        for side in [limb, *(other for other in LIMBS if other != limb and bilateral)]:
            stretch, names = _trunk_stretch(rng, [anatomy.veins[side][course.name] for course in TRUNK_COURSES])
            clots += _clots(rng, side, age, stretch, names)
    return clots


def widen(frame: Frame, clots: list[Clot]) -> list[Clot]:
    """Return the clots, widened where a region would have fewer than ``MIN_VOXELS`` voxels on this grid."""
    wide: list[Clot] = []
    for region in REGIONS:
        here = [clot for clot in clots if clot.region == region]
        while here and np.count_nonzero(truth_label(frame, here)) < MIN_VOXELS:
            here = [replace(c, tube=replace(c.tube, radius_mm=1.15 * c.tube.radius_mm)) for c in here]
        wide += here
    return wide


def truth_label(frame: Frame, clots: list[Clot]) -> np.ndarray:
    """Return the exact label, uint8 (S, H, W): voxels that clot covers by at least half.

    Where two regions meet, distal takes precedence, because it has few voxels.
    """
    label = np.zeros(frame.shape, np.uint8)
    for clot in sorted(clots, key=lambda clot: REGIONS[clot.region]):
        box, depth, _ = rasterise(frame, clot.tube.points, clot.tube.radius_mm)
        label[box][depth >= 0] = REGIONS[clot.region]
    return label


def paint_clots(
    image: np.ndarray,
    veins_map: np.ndarray,
    frame: Frame,
    clots: list[Clot],
    look: Look,
    boost: float,
    ids: dict[tuple[str, str], int],
) -> None:
    """Paint clots over the blood in place, and add distended veins to the map of veins."""
    for clot in clots:
        points, radius = clot.tube.points, clot.tube.radius_mm
        if clot.age == "old" and clot.occlusive:  # the vein has shrunk around it
            paint_tube(image, frame, points, clot.lumen_mm, look.fat_signal())
        if clot.rim is not None:
            paint_tube(image, frame, points, radius + RIM_MM * boost, clot.rim)
        paint_tube(image, frame, points, radius, clot.signal)
        if clot.channel is not None:
            paint_tube(image, frame, points, 0.3 * radius, clot.channel)
        box, depth, nearest = rasterise(frame, points, radius)
        numbers = np.array([ids[clot.limb, str(name)] for name in clot.vein], np.uint8)
        inside = depth >= 0
        veins_map[box][inside] = numbers[nearest[inside]]


def lesions_of(frame: Frame, clots: list[Clot]) -> list[Lesion]:
    """Return one lesion for each limb and region with thrombus, proximal first."""
    lesions = []
    for region in REGIONS:
        for limb in LIMBS:
            here = [clot for clot in clots if (clot.region, clot.limb) == (region, limb)]
            if not here:
                continue
            voxels = np.count_nonzero(truth_label(frame, here))
            length = sum(float(clot.tube.arc_mm()[-1]) for clot in here)
            lesions.append(
                Lesion(
                    limb=limb,
                    region=region,
                    veins=tuple(dict.fromkeys(str(name) for clot in here for name in clot.vein)),
                    age=here[0].age,
                    occlusive=all(clot.occlusive for clot in here),
                    pieces=len(here),
                    length_mm=round(length, 1),
                    volume_ml=round(voxels * float(np.prod(frame.spacing_mm)) / 1000, 3),
                )
            )
    return lesions


def _calf_stretch(rng: np.random.Generator, vein: Tube) -> Tube:
    whole_mm = float(vein.arc_mm()[-1])
    length_mm = min(max(MIN_LENGTH_MM, whole_mm * rng.uniform(*CALF_SHARE)), whole_mm)
    start_mm = rng.uniform(0, whole_mm - length_mm)
    return vein.stretch(start_mm, start_mm + length_mm)


def _trunk_stretch(rng: np.random.Generator, veins: list[Tube]) -> tuple[Tube, np.ndarray]:
    """Return a stretch of the deep trunk, named after the veins that it spans, and the vein of each point."""
    _, upper, lower = TRUNK_EXTENTS[rng.choice(len(TRUNK_EXTENTS), p=[e[0] for e in TRUNK_EXTENTS])]
    start, end = rng.uniform(*upper), rng.uniform(*lower)
    points, radius_mm = (np.concatenate([getattr(v, f) for v in veins]) for f in ("points", "radius_mm"))
    names = np.concatenate([np.full(len(vein.points), vein.name) for vein in veins])
    trunk = Tube("trunk", "proximal", points, radius_mm)
    bounds_mm = np.append(0.0, np.cumsum([vein.arc_mm()[-1] for vein in veins]))
    start_mm, end_mm = np.interp((start, end), np.arange(len(bounds_mm)), bounds_mm)
    arc = trunk.arc_mm()
    names = names[(arc >= start_mm) & (arc <= end_mm)]
    return replace(trunk.stretch(start_mm, end_mm), name="+".join(dict.fromkeys(names))), names


def _clots(rng: np.random.Generator, limb: str, age: str, stretch: Tube, names: np.ndarray | None) -> list[Clot]:
    """Fill a stretch of vein with clot: tapered ends, uneven signal, sometimes mural or with a gap."""
    if names is None:
        names = np.full(len(stretch.points), stretch.name)
    looks = AGES[age]
    width = stretch.radius_mm * rng.uniform(*looks.width)
    occlusive = bool(rng.random() < OCCLUSIVE)
    share, angle = rng.uniform(0.65, 0.85), rng.uniform(0, 2 * np.pi)
    points = stretch.points
    if not occlusive:  # the clot lies at the wall and blood flows past it
        points = points + np.outer((1 - share) * stretch.radius_mm, (np.cos(angle), np.sin(angle), 0))
        width = share * np.minimum(width, stretch.radius_mm)
    arc = stretch.arc_mm()
    level = float(signals.spgr(replace(looks.tissue, t1_ms=rng.uniform(*looks.t1_ms))).real)
    # A fixed number of draws, so that a coarser centreline does not change later random numbers.
    nodes = TEXTURE_MM * np.arange(TEXTURE_NODES)
    signal = np.clip(level + np.interp(arc, nodes, rng.normal(0, TEXTURE, TEXTURE_NODES)), 0.12, None)
    rim_signal = rng.uniform(*RIM_SIGNAL)
    rim = float(rim_signal) if rng.random() < RIM else None
    channel = float(rng.uniform(0.4, 0.8)) if rng.random() < CHANNEL and age == "old" and occlusive else None
    gap_mm, gap_at = rng.uniform(*GAP_MM), rng.uniform(0.3, 0.7)
    tapers_mm = rng.uniform(*TAPER_MM, size=4)
    ends = [(0.0, arc[-1])]
    if rng.random() < GAP and arc[-1] > 2.5 * gap_mm + 2 * MIN_LENGTH_MM:
        ends = [(0.0, gap_at * arc[-1]), (gap_at * arc[-1] + gap_mm, arc[-1])]
    pieces = []
    for number, (start, end) in enumerate(ends):
        part = (arc >= start) & (arc <= end)
        rise = np.clip((arc[part] - start) / tapers_mm[2 * number], 0.4, 1)
        fall = np.clip((end - arc[part]) / tapers_mm[2 * number + 1], 0.4, 1)
        tube = Tube(
            "+".join(dict.fromkeys(names[part])), stretch.region, points[part], width[part] * np.minimum(rise, fall)
        )
        pieces.append(
            Clot(
                limb=limb,
                age=age,
                occlusive=occlusive,
                tube=tube,
                vein=names[part],
                lumen_mm=stretch.radius_mm[part],
                signal=signal[part],
                rim=rim,
                channel=channel,
            )
        )
    return pieces
