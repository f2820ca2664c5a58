"""Compare focal loss and augmentation on the device with the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from bench.results import Row

from dvtplan.planning.plan_rules import PAPER_SHAPE, twelve_variants
from dvtplan.training import augmentation
from dvtplan.training.losses import focal
from gpucheck.checks import Check
from gpucheck.settings import Settings

SHAPE = (64, 48)
LOSS_ERROR = 1e-5
"""Largest relative difference of float32 sums of a few thousand pixels in another order."""
IMAGE_ERROR = 1e-3
"""Largest difference of warped images in [0, 1]; positions among 960 pixels are rounded to 1e-4 of a pixel."""
LABEL_SHARE = 0.03
"""Largest share of label pixels that differ. At scales .9 and 1.1 every ninth or eleventh row and column lies halfway
between two pixels, where rounding decides. Labels that are shifted by a pixel differ in .42."""


def loss(settings: Settings) -> Iterator[Row]:
    """Compare focal loss and its gradient for one and for three outputs, including saturated logits."""
    for outputs in (1, 3):
        random = torch.Generator().manual_seed(outputs)
        logits = 30 * torch.randn(2, outputs, *SHAPE, generator=random)
        target = torch.randint(0, max(2, outputs), (2, *SHAPE), generator=random).to(torch.uint8)
        found = []
        for device in ("cpu", settings.device):
            here = logits.clone().to(device).requires_grad_()
            value = focal(here, target.to(device), 2.0, 0.75)
            value.backward()
            if here.grad is None:
                raise RuntimeError("focal loss left no gradient")
            found.append(torch.cat([value.detach().cpu().flatten(), here.grad.cpu().flatten()]).double())
        difference = found[1] - found[0]
        parts = (slice(0, 1), slice(1, None))  # value and gradient; one norm of both would hide the gradient
        error = max(float(difference[part].norm() / found[0][part].norm()) for part in parts)
        yield Row(
            section="focal loss", what=f"{outputs} output{'s' if outputs > 1 else ''}, relative difference to the CPU",
            value=error, unit="", at_most=LOSS_ERROR, note="the larger of value and gradient",
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
    """Return the checks of both operations."""
    return (
        Check(name="focal loss", measure=loss, must_hold=True),
        Check(name="augmentation", measure=augmented, must_hold=True),
    )
