"""DICOM folders with masks, and their import into a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from helpers.dicom_files import volume, write_series
from pydicom.dataset import Dataset

from dvtplan.dicom import series
from dvtplan.dicom.dataset_import import UNEXPECTED, ImportResult, import_dicom
from dvtplan.dicom.import_options import ImportOptions
from dvtplan.imaging import volume_io


def scan(folder: Path, patient: str, seed: int = 0, **more: Any) -> Path:
    """Write the folder of a patient with one series."""

    def of_patient(ds: Dataset, k: int) -> None:
        ds.PatientID, ds.PatientName, ds.StudyInstanceUID = patient, f"Name^Of^{patient}", f"1.2.3.{seed}"

    write_series(folder, volume(seed=seed), change=of_patient, **more)
    return folder


def drawn(value: int = 1) -> np.ndarray:
    """Return a mask of one box."""
    mask = np.zeros((5, 12, 8), np.uint8)
    mask[1:3, 2:7, 1:4] = value
    return mask


def with_mask(folder: Path, mask: np.ndarray | None = None) -> Path:
    """Write a mask next to the folder of a patient."""
    grid = series.choose_volume(series.read_study(folder), "5").grid
    volume_io.write_mask(folder.with_name(f"{folder.name}.nii.gz"), drawn() if mask is None else mask, grid)
    return folder


def out_of(tmp_path: Path) -> Path:
    """Return the folder of the data set."""
    return tmp_path / "datasets_raw" / "DVT"


def imported(
    source: Path | list[Path], tmp_path: Path, channels: Sequence[str] = ("CE-MR",), **how: Any
) -> ImportResult:
    """Import folders into the data set. No fault may be one that no check has foreseen."""
    sources = source if isinstance(source, list) else [source]
    done = import_dicom(sources, out_of(tmp_path), ImportOptions(channels=channels, **how))
    assert not [line for line in done.faults if UNEXPECTED in line]
    return done
