"""Written DICOM segmentation objects: positions, codes and metadata, as other readers see them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import CORONAL, FEET_FIRST, OBLIQUE, SAGITTAL, volume, write_enhanced, write_series
from helpers.segmentations import assert_same_points, points_of_nifti, points_of_object
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import SegmentationStorage

import dvtplan
from dvtplan.core.errors import DvtError
from dvtplan.dicom import segmentation_writer
from dvtplan.dicom.segmentation_writer import vein_of_class, write_segmentation
from dvtplan.dicom.series import StudyContents, Volume, choose_volume, read_study
from dvtplan.imaging import volume_io
from dvtplan.inference import mask_formats

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CLASSES = {"proximal": 2, "distal": 5}


def only(folder: Path) -> tuple[StudyContents, Volume]:
    study = read_study(folder)
    return study, choose_volume(study, None)


def drawn(shape: Sequence[int] = (5, 12, 8)) -> np.ndarray:
    """Return a mask of two blocks that touch, on some slices, without any symmetry."""
    mask = np.zeros(shape, np.uint8)
    mask[1:3, 2:7, 1:4] = 2
    mask[2:4, 7:9, 1:3] = 5
    mask[2, 11, 7] = 2
    return mask


def written(folder: Path, mask: np.ndarray, classes: dict[str, int] | None = None) -> Path:
    study, shown = only(folder)
    path = folder.parent / "out" / "mask_seg.dcm"
    write_segmentation(path, mask, study, [shown], classes or CLASSES, model="abc")
    return path


@pytest.mark.parametrize("many", [False, True], ids=["single", "enhanced"])
@pytest.mark.parametrize("plane", [CORONAL, OBLIQUE, FEET_FIRST, SAGITTAL, AXIAL])
def test_frames_have_the_positions_of_the_mask(tmp_path: Path, plane: Any, many: bool) -> None:
    """To 1e-4 mm, in LPS, according to an independent reader."""
    if many:
        write_enhanced(tmp_path / "scan" / "one", volume(), plane=plane)
    else:
        write_series(tmp_path / "scan", volume(), plane=plane)
    path = written(tmp_path / "scan", drawn())
    volume_io.write_mask(tmp_path / "mask.nii.gz", drawn(), only(tmp_path / "scan")[1].grid)
    objects, voxels = points_of_object(path), points_of_nifti(tmp_path / "mask.nii.gz")
    for name, value in CLASSES.items():
        assert_same_points(objects[name], voxels[value])


def test_every_frame_refers_to_its_source_image(tmp_path: Path) -> None:
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


def test_every_frame_refers_to_the_source_frame_with_its_position(tmp_path: Path) -> None:
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


def test_a_source_without_shared_groups_and_with_two_echoes_is_accepted(tmp_path: Path) -> None:
    """As some scanners write it: no shared functional groups, and two volumes in one object."""
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
    study = read_study(tmp_path / "scan")
    second = choose_volume(study, "7b")
    write_segmentation(tmp_path / "seg.dcm", drawn(), study, [second], CLASSES)
    volume_io.write_mask(tmp_path / "mask.nii.gz", drawn(), second.grid)
    objects, voxels = points_of_object(tmp_path / "seg.dcm"), points_of_nifti(tmp_path / "mask.nii.gz")
    for name, value in CLASSES.items():
        assert_same_points(objects[name], voxels[value])


def test_segments_have_codes_and_name_their_algorithm(tmp_path: Path) -> None:
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
def test_only_names_that_mean_thrombus_are_coded_as_thrombus(name: str, place: str | None) -> None:
    assert vein_of_class(name) == place


@pytest.mark.parametrize("many", [False, True], ids=["single", "enhanced"])
def test_an_empty_mask_is_an_object_with_empty_frames(tmp_path: Path, many: bool) -> None:
    """One for each image and segment. highdicom reads it."""
    import highdicom

    if many:
        write_enhanced(tmp_path / "scan" / "one", volume())
    else:
        write_series(tmp_path / "scan", volume())
    path = written(tmp_path / "scan", np.zeros((5, 12, 8), np.uint8))
    assert {name: len(points) for name, points in points_of_object(path).items()} == {"proximal": 0, "distal": 0}
    made = highdicom.seg.segread(path)
    assert made.NumberOfFrames == 10 and made.segment_numbers == [1, 2]


def test_highdicom_reads_back_the_mask(tmp_path: Path) -> None:
    import highdicom

    write_series(tmp_path / "scan", volume(), plane=OBLIQUE)
    made = highdicom.seg.segread(written(tmp_path / "scan", drawn()))
    back = made.get_volume(combine_segments=True)
    array = back.array if np.allclose(back.affine[:3, 3], (-100, -30, 200)) else back.array[::-1]
    segmented = drawn()[1:4]  # from its first frame to its last
    assert np.array_equal(array, np.select([segmented == 2, segmented == 5], [1, 2]))


def test_tags_that_an_anonymizer_removed_stay_empty(tmp_path: Path) -> None:
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


def test_an_object_that_differs_when_read_back_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "scan", volume())
    monkeypatch.setattr(segmentation_writer, "place_frames", lambda *_: np.zeros((5, 12, 8)))
    assert "differs from the mask when read back" in refusal(lambda: written(tmp_path / "scan", drawn()))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_message_names_the_extra_if_highdicom_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert "highdicom. Run pip install 'dvtplan[dicom]'" in refusal(segmentation_writer.import_highdicom)


def test_label_descriptions_have_the_columns_of_itk_snap(tmp_path: Path) -> None:
    """Index, red, green, blue, opacity from 0 to 1, visible, visible in 3-D, name."""
    mask_formats.write_label_descriptions(tmp_path / "labels.txt", {"proximal": 2, 'the "other"': 5})
    lines = [line for line in (tmp_path / "labels.txt").read_text().splitlines() if not line.startswith("#")]
    fields = [line.split(maxsplit=7) for line in lines]
    assert [(f[0], f[4:]) for f in fields] == [
        ("0", ["0", "0", "0", '"Clear Label"']),
        ("2", ["1", "1", "1", '"proximal"']),
        ("5", ["1", "1", "1", "\"the 'other'\""]),
    ]
    assert len({tuple(f[1:4]) for f in fields}) == 3 and all(0 <= int(v) <= 255 for f in fields for v in f[1:4])
