"""What a segmentation object takes from its images: UIDs that an archive needs, and names in every alphabet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import volume, write_series
from helpers.refusals import refused
from pydicom.dataset import Dataset

from dvtplan.dicom.segmentation_writer import require_source, write_segmentation
from dvtplan.dicom.series import choose_volume, read_study

MASK = np.zeros((5, 12, 8), np.uint8)
MASK[1:3, 2:7, 1:4] = 1


def written(folder: Path) -> Path:
    study = read_study(folder)
    path = folder.parent / "out" / "seg.dcm"
    write_segmentation(path, MASK, study, [choose_volume(study, None)], {"thrombus": 1})
    return path


def spoiled(folder: Path, keyword: str, value: str | None, images: slice) -> None:
    """Write a series; some images have another value, or none."""
    for path in write_series(folder, volume())[images]:
        ds = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            setattr(ds, keyword, value or "")
            if value is None:
                delattr(ds, keyword)
            ds.save_as(path)


@pytest.mark.parametrize("value", ["", None, "removed", "1..2", "1." + "2" * 64])
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"])
def test_a_series_without_a_uid_is_refused_before_and_at_writing(
    tmp_path: Path, keyword: str, value: str | None
) -> None:
    spoiled(tmp_path / "scan", keyword, value, slice(2, 3) if keyword == "SOPInstanceUID" else slice(None))
    study = read_study(tmp_path / "scan")
    chosen = choose_volume(study, None)
    for act in (lambda: require_source(study, [chosen], {"thrombus": 1}), lambda: written(tmp_path / "scan")):
        message = refused(act)
        assert str(tmp_path / "scan") in message and keyword in message and "\n" not in message
    assert not (tmp_path / "out").exists()


def test_a_series_whose_images_have_a_frame_of_reference_each_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", volume(), change=lambda ds, k: setattr(ds, "FrameOfReferenceUID", f"1.2.3.{k}"))
    assert "FrameOfReferenceUID" in refused(lambda: written(tmp_path / "scan"))
    assert not (tmp_path / "out").exists()


def test_other_tags_that_no_object_can_carry_are_found_before_a_prediction(tmp_path: Path) -> None:
    spoiled(tmp_path / "scan", "PatientSex", "removed", slice(None))
    study = read_study(tmp_path / "scan")
    assert "removed" in refused(lambda: require_source(study, [choose_volume(study, None)], {"thrombus": 1}))


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("", "Meier^Anna"),
        (None, "Meier^Anna"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 101", "Wałęsa^Łukasz"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 192", "王^小东"),
        ("GB18030", "王^小东"),
    ],
)
def test_names_in_every_character_set_are_read_back_equal(tmp_path: Path, charset: Any, name: str) -> None:
    def named(ds: Dataset, k: int) -> None:
        if charset is not None:
            ds.SpecificCharacterSet = charset
        ds.PatientName, ds.ReferringPhysicianName, ds.StudyDescription = name, name, name.replace("^", " ")

    with pydicom.config.disable_value_validation():
        source = write_series(tmp_path / "scan", volume(), change=named)[0]
    made, true = pydicom.dcmread(written(tmp_path / "scan")), pydicom.dcmread(source)
    assert str(made.PatientName) == str(true.PatientName) == name and made.SpecificCharacterSet == "ISO_IR 192"
    assert made.PatientName.components == true.PatientName.components
    assert str(made.ReferringPhysicianName) == name and made.StudyDescription == name.replace("^", " ")


def test_a_character_set_that_nobody_knows_stops_no_object(tmp_path: Path) -> None:
    """As DICOM's readers do, letters are then taken as Latin; the mask is right in any case."""
    write_series(tmp_path / "scan", volume())
    for path in (tmp_path / "scan").iterdir():
        body = path.read_bytes()
        path.write_bytes(body.replace(b"Phantom^One", "Müller^One".encode("latin-1")[:11].ljust(11)))
    assert str(pydicom.dcmread(written(tmp_path / "scan")).PatientName) == "Müller^One"
