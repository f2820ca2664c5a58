"""Augmentation `wide`: rotation, scale, mirror, gamma, brightness, contrast, noise, blur, lower resolution.

Each is applied to some slices only, by a strength that is drawn evenly from its range. Which, and how much, is decided
by uniform numbers that the sampler draws. So it is a function of seed and step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np
import torch
from torch.nn import functional

from dvtplan.planning.mirroring import mirrored_labels
from dvtplan.planning.plan import Plan
from dvtplan.training.data_loading import Batch
from dvtplan.training.warp import Warp


class Change(IntEnum):
    """What may be changed. Two uniform numbers decide each: whether, and how much."""

    ROTATION = 0
    SCALE = auto()
    MIRROR = auto()
    BLUR = auto()
    RESOLUTION = auto()
    BRIGHTNESS = auto()
    CONTRAST = auto()
    GAMMA = auto()
    NOISE = auto()


@dataclass(frozen=True, slots=True)
class Strength:
    """How often a change is made, and how strongly."""

    share: float
    """Share of the slices that are changed."""
    low: float = 0.0
    high: float = 0.0


WIDE = {
    Change.ROTATION: Strength(0.5, -15, 15),  # degrees
    Change.SCALE: Strength(0.5, math.log(0.8), math.log(1.25)),  # logarithm of the factor
    Change.MIRROR: Strength(0.5),
    Change.BLUR: Strength(0.1, 0.4, 0.9),  # standard deviation in pixels
    Change.RESOLUTION: Strength(0.1, 0.5, 1),  # share of the pixels along each axis that is kept
    Change.BRIGHTNESS: Strength(0.3, 0.75, 1.25),  # factor
    Change.CONTRAST: Strength(0.15, 0.75, 1.25),  # factor of the deviation from the mean
    Change.GAMMA: Strength(0.3, math.log(0.7), math.log(1.5)),  # logarithm of the exponent
    Change.NOISE: Strength(0.15, 0, 0.05),  # standard deviation, of intensities from 0 to 1
}
NUMBERS = 2 * len(Change)
"""Uniform numbers that a slice needs."""
BLUR_RADIUS = 2
"""Pixels on each side that a blurred pixel depends on."""


def window_of(patch: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns around a patch that its strongest rotation and scaling reach, within a slice."""
    turn, grow = WIDE[Change.ROTATION], WIDE[Change.SCALE]
    steepest, zoom = math.radians(max(-turn.low, turn.high)), math.exp(-grow.low)

    def reach(side: int, other: int, whole: int) -> int:
        angle = min(
            steepest, math.atan2(other, side)
        )  # a long patch reaches the farthest before the strongest rotation
        return min(math.ceil(zoom * (side * math.cos(angle) + other * math.sin(angle))) + 2, whole)

    rows, columns = patch
    return reach(rows, columns, shape[0]), reach(columns, rows, shape[1])


class WideAugmentation:
    """The augmentation `wide` for the labels of a plan."""

    def __init__(self, mirrors: bool, mirrored_class: dict[int, int]) -> None:
        """Choose whether slices may be mirrored, and which classes that exchanges (class -> class)."""
        self._mirrors, self._mirrored_class = mirrors, mirrored_class

    @classmethod
    def of(cls, plan: Plan) -> WideAugmentation:
        """Return the augmentation of a plan, which decides whether slices are mirrored (``planning.mirroring``)."""
        exchanged = mirrored_labels(plan)
        numbers = {name: number for number, name in enumerate(plan.labels, start=1)}
        classes = {numbers[one]: numbers[other] for one, other in (exchanged or {}).items()}
        return cls(exchanged is not None, classes)

    def warp(self, numbers_BP: np.ndarray) -> Warp:
        """Return rotation, scale and mirror of each slice."""
        angle, turned = _values(numbers_BP, Change.ROTATION)
        scale, scaled = _values(numbers_BP, Change.SCALE)
        mirrored = _values(numbers_BP, Change.MIRROR)[1] & self._mirrors
        return Warp(np.where(turned, angle, 0.0), np.where(scaled, np.exp(scale), 1.0), mirrored)

    def finish(
        self, image_BCHW: torch.Tensor, label_BHW: torch.Tensor, mirrored_B: np.ndarray, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Exchange the classes of mirrored slices, and change intensities.

        Args:
            image_BCHW: warped images, float32; changed in place.
            label_BHW: warped labels.
            mirrored_B: which slices are mirrored.
            batch: its numbers and seeds decide.
        """
        if self._mirrored_class and mirrored_B.any():
            label_BHW = self._exchange(label_BHW, mirrored_B)
        numbers_BP, seed_B = batch.numbers_BP.numpy(), batch.seed_B.tolist()
        for change, apply in _INTENSITIES.items():
            values, chosen = _values(numbers_BP, change)
            for k in np.flatnonzero(chosen).tolist():
                image_BCHW[k] = apply(image_BCHW[k], float(values[k]))
        sigma, chosen = _values(numbers_BP, Change.NOISE)
        generator = torch.Generator(image_BCHW.device)
        for k in np.flatnonzero(chosen).tolist():
            generator.manual_seed(seed_B[k])
            noise = torch.empty_like(image_BCHW[k]).normal_(generator=generator)
            image_BCHW[k] += noise * float(sigma[k])
        return image_BCHW, label_BHW

    def _exchange(self, label_BHW: torch.Tensor, mirrored_B: np.ndarray) -> torch.Tensor:
        table = torch.arange(256, dtype=label_BHW.dtype, device=label_BHW.device)
        for one, other in self._mirrored_class.items():
            table[one] = other
        mirrored = torch.from_numpy(mirrored_B).to(label_BHW.device, non_blocking=True)[:, None, None]
        return torch.where(mirrored, table[label_BHW.long()], label_BHW)


def _values(numbers_BP: np.ndarray, change: Change) -> tuple[np.ndarray, np.ndarray]:
    """Return the strength of a change of each slice, and which slices are changed."""
    strength = WIDE[change]
    chosen = numbers_BP[:, 2 * change] < strength.share
    return strength.low + (strength.high - strength.low) * numbers_BP[:, 2 * change + 1], chosen


def _blur(image_CHW: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur by a Gaussian function of a standard deviation in pixels."""
    channels = len(image_CHW)
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=image_CHW.device)
    kernel = torch.exp(-(offset**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1)
    padded = functional.pad(image_CHW[None], (BLUR_RADIUS,) * 4, mode="replicate")
    along_rows = functional.conv2d(padded, kernel[..., None], groups=channels)
    return functional.conv2d(along_rows, kernel[:, :, None], groups=channels)[0]


def _coarsen(image_CHW: torch.Tensor, share: float) -> torch.Tensor:
    """Reduce the number of pixels along each axis to a share, and interpolate the image back."""
    size = [max(1, round(side * share)) for side in image_CHW.shape[-2:]]
    coarse = functional.interpolate(image_CHW[None], size, mode="bilinear", align_corners=False, antialias=True)
    return functional.interpolate(coarse, image_CHW.shape[-2:], mode="bilinear", align_corners=False)[0]


def _contrast(image_CHW: torch.Tensor, factor: float) -> torch.Tensor:
    mean = image_CHW.mean()
    return (image_CHW - mean) * factor + mean


_INTENSITIES: dict[Change, Callable[[torch.Tensor, float], torch.Tensor]] = {
    Change.BLUR: _blur,
    Change.RESOLUTION: _coarsen,
    Change.BRIGHTNESS: lambda image, factor: image * factor,
    Change.CONTRAST: _contrast,
    Change.GAMMA: lambda image, logarithm: image.clamp_min(0.0) ** math.exp(logarithm),
}
"""Changes of intensities, in the order in which they are made; noise comes last."""
