"""Write small sound scans of each kind, independently of the readers under test."""

from __future__ import annotations

import functools
import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

SHAPE = (6, 9, 7)
"""Slices, rows, columns of every scan."""
ORIGIN_MM = (-20.0, -10.0, 80.0)
STEP_MM, SPACING_MM = 3.0, (2.0, 1.5)
"""Distance of slices; of rows and columns."""
ORIENTATION = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]
"""Coronal: rows run to the patient's left, columns to the feet."""


def voxels() -> np.ndarray:
    """Return the voxels of every scan, uint16, shape ``SHAPE``."""
    return np.random.default_rng(4).integers(1, 900, SHAPE).astype("<u2")


def mask() -> np.ndarray:
    """Return the mask of the segmentation object, uint8, shape ``SHAPE``."""
    return (voxels() > 600).astype(np.uint8)


def truth(kind: str) -> np.ndarray:
    """Return the voxels that the reader of a kind must return."""
    return mask() if kind == "dicom_segmentation" else voxels()


def dicom_series(folder: Path) -> list[Path]:
    """Write a series with one file per slice."""
    uid = generate_uid(entropy_srcs=["series"])
    paths = []
    for k, image in enumerate(voxels()):
        dataset = _header(uid, f"slice {k}")
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = _position(k), ORIENTATION
        dataset.PixelSpacing, dataset.SliceThickness, dataset.EchoTime = list(SPACING_MM), STEP_MM, 1.1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = image.tobytes()
        paths.append(_save(dataset, folder / f"IM{k:04d}"))
    return paths


def dicom_enhanced(folder: Path) -> list[Path]:
    """Write one object with a frame per slice."""
    dataset = _header(generate_uid(entropy_srcs=["enhanced"]), "enhanced")
    dataset.SOPClassUID, dataset.NumberOfFrames = EnhancedMRImageStorage, SHAPE[0]
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING_MM), STEP_MM
    orientation.ImageOrientationPatient = ORIENTATION
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Items([measures]), Items([orientation])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for k in range(SHAPE[0]):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = _position(k)
        frame.PlanePositionSequence = Items([position])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    dataset.PixelData = voxels().tobytes()
    return [_save(dataset, folder / "IM1")]


def dicom_zip(folder: Path, compression: int = zipfile.ZIP_DEFLATED) -> list[Path]:
    """Write a series into a ZIP archive."""
    paths = dicom_series(folder)
    target = folder / "study.zip"
    with zipfile.ZipFile(target, "w", compression) as archive:
        for path in paths:
            archive.write(path, path.name)
            path.unlink()
    return [target]


def dicom_stored_zip(folder: Path) -> list[Path]:
    """Write a series into a ZIP archive without compression."""
    return dicom_zip(folder, zipfile.ZIP_STORED)


def dicom_segmentation(folder: Path) -> list[Path]:
    """Write a series and a segmentation object; return the object only."""
    paths = dicom_series(folder)
    target = folder / "SEG1"
    target.write_bytes(_segmentation_bytes(tuple(path.read_bytes() for path in paths)))
    return [target]


def nifti(folder: Path) -> list[Path]:
    """Write a NIfTI-1 file."""
    path = folder / "scan.nii"
    path.write_bytes(_nifti_bytes())
    return [path]


def nifti_gz(folder: Path) -> list[Path]:
    """Write a compressed NIfTI-1 file."""
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(_nifti_bytes(), mtime=0))
    return [path]


def nrrd(folder: Path) -> list[Path]:
    """Write an NRRD file with its voxels inside."""
    lines = [
        "NRRD0004", "type: ushort", "dimension: 3", "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, SHAPE[::-1]))}", "space directions: (1.5,0,0) (0,2,0) (0,0,3)",
        "kinds: domain domain domain", "endian: little", "encoding: raw", "space origin: (-20,-10,80)", "", "",
    ]  # fmt: skip
    path = folder / "scan.nrrd"
    path.write_bytes("\n".join(lines).encode() + voxels().tobytes())
    return [path]


def metaimage(folder: Path) -> list[Path]:
    """Write a MetaImage with its voxels inside."""
    path = folder / "scan.mha"
    path.write_bytes(_metaimage_header("LOCAL") + voxels().tobytes())
    return [path]


def metaimage_pair(folder: Path) -> list[Path]:
    """Write a MetaImage header and its file of voxels."""
    header, raw = folder / "scan.mhd", folder / "scan.raw"
    header.write_bytes(_metaimage_header(raw.name))
    raw.write_bytes(voxels().tobytes())
    return [header, raw]


KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "dicom_series": dicom_series,
    "dicom_enhanced": dicom_enhanced,
    "dicom_zip": dicom_zip,
    "dicom_stored_zip": dicom_stored_zip,
    "dicom_segmentation": dicom_segmentation,
    "nifti": nifti,
    "nifti_gz": nifti_gz,
    "nrrd": nrrd,
    "metaimage": metaimage,
    "metaimage_pair": metaimage_pair,
}
"""Kind of scan -> function that writes it into a folder and returns its files."""


def _header(series_uid: str, name: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=[name])
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series_uid, generate_uid(entropy_srcs=["study"])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
    dataset.SeriesNumber, dataset.SeriesDescription, dataset.Modality = 5, "cor_vein", "MR"
    dataset.PatientName, dataset.PatientID = "Synthetic^Nobody", "none"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
    dataset.StudyID = dataset.StudyDate = dataset.StudyTime = ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.Rows, dataset.Columns = SHAPE[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    return dataset


@functools.cache
def _segmentation_bytes(images: tuple[bytes, ...]) -> bytes:
    import highdicom  # slow to load

    concept = highdicom.sr.CodedConcept("396339007", "SCT", "Thrombus")
    kind = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    dataset = highdicom.seg.Segmentation(
        [pydicom.dcmread(io.BytesIO(image)) for image in images],
        mask(),
        "BINARY",
        [highdicom.seg.SegmentDescription(1, "thrombus", concept, concept, kind)],
        generate_uid(entropy_srcs=["segmentation series"]),
        50,
        generate_uid(entropy_srcs=["segmentation"]),
        1,
        "nobody",
        "none",
        "0",
        "0",
    )
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _position(k: int) -> list[float]:
    """Return the position of a slice; the images run from front to back."""
    return [ORIGIN_MM[0], ORIGIN_MM[1] + k * STEP_MM, ORIGIN_MM[2]]


def _save(dataset: Dataset, path: Path) -> Path:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def _nifti_bytes() -> bytes:
    """Return a NIfTI-1 file (nifti1.h) whose sform, qform and sizes agree."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *SHAPE[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 512, 16)
    struct.pack_into("<8f", head, 76, 1, 1.5, 2, 3, 0, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352, 1, 0)
    head[123] = 2
    struct.pack_into("<2h", head, 252, 1, 1)
    struct.pack_into("<6f", head, 256, 0, 0, 0, 20, 10, 80)
    struct.pack_into("<12f", head, 280, 1.5, 0, 0, 20, 0, 2, 0, 10, 0, 0, 3, 80)
    head[344:348] = b"n+1\0"
    return bytes(head) + voxels().tobytes()


def _metaimage_header(data_file: str) -> bytes:
    lines = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False",
        "CompressedData = False", "TransformMatrix = 1 0 0 0 1 0 0 0 1", "Offset = -20 -10 80",
        "ElementSpacing = 1.5 2 3", f"DimSize = {' '.join(map(str, SHAPE[::-1]))}", "ElementType = MET_USHORT",
        f"ElementDataFile = {data_file}", "",
    ]  # fmt: skip
    return "\n".join(lines).encode()
