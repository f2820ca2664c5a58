"""The knee joint line and the level below it where calf veins begin, found in an image of the legs.

Two things mark a knee whatever the sequence and its contrast. From outside: the thigh tapers down to it, the calf
below does not. From inside: nearly everything in a leg runs along it, but the joint is a plate across it, of bone
against cartilage, wide as both condyles. So what is searched is a place where the signal changes along the leg in the
same way over several square centimetres, and of such places only one where the outline bends as at a knee. Where
there is none, nothing is guessed.

The work is done on a coarse copy with the axes (Z, Y, X), which run from head to foot, from front to back and from
right to left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from dvtplan.anatomy.levels import Levels
from dvtplan.core import worker_pool
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, anatomical_axes, to_slice_order

LEVEL_BELOW_KNEE_MM = 65.0
"""From the joint line down to the level. The popliteal artery divides 69 mm (28 limbs, SD 12 to 20) below the lower
edge of the femoral condyles (Barut 2009), which is taken to lie some 4 mm above the middle of the joint. That the veins
join where the artery divides is an assumption."""

COARSE_MM = {"LR": 5.0, "AP": 5.0, "SI": 3.0}
"""Voxels of the coarse copy are up to this long; those of the image where they are longer."""
OBLIQUE = 0.02
"""A grid is turned in its coronal plane where its axes are at least so far (radians) from the body's."""

PLATE_MM = 2.5, 5.0
"""Widths (SD of Gaussians) along the leg whose difference answers to a joint space."""
PATCH_MM = 8.0
"""SD of the patch across the leg over which such an answer must agree."""
OUTLINE_MM = 4.0
"""SD over which the image is smoothed to see its outline, in which noise makes no holes then."""
JOINT_MM = 15.0
"""Half of the height up to which what is dark along the leg is a joint inside the outline and no gap in it."""
DARK = 0.3
"""Of the mean signal: what is darker counts as this bright."""
EVEN_MM = 10.0
"""SD of the stretch along the leg over which the signal is taken to be 1."""
SKIN_MM = 10.0
"""What lies this near the outline is left out: there the outline itself would answer."""
AROUND_MM = 120.0
"""How far up and down other structures are looked at, above which the joint has to stand out."""

TWO_LIMBS = 0.75
"""There are two limbs where the silhouette has a valley below this share of the lower of its sides."""
ROOM_MM = 70.0
"""How much of the leg must be seen above and below a joint."""
ABOVE_MM, BELOW_MM = 100.0, 60.0
"""Where the width above and below is compared with that at the joint."""
ABOVE, BELOW = (1.03, 1.8), (0.9, 1.25)
"""Between which the width there over that at the joint must lie: a thigh above, no taper below."""
IN_VIEW = 0.6
"""Least depth of a leg over its greatest, here and there; where it is less the leg leaves a slab that lies askew."""
LINES_MM = 40.0
"""Depth of a leg over which its width is taken."""
BEND = 0.03
"""Least difference of the tapers above and below, as logarithms of widths over 100 mm; it is 0 in a cone."""
NARROWEST_MM, WIDEST_MM = 88.0, 200.0
"""Between which a knee's width lies; an ankle is narrower, a trunk wider."""
TOUCHING = 0.5
"""Legs are apart where the body between them is less deep than this share of its deepest: knees may touch."""
APART_SHARE = 0.8
"""So much of the leg around a knee is apart from the other; where a trunk begins it is less."""
FOOT_MM = 150.0
"""A leg that ends sooner below a joint ends in a foot, and the joint is an ankle."""
SHARPNESS = 2.0
"""Least answer at a joint over the median around it."""
LEAST_CM2 = 0.5
"""Least answer at a joint beyond that median; a joint of full contrast has some 10."""
BESIDE_MM, LEAD = 25.0, 1.15
"""At places further off the answer, less the median, must be smaller by this factor."""
APART_MM = 30.0
"""Joint lines of both limbs differ at most by this."""
ALONE = 1.25
"""Factor on ``SHARPNESS`` where the other leg shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limb:
    """What was found in one leg."""

    knee_mm: float | None = None
    """LPS z of the knee joint line."""
    sharpness: float = 0.0
    """Answer at the joint line over the median around it; of the best place where none was accepted, 0 without one."""
    reason: str = ""
    """Why there is no joint line; empty where there is one."""

    @property
    def level_mm(self) -> float | None:
        """LPS z where distal begins, ``LEVEL_BELOW_KNEE_MM`` below the joint line."""
        return None if self.knee_mm is None else self.knee_mm - LEVEL_BELOW_KNEE_MM


@dataclass(frozen=True, slots=True, kw_only=True)
class Landmarks:
    """What was found in an image."""

    left: Limb
    right: Limb
    midline_mm: float | None = None
    """LPS x between the legs, or beside the only one; none where no leg was found."""

    @property
    def levels(self) -> Levels | None:
        """As everything else takes them; none without any joint line."""
        left, right = self.left.level_mm, self.right.level_mm
        if left is None and right is None:
            return None
        return Levels(left_mm=left, right_mm=right, midline_mm=self.midline_mm)

    @property
    def text(self) -> str:
        """What was found, or why nothing, in words."""
        told = []
        for name, limb in (("left", self.left), ("right", self.right)):
            found = limb.reason if limb.knee_mm is None else f"knee joint line at z {limb.knee_mm:.0f} mm"
            told.append(f"{name}: {found}")
        if self.left.reason == self.right.reason != "":
            return self.left.reason
        return "; ".join(told)


def estimate(image: np.ndarray, grid: Grid) -> Landmarks:
    """Find the knee joint line of each leg.

    Args:
        image: any array order, any units and any contrast; shape ``grid.shape``.
        grid: where its voxels are. Heights are LPS z, also of an oblique or flipped grid.

    Returns:
        What was found; a leg whose knee is out of view, or does not stand out, has a reason and no joint line. A
        single leg is left or right as it lies in the scanner, which may be wrong; its level holds for the scan.

    Raises:
        ValueError: if image and grid differ in shape.
    """
    if image.shape != grid.shape:
        raise ValueError(f"image {image.shape} does not fit its grid {grid.shape}")
    volume, coarse = _coarse(image, grid)
    body = _silhouette(volume, coarse)
    if not body.any():
        return _none("no leg in view: the image has no bright body before a dark background")
    height, depth, width = coarse.shape
    columns = np.stack(np.broadcast_arrays((height - 1) / 2, (depth - 1) / 2, np.arange(width)), axis=-1)
    x_mm = coarse.position_mm(columns)[:, 0]
    depth_mm = body.sum(axis=1) * coarse.spacing_mm[1]
    valley = _valley(depth_mm)
    answer = _answer(volume, body, coarse)
    if valley is None:
        return _one_leg(answer, body, coarse, x_mm)
    midline = _between(depth_mm > 0, valley, x_mm)
    apart = _apart(depth_mm, valley, coarse)
    right, left = (_joints(answer, body & side, coarse, apart) for side in (x_mm < midline, x_mm >= midline))
    of_left, of_right = _of_two(left, right)
    return Landmarks(left=of_left, right=of_right, midline_mm=midline)


def _none(reason: str) -> Landmarks:
    return Landmarks(left=Limb(reason=reason), right=Limb(reason=reason))


def _one_leg(answer: np.ndarray, body: np.ndarray, grid: Grid, x_mm: np.ndarray) -> Landmarks:
    """A single leg, on the side of the scanner's middle on which it lies; the midline passes beside it."""
    found = _of_one(_joints(answer, body, grid, np.ones(len(body), bool)), SHARPNESS)
    there = x_mm[body.any(axis=(0, 1))]
    other = Limb(reason="no second leg in view")
    if there.mean() >= 0:
        return Landmarks(left=found, right=other, midline_mm=float(there.min() - grid.spacing_mm[2]))
    return Landmarks(left=other, right=found, midline_mm=float(there.max() + grid.spacing_mm[2]))


# --- which place is the joint ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joint:
    """A place in a leg where the outline bends as at a knee, and something answers like a joint line."""

    z_mm: float
    beyond_cm2: float
    """Its answer less the median around it."""
    sharpness: float
    """Its answer over that median."""

    def stands_out(self, least: float) -> bool:
        """Whether it is more than what other structures answer."""
        return self.sharpness >= least and self.beyond_cm2 >= LEAST_CM2

    def is_beside(self, other: _Joint) -> bool:
        """Whether both may be one joint."""
        return abs(self.z_mm - other.z_mm) <= BESIDE_MM


def _of_one(joints: Sequence[_Joint], least: float) -> Limb:
    """The joint line of one leg from its places, the clearest first, by itself."""
    if not joints:
        return Limb(reason="no knee in view: nowhere does the outline bend as between a thigh and a calf")
    best, *others = joints
    if not best.stands_out(least):
        return Limb(
            sharpness=best.sharpness, reason="no knee in view: no joint line stands out where the outline bends"
        )
    if any(LEAD * other.beyond_cm2 > best.beyond_cm2 and not other.is_beside(best) for other in others):
        return Limb(sharpness=best.sharpness, reason="no knee found: two places look like a joint line")
    return Limb(knee_mm=best.z_mm, sharpness=best.sharpness)


def _of_two(left: Sequence[_Joint], right: Sequence[_Joint]) -> tuple[Limb, Limb]:
    """The joint lines of both legs, which lie nearly at one height; of one leg alone it must be clearer."""
    of_left, of_right = ([joint for joint in joints if joint.stands_out(SHARPNESS)] for joints in (left, right))
    if not (of_left and of_right):
        return _of_one(left, ALONE * SHARPNESS), _of_one(right, ALONE * SHARPNESS)
    level = [(one, other) for one in of_left for other in of_right if abs(one.z_mm - other.z_mm) <= APART_MM]
    if not level:
        apart = abs(of_left[0].z_mm - of_right[0].z_mm)
        reason = f"no knee found: what looks like a joint line lies {apart:.0f} mm higher in one leg than in the other"
        return Limb(sharpness=left[0].sharpness, reason=reason), Limb(sharpness=right[0].sharpness, reason=reason)

    def both_cm2(pair: tuple[_Joint, _Joint]) -> float:
        return pair[0].beyond_cm2 + pair[1].beyond_cm2

    best, *others = sorted(level, key=both_cm2, reverse=True)
    if any(
        LEAD * both_cm2(pair) > both_cm2(best) and not pair[0].is_beside(best[0]) and not pair[1].is_beside(best[1])
        for pair in others
    ):
        reason = "no knee found: two places look like a joint line"
        return Limb(sharpness=best[0].sharpness, reason=reason), Limb(sharpness=best[1].sharpness, reason=reason)
    one, other = (Limb(knee_mm=joint.z_mm, sharpness=joint.sharpness) for joint in best)
    return one, other


# --- a coarse copy --------------------------------------------------------------------------------


def _coarse(image: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Means over blocks of voxels, float32 (Z, Y, X), and their grid, whose axes run along those of the body."""
    factors = [
        max(1, int(COARSE_MM[name] / spacing + 1e-6))
        for (name, _), spacing in zip(anatomical_axes(grid), grid.spacing_mm, strict=True)
    ]
    factors = [min(k, n) for k, n in zip(factors, image.shape, strict=True)]
    volume = image
    for axis, k in enumerate(factors):
        n = volume.shape[axis] // k * k
        parts = [volume[(slice(None),) * axis + (slice(i, n, k),)] for i in range(k)]
        total = parts[0].astype(np.float32)
        for part in parts[1:]:
            total += part
        volume = total / np.float32(k)
    volume = np.nan_to_num(volume, posinf=0, neginf=0)
    x, y, z = grid.position_mm((np.array(factors) - 1) / 2).tolist()
    a, b, c = (s * k for s, k in zip(grid.spacing_mm, factors, strict=True))
    shrunk = Grid(shape=volume.shape, spacing_mm=(a, b, c), origin_mm=(x, y, z), direction=grid.direction)
    order = to_slice_order(shrunk, "SI")
    upright = order.grid(shrunk)
    volume = np.ascontiguousarray(order.apply(volume))
    return _straight(volume, upright)


def _straight(volume: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """A volume (Z, Y, X) turned within its coronal plane until X runs along LPS x, where it does not yet.

    A coronal slab that is tilted towards the back stays as it is: it was tilted to follow the legs, and its faces,
    cut by level rows, would look like many plates.
    """
    axes = np.asarray(grid.direction)
    back = axes[1]
    left = np.array([1.0, 0.0, 0.0]) - back[0] * back
    left /= np.linalg.norm(left)
    if np.linalg.norm(left - axes[2]) < OBLIQUE:
        return volume, grid
    turned = np.stack([np.cross(back, left), back, left])
    reach = (grid.corners_mm() - np.asarray(grid.origin_mm)) @ turned.T
    start, end = reach.min(axis=0), reach.max(axis=0)
    height, depth, width = (int(n) for n in np.floor((end - start) / np.asarray(grid.spacing_mm) + 1e-6) + 1)
    x, y, z = (np.asarray(grid.origin_mm) + start @ turned).tolist()
    down, behind, beside = (tuple(axis) for axis in turned.tolist())
    straight = Grid(
        shape=(height, depth, width),
        spacing_mm=grid.spacing_mm,
        origin_mm=(x, y, z),
        direction=(down, behind, beside),
    )
    to_index = np.linalg.inv(grid.steps_mm)  # LPS less origin -> index, from the right
    matrix = (straight.steps_mm @ to_index).T
    offset = start @ turned @ to_index
    dark = float(volume.min())
    return ndimage.affine_transform(volume, matrix, offset, straight.shape, order=1, cval=dark), straight


# --- the outline ----------------------------------------------------------------------------------


def _silhouette(volume: np.ndarray, grid: Grid) -> np.ndarray:
    """The body without its holes, boolean (Z, Y, X)."""
    volume = ndimage.gaussian_filter(volume, [OUTLINE_MM / size for size in grid.spacing_mm], truncate=2)
    low, high = np.percentile(volume, (1, 99))
    if not high > low:
        return np.zeros(volume.shape, bool)
    # The root keeps bright fat from drawing the threshold above muscle.
    root = np.sqrt(np.clip((volume - low) / (high - low), 0, 1))
    body = root > _otsu(root)
    # A joint may be as dark as air, and open to the front and the back of a slab; outlines change more slowly.
    pole = np.ones((1 + 2 * round(JOINT_MM / grid.spacing_mm[0]), 1, 1), bool)
    body = ndimage.binary_erosion(ndimage.binary_dilation(body, pole), pole, border_value=1)
    # A section of a leg has no bays at the front or the back that matter here, and thin skin closes dark bone.
    body = np.maximum.accumulate(body, axis=1) & np.maximum.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    speck = np.ones((1, 3 if volume.shape[1] > 2 else 1, 3), bool)
    body = ndimage.binary_dilation(ndimage.binary_erosion(body, speck, border_value=1), speck)
    labels, n = ndimage.label(body)
    if n > 1:
        sizes = np.bincount(labels.reshape(-1))
        sizes[0] = 0
        body = (sizes >= 0.1 * sizes.max())[labels]
    return body


def _otsu(values: np.ndarray) -> float:
    """The threshold that divides values of 0 to 1 into the two classes furthest apart (Otsu 1979)."""
    counts, edges = np.histogram(values, 256, (0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    between = (mass[-1] * below - mass * below[-1]) ** 2 / np.maximum(below * above.astype(float), 1)
    return float(edges[1 + int(between.argmax())])


def _valley(depth_mm: np.ndarray) -> int | None:
    """The column between two legs, from the depth of the silhouette (Z, X); none where there is one leg."""
    whole = ndimage.gaussian_filter1d(depth_mm.sum(axis=0), 2.0)
    share = np.cumsum(whole) / whole.sum()
    inner = np.flatnonzero((share > 0.15) & (share < 0.85))
    if not len(inner):
        return None
    column = int(inner[whole[inner].argmin()])
    sides = min(whole[:column].max(initial=0), whole[column + 1 :].max(initial=0))
    return column if whole[column] < TWO_LIMBS * sides else None


def _between(there: np.ndarray, column: int, x_mm: np.ndarray) -> float:
    """LPS x in the middle of the gap between the legs: its median over the rows (Z, X) that have one."""
    middles = []
    for row in there:
        before, behind = np.flatnonzero(row[:column]), np.flatnonzero(row[column + 1 :])
        if not row[column] and len(before) and len(behind):
            middles.append((x_mm[before[-1]] + x_mm[column + 1 + behind[0]]) / 2)
    return float(np.median(middles)) if middles else float(x_mm[column])


def _apart(depth_mm: np.ndarray, column: int, grid: Grid) -> np.ndarray:
    """Whether there are two legs at each height and a little above and below, (Z,)."""
    rows = depth_mm[:, column] < TOUCHING * depth_mm.max(axis=1)
    near = 1 + 2 * round(BELOW_MM / grid.spacing_mm[0])
    return ndimage.uniform_filter1d(rows.astype(float), near, mode="nearest") > APART_SHARE


# --- the joint ------------------------------------------------------------------------------------


def _answer(volume: np.ndarray, body: np.ndarray, grid: Grid) -> np.ndarray:
    """How much a plate across the leg each place looks like, of either sign, in shares of the signal around it.

    The mean over the body takes out units and most of the coil; the share, what bright tissue makes of a step of gain.
    """
    size_z, size_y, size_x = grid.spacing_mm
    signal = volume - np.percentile(volume, 1)  # air is zero in no more than most scanners
    summed = np.stack([(signal * body).sum(axis=(1, 2)), body.sum(axis=(1, 2), dtype=float)])
    total, voxels = ndimage.gaussian_filter1d(summed, EVEN_MM / size_z, axis=1)
    rows = total / np.maximum(voxels, 1)
    floor = 0.05 * float(rows.max())
    even = np.where(body, signal / np.maximum(rows, floor)[:, None, None], 0).astype(np.float32)
    thin, thick = (max(mm, share * size_z) / size_z for mm, share in zip(PLATE_MM, (0.7, 1.4), strict=True))
    near, far = (ndimage.gaussian_filter1d(even, sigma, axis=0) for sigma in (thin, thick))
    across = 0, PATCH_MM / size_y, PATCH_MM / size_x
    plate, around = (ndimage.gaussian_filter(part, across, truncate=3) for part in (near - far, far))
    return plate / np.maximum(around, DARK)


def _joints(answer: np.ndarray, limb: np.ndarray, grid: Grid, apart: np.ndarray) -> list[_Joint]:
    """Where one leg may have its joint line, in rows where the legs are apart (Z,); the clearest first."""
    size_z, size_y, size_x = grid.spacing_mm
    wide_x = np.ones((1, 1, 1 + 2 * round(SKIN_MM / size_x)), bool)
    wide_y = np.ones((1, 1 + 2 * round(SKIN_MM / size_y), 1), bool)
    # A slab may end inside the leg at the front and the back, so its edge is no outline.
    core = ndimage.binary_erosion(limb, wide_x) & ndimage.binary_erosion(limb, wide_y, border_value=1)
    # What answers under the skin as well is no joint but a step of the scanner, as between table stations.
    rim = limb & ~core
    common = np.array([np.median(a[r]) if r.any() else 0.0 for a, r in zip(answer, rim, strict=True)])
    # A sum, not a sum of squares: a joint is wide rather than strong.
    plate_cm2 = (np.abs(answer - common[:, None, None]) * core).sum(axis=(1, 2)) * size_y * size_x / 100
    around = ndimage.median_filter(plate_cm2, 1 + 2 * round(AROUND_MM / size_z), mode="nearest")
    beyond = plate_cm2 - around
    outline = _Outline.of(limb, grid)
    peaks = 1 + np.flatnonzero((beyond[1:-1] >= beyond[:-2]) & (beyond[1:-1] > beyond[2:]))
    found = []
    for k in peaks:
        if not (apart[k] and core[k].any() and outline.is_knee(int(k))):
            continue
        before, at, after = plate_cm2[k - 1 : k + 2].tolist()
        bend = before - 2 * at + after
        row = k + (0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)))
        behind, beside = (float(n.mean()) for n in np.nonzero(core[k]))
        z_mm = float(grid.position_mm(np.array([row, behind, beside]))[2])
        sharpness = float(plate_cm2[k] / max(around[k], 1e-9))
        found.append(_Joint(z_mm=z_mm, beyond_cm2=float(beyond[k]), sharpness=sharpness))
    return sorted(found, key=lambda joint: -joint.beyond_cm2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outline:
    """How wide one leg is from head to foot."""

    width_mm: np.ndarray
    """Smoothed, (Z,)."""
    depth_mm: np.ndarray
    """From front to back, or as much of it as is in view; smoothed."""
    first: int
    last: int
    """Rows between which there is any of the leg."""
    step_mm: float

    @classmethod
    def of(cls, limb: np.ndarray, grid: Grid) -> _Outline:
        step, size_y, size_x = grid.spacing_mm
        # The mean of the widest lines, for a single one has the coarseness of a voxel.
        widest = -np.sort(-limb.sum(axis=2), axis=1)[:, : max(1, round(LINES_MM / size_y))]
        width = widest.mean(axis=1) * size_x
        there = np.flatnonzero(width)
        depth = limb.sum(axis=1).max(axis=1) * size_y
        near = 1 + 2 * round(15 / step)
        return cls(
            width_mm=ndimage.uniform_filter1d(width, near, mode="nearest"),
            depth_mm=ndimage.uniform_filter1d(depth, near, mode="nearest"),
            first=int(there[0]) if len(there) else 0,
            last=int(there[-1]) if len(there) else 0,
            step_mm=step,
        )

    def is_knee(self, row: int) -> bool:
        """Whether the leg above and below a row has the form of a thigh and a calf."""
        above_mm, below_mm = (row - self.first) * self.step_mm, (self.last - row) * self.step_mm
        if min(above_mm, below_mm) < ROOM_MM or not NARROWEST_MM <= self.width_mm[row] <= WIDEST_MM:
            return False
        is_whole = self.last < len(self.width_mm) - 1 - round(20 / self.step_mm)
        if is_whole and below_mm < FOOT_MM:
            return False
        up_mm, down_mm = min(ABOVE_MM, above_mm - 10), min(BELOW_MM, below_mm - 10)
        up, down = row - round(up_mm / self.step_mm), row + round(down_mm / self.step_mm)
        depths = self.depth_mm[[up, row, down]]
        if depths.min() < IN_VIEW * depths.max():
            return False
        above, below = self.width_mm[[up, down]] / self.width_mm[row]
        bend = 100 * (np.log(above) / up_mm + np.log(below) / down_mm)
        return bool(bend >= BEND and BELOW[0] <= below <= BELOW[1] and ABOVE[0] <= above <= ABOVE[1])


BYTES_PER_VOXEL = 12
"""Peak memory of looking for the knees of one scan: its voxels as read, and the coarse copy in the making."""

FEW_VOXELS = 300_000_000
"""Below this, over all cases, starting processes costs more than it saves."""


def of_image(path: Path) -> Landmarks:
    """The knees of one scan; raises as ``volumes.read``."""
    return estimate(*volume_io.read(path))


def of_images(images: Mapping[str, Path], jobs: int | None = None) -> dict[str, Landmarks]:
    """The knees of many scans, by case, in several processes where they are large.

    Raises:
        DvtError: if an image cannot be read.
    """
    sizes = [math.prod(volume_io.read_grid(path).shape) for path in images.values()]
    few = jobs is None and sum(sizes) < FEW_VOXELS
    n = 1 if few else worker_pool.choose_workers(jobs, len(sizes), max(sizes, default=0) * BYTES_PER_VOXEL)
    found = worker_pool.over_cases(of_image, list(images.values()), list(images), title="Find knees", jobs=n)
    return dict(zip(images, found, strict=True))
