"""Compare losses, augmentation and tiles on the device with the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from bench.results import Row
from torch import nn

from dvtplan.inference.tiles import predict_by_tiles
from dvtplan.planning.plan_rules import PAPER_SHAPE, twelve_variants
from dvtplan.planning.recipe import RECIPES
from dvtplan.training import augmentation
from dvtplan.training.data_loading import Batch
from dvtplan.training.losses import LOSSES, focal
from dvtplan.training.wide_augmentation import NUMBERS, Change, WideAugmentation
from gpucheck.checks import Check
from gpucheck.settings import Settings

SHAPE = (64, 48)
LOSS_ERROR = 1e-5
"""Largest relative difference of float32 sums of a few thousand pixels in another order."""
IMAGE_ERROR = 1e-3
"""Largest difference of warped images in [0, 1]; positions among 960 pixels are rounded to 1e-4 of a pixel."""
NOISE_ERROR = 0.1
"""Largest relative difference of the SD of noise in 3,000 pixels; its standard error is .013 on each device."""
LABEL_SHARE = 0.03
"""Largest share of label pixels that differ. At scales .9 and 1.1 every ninth or eleventh row and column lies halfway
between two pixels, where rounding decides. Labels that are shifted by a pixel differ in .42."""


def loss(settings: Settings) -> Iterator[Row]:
    """Compare focal loss and its gradient for one and for three outputs, including saturated logits."""
    for outputs in (1, 3):
        random = torch.Generator().manual_seed(outputs)
        logits = 30 * torch.randn(2, outputs, *SHAPE, generator=random)
        target = torch.randint(0, max(2, outputs), (2, *SHAPE), generator=random).to(torch.uint8)
        yield _loss_row("focal loss", lambda z, t: focal(z, t, 2.0, 0.75), logits, target, settings.device)


def dice_loss(settings: Settings) -> Iterator[Row]:
    """Compare the loss of the recipe `modern` and its gradient for one and for three outputs."""
    recipe = RECIPES["modern"]
    for outputs in (1, 3):
        random = torch.Generator().manual_seed(outputs)
        logits = 3 * torch.randn(2, outputs, *SHAPE, generator=random)
        target = torch.randint(0, max(2, outputs), (2, *SHAPE), generator=random).to(torch.uint8)
        yield _loss_row(recipe.loss, lambda z, t: LOSSES[recipe.loss](z, t, recipe), logits, target, settings.device)


def _loss_row(
    name: str,
    compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    logits: torch.Tensor,
    target: torch.Tensor,
    device: str,
) -> Row:
    """Compare a loss of logits (B, K, H, W) and class numbers (B, H, W), and its gradient, with the CPU."""
    found = []
    for place in ("cpu", device):
        here = logits.clone().to(place).requires_grad_()
        value = compute(here, target.to(place))
        (gradient,) = torch.autograd.grad(value, here)
        found.append((value.detach().cpu().double(), gradient.cpu().double()))
    # Value and gradient each: one norm of both would hide the gradient.
    error = max(float((there - here).norm() / here.norm()) for here, there in zip(*found, strict=True))
    outputs = logits.shape[1]
    return Row(
        section=name, what=f"{outputs} output{'s' if outputs > 1 else ''}, relative difference to the CPU",
        value=error, unit="", at_most=LOSS_ERROR, note="the larger of value and gradient",
    )  # fmt: skip


def wide(settings: Settings) -> Iterator[Row]:
    """Compare each change of intensities of the augmentation `wide`. Noise differs by device, so its SD is compared."""
    changes = [change for change in Change if change >= Change.BLUR]
    numbers = torch.ones(len(changes), NUMBERS)
    for place, change in enumerate(changes):
        numbers[place, 2 * change : 2 * change + 2] = torch.tensor([0.0, 0.9])
    image = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0)).expand(len(changes), -1, -1, -1)
    label = torch.zeros(len(changes), *SHAPE, dtype=torch.uint8)
    found = []
    for device in ("cpu", settings.device):
        here = image.clone().to(device)
        batch = Batch(here, label.to(device), label[:, 0, 0], numbers[:, :0], numbers, torch.arange(len(changes)))
        mirrored = np.zeros(len(changes), bool)
        found.append(WideAugmentation(True, {}).finish(here, batch.label_BHW, mirrored, batch)[0].cpu())
    cpu, there = found
    plain = [k for k, change in enumerate(changes) if change is not Change.NOISE]
    yield Row(
        section="wide augmentation", what="images, largest difference to the CPU",
        value=float((cpu[plain] - there[plain]).abs().max()), unit="", at_most=IMAGE_ERROR,
        note=", ".join(changes[k].name.lower() for k in plain),
    )  # fmt: skip
    noise = changes.index(Change.NOISE)
    spread = [float((one[noise] - image[noise]).std()) for one in found]
    yield Row(
        section="wide augmentation", what="noise, relative difference of its SD to the CPU",
        value=abs(spread[1] / spread[0] - 1), unit="", at_most=NOISE_ERROR, note=f"SD {spread[1]:.3g}",
    )  # fmt: skip


def tiles(settings: Settings) -> Iterator[Row]:
    """Compare a slice that is predicted by overlapping tiles, by a network that is one convolution."""
    torch.manual_seed(0)
    network = nn.Conv2d(5, 2, kernel_size=3, padding=1).requires_grad_(False)
    image = torch.rand(2, 5, 3 * SHAPE[0], 3 * SHAPE[1], generator=torch.Generator().manual_seed(1))
    cpu, there = (
        predict_by_tiles(network.to(device), image.to(device), SHAPE, at_once=4).cpu()
        for device in ("cpu", settings.device)
    )
    yield Row(
        section="tiles", what="predictions, largest difference to the CPU", value=float((cpu - there).abs().max()),
        unit="", at_most=IMAGE_ERROR, note=f"tiles of {SHAPE[0]}x{SHAPE[1]}; convolutions may use TF32",
    )  # fmt: skip


def augmented(settings: Settings) -> Iterator[Row]:
    """Compare the paper's twelve variants at 960x320."""
    variants = twelve_variants(mirror=True)
    shape = SHAPE if settings.tiny else PAPER_SHAPE
    random = torch.Generator().manual_seed(0)
    image = torch.rand(len(variants), 1, *shape, generator=random)
    label = (image[:, 0] > 0.7).to(torch.uint8)
    matrices = augmentation.matrices(variants, shape)
    expected = augmentation.apply(image, label, matrices)
    device = settings.device
    found = augmentation.apply(image.to(device), label.to(device), matrices.to(device))
    images, labels = ((a.cpu(), b) for a, b in zip(found, expected, strict=True))
    size = f"12 variants at {shape[0]}x{shape[1]}"
    yield Row(
        section="augmentation", what="images, largest difference to the CPU",
        value=float((images[0] - images[1]).abs().max()), unit="", at_most=IMAGE_ERROR, note=size,
    )  # fmt: skip
    yield Row(
        section="augmentation", what="labels, share that differs from the CPU",
        value=float((labels[0] != labels[1]).float().mean()), unit="", at_most=LABEL_SHARE, note=size,
    )  # fmt: skip


def checks() -> tuple[Check, ...]:
    """Return the checks of all operations."""
    return (
        Check(name="focal loss", measure=loss, must_hold=True),
        Check(name="dice loss", measure=dice_loss, must_hold=True),
        Check(name="augmentation", measure=augmented, must_hold=True),
        Check(name="wide augmentation", measure=wide, must_hold=True),
        Check(name="tiles", measure=tiles, must_hold=True),
    )
