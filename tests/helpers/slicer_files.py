"""Segmentations as 3D Slicer saves them, written byte by byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dvtplan.imaging.geometry import Grid


def write_segmentation(path: Path, layers: np.ndarray, grid: Grid, fields: Mapping[str, object]) -> Path:
    """Write an NRRD file.

    Args:
        path: the file.
        layers: uint8, (slices, rows, columns) or (layers, slices, rows, columns).
        grid: of one layer.
        fields: key/value pairs of the header, such as ``Segment0_Name``.
    """
    vectors = ["(" + ",".join(f"{v:.17g}" for v in step) + ")" for step in grid.steps_mm[::-1]]
    shape = [str(n) for n in grid.shape[::-1]]
    if layers.ndim == 4:  # the layers of one voxel follow each other
        vectors, shape = ["none", *vectors], [str(len(layers)), *shape]
        layers = np.moveaxis(layers, 0, -1)
    kinds = ["list"] * (len(shape) - 3) + ["domain"] * 3
    head = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {len(shape)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(shape)}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        "encoding: raw",
        f"space origin: ({','.join(f'{v:.17g}' for v in grid.origin_mm)})",
        *(f"{key}:={value}" for key, value in fields.items()),
    ]
    path.write_bytes("\n".join([*head, "", ""]).encode() + np.ascontiguousarray(layers, np.uint8).tobytes())
    return path


def segments(*described: tuple[str, int, int]) -> dict[str, object]:
    """Return the fields of segments: (name, value, layer) of each."""
    return {
        f"Segment{number}_{key}": value
        for number, (name, label, layer) in enumerate(described)
        for key, value in (("ID", f"Segment_{number}"), ("Name", name), ("LabelValue", label), ("Layer", layer))
    }
