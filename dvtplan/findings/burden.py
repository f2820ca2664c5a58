"""Thrombus burden of a mask: how much, how long, how many pieces, how thick, and where; in words of measurement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from dvtplan.anatomy import regions
from dvtplan.anatomy.levels import LIMBS, PROXIMAL_DISTAL, Levels
from dvtplan.imaging.array_ops import CONNECTIVITY_26
from dvtplan.imaging.geometry import Grid

SLICE_MM = 5.0
"""Thickness of the slabs across the leg over which cross-sections are averaged; single rows are ragged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burden:
    """What one limb, or one region of it, holds. All zero where it holds nothing."""

    limb: str
    region: str
    """'proximal', 'distal', or 'all' where no level is known or for both together."""
    volume_ml: float = 0.0
    pieces: int = 0
    """26-connected components; one that crosses a level counts in both regions and once in 'all'."""
    length_mm: float = 0.0
    """Sum over the pieces of the length of their centre line, from end to end."""
    largest_section_mm2: float = 0.0
    """Largest mean cross-section, at right angles to the body's axis, of a slab of ``SLICE_MM``."""
    top_mm: float | None = None
    """How far it reaches above the limb's level; below it is negative. None without a level."""
    bottom_mm: float | None = None


def measure(mask: np.ndarray, grid: Grid, levels: Levels | None) -> list[Burden]:
    """Measure both limbs.

    Args:
        mask: any array order, shape ``grid.shape``; every value but 0 is thrombus.
        grid: where its voxels are.
        levels: of the limbs; none if unknown, and then limbs meet in the middle of the grid.

    Returns:
        Left, then right; of each 'all', and with levels 'proximal' and 'distal'.
    """
    found = []
    middle = regions.midline_of(grid, levels)
    for limb in LIMBS:
        inside, window = _limb(mask, grid, levels, limb)
        level = None if levels is None else levels.both_mm[LIMBS.index(limb)]
        names = ("all",) if levels is None else ("all", *PROXIMAL_DISTAL)
        # The window's own middle is not that of the legs.
        parts = None if levels is None else regions.by_level(inside, window, replace(levels, midline_mm=middle))
        for name in names:
            part = inside if name == "all" or parts is None else parts == 1 + PROXIMAL_DISTAL.index(name)
            found.append(_measure(part, window, limb, name, level))
    return found


def category(found: list[Burden]) -> str:
    """Which of the usual categories the measurements of a mask fall into; a measurement, not a diagnosis."""
    volume = {name: sum(b.volume_ml for b in found if b.region == name) for name in ("all", *PROXIMAL_DISTAL)}
    if volume["all"] == 0:
        return "No voxel was marked as thrombus."
    if not any(b.region in PROXIMAL_DISTAL for b in found):
        return "Voxels were marked as thrombus; without a level they are not divided into proximal and distal."
    if volume["proximal"] == 0:
        return "Voxels were marked as thrombus below the level only (distal)."
    if volume["distal"] == 0:
        return "Voxels were marked as thrombus above the level (proximal)."
    return "Voxels were marked as thrombus above and below the level (proximal and distal)."


def _limb(mask: np.ndarray, grid: Grid, levels: Levels | None, limb: str) -> tuple[np.ndarray, Grid]:
    """What lies in one limb, cut to its bounding box, and the grid of that box."""
    there = np.argwhere(mask)
    there = there[regions.in_left_limb(grid.position_mm(there), grid, levels) == (limb == "left")]
    low = there.min(axis=0) if len(there) else np.zeros(3, int)
    high = there.max(axis=0) + 1 if len(there) else np.ones(3, int)
    inside = np.zeros(high - low, bool)
    inside[tuple((there - low).T)] = True
    return inside, grid.window(low, inside.shape)


def _measure(mask: np.ndarray, grid: Grid, limb: str, region: str, level_mm: float | None) -> Burden:
    voxels = np.argwhere(mask)
    if not len(voxels):
        return Burden(limb=limb, region=region)
    heights = grid.position_mm(voxels)[:, 2]
    labels, pieces = ndimage.label(mask, CONNECTIVITY_26)
    return Burden(
        limb=limb,
        region=region,
        volume_ml=len(voxels) * grid.voxel_ml,
        pieces=int(pieces),
        length_mm=sum(_length_mm(piece, grid) for piece in _pieces(labels)),
        largest_section_mm2=_section_mm2(heights, grid),
        top_mm=None if level_mm is None else float(heights.max() - level_mm),
        bottom_mm=None if level_mm is None else float(heights.min() - level_mm),
    )


def _pieces(labels: np.ndarray) -> Iterator[np.ndarray]:
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        yield labels[box] == number


def _section_mm2(heights: np.ndarray, grid: Grid) -> float:
    """Volume of the fullest slab over its thickness; at least a voxel thick where voxels are thicker."""
    vertical = float(np.abs(np.asarray(grid.direction)[:, 2] * grid.spacing_mm).max())
    rows = max(1, round(SLICE_MM / vertical))
    slab = np.floor((heights - heights.min()) / vertical + 0.5).astype(int)
    counts = np.bincount(slab)
    window = np.convolve(counts, np.ones(min(rows, len(counts))), mode="valid")
    return float(window.max() / min(rows, len(counts)) * grid.voxel_ml * 1000.0 / vertical)


def _length_mm(piece: np.ndarray, grid: Grid) -> float:
    """Length of a piece's centre line, from end to end.

    The ends are the two voxels furthest from each other by ways inside the piece. Shells of equal
    distance from the one end cut it across; the line goes through the centres of those shells, or of
    the part of each through which the way to the other end leads, where it branches. Unlike thinning
    it needs no voxels of equal sides, and it neither cuts bends short nor shrinks at the ends.
    """
    places = grid.position_mm(np.argwhere(piece))
    beyond = float(np.min(grid.spacing_mm))  # half a voxel at either end
    if len(places) == 1:
        return beyond
    graph: Any = _neighbours(piece, grid)
    ways_from: Any = partial(csgraph.dijkstra, graph, directed=False)
    one = int(ways_from(indices=0).argmax())
    ways, before = ways_from(indices=one, return_predecessors=True)
    step = int(ways.argmax())
    longest = float(ways[step])
    way = [step]
    while step != one:
        step = int(before[step])
        way.append(step)
    width = SHELL_STEPS * float(np.max(grid.spacing_mm))
    shells = np.floor(ways / width).astype(int)
    centres = []
    for shell in range(int(shells.max()) + 1):
        there = np.flatnonzero(shells == shell)
        _, part = csgraph.connected_components(graph[there][:, there], directed=False)
        through = [k for k in way if shells[k] == shell]
        on_way = part == part[np.searchsorted(there, through[0])]
        centres.append(places[there[on_way]].mean(axis=0))
    last = longest - width * (len(centres) - 1)
    if len(centres) == 1:
        return longest + beyond
    between = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
    return float(between) + width / 2 + last / 2 + beyond


SHELL_STEPS = 2
"""Thickness of a shell, in voxels of the longest side: no way steps over one."""


def _neighbours(piece: np.ndarray, grid: Grid) -> sparse.csr_array:
    """Distances in mm between the voxels of a piece that touch, by their running numbers."""
    number = np.full(np.add(piece.shape, 2), -1)
    inner = (slice(1, -1),) * 3
    number[inner][piece] = np.arange(np.count_nonzero(piece))
    moves = np.argwhere(CONNECTIVITY_26) - 1
    rows, columns, lengths = [], [], []
    for move in moves[len(moves) // 2 + 1 :]:
        other = number[tuple(slice(1 + m, n - 1 + m) for m, n in zip(move, number.shape, strict=True))]
        both = piece & (other >= 0)
        rows.append(number[inner][both])
        columns.append(other[both])
        lengths.append(np.full(np.count_nonzero(both), np.linalg.norm(move @ grid.steps_mm)))
    joined = (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns)))
    count = int(number.max()) + 1
    return sparse.csr_array(sparse.coo_array(joined, shape=(count, count)))
