"""Small raw data sets on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from helpers.volumes import write_volume

from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid

TOY_GRID = Grid(
    shape=(6, 34, 33),
    spacing_mm=(5.0, 2.0, 2.0),
    origin_mm=(-32.0, -10.0, 66.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""Coronal, head up; 34x33 is preprocessed as 32x32."""


def toy_case(number: int, classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image, and the label of a bright disc that drifts from slice to slice.

    With two classes the disc's upper half is 1 and its lower half 2; the first and last slice are
    empty.
    """
    rows, columns = np.mgrid[: TOY_GRID.shape[1], : TOY_GRID.shape[2]]
    label = np.zeros(TOY_GRID.shape, np.uint8)
    for s in range(1, TOY_GRID.shape[0] - 1):
        top, left = 10 + 3 * (number % 4), 8 + 4 * s
        disc = (rows - top) ** 2 + (columns - left) ** 2 < 30
        label[s][disc] = np.where(rows < top, 1, classes)[disc]
    noise = np.random.default_rng(number).normal(300.0, 40.0, label.shape)
    return np.float32(noise + 500.0 * (label > 0) + 150.0 * (label == 2)).clip(1), label


def write_raw(root: Path, *, labels: tuple[str, ...] = ("thrombus",), channels: int = 1, cases: int = 4) -> Workspace:
    """A raw data set ``Toy`` with the cases c0, c1, ...; a second channel is the first one's negative."""
    workspace = Workspace(root, "Toy")
    for case in range(cases):
        image, label = toy_case(case, len(labels))
        for channel in range(channels):
            path = workspace.raw / "imagesTr" / f"c{case}_{channel:04d}.nii.gz"
            volume_io.write_probabilities(path, image if channel == 0 else 2000.0 - image, TOY_GRID)
        volume_io.write_mask(workspace.raw / "labelsTr" / f"c{case}.nii.gz", label, TOY_GRID)
    body = {
        "channel_names": {str(i): f"MR{i}" for i in range(channels)},
        "labels": {"background": 0, **{name: i for i, name in enumerate(labels, start=1)}},
        "file_ending": ".nii.gz",
    }
    (workspace.raw / "dataset.json").write_text(json.dumps(body))
    return workspace


# --- hand-made volumes, tiny data sets, commands as a user runs them --------------------------------

SHARED = Path(__file__).parents[3] / "shared" / "data"
"""Real images next to the checkout; users do not have them."""

TINY_SHAPE = (20, 3, 18)
"""Axes z, y, x: 3 coronal slices of 20 x 18 pixels, which a plan makes 32 x 32."""

TINY_SPACING = (2, 5, 2)
"""x, y, z, in mm: the voxels reach 34, 10 and 38 mm from the origin."""


def tiny_image(case: int, channel: int = 0, shape: Sequence[int] = TINY_SHAPE) -> np.ndarray:
    """Whole numbers from 0 to 999 as float32, others for each case and channel."""
    return np.random.default_rng([case, channel]).integers(0, 1000, shape).astype(np.float32)


def tiny_label(values: Sequence[int], shape: Sequence[int] = TINY_SHAPE) -> np.ndarray:
    """Label k fills the 2 x 2 x 2 voxels from (4 k, 0, 4): two of three coronal slices hold some."""
    label = np.zeros(shape, np.uint8)
    for k, value in enumerate(values):
        label[4 * k : 4 * k + 2, :2, 4:6] = value
    return label


def tiny_dataset(
    folder: Path,
    cases: Sequence[str] = ("a", "b", "c", "d"),
    *,
    channels: int = 1,
    labels: dict[str, int] | None = None,
    ending: str = ".nii.gz",
    table: str | None = None,
) -> Path:
    """A sound data set in nnU-Net's raw layout, written in milliseconds; the folder's name is its name."""
    named = {"thrombus": 1} if labels is None else labels
    describe_dataset(folder, channels=channels, labels=named, ending=ending)
    for number, case in enumerate(cases):
        for channel in range(channels):
            write_volume(
                folder / "imagesTr" / f"{case}_{channel:04d}{ending}", tiny_image(number, channel), TINY_SPACING
            )
        write_volume(folder / "labelsTr" / f"{case}{ending}", tiny_label(list(named.values())), TINY_SPACING)
    if table is not None:
        (folder / "cases.csv").write_text(table)
    return folder


def describe_dataset(folder: Path, *, channels: int, labels: dict[str, int], ending: str) -> None:
    """Write ``dataset.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    body = {
        "channel_names": {str(c): f"MR{c}" for c in range(channels)},
        "labels": {"background": 0, **labels},
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(body))
