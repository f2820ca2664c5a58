"""DICOM segmentation objects, and the positions of segmented voxels."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from helpers.dicom_files import CORONAL, header, save
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import SegmentationStorage, generate_uid
from scipy.spatial import cKDTree

# --- independent readers --------------------------------------------------------------------------


def points_of_object(path: Path) -> dict[str, np.ndarray]:
    """Return segment label -> LPS positions of its pixels, (N, 3), from the tags of each frame (C.7.6.2.1.1)."""
    ds = pydicom.dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    names = {one.SegmentNumber: one.SegmentLabel for one in ds.SegmentSequence}
    found: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    size = ds.Rows * ds.Columns
    for k, own in enumerate(ds.PerFrameFunctionalGroupsSequence):

        def of(name: str, own: Dataset = own) -> Dataset:
            return (own if name in own else shared)[name][0]

        corner = np.array(of("PlanePositionSequence").ImagePositionPatient, float)
        turned = np.array(of("PlaneOrientationSequence").ImageOrientationPatient, float)
        down, right = (float(mm) for mm in of("PixelMeasuresSequence").PixelSpacing)
        rows, columns = np.nonzero(bits[k * size : (k + 1) * size].reshape(ds.Rows, ds.Columns))
        name = names[of("SegmentIdentificationSequence").ReferencedSegmentNumber]
        found[name].append(corner + np.outer(columns * right, turned[:3]) + np.outer(rows * down, turned[3:]))
    return {name: np.concatenate([np.empty((0, 3)), *parts]) for name, parts in found.items()}


def points_of_nifti(path: Path) -> dict[int, np.ndarray]:
    """Return value -> LPS positions of its voxels, from the bytes of the file (nifti1.h, method 3)."""
    body = gzip.decompress(path.read_bytes())
    shape = struct.unpack("<3h", body[42:48])
    (offset,) = struct.unpack("<f", body[108:112])
    rows = np.array([struct.unpack("<4f", body[280 + 16 * k : 296 + 16 * k]) for k in range(3)])
    voxels = np.frombuffer(body[int(offset) :], np.uint8).reshape(shape, order="F")
    found = {}
    for value in np.unique(voxels[voxels > 0]).tolist():
        found[value] = (np.argwhere(voxels == value) @ rows[:, :3].T + rows[:, 3]) * (-1, -1, 1)
    return found


def assert_same_points(a: np.ndarray, b: np.ndarray) -> None:
    """Check that both have equally many points, which agree to 1e-4 mm."""
    assert len(a) == len(b) > 0
    assert cKDTree(a).query(b)[0].max() < 1e-4 and cKDTree(b).query(a)[0].max() < 1e-4


# --- read -----------------------------------------------------------------------------------------


def foreign(
    path: Path,
    series: Path,
    frames: Sequence[tuple[int | None, np.ndarray, np.ndarray]],
    names: Sequence[str],
    *,
    kind: str = "BINARY",
    plane: Any = CORONAL,
    spacing: Sequence[float] = (1.45, 1.3),
) -> Path:
    """Write an object like another program: (segment, position, pixels) for each frame, in any order."""
    source = pydicom.dcmread(next(p for p in series.rglob("*") if p.is_file()))
    rows, columns = frames[0][2].shape
    ds = header(generate_uid(), 12, "manual", rows, columns, SOPClassUID=SegmentationStorage, Modality="SEG")
    ds.PatientID = source.PatientID
    del ds.ImageType
    ds.SegmentationType, ds.NumberOfFrames = kind, len(frames)

    def item(**tags: Any) -> Dataset:
        made = Dataset()
        for name, value in tags.items():
            setattr(made, name, value)
        return made

    ds.ReferencedSeriesSequence = Items([item(SeriesInstanceUID=source.SeriesInstanceUID)])
    ds.SegmentSequence = Items([item(SegmentNumber=k, SegmentLabel=name) for k, name in enumerate(names, start=1)])
    shared = item(PixelMeasuresSequence=Items([item(PixelSpacing=list(spacing), SliceThickness=1.25)]))
    shared.PlaneOrientationSequence = Items([item(ImageOrientationPatient=[v for axis in plane for v in axis])])
    ds.SharedFunctionalGroupsSequence = Items([shared])
    own = []
    for segment, position, _ in frames:
        one = item(PlanePositionSequence=Items([item(ImagePositionPatient=[float(v) for v in position])]))
        if segment is not None:
            one.SegmentIdentificationSequence = Items([item(ReferencedSegmentNumber=segment)])
        own.append(one)
    ds.PerFrameFunctionalGroupsSequence = Items(own)
    pixels = np.stack([frame[2] for frame in frames]).astype(np.uint8)
    bits = 1 if kind == "BINARY" else 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    if kind == "FRACTIONAL":
        ds.MaximumFractionalValue, ds.SegmentationFractionalType = 200, "PROBABILITY"
    raw = np.packbits(pixels.ravel(), bitorder="little").tobytes() if bits == 1 else pixels.tobytes()
    ds.PixelData = raw + bytes(len(raw) % 2)
    return save(ds, path)


START = np.array([-100.0, -30.0, 200.0])
ACROSS = np.array([0.0, 1.25, 0.0])
"""Step from one slice to the next of the coronal series."""


def block(rows: slice, columns: slice, value: int = 1) -> np.ndarray:
    made = np.zeros((12, 8), np.uint8)
    made[rows, columns] = value
    return made
