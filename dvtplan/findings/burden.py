"""Measure the thrombus burden of a mask: volume, length, number of components, cross-section and position."""

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
"""Thickness of the slabs over which cross-sections are averaged, since single rows are ragged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burden:
    """Thrombus burden of one limb or one region of it; all zero if nothing was segmented."""

    limb: str
    region: str
    """'proximal', 'distal', or 'all' for both together."""
    volume_ml: float = 0.0
    components: int = 0
    """26-connected components. One that crosses the level counts in both regions, and once in 'all'."""
    length_mm: float = 0.0
    """Sum of the lengths of the components' centre lines."""
    largest_section_mm2: float = 0.0
    """Largest cross-section perpendicular to the body's axis, as the mean over a slab of ``SLICE_MM``."""
    top_mm: float | None = None
    """Upper end, relative to the limb's level; negative is below. None without a level."""
    bottom_mm: float | None = None
    """Lower end, likewise."""


def measure(mask: np.ndarray, grid: Grid, levels: Levels | None) -> list[Burden]:
    """Measure both limbs.

    Args:
        mask: any array order, shape ``grid.shape``; every value except 0 is thrombus.
        grid: of the mask.
        levels: of the limbs. With None, the limbs meet in the middle of the grid.

    Returns:
        Left, then right; for each 'all', and with levels also 'proximal' and 'distal'.
    """
    burdens = []
    middle = regions.midline_of(grid, levels)
    for limb in LIMBS:
        inside, window = _limb(mask, grid, levels, limb)
        level = None if levels is None else levels.both_mm[LIMBS.index(limb)]
        names = ("all",) if levels is None else ("all", *PROXIMAL_DISTAL)
        # The middle of the window is not the middle of the legs.
        parts = None if levels is None else regions.by_level(inside, window, replace(levels, midline_mm=middle))
        for name in names:
            part = inside if name == "all" or parts is None else parts == 1 + PROXIMAL_DISTAL.index(name)
            burdens.append(_measure(part, window, limb, name, level))
    return burdens


def category(burdens: list[Burden], *, edited: bool = False) -> str:
    """Describe the segmentation in one sentence: none, proximal, distal or both. It is not a diagnosis.

    ``edited``: the mask is not as the model made it.
    """
    found = "The edited mask contains" if edited else "The model segmented"
    thrombus = "thrombus" if edited else "possible thrombus"
    volume = {name: sum(b.volume_ml for b in burdens if b.region == name) for name in ("all", *PROXIMAL_DISTAL)}
    if volume["all"] == 0:
        return f"{found} no thrombus."
    if not any(b.region in PROXIMAL_DISTAL for b in burdens):
        return f"{found} {thrombus} (proximal or distal unknown)."
    if volume["proximal"] == 0:
        return f"{found} {thrombus} below the level only (distal)."
    if volume["distal"] == 0:
        return f"{found} {thrombus} above the level only (proximal)."
    return f"{found} {thrombus} above and below the level (proximal and distal)."


def _limb(mask: np.ndarray, grid: Grid, levels: Levels | None, limb: str) -> tuple[np.ndarray, Grid]:
    """Crop the mask of one limb to its bounding box; return it with the grid of the box."""
    indices = np.argwhere(mask)
    indices = indices[regions.in_left_limb(grid.position_mm(indices), grid, levels) == (limb == "left")]
    low = indices.min(axis=0) if len(indices) else np.zeros(3, int)
    high = indices.max(axis=0) + 1 if len(indices) else np.ones(3, int)
    inside = np.zeros(high - low, bool)
    inside[tuple((indices - low).T)] = True
    return inside, grid.window(low, inside.shape)


def _measure(mask: np.ndarray, grid: Grid, limb: str, region: str, level_mm: float | None) -> Burden:
    indices = np.argwhere(mask)
    if not len(indices):
        return Burden(limb=limb, region=region)
    heights = grid.position_mm(indices)[:, 2]
    labels, count = ndimage.label(mask, CONNECTIVITY_26)
    return Burden(
        limb=limb,
        region=region,
        volume_ml=len(indices) * grid.voxel_ml,
        components=int(count),
        length_mm=sum(_length_mm(component, grid) for component in _components(labels)),
        largest_section_mm2=_section_mm2(heights, grid),
        top_mm=None if level_mm is None else float(heights.max() - level_mm),
        bottom_mm=None if level_mm is None else float(heights.min() - level_mm),
    )


def _components(labels: np.ndarray) -> Iterator[np.ndarray]:
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        yield labels[box] == number


def _section_mm2(heights: np.ndarray, grid: Grid) -> float:
    """Divide the volume of the fullest slab by its thickness, which is at least one voxel."""
    vertical = float(np.abs(np.asarray(grid.direction)[:, 2] * grid.spacing_mm).max())
    rows = max(1, round(SLICE_MM / vertical))
    slab = np.floor((heights - heights.min()) / vertical + 0.5).astype(int)
    counts = np.bincount(slab)
    window = np.convolve(counts, np.ones(min(rows, len(counts))), mode="valid")
    return float(window.max() / min(rows, len(counts)) * grid.voxel_ml * 1000.0 / vertical)


SHELL_STEPS = 2
"""Thickness of a shell in ``_length_mm``, in voxels of the longest side. No path can skip such a shell."""


def _length_mm(component: np.ndarray, grid: Grid) -> float:
    """Measure the centre line of a component from end to end.

    The ends are the two voxels with the longest shortest path between them inside the component. Shells of equal
    distance from one end cut the component across. The line connects the centres of these shells; where the component
    branches, only the part of a shell that the path crosses counts. Unlike thinning, this needs no isotropic voxels,
    does not cut corners at bends, and does not shorten the ends.
    """
    positions = grid.position_mm(np.argwhere(component))
    end_caps = float(np.min(grid.spacing_mm))  # half a voxel at either end
    if len(positions) == 1:
        return end_caps
    graph: Any = _neighbours(component, grid)
    distances_from: Any = partial(csgraph.dijkstra, graph, directed=False)
    start = int(distances_from(indices=0).argmax())
    distances, predecessors = distances_from(indices=start, return_predecessors=True)
    node = int(distances.argmax())
    longest = float(distances[node])
    path = [node]
    while node != start:
        node = int(predecessors[node])
        path.append(node)
    width = SHELL_STEPS * float(np.max(grid.spacing_mm))
    shells = np.floor(distances / width).astype(int)
    centres = []
    for shell in range(int(shells.max()) + 1):
        members = np.flatnonzero(shells == shell)
        _, part = csgraph.connected_components(graph[members][:, members], directed=False)
        on_path = [k for k in path if shells[k] == shell]
        crossed = part == part[np.searchsorted(members, on_path[0])]
        centres.append(positions[members[crossed]].mean(axis=0))
    last = longest - width * (len(centres) - 1)
    if len(centres) == 1:
        return longest + end_caps
    between = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
    return float(between) + width / 2 + last / 2 + end_caps


def _neighbours(component: np.ndarray, grid: Grid) -> sparse.csr_array:
    """Return the distances in mm between adjacent voxels of a component, by their running numbers."""
    number = np.full(np.add(component.shape, 2), -1)
    inner = (slice(1, -1),) * 3
    number[inner][component] = np.arange(np.count_nonzero(component))
    moves = np.argwhere(CONNECTIVITY_26) - 1
    rows, columns, lengths = [], [], []
    for move in moves[len(moves) // 2 + 1 :]:
        other = number[tuple(slice(1 + m, n - 1 + m) for m, n in zip(move, number.shape, strict=True))]
        both = component & (other >= 0)
        rows.append(number[inner][both])
        columns.append(other[both])
        lengths.append(np.full(np.count_nonzero(both), np.linalg.norm(move @ grid.steps_mm)))
    joined = (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns)))
    count = int(number.max()) + 1
    return sparse.csr_array(sparse.coo_array(joined, shape=(count, count)))
