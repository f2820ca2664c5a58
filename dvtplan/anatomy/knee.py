"""Find the knee joint line of each leg in an image.

Two features show a knee in any sequence and contrast. Outside: the thigh tapers down to the knee, the calf below does
not. Inside: nearly every structure runs along the leg, but the joint is a plate across it, of bone against cartilage,
as wide as both condyles. So the finder searches places where the signal changes along the leg in the same way over
several square centimetres. Of these it accepts only one where the outline bends as at a knee. Without such a place it
gives no level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dvtplan.anatomy import leg_shape
from dvtplan.anatomy.landmarks import Landmarks, Limb
from dvtplan.anatomy.leg_shape import Outline
from dvtplan.imaging.geometry import Grid

PLATE_MM = 2.5, 5.0
"""SD along the leg of the two Gaussians whose difference responds to a joint space."""
PATCH_MM = 8.0
"""SD across the leg of the patch over which the response must agree."""
DARK = 0.3
"""Share of the mean signal; darker surroundings count as this bright."""
EVEN_MM = 10.0
"""SD along the leg of the mean signal that normalizes each row."""
SKIN_MM = 10.0
"""Voxels this close to the outline are excluded, because the outline itself would respond."""
AROUND_MM = 120.0
"""Length along the leg over which the median response of other structures is taken."""
SHARPNESS = 2.0
"""Least ratio of the response at a joint to the median around it."""
LEAST_CM2 = 0.5
"""Least response at a joint minus that median; a joint of full contrast has about 10."""
NEAR_MM, LEAD = 25.0, 1.15
"""Candidates further away than this must have a smaller excess, by this factor."""
APART_MM = 30.0
"""Largest difference in height of both joint lines."""
ALONE = 1.25
"""Factor on ``SHARPNESS`` if the other leg has no clear candidate."""


def estimate(image: np.ndarray, grid: Grid) -> Landmarks:
    """Find the knee joint line of each leg.

    Args:
        image: any array order, units and contrast; shape ``grid.shape``.
        grid: the image's grid; it may be oblique or flipped.

    Returns:
        Heights in LPS z. A leg whose knee is out of view or not clear has a reason instead of a joint line. A single
        leg is left or right by its position in the scanner, which may be wrong; its level holds for the whole scan.

    Raises:
        ValueError: if image and grid differ in shape.
    """
    if image.shape != grid.shape:
        raise ValueError(f"image {image.shape} does not fit its grid {grid.shape}")
    volume, coarse = leg_shape.coarse_copy(image, grid)
    body = leg_shape.silhouette(volume, coarse)
    if not body.any():
        return _none("no leg in view: the image has no bright body on a dark background")
    height, depth, width = coarse.shape
    columns = np.stack(np.broadcast_arrays((height - 1) / 2, (depth - 1) / 2, np.arange(width)), axis=-1)
    x_mm = coarse.position_mm(columns)[:, 0]
    depth_mm = body.sum(axis=1) * coarse.spacing_mm[1]
    valley = leg_shape.find_valley(depth_mm)
    response = _plate_response(volume, body, coarse)
    if valley is None:
        return _one_leg(response, body, coarse, x_mm)
    midline = leg_shape.midline_between(depth_mm > 0, valley, x_mm)
    apart = leg_shape.rows_with_two_legs(depth_mm, valley, coarse)
    right, left = (_candidates(response, body & side, coarse, apart) for side in (x_mm < midline, x_mm >= midline))
    left_limb, right_limb = choose_in_two_legs(left, right)
    return Landmarks(left=left_limb, right=right_limb, midline_mm=midline)


def _none(reason: str) -> Landmarks:
    return Landmarks(left=Limb(reason=reason), right=Limb(reason=reason))


def _one_leg(response: np.ndarray, body: np.ndarray, grid: Grid, x_mm: np.ndarray) -> Landmarks:
    """Find the knee of a single leg. Its side is that of the scanner's middle, and the midline passes next to it."""
    found = choose_in_one_leg(_candidates(response, body, grid, np.ones(len(body), bool)), SHARPNESS)
    there = x_mm[body.any(axis=(0, 1))]
    other = Limb(reason="no second leg in view")
    if there.mean() >= 0:
        return Landmarks(left=found, right=other, midline_mm=float(there.min() - grid.spacing_mm[2]))
    return Landmarks(left=other, right=found, midline_mm=float(there.max() + grid.spacing_mm[2]))


# --- the joint among its candidates ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A height in a leg where the outline bends as at a knee and the response has a peak."""

    z_mm: float
    excess_cm2: float
    """Response minus the median around it."""
    sharpness: float
    """Response over that median."""

    def stands_out(self, least: float) -> bool:
        """Return whether the response is clearly above that of other structures."""
        return self.sharpness >= least and self.excess_cm2 >= LEAST_CM2

    def is_near(self, other: Candidate) -> bool:
        """Return whether both candidates may be the same joint."""
        return abs(self.z_mm - other.z_mm) <= NEAR_MM


def choose_in_one_leg(joints: Sequence[Candidate], least: float) -> Limb:
    """Choose the joint line of one leg from its candidates, the clearest first."""
    if not joints:
        return Limb(reason="no knee in view: the outline has no bend between a thigh and a calf")
    best, *others = joints
    if not best.stands_out(least):
        return Limb(sharpness=best.sharpness, reason="no knee in view: no clear joint line where the outline bends")
    if any(LEAD * other.excess_cm2 > best.excess_cm2 and not other.is_near(best) for other in others):
        return Limb(sharpness=best.sharpness, reason="no knee found: two places look like a joint line")
    return Limb(knee_mm=best.z_mm, sharpness=best.sharpness)


def choose_in_two_legs(left: Sequence[Candidate], right: Sequence[Candidate]) -> tuple[Limb, Limb]:
    """Choose the joint lines of both legs at nearly one height.

    If only one leg has a clear candidate, it must be clearer. Candidates are sorted, the clearest first.
    """
    clear_left, clear_right = ([joint for joint in joints if joint.stands_out(SHARPNESS)] for joints in (left, right))
    if not (clear_left and clear_right):
        return choose_in_one_leg(left, ALONE * SHARPNESS), choose_in_one_leg(right, ALONE * SHARPNESS)
    level = [(one, other) for one in clear_left for other in clear_right if abs(one.z_mm - other.z_mm) <= APART_MM]
    if not level:
        apart = abs(clear_left[0].z_mm - clear_right[0].z_mm)
        reason = f"no knee found: the joint lines of the two legs differ by {apart:.0f} mm in height"
        return Limb(sharpness=left[0].sharpness, reason=reason), Limb(sharpness=right[0].sharpness, reason=reason)

    def both_cm2(pair: tuple[Candidate, Candidate]) -> float:
        return pair[0].excess_cm2 + pair[1].excess_cm2

    best, *others = sorted(level, key=both_cm2, reverse=True)
    if any(
        LEAD * both_cm2(pair) > both_cm2(best) and not pair[0].is_near(best[0]) and not pair[1].is_near(best[1])
        for pair in others
    ):
        reason = "no knee found: two places look like a joint line"
        return Limb(sharpness=best[0].sharpness, reason=reason), Limb(sharpness=best[1].sharpness, reason=reason)
    one, other = (Limb(knee_mm=joint.z_mm, sharpness=joint.sharpness) for joint in best)
    return one, other


# --- candidates ----------------------------------------------------------------------------------------


def _plate_response(volume: np.ndarray, body: np.ndarray, grid: Grid) -> np.ndarray:
    """Return how much each voxel looks like a plate across the leg, as a signed share of the signal around it.

    Dividing by the mean over the body removes the units and most of the coil's sensitivity. Dividing by the signal
    around removes the effect of bright tissue on a step of the gain.

    Args:
        volume: coarse image, (Z, Y, X).
        body: its silhouette.
        grid: of both.
    """
    size_z, size_y, size_x = grid.spacing_mm
    signal = volume - np.percentile(volume, 1)  # not every scanner gives air the value 0
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


def _candidates(response: np.ndarray, limb: np.ndarray, grid: Grid, apart: np.ndarray) -> list[Candidate]:
    """Return the candidates for the joint line of one leg, the clearest first.

    Args:
        response: of ``_plate_response``, (Z, Y, X).
        limb: silhouette of the leg.
        grid: of both.
        apart: rows where the legs are apart, (Z,).
    """
    size_z, size_y, size_x = grid.spacing_mm
    wide_x = np.ones((1, 1, 1 + 2 * round(SKIN_MM / size_x)), bool)
    wide_y = np.ones((1, 1 + 2 * round(SKIN_MM / size_y), 1), bool)
    # A slab may end inside the leg at the front and the back, so its edge is not an outline.
    core = ndimage.binary_erosion(limb, wide_x) & ndimage.binary_erosion(limb, wide_y, border_value=1)
    # A response also under the skin is not a joint but a step of the gain, as between table stations.
    rim = limb & ~core
    common = np.array([np.median(a[r]) if r.any() else 0.0 for a, r in zip(response, rim, strict=True)])
    # A sum, not a sum of squares, because a joint is wide rather than strong.
    plate_cm2 = (np.abs(response - common[:, None, None]) * core).sum(axis=(1, 2)) * size_y * size_x / 100
    around = ndimage.median_filter(plate_cm2, 1 + 2 * round(AROUND_MM / size_z), mode="nearest")
    excess = plate_cm2 - around
    outline = Outline.of(limb, grid)
    peaks = 1 + np.flatnonzero((excess[1:-1] >= excess[:-2]) & (excess[1:-1] > excess[2:]))
    found = []
    for k in peaks:
        if not (apart[k] and core[k].any() and outline.is_knee(int(k))):
            continue
        before, at, after = plate_cm2[k - 1 : k + 2].tolist()
        bend = before - 2 * at + after
        row = k + (0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)))
        y, x = (float(n.mean()) for n in np.nonzero(core[k]))
        z_mm = float(grid.position_mm(np.array([row, y, x]))[2])
        sharpness = float(plate_cm2[k] / max(around[k], 1e-9))
        found.append(Candidate(z_mm=z_mm, excess_cm2=float(excess[k]), sharpness=sharpness))
    return sorted(found, key=lambda joint: -joint.excess_cm2)
