"""Open the sampler of a training: the order of its slices, its patches, and the lesions around which they lie."""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from dvtplan.core.process_group import ProcessGroup
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import Recipe
from dvtplan.training import wide_augmentation
from dvtplan.training.data_loading import SliceDataset
from dvtplan.training.sampling import Lesions, PatchSampling, SliceSampler

NEIGHBOURS = np.ones((3, 3, 3), bool)
"""Voxels that touch by a face, an edge or a corner belong to the same lesion."""


def open_sampler(slices: SliceDataset, plan: Plan, recipe: Recipe, group: ProcessGroup) -> SliceSampler:
    """Return the order of slices, patches and variants that a recipe leads to, for one process of a group.

    The recipe's ``patch`` must not be 'auto'.
    """
    wide, patch, shape = recipe.augmentation == "wide", recipe.patch_shape, plan.target_shape
    patches = None
    if patch is not None:
        patches = PatchSampling(
            shape=shape,
            patch=patch,
            window=wide_augmentation.window_of(patch, shape),
            lesions=find_lesions(slices) if recipe.oversampling else (),
        )
    return SliceSampler(
        slices=len(slices),
        variants=len(plan.variants),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        lesions=slices.lesions(),
        oversampling=recipe.oversampling,
        patches=patches,
        context=recipe.context,
        numbers=wide_augmentation.NUMBERS if wide else 0,
        rank=group.rank,
        world=group.world,
    )


def find_lesions(slices: SliceDataset) -> tuple[Lesions, ...]:
    """Return the lesions of each label that occurs, in the order of the labels.

    A lesion is a connected component of one label in one case.
    """
    found: dict[int, list[np.ndarray]] = {}
    for first, label_SHW in slices.labels_of_cases():
        if not label_SHW.any():
            continue
        box = scipy.ndimage.find_objects((label_SHW > 0).astype(np.int8))[0]
        corner = np.array([first, 0, 0]) + [side.start for side in box]
        inside = np.asarray(label_SHW[box])
        for number in np.unique(inside[inside > 0]).tolist():
            components, count = scipy.ndimage.label(inside == number, NEIGHBOURS)
            voxels = np.argwhere(components).astype(np.int32)
            order = np.argsort(components[components > 0], kind="stable")
            ends = np.cumsum(np.bincount(components[components > 0])[1 : count + 1])[:-1]
            found.setdefault(number, []).extend(np.split(voxels[order] + corner.astype(np.int32), ends))
    return tuple(_table(found[number]) for number in sorted(found))


def _table(lesions: list[np.ndarray]) -> Lesions:
    counts = np.array([len(lesion) for lesion in lesions])
    return Lesions(np.concatenate(lesions), np.cumsum(counts) - counts, counts)
