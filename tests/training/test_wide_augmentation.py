"""The window around a patch holds all that its strongest changes reach."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dvtplan.training.warp import Warp, apply, warp_matrices
from dvtplan.training.wide_augmentation import WIDE, Change, window_of


@pytest.mark.parametrize("patch", [(96, 64), (288, 160), (640, 32), (32, 640), (64, 64)])
def test_no_change_reaches_beyond_the_window(patch: tuple[int, int]) -> None:
    shape = (1024, 1024)
    window = window_of(patch, shape)
    turn = np.linspace(WIDE[Change.ROTATION].low, WIDE[Change.ROTATION].high, 31)
    scales = np.exp([WIDE[Change.SCALE].low, 0.0])
    angle, scale = np.array(list(itertools.product(turn, scales))).T
    warp = Warp(angle, scale, np.zeros(len(angle), bool))
    centre = np.broadcast_to(np.array(window) / 2, (len(angle), 2))
    matrix = warp_matrices(warp, centre, window, patch)
    ones, label = torch.ones(len(angle), 1, *window), torch.zeros(len(angle), *window, dtype=torch.uint8)
    image, _ = apply(ones, label, matrix, patch)
    assert float(image.min()) > 1 - 1e-4
    assert all(side <= whole for side, whole in zip(window, shape, strict=True))


def test_a_window_is_not_larger_than_its_slice() -> None:
    assert window_of((96, 64), (120, 64)) == (120, 64)
