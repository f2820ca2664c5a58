"""Levels of scans that no table gives, from their images on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from dvtplan import landmarks, volumes, workers
from dvtplan.landmarks import Landmarks

BYTES_PER_VOXEL = 12
"""Peak memory of looking for the knees of one scan: its voxels as read, and the coarse copy in the making."""

FEW_VOXELS = 300_000_000
"""Below this, over all cases, starting processes costs more than it saves."""


def of_image(path: Path) -> Landmarks:
    """The knees of one scan; raises as ``volumes.read``."""
    return landmarks.estimate(*volumes.read(path))


def of_images(images: Mapping[str, Path], jobs: int | None = None) -> dict[str, Landmarks]:
    """The knees of many scans, by case, in several processes where they are large.

    Raises:
        DvtError: if an image cannot be read.
    """
    sizes = [math.prod(volumes.read_grid(path).shape) for path in images.values()]
    few = jobs is None and sum(sizes) < FEW_VOXELS
    n = 1 if few else workers.how_many(jobs, len(sizes), max(sizes, default=0) * BYTES_PER_VOXEL)
    found = workers.over_cases(of_image, list(images.values()), list(images), title="Find knees", jobs=n)
    return dict(zip(images, found, strict=True))
