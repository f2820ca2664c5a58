"""Tags of single images: scale, place, and kinds of values that are not read as grey values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import read, volume, write_enhanced, write_series
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from dvtplan.core.errors import DvtError
from dvtplan.dicom import series
from dvtplan.dicom.dataset_import import import_dicom
from dvtplan.dicom.import_options import ImportOptions


def refusal(source: Path) -> str:
    with pytest.raises(DvtError) as caught:
        read(source)
    message = str(caught.value)
    assert str(source) in message and "\n" not in message
    return message


def item(**tags: Any) -> Dataset:
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


# --- kinds of values ------------------------------------------------------------------------------

KINDS = {
    "MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1"},
    "INVERSE": {"PresentationLUTShape": "INVERSE"},
    "PixelPresentation": {"PixelPresentation": "MIXED"},
    "palette": {"PhotometricInterpretation": "PALETTE COLOR"},
    "ModalityLUTSequence": {"ModalityLUTSequence": Items([item(LUTDescriptor=[4, 0, 16], LUTData=bytes(8))])},
    "RealWorldValueMappingSequence": {
        "RealWorldValueMappingSequence": Items([item(RealWorldValueSlope=2.0, RealWorldValueIntercept=0.0)])
    },
}


@pytest.mark.parametrize("first", [0, 3], ids=["all", "some"])
@pytest.mark.parametrize("word", KINDS)
def test_values_that_are_not_plain_grey_values_are_refused(tmp_path: Path, word: str, first: int) -> None:
    def change(ds: Dataset, k: int) -> None:
        for keyword, value in KINDS[word].items():
            if k >= first:
                setattr(ds, keyword, value)

    paths = write_series(tmp_path, volume(), change=change)
    message = refusal(tmp_path)
    assert word in message and any(path.name in message for path in paths)


def test_a_mapping_does_not_matter_where_a_slope_is(tmp_path: Path) -> None:
    def change(ds: Dataset, k: int) -> None:
        ds.RealWorldValueMappingSequence = KINDS["RealWorldValueMappingSequence"]["RealWorldValueMappingSequence"]
        ds.RescaleSlope, ds.RescaleIntercept = 3, 1

    write_series(tmp_path, volume(), change=change)
    assert np.array_equal(read(tmp_path)[0], volume() * 3.0 + 1)


# --- functional groups ----------------------------------------------------------------------------


def enhanced(path: Path, change: Any) -> None:
    write_enhanced(path, volume())
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)


def test_private_groups_do_not_scale_values(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        for k, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
            block = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
            block.add_new(0x0F, "SQ", Items([item(RescaleSlope=9.0 + k, RescaleIntercept=5.0, PixelSpacing=[9, 9])]))

    enhanced(tmp_path / "one", change)
    found, grid = read(tmp_path)
    assert np.array_equal(found, volume() * 2.0 - 100) and grid.spacing_mm[1:] == (1.45, 1.3)


def test_a_frame_s_own_scale_is_used_before_the_shared(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        for frame in ds.PerFrameFunctionalGroupsSequence:
            frame.PixelValueTransformationSequence = Items([item(RescaleSlope=4.0, RescaleIntercept=1.0)])

    enhanced(tmp_path / "one", change)
    assert np.array_equal(read(tmp_path)[0], volume() * 4.0 + 1)


@pytest.mark.parametrize(
    ("sequence", "keyword", "values"),
    [
        ("FrameContentSequence", "FrameAcquisitionNumber", (1, 2)),
        ("FrameContentSequence", "FrameAcquisitionDateTime", ("20200101120000", "20200101120100")),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", (30.0, 400.0)),
    ],
)
def test_frames_of_two_acquisitions_are_two_volumes(
    tmp_path: Path, sequence: str, keyword: str, values: tuple[Any, Any]
) -> None:
    array = volume((10, 12, 8))
    write_enhanced(tmp_path / "one", array)
    ds = pydicom.dcmread(tmp_path / "one")
    for k, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [-100, -30 + 1.25 * (k % 5), 200]
        setattr(frame, sequence, Items([item(**{keyword: values[k // 5]})]))
    ds.PixelData = array.tobytes()
    del ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    ds.save_as(tmp_path / "one")
    for name, part in (("7a", array[:5]), ("7b", array[5:])):
        assert np.array_equal(read(tmp_path, name)[0], part)


def test_a_shared_mapping_without_a_slope_is_refused(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        shared = ds.SharedFunctionalGroupsSequence[0]
        del shared.PixelValueTransformationSequence
        shared.RealWorldValueMappingSequence = Items([item(RealWorldValueLUTData=[1.0, 2.0])])

    enhanced(tmp_path / "one", change)
    assert "RealWorldValueMappingSequence" in refusal(tmp_path)


# --- words in place of numbers --------------------------------------------------------------------


def write_raw(folder: Path, keyword: str, text: str, *, only: int | None = None) -> None:
    """Write a series whose tag has a text that may not be valid."""
    value = text.encode("latin-1")
    value += b" " * (len(value) % 2)

    def change(ds: Dataset, k: int) -> None:
        tag = Tag(pydicom.datadict.tag_for_keyword(keyword))
        if only in (None, k):
            vr = pydicom.datadict.dictionary_VR(tag)
            ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)

    write_series(folder, volume(), change=change)


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("RescaleSlope", "1,5"),
        ("RescaleSlope", "removed"),
        ("RescaleSlope", "nan"),
        ("RescaleSlope", "0"),
        ("RescaleSlope", "1\\2"),
        ("RescaleIntercept", "removed"),
        ("PixelSpacing", "1.5,1.25"),
        ("PixelSpacing", "1,5\\1,25"),
        ("PixelSpacing", "-1\\1"),
        ("PixelSpacing", "1\\1\\1"),
        ("ImagePositionPatient", "removed"),
        ("ImageOrientationPatient", "1\\0\\0\\0\\0"),
        ("ImagePositionPatient", "1e300\\0\\0"),
        ("Rows", "abcdef"),
        ("Columns", "\0\0"),
    ],
)
@pytest.mark.parametrize("only", [None, 4])
def test_a_number_that_the_volume_needs_is_refused_if_it_is_none(
    tmp_path: Path, keyword: str, text: str, only: int | None
) -> None:
    write_raw(tmp_path, keyword, text, only=only)
    assert f"{keyword} is " in refusal(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # about writing it
@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("EchoTime", "removed"),
        ("EchoTime", "1,1"),
        ("AcquisitionNumber", "1.5"),
        ("TemporalPositionIdentifier", "removed"),
        ("TriggerTime", "removed"),
        ("SeriesNumber", "removed"),
        ("SeriesNumber", "5\\6"),
        ("InstanceNumber", "1.5"),
        ("DiffusionBValue", "removed!"),
        ("ImageType", "ORIGINAL"),
        ("SpecificCharacterSet", "KLINGON_1"),
    ],
)
def test_a_number_that_the_volume_does_not_need_may_be_anything(tmp_path: Path, keyword: str, text: str) -> None:
    write_raw(tmp_path, keyword, text)
    assert np.array_equal(read(tmp_path)[0], volume())


def test_a_faulty_study_does_not_end_the_import_of_others(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b", "c", "d")):
        write_series(
            tmp_path / "in" / name, volume(seed=k), change=lambda ds, _, k=k: setattr(ds, "PatientID", f"p{k}")
        )
    write_raw(tmp_path / "in" / "b", "RescaleSlope", "1,5")
    path = next((tmp_path / "in" / "c").iterdir())
    path.write_bytes(path.read_bytes()[:200])
    (tmp_path / "in" / "e.zip").write_bytes(b"PK no more")
    result = import_dicom([tmp_path / "in"], tmp_path / "out", ImportOptions(channels=("CE-MR",)))
    assert len(result.added) == 2
    assert [Path(fault.partition(": ")[0]).name for fault in result.faults] == ["b", "c", "e.zip"]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charset", "encoded", "text"),
    [
        ("ISO_IR 100", "F\u00fc\u00dfe".encode("latin-1"), "F\u00fc\u00dfe"),
        ("ISO_IR 192", "F\u00fc\u00dfe".encode(), "F\u00fc\u00dfe"),
        ("\\ISO 2022 IR 87", b"\x1b$B5S\x1b(B", "\u811a"),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xb4\xd9\xb8\xae", "\ub2e4\ub9ac"),
        ("GB18030", "\u817f".encode("gb18030"), "\u817f"),
        ("", b"legs", "legs"),
        ("ISO 2022 IR 6\\ISO 2022 IR 100", b"\x1b-AF\xfc\xdfe", "F\u00fc\u00dfe"),
    ],
)
def test_descriptions_of_all_character_sets_are_read(tmp_path: Path, charset: str, encoded: bytes, text: str) -> None:
    value = encoded + b" " * (len(encoded) % 2)

    def change(ds: Dataset, k: int) -> None:
        ds.SpecificCharacterSet = charset.split("\\")
        ds[0x0008103E] = RawDataElement(Tag(0x0008103E), "LO", len(value), value, 0, False, True)

    write_series(tmp_path, volume(), change=change)
    assert series.read_study(tmp_path).volumes[0].title.startswith(f"{text}:")
