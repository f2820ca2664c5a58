"""Scans, masks and networks for the tests of prediction."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from dvtplan.findings import record as record_module
from dvtplan.findings.record import Findings
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid
from dvtplan.inference.model import Model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.predict import predict_path

CORONAL = Grid(
    shape=(6, 34, 33),
    spacing_mm=(5.0, 2.25, 1.75),
    origin_mm=(-31.5, -10.25, 66.125),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)


EDITED = b"hours of contouring"
"""Contents of an edited mask."""


class Constant(nn.Module):
    """A network with the same given probabilities in every voxel."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        p = torch.tensor(probabilities)
        self.logits = torch.logit(p) if len(p) == 1 else torch.log(p)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = image_BCHW.shape
        return self.logits[None, :, None, None].expand(batch, -1, height, width)


def picture() -> np.ndarray:
    """Return an asymmetric image: a bright box and a brighter dot on a ramp."""
    s, h, w = np.meshgrid(*(np.arange(n) for n in CORONAL.shape), indexing="ij")
    image = 3.0 * s + 2.0 * h + 1.0 * w
    image[1:4, 5:15, 20:29] += 500.0
    image[4, 25:29, 4:8] += 700.0
    return image.astype(np.float32)


def write(path: Path, array: np.ndarray | None = None, grid: Grid = CORONAL) -> Path:
    """Write an array, or the picture, as a volume."""
    volume_io.write_probabilities(path, picture() if array is None else array, grid)
    return path


def mask_of(path: Path) -> np.ndarray:
    """Read a mask."""
    return volume_io.read(path)[0]


def names(folder: Path) -> set[str]:
    """Return the file names in a folder; empty if it is missing."""
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


def bad(kind: str, path: Path) -> None:
    """Write a volume that cannot be analysed."""
    image = picture()
    if kind == "NaN":
        image[0, 0, 0] = np.nan
    elif kind == "constant":
        image[:] = 7
    if kind == "4-D":
        sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(image)] * 2), str(path))
    elif kind == "text":
        path.write_text("no volume at all, but long enough to be read as a header\n" * 20)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(image), str(path), useCompression=True)
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def read_findings(path: Path) -> Findings:
    """Read findings that must exist."""
    record = record_module.read_findings(path)
    assert record is not None
    return record


def age(mask: Path) -> None:
    """Set an old time, so that replacing the file can be detected."""
    os.utime(mask, (1, 1))


def is_old(mask: Path) -> bool:
    """Return whether a file still has the time of ``age``."""
    return mask.stat().st_mtime == 1


def remade(out: Path, model: Model, **options: bool) -> bool:
    """Predict again; return whether the first mask was replaced."""
    predict_path(out.parent / "in", out, model, PredictOptions(**options))
    return not is_old(out / "a.nii.gz")
