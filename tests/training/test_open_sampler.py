"""The sampler that a recipe leads to, and the lesions of preprocessed cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from helpers.records import PLAN

from dvtplan.core.process_group import ProcessGroup
from dvtplan.planning import preprocessed_cases
from dvtplan.planning.recipe import Recipe
from dvtplan.training.data_loading import SliceDataset
from dvtplan.training.open_sampler import find_lesions, open_sampler
from dvtplan.training.wide_augmentation import NUMBERS


def cases(folder: Path, *labels: np.ndarray) -> SliceDataset:
    """Preprocessed cases with these labels and dark images."""
    folders = [folder / f"case_{number}" for number in range(len(labels))]
    for one, label in zip(folders, labels, strict=True):
        image = np.zeros((len(label), 1, *label.shape[1:]), np.float16)
        preprocessed_cases.save(one, image, label, one.name, PLAN, "")
    return SliceDataset(folders)


def test_lesions_are_the_connected_components_of_each_label(tmp_path: Path) -> None:
    first, second, empty = (np.zeros((3, 32, 32), np.uint8) for _ in range(3))
    first[0, 4:6, 4] = 1
    first[1, 6, 5] = 1  # touches it by a corner
    first[2, 20, 20:23] = 1
    first[0, 4:6, 5] = 2  # another label is another lesion
    second[2, 31, 31] = 1
    ones, twos = find_lesions(cases(tmp_path, first, empty, second))
    parts = [ones.voxels[s : s + n].tolist() for s, n in zip(ones.starts, ones.counts, strict=True)]
    assert sorted(parts) == [[[0, 4, 4], [0, 5, 4], [1, 6, 5]], [[2, 20, 20], [2, 20, 21], [2, 20, 22]], [[8, 31, 31]]]
    assert twos.voxels.tolist() == [[0, 4, 5], [0, 5, 5]] and twos.counts.tolist() == [2]


def test_without_lesions_there_are_none(tmp_path: Path) -> None:
    assert find_lesions(cases(tmp_path, np.zeros((2, 32, 32), np.uint8))) == ()


def test_a_recipe_decides_what_is_drawn(tmp_path: Path) -> None:
    label = np.zeros((4, *PLAN.target_shape), np.uint8)
    label[1, 3, 3] = 1
    slices, alone = cases(tmp_path, label), ProcessGroup()
    plain = open_sampler(slices, PLAN, Recipe(), alone)
    assert plain.patches is None and plain.view.is_plain and plain.numbers == 0
    recipe = Recipe(patch="32x32", context=1, augmentation="wide", oversampling=0.5)
    wide = open_sampler(slices, PLAN, recipe, alone)
    plain = open_sampler(slices, PLAN, replace(recipe, augmentation="variants"), alone)
    assert plain.patches is not None and plain.numbers == 0 and min(plain.patches.window) > 32  # a variant may shrink
    assert wide.patches is not None and wide.numbers == NUMBERS and wide.view.context == 1
    assert wide.patches.window >= (32, 32) and wide.patches.lesions[0].voxels.tolist() == [[1, 3, 3]]
