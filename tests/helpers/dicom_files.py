"""Writers of DICOM series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pydicom.valuerep import DS

from dvtplan.dicom import series
from dvtplan.imaging.geometry import Grid

CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))


def volume(shape: tuple[int, int, int] = (5, 12, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, shape).astype(np.uint16)


def header(uid: str, number: int, words: str, rows: int, columns: int, **tags: Any) -> Dataset:
    """Return the tags that classic and enhanced images share."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = uid, "1.2.3", "1.2.3.4"
    ds.SeriesNumber, ds.SeriesDescription, ds.Modality = number, words, "MR"
    ds.PatientName, ds.PatientID = "Phantom^One", "p1"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    ds.Rows, ds.Columns = rows, columns
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(path, enforce_file_format=True)
    return path


def positions(count: int, step: float, plane: Sequence[Sequence[float]], start: Sequence[float]) -> np.ndarray:
    return np.asarray(start) + step * np.arange(count)[:, None] * np.cross(*plane)


def write_series(
    folder: Path,
    array: np.ndarray,
    *,
    number: int = 5,
    words: str = "cor_fl3d_vein",
    plane: Sequence[Sequence[float]] = CORONAL,
    start: Sequence[float] = (-100.0, -30.0, 200.0),
    step: float = 1.25,
    spacing: Sequence[float] = (1.45, 1.3),
    uid: str | None = None,
    name: Callable[[int], str] | None = None,
    change: Callable[[Dataset, int], object] | None = None,
) -> list[Path]:
    """Write one file per slice, with names that do not reveal the order."""
    uid = uid or generate_uid()
    shuffled = np.random.default_rng(1).permutation(len(array))
    paths = []
    for k, place in enumerate(positions(len(array), step, plane, start)):
        ds = header(uid, number, words, *array.shape[1:], InstanceNumber=int(shuffled[k]) + 1)
        ds.ImagePositionPatient = [float(v) for v in place]
        ds.ImageOrientationPatient = [float(v) for axis in plane for v in axis]
        ds.PixelSpacing, ds.SliceThickness, ds.EchoTime = list(spacing), step, 1.13
        ds.PixelData = array[k].tobytes()
        if change is not None:
            change(ds, k)
        paths.append(save(ds, folder / (name(k) if name else f"IM{shuffled[k]:04d}")))
    return paths


def write_enhanced(
    path: Path,
    array: np.ndarray,
    *,
    plane: Sequence[Sequence[float]] = CORONAL,
    start: Sequence[float] = (-100.0, -30.0, 200.0),
    step: float = 1.25,
    spacing: Sequence[float] = (1.45, 1.3),
    uid: str | None = None,
) -> None:
    """Write one multi-frame object with shuffled frames."""
    ds = header(uid or generate_uid(), 7, "enhanced", *array.shape[1:], SOPClassUID=EnhancedMRImageStorage)
    ds.NumberOfFrames = len(array)

    def item(**tags: Any) -> Dataset:
        made = Dataset()
        for name, value in tags.items():
            setattr(made, name, value)
        return made

    measures = item(PixelSpacing=list(spacing), SliceThickness=step)
    orientation = item(ImageOrientationPatient=[float(v) for axis in plane for v in axis])
    rescale = item(RescaleSlope=2.0, RescaleIntercept=-100.0, RescaleType="US")
    ds.SharedFunctionalGroupsSequence = Items(
        [
            item(
                PixelMeasuresSequence=Items([measures]),
                PlaneOrientationSequence=Items([orientation]),
                PixelValueTransformationSequence=Items([rescale]),
            )
        ]
    )
    order = np.random.default_rng(2).permutation(len(array))
    places = positions(len(array), step, plane, start)
    frames = [
        item(PlanePositionSequence=Items([item(ImagePositionPatient=[DS(v, auto_format=True) for v in places[k]])]))
        for k in order
    ]
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    ds.PixelData = array[order].tobytes()
    save(ds, path)


def read(source: Path, wanted: str | None = None) -> tuple[np.ndarray, Grid]:
    study = series.read_study(source)
    return series.read_volume(study, series.choose_volume(study, wanted))


OBLIQUE = ((0.9961947, 0.0, 0.0871557), (0.0871557, 0.0, -0.9961947))
FEET_FIRST = ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
