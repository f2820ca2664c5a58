"""The affine warp: directions, areas, and scipy as an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from dvtplan.planning.plan import Variant
from dvtplan.training.warp import Warp, apply, matrices, warp_matrices

IDENTITY = Variant(angle_deg=0.0, scale=1.0, mirror=False)
MIRROR = Variant(angle_deg=0.0, scale=1.0, mirror=True)
PAPER = [Variant(angle_deg=a, scale=s, mirror=m) for a in (-2.0, 0.0) for s in (0.9, 1.0, 1.1) for m in (0, 1)]


def noise(height: int = 48, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of noise, and a label of the classes 0 to 3 in blocks of 4x4."""
    random = np.random.default_rng(0)
    image = torch.tensor(random.random((1, 1, height, width)), dtype=torch.float32)
    blocks = random.integers(0, 4, (height // 4, width // 4)).astype(np.uint8)
    return image, torch.tensor(np.kron(blocks, np.ones((4, 4), np.uint8))[None])


def disc(height: int, width: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def warp(variant: Variant, image_HW: np.ndarray, label_HW: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One slice through the module."""
    label_HW = (image_HW > 0).astype(np.uint8) if label_HW is None else label_HW
    image, label = apply(
        torch.tensor(image_HW, dtype=torch.float32)[None, None],
        torch.tensor(label_HW)[None],
        matrices([variant], image_HW.shape),
    )
    return image[0, 0].numpy(), label[0].numpy()


def centroid(image: np.ndarray) -> tuple[float, float]:
    row, column = scipy.ndimage.center_of_mass(image)
    return float(row), float(column)


def test_identity_changes_nothing() -> None:
    image, label = noise()
    same_image, same_label = apply(image, label, matrices([IDENTITY], (48, 32)))
    # Positions are float32 in -1..1: 1e-7 of 48 pixels, times a step of at most 1 between pixels.
    torch.testing.assert_close(same_image, image, rtol=0, atol=1e-5)
    assert torch.equal(same_label, label) and same_label.dtype == label.dtype


def test_mirror_is_a_flip_of_columns() -> None:
    image, label = noise()
    mirrored_image, mirrored_label = apply(image, label, matrices([MIRROR], (48, 32)))
    torch.testing.assert_close(mirrored_image, image.flip(-1), rtol=0, atol=1e-5)
    assert torch.equal(mirrored_label, label.flip(-1))


def test_mirror_twice_is_the_identity() -> None:
    image, label = noise()
    matrix = matrices([MIRROR], (48, 32))
    twice_image, twice_label = apply(*apply(image, label, matrix), matrix)
    torch.testing.assert_close(twice_image, image, rtol=0, atol=1e-5)
    assert torch.equal(twice_label, label)


def test_a_positive_angle_turns_counter_clockwise_as_displayed() -> None:
    """On a 40x64 slice a dot 12 pixels right of the centre (19.5, 31.5) goes 12 pixels above it."""
    image, label = warp(Variant(angle_deg=90.0, scale=1.0, mirror=False), disc(40, 64, 19.5, 43.5, 2.5) * 1.0)
    # Symmetric dot, so only the blur of interpolation is left.
    assert centroid(image) == pytest.approx((7.5, 31.5), abs=0.01)
    assert centroid(label) == pytest.approx((7.5, 31.5), abs=0.01)


def test_minus_two_degrees_moves_a_far_point_down_on_the_right() -> None:
    """150 pixels right of the centre, clockwise: down by 150 sin 2 = 5.2, left by 150 (1 - cos 2) = 0.1."""
    image, _ = warp(Variant(angle_deg=-2.0, scale=1.0, mirror=False), disc(64, 320, 31.5, 309.5, 4) * 1.0)
    assert centroid(image) == pytest.approx((31.5 + 5.235, 309.5 - 0.091), abs=0.05)


def test_the_mirror_comes_after_the_rotation() -> None:
    """The dot that went down on the right is then mirrored to the left, still down."""
    image, _ = warp(Variant(angle_deg=-2.0, scale=1.0, mirror=True), disc(64, 320, 31.5, 309.5, 4) * 1.0)
    assert centroid(image) == pytest.approx((31.5 + 5.235, 319 - (309.5 - 0.091)), abs=0.05)


@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_scale_multiplies_areas_by_its_square_and_distances_by_itself(scale: float) -> None:
    shape, variant = (160, 128), Variant(angle_deg=0.0, scale=scale, mirror=False)
    before = disc(*shape, 79.5, 63.5, 30.0)
    image, label = warp(variant, before * 1.0)
    # The interpolated mass is exact to the edge's curvature; a mask is counted in whole pixels,
    # whose error is of the order of the square root of its edge's 200.
    assert image.sum() / before.sum() == pytest.approx(scale**2, rel=0.003)
    assert label.sum() / before.sum() == pytest.approx(scale**2, rel=0.01)
    moved, _ = warp(variant, disc(*shape, 79.5, 103.5, 6) * 1.0)
    assert centroid(moved) == pytest.approx((79.5, 63.5 + 40 * scale), abs=0.05)


@pytest.mark.parametrize("variant", PAPER, ids=str)
def test_equals_scipys_affine_transform(variant: Variant) -> None:
    """Output (row, column) from the centre -> input: unmirror, rotate back, unscale."""
    image, label = noise(96, 64)
    angle, flip = np.radians(variant.angle_deg), -1.0 if variant.mirror else 1.0
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / variant.scale
    to_input = turn @ np.diag([1.0, flip])
    centre = np.array([47.5, 31.5])
    offset = centre - to_input @ centre
    kinds = {"mode": "grid-constant", "cval": 0.0, "output_shape": (96, 64)}
    expected = scipy.ndimage.affine_transform(image[0, 0].double().numpy(), to_input, offset, order=1, **kinds)
    nearest = scipy.ndimage.affine_transform(label[0].numpy(), to_input, offset, order=0, **kinds)
    warped_image, warped_label = warp(variant, image[0, 0].numpy(), label[0].numpy())
    # As for the identity; 1e-7 of 96 pixels, with slopes of up to 1.
    np.testing.assert_allclose(warped_image, expected, rtol=0, atol=3e-5)
    # A position half-way between two pixels may round either way, which at scale 0.9 is a few rows.
    assert (warped_label != nearest).mean() < 0.02


@pytest.mark.parametrize("variant", PAPER, ids=str)
def test_labels_keep_their_values_and_move_with_the_image(variant: Variant) -> None:
    label = np.zeros((96, 64), np.uint8)
    label[disc(96, 64, 30.0, 40.0, 12)] = 3
    image, warped = warp(variant, (label > 0) * 1.0, label)
    assert set(np.unique(warped)) == {0, 3}
    # The nearest pixel is off by up to half a pixel, all one way where a row falls half-way (scale 0.9);
    # the variants move this disc by 0.8 (mirror: 17) pixels and more.
    assert centroid(warped) == pytest.approx(centroid(image), abs=0.3)


def test_what_comes_from_outside_is_zero() -> None:
    image, label = warp(Variant(angle_deg=0.0, scale=0.9, mirror=False), np.ones((40, 40)))
    assert image[0].max() == 0 and label[0].max() == 0 and image[20, 20] == pytest.approx(1)


def test_each_slice_of_a_batch_takes_its_own_variant_and_all_channels_move_alike() -> None:
    image, label = noise()
    batch = image.repeat(2, 3, 1, 1)
    both, _ = apply(batch, label.repeat(2, 1, 1), matrices([IDENTITY, MIRROR], (48, 32)))
    for channel in range(3):
        torch.testing.assert_close(both[0, channel], image[0, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(both[1, channel], image[0, 0].flip(-1), rtol=0, atol=1e-5)


def test_prepared_float16_becomes_float32() -> None:
    image, label = noise()
    warped, _ = apply(image.half(), label, matrices([IDENTITY], (48, 32)))
    assert warped.dtype == torch.float32


def test_a_patch_shows_what_lies_around_its_centre() -> None:
    """Centre (20, 14) and 8 x 12 pixels: rows 16 to 23, columns 8 to 19."""
    image, label = noise()
    matrix = warp_matrices(Warp.of([IDENTITY]), np.array([[20.0, 14.0]]), (48, 32), (8, 12))
    patch, patch_label = apply(image, label, matrix, (8, 12))
    torch.testing.assert_close(patch, image[..., 16:24, 8:20], rtol=0, atol=1e-5)
    assert torch.equal(patch_label, label[:, 16:24, 8:20])


def test_a_turned_patch_is_the_patch_of_the_turned_slice() -> None:
    """About the same centre, which is that of the slice."""
    image, label = noise()
    variant, centre = Variant(angle_deg=15.0, scale=1.25, mirror=True), np.array([[24.0, 16.0]])
    whole, whole_label = apply(image, label, matrices([variant], (48, 32)))
    patch, patch_label = apply(image, label, warp_matrices(Warp.of([variant]), centre, (48, 32), (16, 16)), (16, 16))
    torch.testing.assert_close(patch, whole[..., 16:32, 8:24], rtol=0, atol=1e-5)
    assert torch.equal(patch_label, whole_label[:, 16:32, 8:24])
