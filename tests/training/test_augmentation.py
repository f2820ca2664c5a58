"""What a step sees of a batch: variants of the plan, wide changes, whole slices and patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.records import PLAN

from dvtplan.planning.plan import Variant
from dvtplan.planning.recipe import Recipe
from dvtplan.training.augmentation import Augmentation
from dvtplan.training.data_loading import Batch
from dvtplan.training.warp import apply, matrices
from dvtplan.training.wide_augmentation import NUMBERS, WIDE, Change

IDENTITY = Variant(angle_deg=0.0, scale=1.0, mirror=False)
MIRROR = Variant(angle_deg=0.0, scale=1.0, mirror=True)
TWO = replace(PLAN, variants=(IDENTITY, MIRROR), target_shape=(48, 32))
UNCHANGED = np.ones((2, NUMBERS), np.float32)


def batch(numbers_BP: np.ndarray = UNCHANGED, seeds: tuple[int, int] = (1, 2), centre: bool = False) -> Batch:
    """Two images of noise, of two channels, with labels in blocks of 4x4."""
    random = np.random.default_rng(0)
    image = torch.tensor(random.random((2, 2, 48, 32)), dtype=torch.float32)
    label = np.kron(random.integers(0, 3, (2, 12, 8)).astype(np.uint8), np.ones((1, 4, 4), np.uint8))
    centres = [[20.0, 14.0], [24.0, 16.0]] if centre else np.empty((2, 0))
    return Batch(
        image,
        torch.tensor(label),
        torch.tensor([1, 0]),
        torch.tensor(np.array(centres), dtype=torch.float32),
        torch.tensor(numbers_BP),
        torch.tensor(seeds),
    )


def chosen(change: Change, strength: float) -> np.ndarray:
    """Numbers by which only the first slice is changed, at a share of the range of strengths."""
    numbers = UNCHANGED.copy()
    numbers[0, 2 * change : 2 * change + 2] = 0.0, strength
    return numbers


def wide(numbers: np.ndarray, plan_labels: dict[str, int] | None = None, **of_batch: object) -> tuple[Batch, Batch]:
    """The batch before and after the augmentation `wide`."""
    plan = TWO if plan_labels is None else replace(TWO, labels=plan_labels, variants=(IDENTITY,))
    before = batch(numbers, **of_batch)  # type: ignore[arg-type]
    image, label = Augmentation(plan, Recipe(augmentation="wide"), "cpu")(before)
    return before, before._replace(image_BCHW=image, label_BHW=label)


def test_each_slice_of_a_batch_gets_its_variant_of_the_plan() -> None:
    given = batch()
    images, labels = Augmentation(TWO, Recipe(), "cpu")(given)
    for one, variant in enumerate((MIRROR, IDENTITY)):
        part = given.image_BCHW[one : one + 1], given.label_BHW[one : one + 1]
        expected_image, expected_label = apply(*part, matrices([variant], (48, 32)))
        assert torch.equal(images[one], expected_image[0]) and torch.equal(labels[one], expected_label[0])


@pytest.mark.parametrize("augmentation", ["variants", "wide"])
def test_a_patch_is_cut_around_its_centre(augmentation: str) -> None:
    given = batch(centre=True)._replace(variant_B=torch.tensor([0, 0]))
    images, labels = Augmentation(TWO, Recipe(patch="32x32", augmentation=augmentation), "cpu")(given)
    assert images.shape == (2, 2, 32, 32)
    torch.testing.assert_close(images[1], given.image_BCHW[1, :, 8:40], rtol=0, atol=1e-5)
    assert torch.equal(labels[1], given.label_BHW[1, 8:40])


def test_nothing_changes_where_nothing_is_chosen() -> None:
    before, after = wide(UNCHANGED)
    torch.testing.assert_close(after.image_BCHW, before.image_BCHW, rtol=0, atol=1e-5)
    assert torch.equal(after.label_BHW, before.label_BHW)


@pytest.mark.parametrize("change", list(Change))
def test_each_change_reaches_only_the_chosen_slice(change: Change) -> None:
    before, after = wide(chosen(change, 0.1))
    assert not torch.allclose(after.image_BCHW[0], before.image_BCHW[0], atol=0.01)
    torch.testing.assert_close(after.image_BCHW[1], before.image_BCHW[1], rtol=0, atol=1e-5)
    moves = change in (Change.ROTATION, Change.SCALE, Change.MIRROR)
    assert torch.equal(after.label_BHW[0], before.label_BHW[0]) == (not moves)


def test_strengths_have_their_units() -> None:
    image = batch().image_BCHW[0]
    brighter = wide(chosen(Change.BRIGHTNESS, 1.0))[1].image_BCHW[0]
    torch.testing.assert_close(brighter, image * WIDE[Change.BRIGHTNESS].high, rtol=0, atol=1e-4)
    flatter = wide(chosen(Change.CONTRAST, 0.0))[1].image_BCHW[0]
    assert float(flatter.std() / image.std()) == pytest.approx(WIDE[Change.CONTRAST].low, rel=1e-3)
    assert float(flatter.mean()) == pytest.approx(float(image.mean()), abs=1e-4)
    darker = wide(chosen(Change.GAMMA, 1.0))[1].image_BCHW[0]
    torch.testing.assert_close(darker, image**1.5, rtol=0, atol=1e-4)
    noise = wide(chosen(Change.NOISE, 1.0))[1].image_BCHW[0] - image
    assert float(noise.std()) == pytest.approx(0.05, rel=0.1) and float(noise.mean()) == pytest.approx(0, abs=0.005)
    blurred, coarse = (wide(chosen(c, 0.0))[1].image_BCHW[0] for c in (Change.BLUR, Change.RESOLUTION))
    assert coarse.std() < 0.8 * image.std() and blurred.std() < image.std()
    assert float(blurred.mean()) == pytest.approx(float(image.mean()), abs=0.005)


def test_noise_follows_its_seed() -> None:
    numbers = chosen(Change.NOISE, 1.0)
    first, again, other = (wide(numbers, seeds=(seed, 9))[1].image_BCHW for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first[0], other[0])


def test_sides_are_exchanged_where_labels_name_them() -> None:
    """And a slice is not mirrored where a side has no counterpart."""
    numbers = chosen(Change.MIRROR, 0.5)
    before, after = wide(numbers, {"left leg": 1, "right leg": 2})
    torch.testing.assert_close(after.image_BCHW[0], before.image_BCHW[0].flip(-1), rtol=0, atol=1e-5)
    exchanged = torch.tensor([0, 2, 1], dtype=torch.uint8)[before.label_BHW[0].flip(-1).long()]
    assert torch.equal(after.label_BHW[0], exchanged) and torch.equal(after.label_BHW[1], before.label_BHW[1])
    before, after = wide(numbers, {"left leg": 1, "clot": 2, "right vein": 3})
    assert torch.equal(after.label_BHW, before.label_BHW)
