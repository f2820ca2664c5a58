"""Landmarks of scans on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dvtplan.anatomy import knee
from dvtplan.anatomy.landmarks import Landmarks
from dvtplan.core import worker_pool
from dvtplan.imaging import volume_io

BYTES_PER_VOXEL = 12
"""Peak memory for one scan: its voxels and the coarse copy in the making."""

FEW_VOXELS = 300_000_000
"""Below this sum over all scans, starting processes costs more time than it saves."""


def estimate_scan(path: Path) -> Landmarks:
    """Find the knees of one scan.

    Raises:
        DvtError: if the image cannot be read.
    """
    return knee.estimate(*volume_io.read(path))


def estimate_scans(images: Mapping[str, Path], jobs: int | None = None) -> dict[str, Landmarks]:
    """Find the knees of many scans, in several processes if they are large.

    Args:
        images: case -> image.
        jobs: number of processes; None for as many as cores and memory allow.

    Raises:
        DvtError: if an image cannot be read.
    """
    sizes = [volume_io.count_voxels(path) for path in images.values()]
    n = worker_pool.choose_workers(jobs, sizes, BYTES_PER_VOXEL, few_voxels=FEW_VOXELS)
    found = worker_pool.over_cases(estimate_scan, list(images.values()), list(images), title="Find knees", jobs=n)
    return dict(zip(images, found, strict=True))
