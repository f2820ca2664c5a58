"""Masks of a trained and predicted workspace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dvtplan.core import digests, json_records
from dvtplan.data.paths import Workspace
from dvtplan.data.prediction_records import PredictionIndex
from dvtplan.imaging import volume_io


def rewrite(path: Path, mask: np.ndarray) -> None:
    """Replace a mask, and its digest in the log of predictions."""
    volume_io.write_mask(path, mask, volume_io.read(path)[1])
    index_file = path.parent / "predictions.json"
    if index_file.exists():
        log = json_records.load(PredictionIndex, index_file, "")
        masks = {**log.masks, path.name.removesuffix(".nii.gz"): digests.files_digest((path,))}
        json_records.save(replace(log, masks=masks), index_file)


def prediction(workspace: Workspace, case: str) -> Path:
    """Return the path of a case's predicted mask, of whichever fold."""
    return next(workspace.results("gn_unet").glob(f"fold_*/predictions/{case}.nii.gz"))
