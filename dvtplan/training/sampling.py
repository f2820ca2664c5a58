"""Which slices, patches and variants an epoch trains on, and in which order: a pure function of seed and epoch.

Both loaders follow it. So neither the loader, nor the number of workers or ranks, nor a resume changes what is trained
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Lesions(NamedTuple):
    """The lesions of one label in all slices of a training."""

    voxels: np.ndarray
    """(voxels, 3): number of the slice, row, column; the voxels of a lesion follow each other."""
    starts: np.ndarray
    """(lesions,): the first voxel of each lesion."""
    counts: np.ndarray
    """(lesions,): the number of voxels of each lesion."""

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Return random voxels, (count, 3): every lesion equally often, and within it every voxel."""
        lesions = random.integers(len(self.starts), size=count)
        within = np.floor(random.random(count) * self.counts[lesions]).astype(np.int64)
        return self.voxels[self.starts[lesions] + within]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSampling:
    """Where patches lie."""

    shape: tuple[int, int]
    """Rows and columns of a slice."""
    patch: tuple[int, int]
    """Rows and columns of a patch; no side is longer than that of a slice."""
    window: tuple[int, int]
    """Rows and columns that are read around the centre of a patch: more than the patch, which may be turned."""
    lesions: tuple[Lesions, ...]
    """Of each label that occurs."""

    def corners(self, centres_N2: np.ndarray) -> np.ndarray:
        """Return the first row and column of the window of each patch, (N, 2); it lies within its slice."""
        window = np.array(self.window)
        return np.clip(np.round(centres_N2 - window / 2), 0, np.array(self.shape) - window).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceView:
    """What a training sees of a slice: with how many neighbours, and which part."""

    context: int = 0
    """Neighbouring slices on each side. Beyond the ends of a case, its first or last slice is repeated."""
    window: tuple[int, int] | None = None
    """Rows and columns that are read around the centre of a patch; None: the whole slice."""

    @property
    def is_plain(self) -> bool:
        """Whether it is the slice as it is stored."""
        return self.context == 0 and self.window is None

    def part(self, array: Any, index: int, corner_2: np.ndarray, context: int) -> list[Any]:
        """Return a slice with its neighbours, 2 context + 1 parts, of an array or tensor (S, ..., H, W) of one case.

        ``corner_2`` is the first row and column of the window; it has no effect on whole slices. The parts are views:
        an index of a list would make a GPU wait for the host.
        """
        last = len(array) - 1
        seen = [array[min(max(k, 0), last)] for k in range(index - context, index + context + 1)]
        if self.window is None:
            return seen
        (row, column), (rows, columns) = corner_2.tolist(), self.window
        return [one[..., row : row + rows, column : column + columns] for one in seen]


WHOLE_SLICES = SliceView()
"""Each slice as it is stored."""


@dataclass(frozen=True, slots=True)
class Draws:
    """What the steps of an epoch train on. The first two axes are steps and slices of a step."""

    slices: np.ndarray
    """(steps, B): numbers of slices."""
    variants: np.ndarray
    """(steps, B): variants of the plan."""
    corners: np.ndarray
    """(steps, B, 2): first row and column of the window of each patch; 0 for whole slices."""
    centres: np.ndarray
    """(steps, B, 2), float32: row and column of the centre of each patch in its window; no columns for whole slices."""
    numbers: np.ndarray
    """(steps, B, P), float32: uniform numbers from 0 to 1 that decide an augmentation."""
    seeds: np.ndarray
    """(steps, B): seeds of the noise of an augmentation."""


@dataclass(frozen=True, slots=True)
class SliceSampler:
    """The order of slices and variants as a function of the epoch."""

    slices: int
    variants: int
    batch_size: int
    """Over all ranks."""
    seed: int
    lesions: tuple[np.ndarray, ...] = ()
    """For each label, the numbers of the slices that contain it."""
    oversampling: float = 0.0
    """Share of an epoch's places that slices of ``lesions`` take, every label equally often."""
    patches: PatchSampling | None = None
    """None: whole slices."""
    context: int = 0
    """Neighbouring slices on each side that are further channels."""
    numbers: int = 0
    """Uniform numbers that an augmentation needs for each slice."""
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.slices < 1 or self.batch_size % self.world:
            raise ValueError(
                f"cannot divide {self.slices} slices in batches of {self.batch_size} among {self.world} processes"
            )

    @property
    def view(self) -> SliceView:
        """What a step sees of a slice."""
        return SliceView(context=self.context, window=self.patches.window if self.patches else None)

    @property
    def steps(self) -> int:
        """Number of batches of an epoch."""
        return -(-self.slices // self.batch_size)

    def order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return slice and variant numbers of an epoch, (steps, batch_size / world) each; see ``draws``."""
        draws = self.draws(epoch)
        return draws.slices, draws.variants

    def draws(self, epoch: int) -> Draws:
        """Return what this rank trains on in an epoch.

        Every slice comes once. The last batch is filled from the start of the same order, so that all batches have
        the same size and no slice is omitted. Oversampling then replaces random places; it does not make an epoch
        longer. A patch lies anywhere in its slice; oversampling puts it around a lesion. Rank r of a group takes
        every world-th entry, from r on.
        """
        random = np.random.default_rng([self.seed, epoch])
        slices = np.resize(random.permutation(self.slices), self.steps * self.batch_size)
        variants = random.integers(self.variants, size=slices.size)
        corners, centres = np.zeros((slices.size, 2), np.int64), np.empty((slices.size, 0), np.float32)
        if self.patches is not None:
            centres = self._patch_centres(self.patches, slices, random)
            corners = self.patches.corners(centres)
            centres = (centres - corners).astype(np.float32)
        elif self.oversampling and self.lesions:
            for place in np.flatnonzero(random.random(slices.size) < self.oversampling):
                slices[place] = random.choice(self.lesions[random.integers(len(self.lesions))])
        numbers = random.random((slices.size, self.numbers), np.float32)
        seeds = random.integers(2**31, size=slices.size if self.numbers else 0)
        return Draws(*(self._share(values) for values in (slices, variants, corners, centres, numbers, seeds)))

    def _share(self, values: np.ndarray) -> np.ndarray:
        """Return this rank's part of values in the order of an epoch."""
        if not len(values):
            return np.empty((self.steps, 0), values.dtype)
        by_step = values.reshape(self.steps, self.batch_size, *values.shape[1:])
        return by_step[:, self.rank :: self.world]

    def _patch_centres(self, patches: PatchSampling, slices: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the centres of patches, (n, 2). Replaces slices in place where a lesion is drawn.

        The lesion's voxel lies in the middle two thirds of its patch, unless the slice ends before.
        """
        size, half = np.array(patches.patch), np.array(patches.patch) / 2
        centres = half + random.random((len(slices), 2)) * (np.array(patches.shape) - size)
        drawn = np.flatnonzero(random.random(len(slices)) < self.oversampling) if patches.lesions else np.empty(0, int)
        labels = random.integers(max(1, len(patches.lesions)), size=len(drawn))
        for label, lesions in enumerate(patches.lesions):
            places = drawn[labels == label]
            voxels = lesions.draw(random, len(places))
            slices[places] = voxels[:, 0]
            centres[places] = voxels[:, 1:] + 0.5 + (random.random((len(places), 2)) - 0.5) * size * (2 / 3)
        # On whole pixels, as tiles are: between them, interpolation would blur every patch that is not turned.
        return np.clip(np.round(centres), half, np.array(patches.shape) - half)
