"""Patches: where they lie, how often each lesion is drawn, and what decides it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dvtplan.training.sampling import Draws, Lesions, PatchSampling, SliceSampler, SliceView

LARGE = np.array([(0, row, 10) for row in range(90)])
SMALL = np.array([(1, 5, 50), (2, 5, 50)])
OTHER = np.array([(3, 40, 30)])
PATCHES = PatchSampling(
    shape=(96, 64),
    patch=(32, 48),
    window=(48, 60),
    lesions=(
        Lesions(np.concatenate([LARGE, SMALL]), np.array([0, 90]), np.array([90, 2])),
        Lesions(OTHER, np.array([0]), np.array([1])),
    ),
)
SAMPLER = SliceSampler(slices=400, variants=3, batch_size=4, seed=7, oversampling=0.5, patches=PATCHES, numbers=2)


def flat(draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N,), and centres of patches in their slices (N, 2)."""
    return draws.slices.ravel(), (draws.corners + draws.centres).reshape(-1, 2)


def test_patches_and_windows_lie_within_their_slices() -> None:
    draws = SAMPLER.draws(0)
    _, centres = flat(draws)
    assert (centres >= [16, 24]).all() and (centres <= [80, 40]).all()
    assert (draws.corners >= 0).all() and (draws.corners <= [96 - 48, 64 - 60]).all()
    assert draws.corners.dtype.kind == "i"
    assert (draws.centres >= [16, 24]).all() and (draws.centres <= [48 - 16, 60 - 24]).all()
    assert np.ptp(centres[:, 0]) > 50 and np.ptp(centres[:, 1]) > 12


def test_patches_lie_on_whole_pixels() -> None:
    """Between them, interpolation would blur every patch, but no tile of a prediction."""
    assert np.array_equal(SAMPLER.draws(0).centres % 1, np.zeros((100, 4, 2)))


def test_every_label_and_within_it_every_lesion_is_drawn_equally_often() -> None:
    """The lesion of 2 voxels as often as that of 90."""
    numbers = np.concatenate([SAMPLER.draws(epoch).slices.ravel() for epoch in range(20)])
    drawn = 8000 * 0.5
    for found, share in ((numbers == 0, 1 / 4), (np.isin(numbers, [1, 2]), 1 / 4), (numbers == 3, 1 / 2)):
        assert found.sum() == pytest.approx(drawn * share, rel=0.1)


def test_a_drawn_lesion_lies_in_the_middle_of_its_patch_unless_the_slice_ends_before() -> None:
    slices, centres = flat(replace(SAMPLER, oversampling=1.0).draws(0))
    away = np.abs(centres[slices == 3] - [40.5, 30.5])
    assert (away[:, 0] <= 32 / 3 + 0.01).all() and (away[:, 1] <= 48 / 2).all()
    assert away.max() > 5


def test_patches_are_a_function_of_seed_and_epoch_alone_and_shared_by_ranks() -> None:
    whole, again = SAMPLER.draws(3), SAMPLER.draws(3)
    fields = ("slices", "variants", "corners", "centres", "numbers", "seeds")
    assert all(np.array_equal(getattr(whole, name), getattr(again, name)) for name in fields)
    assert not np.array_equal(whole.centres, SAMPLER.draws(4).centres)
    for rank in range(2):
        part = replace(SAMPLER, rank=rank, world=2).draws(3)
        for name in fields:
            assert np.array_equal(getattr(part, name), getattr(whole, name)[:, rank::2]), name


def test_whole_slices_have_the_order_that_they_had_without_patches_and_numbers() -> None:
    plain = SliceSampler(slices=24, variants=12, batch_size=4, seed=7)
    wide = replace(plain, numbers=6, context=2)
    assert np.array_equal(plain.order(2), wide.order(2))
    assert wide.draws(2).numbers.shape == (6, 4, 6) and plain.draws(2).seeds.shape == (6, 0)


def test_without_lesions_patches_lie_anywhere() -> None:
    nowhere = replace(SAMPLER, patches=replace(PATCHES, lesions=()))
    assert sorted(nowhere.draws(0).slices.ravel()) == list(range(400))


def test_a_slice_is_seen_with_its_neighbours_and_the_ends_are_repeated() -> None:
    array = np.arange(5)[:, None, None] * np.ones((1, 8, 6))
    view, corner = SliceView(context=2, window=(4, 3)), np.array([2, 1])
    for index, expected in ((2, [0, 1, 2, 3, 4]), (0, [0, 0, 0, 1, 2]), (4, [2, 3, 4, 4, 4])):
        part = np.stack(view.part(array, index, corner, 2))
        assert part.shape == (5, 4, 3) and part[:, 0, 0].tolist() == expected
