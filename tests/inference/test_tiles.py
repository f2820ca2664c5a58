"""Tiles: they cover every pixel, and their weighted mean is what each of them says where they agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dvtplan.inference.tiles import predict_by_tiles, starts, tile_weights


@pytest.mark.parametrize(("whole", "tile"), [(64, 64), (65, 64), (96, 64), (320, 96), (960, 288), (128, 64)])
def test_tiles_cover_an_axis_and_overlap_by_half(whole: int, tile: int) -> None:
    first = starts(whole, tile)
    assert first[0] == 0 and first[-1] == whole - tile
    assert all(0 < b - a <= tile / 2 + 1 for a, b in itertools.pairwise(first))


def test_weights_fall_towards_the_edges_and_never_to_zero() -> None:
    weight = tile_weights((96, 64)).numpy()
    assert weight.shape == (96, 64) and weight.min() > 0 and weight.max() == 1
    assert np.array_equal(weight, weight[::-1, ::-1]) and (np.diff(weight[48, :16]) > 0).all()


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_a_pixelwise_network_predicts_as_on_the_whole_slice(at_once: int) -> None:
    image = torch.rand(2, 3, 100, 70, generator=torch.Generator().manual_seed(0))
    sizes = []

    def predict(tiles: torch.Tensor) -> torch.Tensor:
        sizes.append(tiles.shape)
        return tiles[:, :2] * 0.5

    result = predict_by_tiles(predict, image, (48, 32), at_once)
    torch.testing.assert_close(result, image[:, :2] * 0.5, rtol=0, atol=1e-6)
    assert all(len(size) == 4 and size[0] <= at_once and size[2:] == (48, 32) for size in sizes)


def test_the_middle_of_a_tile_counts_more_than_its_edge() -> None:
    """Of two tiles of 32 rows, the first says 0 and the second 1; they share 16 rows."""
    answers = iter([0.0, 1.0])
    image = torch.zeros(1, 1, 48, 32)
    result = predict_by_tiles(lambda tiles: torch.full_like(tiles, next(answers)), image, (32, 32), 1)[0, 0, :, 16]
    assert result[:16].eq(0).all() and result[32:].eq(1).all()
    assert (result[16:32].diff() > 0).all() and float(result[23] + result[24]) == pytest.approx(1)


def test_every_second_tile_is_mirrored_and_put_back() -> None:
    """A network that looks at single pixels predicts as without mirrored tiles."""
    image = torch.rand(2, 2, 96, 64, generator=torch.Generator().manual_seed(0))
    seen = []

    def pixelwise(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(tiles)
        return tiles * 0.5

    result = predict_by_tiles(pixelwise, image, (48, 32), 100, (0, 1))
    torch.testing.assert_close(result, image * 0.5, rtol=0, atol=1e-6)
    assert [len(tiles) for tiles in seen] == [2 * 3 * 3]  # as many as without mirrored ones
    torch.testing.assert_close(seen[0][0], image[0, :, :48, :32])
    torch.testing.assert_close(seen[0][1], image[0, :, :48, 16:48].flip(-1))
    torch.testing.assert_close(seen[0][3], image[0, :, 24:72, :32].flip(-1))


def test_outputs_of_mirrored_tiles_are_exchanged() -> None:
    """Along the rows, tiles 0 and 2 say 0 for output 0, and the mirrored tile 1 says 0 for output 1."""
    image = torch.zeros(1, 1, 64, 32)

    def predict(tiles: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 1.0])[None, :, None, None].expand(len(tiles), 2, 32, 32)

    result = predict_by_tiles(predict, image, (32, 32), 2, (1, 0))[0, :, :, 16]
    assert result[0, :16].eq(0).all() and result[0, 48:].eq(0).all() and (result[0, 16:48] > 0).all()
    torch.testing.assert_close(result.sum(0), torch.ones(64))


def test_a_slice_of_one_tile_is_predicted_both_ways() -> None:
    column = torch.arange(32.0).expand(1, 1, 32, 32)
    result = predict_by_tiles(lambda tiles: column.expand(len(tiles), 1, 32, 32), column, (32, 32), 8, (0,))
    torch.testing.assert_close(result, (column + column.flip(-1)) / 2)
