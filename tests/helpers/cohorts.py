"""Read the files of a phantom cohort."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import SimpleITK as sitk


def table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of ``cases.csv``."""
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def metadata_of(folder: Path, case: str) -> dict:
    """Return the metadata of a case."""
    return json.loads((folder / "metadata" / f"{case}.json").read_text())


def volume(folder: Path, case: str, kind: str = "labelsTr") -> sitk.Image:
    """Read the image or a mask of a case."""
    return sitk.ReadImage(folder / kind / f"{case}{'_0000' if kind == 'imagesTr' else ''}.nii.gz")
