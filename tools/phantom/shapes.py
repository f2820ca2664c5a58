"""Rasterise chains of spheres, the shape of all vessels, bones, clots and nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from phantom.grid import Frame

CHUNK = 8
"""Number of spheres processed together. A vessel is long and thin, so most of its full box is far from it."""

Box = tuple[slice, slice, slice]
"""Index ranges along S, H, W."""


@dataclass(frozen=True, slots=True)
class Tube:
    """A vessel, or a stretch of one, in the patient."""

    name: str
    """Name of its course, with '-1' or '-2' for a pair of veins."""
    region: str | None
    """'proximal' or 'distal'; None where this cohort places no clot."""
    points: np.ndarray
    """(n, 3) LPS in mm along the centreline, from upper to lower end."""
    radius_mm: np.ndarray
    """(n,) radius at each point."""

    def arc_mm(self) -> np.ndarray:
        """Return the length of the centreline from its upper end, (n,)."""
        return np.append(0.0, np.cumsum(np.linalg.norm(np.diff(self.points, axis=0), axis=1)))

    def stretch(self, start_mm: float, end_mm: float) -> Tube:
        """Return the part between two lengths along the centreline."""
        arc = self.arc_mm()
        part = (arc >= start_mm) & (arc <= end_mm)
        return replace(self, points=self.points[part], radius_mm=self.radius_mm[part])


def smooth_curve(nodes: np.ndarray, step_mm: float) -> np.ndarray:
    """Return points (n, d) about ``step_mm`` apart on a curve through nodes (k, d); x, y, z come first."""
    chord = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(nodes[:, :3], axis=0), axis=1)))
    steps = max(int(np.ceil(chord[-1] / step_mm)), 8)
    return PchipInterpolator(chord, nodes)(np.linspace(0, chord[-1], steps + 1))


def rasterise(frame: Frame, points: np.ndarray, radius_mm: np.ndarray) -> tuple[Box, np.ndarray, np.ndarray]:
    """Compute the depth of voxels in a chain of spheres, points (n, 3) in LPS and radius (n,).

    Returns:
        The box (S, H, W) around the chain; the depth below the surface in mm in that box, float32,
        very negative far outside; the index of the sphere that gives the depth.
    """
    reach = (radius_mm + frame.voxel_mm)[:, None]
    low, high = points - reach, points + reach
    box = frame.box(low.min(axis=0), high.max(axis=0))
    shape = [b.stop - b.start for b in box]
    depth, nearest = np.full(shape, -1e6, np.float32), np.zeros(shape, np.int32)
    axes = [axis.astype(np.float32) for axis in (frame.y, frame.z, frame.x)]
    for start in range(0, len(points), CHUNK):
        chunk = slice(start, start + CHUNK)
        near = frame.box(low[chunk].min(axis=0), high[chunk].max(axis=0))
        x, y, z = points[chunk].T.astype(np.float32)
        dy, dz, dx = ((axis[n] - centre[:, None]) ** 2 for axis, n, centre in zip(axes, near, (y, z, x), strict=True))
        depths = dy[:, :, None, None] + (dz[:, :, None] + dx[:, None])[:, None]
        np.sqrt(depths, out=depths)
        np.subtract(radius_mm[chunk].astype(np.float32)[:, None, None, None], depths, out=depths)
        best = depths.argmax(axis=0)
        deepest = depths.max(axis=0)
        inner = tuple(slice(n.start - b.start, n.stop - b.start) for n, b in zip(near, box, strict=True))
        closer = deepest > depth[inner]
        np.copyto(depth[inner], deepest, where=closer)
        np.copyto(nearest[inner], best + start, where=closer, casting="unsafe")
    return box, depth, nearest


def paint_tube(
    image: np.ndarray,
    frame: Frame,
    points: np.ndarray,
    radius_mm: np.ndarray,
    signal: np.ndarray | complex,
    within: np.ndarray | None = None,
) -> tuple[Box, np.ndarray]:
    """Blend a chain of spheres into a complex image in place.

    Args:
        image: complex64 (S, H, W).
        frame: grid of the image.
        points: (n, 3) LPS.
        radius_mm: (n,).
        signal: one value, or one per point, (n,).
        within: bool (S, H, W); paint only there.

    Returns:
        Box and depth as ``rasterise`` gives them.
    """
    box, depth, nearest = rasterise(frame, points, radius_mm)
    values = np.asarray(signal, np.complex64)
    share = frame.cover(depth)
    if within is not None:
        share = share * within[box]
    touched = np.flatnonzero(share)
    inside = np.unravel_index(touched, share.shape)
    here = tuple(index + b.start for index, b in zip(inside, box, strict=True))
    now = image[here]
    aim = values[nearest[inside]] if values.ndim else values
    image[here] = now + share.reshape(-1)[touched] * (aim - now)
    return box, depth
