"""Predict slices by overlapping tiles of the size of the patches that a network was trained on.

Group normalization takes its statistics over what the network sees. So a network that was trained on patches must see
tiles of that size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


class _Tile(NamedTuple):
    image: int
    down: slice
    right: slice
    mirrored: bool
    """Whether the network sees its mirror image."""

    def cut(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return what the network sees, (C, rows, columns)."""
        seen = image_BCHW[self.image, :, self.down, self.right]
        return seen.flip(-1) if self.mirrored else seen


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
    height, width = image_BCHW.shape[-2:]
    weight_HW = tile_weights(tile).to(image_BCHW.device)
    exchanged = list(mirrored_outputs or ())
    grid = _chessboard((height, width), tile, mirrors=mirrored_outputs is not None)
    places = [_Tile(image, *place) for image in range(len(image_BCHW)) for place in grid]
    total: torch.Tensor | None = None
    weights_HW = torch.zeros(height, width, device=image_BCHW.device)
    for batch in _batches(places, at_once):
        predicted = predict(torch.stack([place.cut(image_BCHW) for place in batch]))
        if total is None:
            total = predicted.new_zeros(len(image_BCHW), predicted.shape[1], height, width)
        for place, one in zip(batch, predicted, strict=True):
            in_place = one[exchanged].flip(-1) if place.mirrored else one
            total[place.image, :, place.down, place.right] += in_place * weight_HW
            if place.image == 0:
                weights_HW[place.down, place.right] += weight_HW
    if total is None:
        raise ValueError("no slices")
    return total / weights_HW


def _chessboard(whole: tuple[int, int], tile: tuple[int, int], *, mirrors: bool) -> list[tuple[slice, slice, bool]]:
    """Return rows, columns and whether it is mirrored of each tile of a slice."""
    tops, lefts = (enumerate(starts(side, length)) for side, length in zip(whole, tile, strict=True))
    places = [
        (slice(top, top + tile[0]), slice(left, left + tile[1]), mirrors and (i + j) % 2 == 1)
        for (i, top), (j, left) in itertools.product(tops, lefts)
    ]
    if mirrors and len(places) == 1:
        places.append((*places[0][:2], True))
    return places


def _batches(places: list[_Tile], size: int) -> Iterator[list[_Tile]]:
    for first in range(0, len(places), size):
        yield places[first : first + size]
