"""Voxel grids: scales, matrices, coordinates in mm, and smooth random fields on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

DIRECTION = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0))
"""LPS unit vector along S, H, W."""
HALF_FIELD_MM = (62.0, 705.0, 255.0)
"""Largest distance of any voxel from the centre along AP, SI and LR, over all scales."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Sampling of the field of view, which is about 116 x 1393 x 500 mm at every scale."""

    shape: tuple[int, int, int]
    """Voxels along S, H, W."""
    spacing_mm: tuple[float, float, float]
    """Voxel size along S, H, W."""
    boost: float
    """Factor on vessel diameters that keeps a calf vein wider than a voxel."""
    cases: int
    """Default number of cases in a cohort."""


SCALES = {
    "tiny": Scale((12, 161, 69), (9.7, 8.7, 7.3), boost=3.0, cases=8),
    "small": Scale((32, 321, 121), (3.6, 4.35, 4.15), boost=1.8, cases=16),
    "half": Scale((46, 481, 173), (2.5, 2.9, 2.9), boost=1.35, cases=58),
    "paper": Scale((93, 961, 345), (1.25, 1.45, 1.45), boost=1.0, cases=58),
}
"""Only `paper` has realistic vessel diameters; the others are simplified for demos and tests."""

MATRICES = {
    "standard": (1.0, 1.0, 1.0, 1.0),
    "short": (897 / 961, 1.0, 1.0, 1.0),
    "narrow": (1.0, 321 / 345, 1.0, 1.0),
    "fine": (1024 / 961, 384 / 345, 961 / 1024, 345 / 384),
}
"""Factors on rows, columns, row spacing and column spacing. "Most" images of Huang 2019 are 961x345. The others here,
at paper scale, are 897x345 (smaller overlap of the stations), 961x321 and 1024x384."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """LPS coordinates in mm of the voxel centres, one array per axis S, H, W."""

    y: np.ndarray
    z: np.ndarray
    x: np.ndarray
    spacing_mm: tuple[float, float, float]
    """Voxel size along S, H, W."""

    @classmethod
    def of(cls, scale: Scale, matrix: str = "standard", voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Frame:
        """Return the grid of a scale and a key of ``MATRICES``, centred on the isocentre.

        ``voxel`` are factors on the voxel size along S, H, W; the field of view stays, to a voxel.
        """
        rows, columns, row_mm, column_mm = MATRICES[matrix]
        s, h, w = scale.shape
        shape = (round(s / voxel[0]), round(h * rows / voxel[1]), round(w * columns / voxel[2]))
        spacing = (
            scale.spacing_mm[0] * voxel[0],
            scale.spacing_mm[1] * row_mm * voxel[1],
            scale.spacing_mm[2] * column_mm * voxel[2],
        )
        y, z, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True))
        return cls(y=y, z=-z, x=x, spacing_mm=spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along S, H, W."""
        return len(self.y), len(self.z), len(self.x)

    @cached_property
    def voxel_mm(self) -> float:
        """Geometric mean of the spacing: the width over which a surface is blurred."""
        return float(np.cbrt(np.prod(self.spacing_mm)))

    @property
    def pixel_mm(self) -> float:
        """Geometric mean of the spacing in a coronal slice."""
        return float(np.sqrt(self.spacing_mm[1] * self.spacing_mm[2]))

    def box(self, low_xyz: np.ndarray, high_xyz: np.ndarray) -> tuple[slice, slice, slice]:
        """Return index ranges along S, H, W of the voxels between two LPS corners; may be empty."""
        s, h, w = (_between(axis, low_xyz[i], high_xyz[i]) for axis, i in ((self.y, 1), (self.z, 2), (self.x, 0)))
        return s, h, w

    def row(self, z_mm: float) -> int:
        """Return the row whose centre is nearest to an LPS z."""
        return int(np.clip(round((self.z[0] - z_mm) / self.spacing_mm[1]), 0, len(self.z) - 1))

    def column(self, x_mm: float) -> int:
        """Return the column whose centre is nearest to an LPS x."""
        return int(np.clip(round((x_mm - self.x[0]) / self.spacing_mm[2]), 0, len(self.x) - 1))

    def cover(self, depth_mm: np.ndarray) -> np.ndarray:
        """Return the share of each voxel inside a surface, from the depth of the voxel centre below it."""
        return np.clip(depth_mm * np.float32(1 / self.voxel_mm) + np.float32(0.5), 0, 1)


def _between(axis: np.ndarray, low: float, high: float) -> slice:
    """Return the indices of an evenly spaced axis, rising or falling, with values in [low, high]."""
    step = axis[1] - axis[0]
    ends = (low - axis[0]) / step, (high - axis[0]) / step
    start = max(int(np.ceil(min(ends) - 1e-9)), 0)
    stop = min(int(np.floor(max(ends) + 1e-9)) + 1, len(axis))
    return slice(start, max(start, stop))


class SmoothField:
    """A Gaussian random field of mean 0 and variance 1, one slice at a time to save memory.

    Its white noise lies on nodes fixed in mm, so that a position has the same value at every scale.
    The weights are sparse, so that the sums are the same with any number of threads.
    """

    def __init__(self, rng: np.random.Generator, frame: Frame, y_mm: float, z_mm: float, x_mm: float) -> None:
        """Draw the noise for a frame, with correlation lengths along AP, SI and LR."""
        weights = []
        for axis, end_mm, length_mm in zip((frame.y, frame.z, frame.x), HALF_FIELD_MM, (y_mm, z_mm, x_mm), strict=True):
            nodes = np.arange(-end_mm - 3 * length_mm, end_mm + 3 * length_mm, length_mm)
            distance = np.abs(axis[:, None] - nodes) / length_mm
            weight = np.where(distance < 3, np.exp(-0.5 * distance**2), 0)
            weight /= np.linalg.norm(weight, axis=1, keepdims=True)
            weights.append(csr_array(weight.astype(np.float32)))
        along_s, self._along_h, self._along_w = weights
        nodes_shape = [weight.shape[1] for weight in weights]
        noise = rng.standard_normal(nodes_shape, dtype=np.float32)
        self._slices = (along_s @ noise.reshape(nodes_shape[0], -1)).reshape(-1, *nodes_shape[1:])

    def at_slice(self, s: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Return one slice, float32 (H, W), or the part of it in the given rows and columns."""
        across = self._along_w[columns] @ self._slices[s].T
        return self._along_h[rows] @ np.ascontiguousarray(across.T)
