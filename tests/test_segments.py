"""Masks as DICOM segmentation objects: in their place by another reader, and read from objects of others."""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import SegmentationStorage, generate_uid
from scipy.spatial import cKDTree
from test_dicom import CORONAL, FEET_FIRST, OBLIQUE, SAGITTAL, header, save, volume, write_enhanced, write_series

from dvtplan import dicom, segments, volumes
from dvtplan.dicom import Found, Volume
from dvtplan.errors import DvtError

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CLASSES = {"proximal": 2, "distal": 5}


# --- other readers --------------------------------------------------------------------------------


def points_of_object(path: Path) -> dict[str, np.ndarray]:
    """Segment label -> LPS positions of its pixels, (N, 3), from the tags of each frame (C.7.6.2.1.1)."""
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
    """Value -> LPS positions of its voxels, from the bytes of the file (nifti1.h, method 3)."""
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
    """As many, and each within 1e-4 mm of one of the others."""
    assert len(a) == len(b) > 0
    assert cKDTree(a).query(b)[0].max() < 1e-4 and cKDTree(b).query(a)[0].max() < 1e-4


# --- written --------------------------------------------------------------------------------------


def only(folder: Path) -> tuple[Found, Volume]:
    found = dicom.find(folder)
    return found, dicom.choose(found, None)


def drawn(shape: Sequence[int] = (5, 12, 8)) -> np.ndarray:
    """Two blocks that touch, on some of the slices; nothing in them is symmetric."""
    mask = np.zeros(shape, np.uint8)
    mask[1:3, 2:7, 1:4] = 2
    mask[2:4, 7:9, 1:3] = 5
    mask[2, 11, 7] = 2
    return mask


def written(folder: Path, mask: np.ndarray, classes: dict[str, int] | None = None) -> Path:
    found, shown = only(folder)
    path = folder.parent / "out" / "mask_seg.dcm"
    segments.write(path, mask, found, [shown], classes or CLASSES, model="abc")
    return path


@pytest.mark.parametrize("many", [False, True], ids=["single", "enhanced"])
@pytest.mark.parametrize("plane", [CORONAL, OBLIQUE, FEET_FIRST, SAGITTAL, AXIAL])
def test_frames_lie_by_their_own_tags_where_the_mask_lies(tmp_path: Path, plane: Any, many: bool) -> None:
    """To 1e-4 mm, in LPS, by a reader that knows neither this package nor the one that writes."""
    if many:
        write_enhanced(tmp_path / "scan" / "one", volume(), plane=plane)
    else:
        write_series(tmp_path / "scan", volume(), plane=plane)
    path = written(tmp_path / "scan", drawn())
    volumes.write_mask(tmp_path / "mask.nii.gz", drawn(), only(tmp_path / "scan")[1].grid)
    objects, voxels = points_of_object(path), points_of_nifti(tmp_path / "mask.nii.gz")
    for name, value in CLASSES.items():
        assert_same_points(objects[name], voxels[value])


def test_every_frame_names_the_image_that_it_is_drawn_on(tmp_path: Path) -> None:
    sources = [pydicom.dcmread(p) for p in write_series(tmp_path / "scan", volume(), plane=OBLIQUE)]
    made = pydicom.dcmread(written(tmp_path / "scan", drawn()))
    place = {str(one.SOPInstanceUID): one.ImagePositionPatient for one in sources}
    for frame in made.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        own = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.abs(own - np.array(place[image.ReferencedSOPInstanceUID], float)).max() < 1e-6
    (series,) = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == sources[0].SeriesInstanceUID != made.SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == set(place)
    assert (made.FrameOfReferenceUID, made.StudyInstanceUID) == ("1.2.3.4", "1.2.3")
    assert (made.PatientID, made.Modality, made.SOPClassUID) == ("p1", "SEG", SegmentationStorage)


def test_every_frame_of_a_multi_frame_object_names_the_frame_of_its_place(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "scan" / "one", volume())
    source = pydicom.dcmread(tmp_path / "scan" / "one")
    made = pydicom.dcmread(written(tmp_path / "scan", drawn()))
    for frame in made.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        there = source.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        assert np.allclose(
            there.PlanePositionSequence[0].ImagePositionPatient,
            frame.PlanePositionSequence[0].ImagePositionPatient,
            atol=1e-6,
            rtol=0,
        )


def test_orientations_of_each_frame_and_frames_of_another_echo_do_not_hinder(tmp_path: Path) -> None:
    """As some scanners write it: nothing is shared, and two volumes stand in one object."""
    write_enhanced(tmp_path / "scan" / "one", volume(), plane=OBLIQUE)
    ds = pydicom.dcmread(tmp_path / "scan" / "one")
    shared = ds.SharedFunctionalGroupsSequence[0]
    frames = list(ds.PerFrameFunctionalGroupsSequence)
    for frame in frames:
        frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
        frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del ds.SharedFunctionalGroupsSequence
    both = []
    for echo in (1.0, 2.0):
        for frame in frames:
            one = Dataset()
            one.update(frame)
            one.MREchoSequence = Items([Dataset()])
            one.MREchoSequence[0].EffectiveEchoTime = echo
            both.append(one)
    ds.PerFrameFunctionalGroupsSequence = Items(both)
    ds.NumberOfFrames, ds.PixelData = 10, ds.PixelData * 2
    ds.save_as(tmp_path / "scan" / "one")
    found = dicom.find(tmp_path / "scan")
    second = dicom.choose(found, "7b")
    segments.write(tmp_path / "seg.dcm", drawn(), found, [second], CLASSES)
    volumes.write_mask(tmp_path / "mask.nii.gz", drawn(), second.grid)
    objects, voxels = points_of_object(tmp_path / "seg.dcm"), points_of_nifti(tmp_path / "mask.nii.gz")
    for name, value in CLASSES.items():
        assert_same_points(objects[name], voxels[value])


def test_segments_say_in_codes_what_they_are_and_who_drew_them(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", volume())
    made = pydicom.dcmread(written(tmp_path / "scan", drawn(), {"proximal": 2, "Distal thrombus": 5, "muscle": 7}))
    assert [one.SegmentNumber for one in made.SegmentSequence] == [1, 2, 3]
    assert [one.SegmentLabel for one in made.SegmentSequence] == ["proximal", "Distal thrombus", "muscle"]
    kinds = [one.SegmentedPropertyTypeCodeSequence[0].CodeValue for one in made.SegmentSequence]
    assert kinds == ["396339007", "396339007", "85756007"]
    sides = [
        one.PrimaryAnatomicStructureSequence[0].PrimaryAnatomicStructureModifierSequence[0].CodeMeaning
        for one in made.SegmentSequence[:2]
    ]
    assert sides == ["Proximal", "Distal"] and "PrimaryAnatomicStructureSequence" not in made.SegmentSequence[2]
    for one in made.SegmentSequence:
        assert (one.SegmentAlgorithmType, one.SegmentAlgorithmName) == ("AUTOMATIC", "dvtplan")
        by = one.SegmentationAlgorithmIdentificationSequence[0]
        assert (by.AlgorithmVersion, by.AlgorithmParameters) == (segments.__version__, "model=abc")
        assert "Research use only" in one.SegmentDescription
    assert "Research use only" in made.ContentDescription and "Research use only" in made.SeriesDescription


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("thrombus", ""),
        ("lesion", ""),
        ("proximal", "proximal"),
        ("DVT_distal", "distal"),
        ("popliteal", "popliteal"),
        ("left femoral thrombus", ""),
        ("anterior", None),
        ("vein", None),
        ("7", None),
    ],
)
def test_only_what_is_named_as_thrombus_is_coded_as_thrombus(name: str, place: str | None) -> None:
    assert segments._place(name) == place


@pytest.mark.parametrize("many", [False, True], ids=["single", "enhanced"])
def test_a_mask_without_any_voxel_is_an_object_that_says_so(tmp_path: Path, many: bool) -> None:
    """With a frame for each image and segment; another reader finds it sound."""
    import highdicom

    if many:
        write_enhanced(tmp_path / "scan" / "one", volume())
    else:
        write_series(tmp_path / "scan", volume())
    path = written(tmp_path / "scan", np.zeros((5, 12, 8), np.uint8))
    assert {name: len(points) for name, points in points_of_object(path).items()} == {"proximal": 0, "distal": 0}
    made = highdicom.seg.segread(path)
    assert made.NumberOfFrames == 10 and made.segment_numbers == [1, 2]


def test_another_library_reads_back_the_mask(tmp_path: Path) -> None:
    import highdicom

    write_series(tmp_path / "scan", volume(), plane=OBLIQUE)
    made = highdicom.seg.segread(written(tmp_path / "scan", drawn()))
    back = made.get_volume(combine_segments=True)
    array = back.array if np.allclose(back.affine[:3, 3], (-100, -30, 200)) else back.array[::-1]
    marked = drawn()[1:4]  # from its first frame to its last
    assert np.array_equal(array, np.select([marked == 2, marked == 5], [1, 2]))


def test_what_an_anonymizer_removed_stays_empty(tmp_path: Path) -> None:
    def strip(ds: Dataset, k: int) -> None:
        del ds.PatientID, ds.PatientName

    write_series(tmp_path / "scan", volume(), change=strip)
    made = pydicom.dcmread(written(tmp_path / "scan", drawn()))
    assert made.PatientID in ("", None) and str(made.PatientName) == "" and made.StudyDate in ("", None)


def refusal(act: Any) -> str:
    with pytest.raises(DvtError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_frame_of_reference_nothing_is_drawn(tmp_path: Path) -> None:
    def strip(ds: Dataset, k: int) -> None:
        del ds.FrameOfReferenceUID

    write_series(tmp_path / "scan", volume(), change=strip)
    assert "series 5: its images name no frame of reference" in refusal(lambda: written(tmp_path / "scan", drawn()))
    assert not (tmp_path / "out").exists()


def test_what_reads_back_otherwise_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "scan", volume())
    monkeypatch.setattr(segments, "_placed", lambda *_: np.zeros((5, 12, 8)))
    assert "does not read back the same" in refusal(lambda: written(tmp_path / "scan", drawn()))
    assert list((tmp_path / "out").iterdir()) == []


def test_without_highdicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert refusal(segments.require) == (
        "Writing DICOM segmentations needs highdicom. Run pip install 'dvtplan[dicom]'."
    )


def test_a_viewer_is_told_the_names_of_the_values(tmp_path: Path) -> None:
    """ITK-SNAP's columns: index, red, green, blue, opacity from 0 to 1, visible, in 3-D, name."""
    segments.write_descriptions(tmp_path / "labels.txt", {"proximal": 2, 'the "other"': 5})
    lines = [line for line in (tmp_path / "labels.txt").read_text().splitlines() if not line.startswith("#")]
    fields = [line.split(maxsplit=7) for line in lines]
    assert [(f[0], f[4:]) for f in fields] == [
        ("0", ["0", "0", "0", '"Clear Label"']),
        ("2", ["1", "1", "1", '"proximal"']),
        ("5", ["1", "1", "1", "\"the 'other'\""]),
    ]
    assert len({tuple(f[1:4]) for f in fields}) == 3 and all(0 <= int(v) <= 255 for f in fields for v in f[1:4])


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
    """An object as another program might write it: (segment, position, pixels) a frame, in any order."""
    source = pydicom.dcmread(next(p for p in series.rglob("*") if p.is_file()))
    rows, columns = frames[0][2].shape
    ds = header(generate_uid(), 12, "manual", rows, columns, SOPClassUID=SegmentationStorage, Modality="SEG")
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
"""From one slice to the next: what test_dicom's coronal series have."""


def taken(folder: Path, classes: dict[str, int] | None = None) -> np.ndarray:
    found = dicom.find(folder)
    shown = dicom.choose(found, None)
    assert found.segmentations[0].series_uids == (shown.series_uid,)
    return segments.read(found, found.segmentations[0], shown.grid, classes or {"proximal": 1, "distal": 2})


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_series(tmp_path / "scan", volume())
    return tmp_path / "scan"


def block(rows: slice, columns: slice, value: int = 1) -> np.ndarray:
    made = np.zeros((12, 8), np.uint8)
    made[rows, columns] = value
    return made


def test_an_object_is_no_volume_and_is_listed_with_its_segments(scan: Path) -> None:
    foreign(scan / "seg", scan, [(1, START, block(slice(2), slice(2)))], ["Proximal"])
    found = dicom.find(scan)
    assert [v.name for v in found.volumes] == ["5"]
    assert found.segmentations[0].title == "segmentation 12 (manual): Proximal"


def test_frames_in_any_order_come_to_their_slices(scan: Path) -> None:
    """Some slices have no frame, one has two, and they stand backwards."""
    upper, lower = block(slice(0, 3), slice(1, 4)), block(slice(5, 9), slice(0, 2))
    frames = [(2, START + 3 * ACROSS, lower), (1, START + 3 * ACROSS, upper), (1, START + ACROSS, upper)]
    foreign(scan / "seg", scan, frames, ["Proximal", "DISTAL"])
    expected = np.zeros((5, 12, 8), np.uint8)
    expected[[1, 3], 0:3, 1:4] = 1
    expected[3, 5:9, 0:2] = 2
    assert np.array_equal(taken(scan), expected)


def test_a_cropped_and_turned_frame_comes_to_its_voxels(scan: Path) -> None:
    """A frame of 3 x 4 pixels that counts its rows upwards and its columns to the right of the patient."""
    pixels = np.arange(12).reshape(3, 4) % 2 + np.eye(3, 4, dtype=int) > 1
    corner = START + 2 * ACROSS + [6 * 1.3, 0, -10 * 1.45]  # row 10, column 6
    foreign(scan / "seg", scan, [(1, corner, pixels)], ["proximal"], plane=((-1.0, 0, 0), (0, 0, 1.0)))
    expected = np.zeros((5, 12, 8), np.uint8)
    for r, c in np.argwhere(pixels):
        expected[2, 10 - r, 6 - c] = 1
    assert expected.any() and np.array_equal(taken(scan), expected)


def test_a_labelmap_and_probabilities_are_read(scan: Path) -> None:
    both = block(slice(0, 2), slice(0, 2)) + block(slice(4, 6), slice(3, 5), 2)
    path = foreign(scan / "seg", scan, [(None, START, both)], ["proximal", "distal"], kind="LABELMAP")
    assert np.array_equal(taken(scan)[0], both) and not taken(scan)[1:].any()
    path.unlink()
    half = block(slice(0, 2), slice(0, 2), 99) + block(slice(4, 6), slice(3, 5), 100)
    foreign(scan / "seg", scan, [(2, START, half)], ["proximal", "distal"], kind="FRACTIONAL")
    assert np.array_equal(taken(scan)[0], np.where(half == 100, 2, 0))


def test_one_segment_is_the_one_label_whatever_its_name(scan: Path) -> None:
    foreign(scan / "seg", scan, [(1, START, block(slice(2), slice(2)))], ["Segment_1"])
    assert taken(scan, {"thrombus": 1}).sum() == 4
    told = refusal(lambda: taken(scan))
    assert "holds the segments Segment_1; the data set's labels are proximal, distal" in told


def test_segments_that_overlap_are_refused(scan: Path) -> None:
    frames = [(1, START, block(slice(0, 3), slice(2))), (2, START, block(slice(2, 5), slice(2)))]
    foreign(scan / "seg", scan, frames, ["proximal", "distal"])
    assert "2 voxels belong to several segments" in refusal(lambda: taken(scan))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"position": START + 0.4 * np.array([1.25, 0, 0])},
            "frame 1 is not drawn on the voxels of the series (up to 0.5 mm away",
        ),
        ({"position": START + 0.4 * ACROSS}, "(up to 0.5 mm away"),
        ({"spacing": (1.45, 1.35)}, "(up to 0.35 mm away"),
        ({"plane": OBLIQUE}, "is not drawn on the voxels"),
        ({"position": START - ACROSS}, "frame 1 marks voxels outside of the series"),
    ],
)
def test_what_would_have_to_be_resampled_is_refused(scan: Path, change: dict[str, Any], words: str) -> None:
    where = change.pop("position", START)
    foreign(scan / "seg", scan, [(1, where, block(slice(2), slice(2)))], ["proximal"], **change)
    assert words in refusal(lambda: taken(scan))
