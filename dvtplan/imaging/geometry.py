"""Grids in patient space, anatomical axes, and the slice order.

Axis order: an array in *file order* has the axes of the file, slowest first (z, y, x in SimpleITK). An array in *slice
order* is (S, H, W): S counts slices, and H and W run as on a radiologist's film (see ``SLICE_ORDER``). Patient
coordinates are LPS, in mm: x increases to the patient's left, y to posterior, z to superior.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

AXES = ("LR", "AP", "SI")
"""Anatomical axes in the order of the LPS coordinates x, y, z."""

SLICE_ORDER = {
    "AP": (("AP", +1), ("SI", -1), ("LR", +1)),  # coronal: head up, patient's right on the left
    "SI": (("SI", -1), ("AP", +1), ("LR", +1)),  # axial: front up, patient's right on the left
    "LR": (("LR", +1), ("SI", -1), ("AP", +1)),  # sagittal: head up, front on the left
}
"""Slice axis -> anatomical axis of S, H, W and the sign of the LPS coordinate along it."""

GRID_TOLERANCE_MM = 1e-3
"""Two grids are the same if no corner is further apart than this."""
HEADER_TOLERANCE = 2e-4
"""Largest relative difference of two statements of one header, and cosine of axes that should be at right angles. It is
above the rounding to four decimals, and below 0.1 mm in 500 mm."""
HEADER_TOLERANCE_MM = 0.01
"""Smallest distance in mm that counts as a difference within one header."""
UNIT_AXES = 1e-6
"""Deviation of unit vectors at right angles that is only rounding to float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The position of a voxel array in the patient.

    ``direction[a]`` is the LPS unit vector along array axis ``a``. So an axis permutation changes ``shape``,
    ``spacing_mm`` and ``direction``, but not ``origin_mm``.
    """

    shape: tuple[int, int, int]
    """Voxels along each array axis."""
    spacing_mm: tuple[float, float, float]
    """Distance of neighbouring voxel centres along each array axis."""
    origin_mm: tuple[float, float, float]
    """LPS position of the centre of voxel (0, 0, 0)."""
    direction: tuple[tuple[float, float, float], ...]
    """One LPS unit vector per array axis."""

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"a grid needs three positive axis lengths, not {self.shape}")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ValueError(f"spacing must be positive, not {self.spacing_mm} mm")
        # NaN would pass every comparison of distances.
        if not np.isfinite([self.origin_mm, *self.direction]).all():
            raise ValueError(f"origin and direction must be finite, not {self.origin_mm}, {self.direction}")

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def steps_mm(self) -> np.ndarray:
        """LPS vector from one voxel to the next along each array axis, shape (3, 3)."""
        return np.asarray(self.direction) * np.asarray(self.spacing_mm)[:, None]

    def position_mm(self, index: np.ndarray) -> np.ndarray:
        """Return LPS positions (..., 3) of possibly fractional array indices (..., 3)."""
        return np.asarray(self.origin_mm) + np.asarray(index, float) @ self.steps_mm

    def index_of(self, positions_mm: np.ndarray) -> np.ndarray:
        """Return fractional array indices (..., 3) of LPS positions (..., 3); the inverse of ``position_mm``."""
        return np.asarray((np.asarray(positions_mm) - self.origin_mm) @ np.linalg.inv(self.steps_mm))

    def window(self, first: np.ndarray, shape: tuple[int, ...]) -> Grid:
        """Return the grid of another window of the same lattice.

        Args:
            first: index of the window's first voxel; it may lie outside this grid.
            shape: of the window.
        """
        x, y, z = self.position_mm(first).tolist()
        return replace(self, shape=shape, origin_mm=(x, y, z))  # type: ignore[arg-type]

    def corners_mm(self) -> np.ndarray:
        """Return the LPS positions of the eight corner voxels, shape (8, 3)."""
        ends = [(0, n - 1) for n in self.shape]
        return self.position_mm(np.array(list(itertools.product(*ends))))


def distance_mm(a: Grid, b: Grid) -> float:
    """Return the largest distance between corresponding corners of two grids; infinite if the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.linalg.norm(a.corners_mm() - b.corners_mm(), axis=1).max())


def nearest_axes(axes: np.ndarray) -> np.ndarray:
    """Return the nearest three unit vectors at right angles, one per row; the same axes if they differ by rounding."""
    if np.abs(axes @ axes.T - np.eye(3)).max() <= UNIT_AXES:
        return axes
    u, _, v = np.linalg.svd(axes)
    return np.asarray(u @ v)


def same_grid(a: Grid, b: Grid, tolerance_mm: float = GRID_TOLERANCE_MM) -> bool:
    """Return whether both grids sample the same positions."""
    return distance_mm(a, b) <= tolerance_mm


def anatomical_axes(grid: Grid) -> tuple[tuple[str, int], ...]:
    """Return the nearest anatomical axis of each array axis, and the sign of LPS along it.

    For oblique grids the permutation with the largest sum of cosines is used, so that each anatomical axis occurs once.
    """
    cosines = np.asarray(grid.direction)
    best = max(
        itertools.permutations(range(3)),
        key=lambda order: sum(abs(cosines[a, p]) for a, p in enumerate(order)),
    )
    return tuple((AXES[p], 1 if cosines[a, p] >= 0 else -1) for a, p in enumerate(best))


def orientation_code(grid: Grid) -> str:
    """Return the direction of each array axis as a letter, fastest axis first, for example 'LPS'."""
    letters = {
        ("LR", 1): "L",
        ("LR", -1): "R",
        ("AP", 1): "P",
        ("AP", -1): "A",
        ("SI", 1): "S",
        ("SI", -1): "I",
    }
    return "".join(letters[axis] for axis in reversed(anatomical_axes(grid)))


@dataclass(frozen=True, slots=True)
class Reorientation:
    """A lossless change of axis order and direction: transpose, then flip."""

    order: tuple[int, int, int]
    """Source axis of each new axis."""
    flips: tuple[bool, bool, bool]
    """Whether each new axis runs opposite to its source axis."""

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return a view of a source array in the new order. Writing to the view writes to the source."""
        flip = tuple(slice(None, None, -1 if f else 1) for f in self.flips)
        return array.transpose(self.order)[flip]

    def grid(self, grid: Grid) -> Grid:
        """Return the grid of ``apply(array)`` for an array on ``grid``."""
        start = np.zeros(3)
        for new_axis, source in enumerate(self.order):
            if self.flips[new_axis]:
                start[source] = grid.shape[source] - 1
        x, y, z = grid.position_mm(start)
        signs = [-1.0 if f else 1.0 for f in self.flips]
        s, h, w = self.order
        return Grid(
            shape=(grid.shape[s], grid.shape[h], grid.shape[w]),
            spacing_mm=(grid.spacing_mm[s], grid.spacing_mm[h], grid.spacing_mm[w]),
            origin_mm=(float(x), float(y), float(z)),
            direction=tuple(
                (sign * d[0], sign * d[1], sign * d[2])
                for sign, d in zip(signs, (grid.direction[a] for a in self.order), strict=True)
            ),
        )


def reorientation_between(grid: Grid, other: Grid, tolerance_mm: float = GRID_TOLERANCE_MM) -> Reorientation | None:
    """Return the reorientation from one grid to another that has the same voxels, or None if the voxels differ."""
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turn = Reorientation((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
            if same_grid(turn.grid(grid), other, tolerance_mm):
                return turn
    return None


def to_slice_order(grid: Grid, slice_axis: str) -> Reorientation:
    """Return the reorientation from file order to (S, H, W).

    Args:
        grid: of the file.
        slice_axis: the anatomical axis of S, one of ``AXES``.
    """
    here = anatomical_axes(grid)
    names = [name for name, _ in here]
    wanted = SLICE_ORDER[slice_axis]
    s, h, w = (names.index(name) for name, _ in wanted)
    flips = tuple(here[names.index(name)][1] != sign for name, sign in wanted)
    return Reorientation((s, h, w), (flips[0], flips[1], flips[2]))
