"""Predict slices by overlapping tiles of the size of the patches that a network was trained on.

Group normalization takes its statistics over what the network sees. So a network that was trained on patches must see
tiles of that size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

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


def predict_by_tiles(
    predict: Callable[[torch.Tensor], torch.Tensor], image_BCHW: torch.Tensor, tile: tuple[int, int], at_once: int
) -> torch.Tensor:
    """Return the weighted mean of the predictions of all tiles.

    Args:
        predict: (N, C, *tile) -> probabilities (N, K, *tile).
        image_BCHW: slices; no side is shorter than that of a tile.
        tile: rows and columns.
        at_once: tiles of one call of ``predict``.

    Returns:
        Probabilities (B, K, H, W), float32.
    """
    (rows, columns), (height, width) = tile, image_BCHW.shape[-2:]
    weight_HW = tile_weights(tile).to(image_BCHW.device)
    places = [
        (k, slice(top, top + rows), slice(left, left + columns))
        for k in range(len(image_BCHW))
        for top, left in itertools.product(starts(height, rows), starts(width, columns))
    ]
    total: torch.Tensor | None = None
    weights_HW = torch.zeros(height, width, device=image_BCHW.device)
    for batch in _batches(places, at_once):
        predicted = predict(torch.stack([image_BCHW[k, :, down, right] for k, down, right in batch]))
        if total is None:
            total = predicted.new_zeros(len(image_BCHW), predicted.shape[1], height, width)
        for (k, down, right), one in zip(batch, predicted, strict=True):
            total[k, :, down, right] += one * weight_HW
            if k == 0:
                weights_HW[down, right] += weight_HW
    if total is None:
        raise ValueError("no slices")
    return total / weights_HW


def _batches(places: list[tuple[int, slice, slice]], size: int) -> Iterator[list[tuple[int, slice, slice]]]:
    for first in range(0, len(places), size):
        yield places[first : first + size]
