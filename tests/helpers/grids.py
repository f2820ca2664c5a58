"""Grids in every orientation."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import strategies as st

from dvtplan.imaging.geometry import Reorientation

Rows = tuple[tuple[float, float, float], ...]
AXIAL: Rows = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Array axes along z, y, x: a file in LPS."""


def all_orientations() -> list[Rows]:
    """The 48 ways in which three array axes can run along the patient's."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            rows = np.zeros((3, 3))
            rows[range(3), order] = signs
            found.append(as_rows(rows))
    return found


def as_rows(matrix: np.ndarray) -> Rows:
    return tuple((float(x), float(y), float(z)) for x, y, z in matrix)


def in_source_order(turn: Reorientation, turned: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of the new order in the source order, through the view that ``apply`` gives."""
    array = np.empty(shape, turned.dtype)
    turn.apply(array)[...] = turned
    return array


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """A rotation matrix from three angles in degrees."""
    matrix = np.eye(3)
    for angle, (a, b) in zip(np.deg2rad([yaw, pitch, roll]), ((0, 1), (0, 2), (1, 2)), strict=True):
        turn = np.eye(3)
        turn[[a, b], [a, b]] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix


ANGLES = st.floats(-180, 180)
OBLIQUE = st.tuples(ANGLES, ANGLES, ANGLES, st.booleans()).map(
    lambda t: as_rows(rotation(*t[:3]) * (-1.0 if t[3] else 1.0))
)
"""Any orthonormal axes, left- and right-handed."""
