"""Predict slices by overlapping tiles of the size of the patches that a network was trained on.

Group normalization takes its statistics over what the network sees. So a network that was trained on patches must see
tiles of that size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

STEP = 0.5
"""Distance of neighbouring tiles, at most, as a share of their side."""
EDGE = 0.25
"""Share of a tile's side, from each edge inwards, over which its weight rises to 1. Near its edges a tile sees less of
what surrounds a pixel."""


def starts(whole: int, tile: int) -> list[int]:
    """Return the first pixel of each tile along an axis: evenly spread, from the first to the last pixel."""
    count = 1 if whole <= tile else math.ceil((whole - tile) / (tile * STEP)) + 1
    return [round(k * (whole - tile) / max(count - 1, 1)) for k in range(count)]


def tile_weights(tile: tuple[int, int]) -> torch.Tensor:
    """Return the weight of each pixel of a tile, (rows, columns), above 0 and at most 1."""
    rows, columns = (_rise(side) for side in tile)
    return rows[:, None] * columns


def _rise(side: int) -> torch.Tensor:
    from_edge = torch.arange(side) + 0.5
    return (torch.minimum(from_edge, side - from_edge) / (side * EDGE)).clamp_max(1.0)


@dataclass(frozen=True, slots=True)
class _Tile:
    image: int
    down: slice
    right: slice
    mirrored: bool
    """Whether the network sees its mirror image."""


def predict_by_tiles(
    predict: Callable[[torch.Tensor], torch.Tensor],
    image_BCHW: torch.Tensor,
    tile: tuple[int, int],
    at_once: int,
    mirrored_outputs: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Return the weighted mean of the predictions of all tiles.

    Args:
        predict: (N, C, *tile) -> probabilities (N, K, *tile).
        image_BCHW: slices; no side is shorter than that of a tile.
        tile: rows and columns.
        at_once: tiles of one call of ``predict``.
        mirrored_outputs: every second tile is predicted mirrored, in a chessboard pattern, and its outputs 0, 1, ...
            are these of the mirror image. A slice of a single tile is predicted both ways. None: no tile is mirrored.

    Returns:
        Probabilities (B, K, H, W), float32.
    """
    (rows, columns), (height, width) = tile, image_BCHW.shape[-2:]
    weight_HW = tile_weights(tile).to(image_BCHW.device)
    grid = starts(height, rows), starts(width, columns)
    places = [
        _Tile(image, slice(grid[0][i], grid[0][i] + rows), slice(grid[1][j], grid[1][j] + columns), mirrored)
        for image in range(len(image_BCHW))
        for i, j, mirrored in _chessboard(len(grid[0]), len(grid[1]), mirrors=mirrored_outputs is not None)
    ]
    total: torch.Tensor | None = None
    weights_HW = torch.zeros(height, width, device=image_BCHW.device)
    for batch in _batches(places, at_once):
        shown = [image_BCHW[place.image, :, place.down, place.right] for place in batch]
        predicted = predict(
            torch.stack([_flip_if(place.mirrored, one) for place, one in zip(batch, shown, strict=True)])
        )
        if total is None:
            total = predicted.new_zeros(len(image_BCHW), predicted.shape[1], height, width)
        for place, one in zip(batch, predicted, strict=True):
            if place.mirrored and mirrored_outputs is not None:
                one = one[list(mirrored_outputs)]
            total[place.image, :, place.down, place.right] += _flip_if(place.mirrored, one) * weight_HW
            if place.image == 0:
                weights_HW[place.down, place.right] += weight_HW
    if total is None:
        raise ValueError("no slices")
    return total / weights_HW


def _chessboard(rows: int, columns: int, *, mirrors: bool) -> list[tuple[int, int, bool]]:
    """Return row, column and whether it is mirrored of each tile of a grid."""
    if mirrors and rows == columns == 1:
        return [(0, 0, False), (0, 0, True)]
    return [(i, j, mirrors and (i + j) % 2 == 1) for i, j in itertools.product(range(rows), range(columns))]


def _flip_if(mirrored: bool, image: torch.Tensor) -> torch.Tensor:
    return image.flip(-1) if mirrored else image


def _batches(places: list[_Tile], size: int) -> Iterator[list[_Tile]]:
    for first in range(0, len(places), size):
        yield places[first : first + size]
