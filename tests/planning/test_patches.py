"""The size of patches that follows from the slices of a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.records import PLAN

from dvtplan.planning.patches import decide_patch
from dvtplan.planning.recipe import Recipe


@pytest.mark.parametrize(
    ("shape", "asked", "patch"),
    [
        ((960, 320), "auto", "288x160"),
        ((480, 160), "auto", "128x64"),
        ((320, 128), "auto", "96x64"),
        ((160, 64), "auto", "96x64"),
        ((64, 64), "auto", "whole"),
        ((96, 64), "auto", "whole"),
        ((320, 128), "whole", "whole"),
        ((320, 128), "96x256", "96x128"),
        ((64, 64), "64x64", "whole"),
    ],
)
def test_patches_fit_the_slices(shape: tuple[int, int], asked: str, patch: str) -> None:
    assert decide_patch(Recipe(patch=asked), replace(PLAN, target_shape=shape)).patch == patch
