"""Masks as DICOM segmentation objects: in their place by another reader, and read from objects of others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import CORONAL, FEET_FIRST, OBLIQUE, SAGITTAL, volume, write_enhanced, write_series
from helpers.segmentations import ACROSS, START, assert_same_points, block, foreign, points_of_nifti, points_of_object
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import SegmentationStorage

import dvtplan
from dvtplan.core.errors import DvtError
from dvtplan.dicom import segmentation
from dvtplan.dicom.series import StudyContents, Volume, choose, find
from dvtplan.imaging import volume_io
from dvtplan.inference import mask_formats

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CLASSES = {"proximal": 2, "distal": 5}


# --- written --------------------------------------------------------------------------------------


def only(folder: Path) -> tuple[StudyContents, Volume]:
    found = find(folder)
    return found, choose(found, None)


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
    segmentation.write_segmentation(path, mask, found, [shown], classes or CLASSES, model="abc")
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
    volume_io.write_mask(tmp_path / "mask.nii.gz", drawn(), only(tmp_path / "scan")[1].grid)
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
    found = find(tmp_path / "scan")
    second = choose(found, "7b")
    segmentation.write_segmentation(tmp_path / "seg.dcm", drawn(), found, [second], CLASSES)
    volume_io.write_mask(tmp_path / "mask.nii.gz", drawn(), second.grid)
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
        assert (by.AlgorithmVersion, by.AlgorithmParameters) == (dvtplan.__version__, "model=abc")
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
    assert segmentation._place(name) == place


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
    monkeypatch.setattr(segmentation, "_place_frames", lambda *_: np.zeros((5, 12, 8)))
    assert "does not read back the same" in refusal(lambda: written(tmp_path / "scan", drawn()))
    assert list((tmp_path / "out").iterdir()) == []


def test_without_highdicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert refusal(segmentation.import_highdicom) == (
        "Writing DICOM segmentations needs highdicom. Run pip install 'dvtplan[dicom]'."
    )


def test_a_viewer_is_told_the_names_of_the_values(tmp_path: Path) -> None:
    """ITK-SNAP's columns: index, red, green, blue, opacity from 0 to 1, visible, in 3-D, name."""
    mask_formats.write_label_descriptions(tmp_path / "labels.txt", {"proximal": 2, 'the "other"': 5})
    lines = [line for line in (tmp_path / "labels.txt").read_text().splitlines() if not line.startswith("#")]
    fields = [line.split(maxsplit=7) for line in lines]
    assert [(f[0], f[4:]) for f in fields] == [
        ("0", ["0", "0", "0", '"Clear Label"']),
        ("2", ["1", "1", "1", '"proximal"']),
        ("5", ["1", "1", "1", "\"the 'other'\""]),
    ]
    assert len({tuple(f[1:4]) for f in fields}) == 3 and all(0 <= int(v) <= 255 for f in fields for v in f[1:4])


def taken(folder: Path, classes: dict[str, int] | None = None) -> np.ndarray:
    found = find(folder)
    shown = choose(found, None)
    assert found.segmentations[0].series_uids == (shown.series_uid,)
    return segmentation.read_segmentation(
        found, found.segmentations[0], shown.grid, classes or {"proximal": 1, "distal": 2}
    )


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_series(tmp_path / "scan", volume())
    return tmp_path / "scan"


def test_an_object_is_no_volume_and_is_listed_with_its_segments(scan: Path) -> None:
    foreign(scan / "seg", scan, [(1, START, block(slice(2), slice(2)))], ["Proximal"])
    found = find(scan)
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
