"""Masks in additional formats. Objects of whole scans are tested in end_to_end/test_dicom."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pydicom
import pytest

from dvtplan.core.errors import DvtError
from dvtplan.data import mask_files
from dvtplan.data.dataset import Case
from dvtplan.inference import mask_formats
from dvtplan.inference.inputs import PredictionInput
from dvtplan.inference.model import Model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.predict import predict_path

MODEL = cast(Model, SimpleNamespace(classes={"proximal": 1, "distal": 2}, digest="d" * 64))


def source(**more: Any) -> PredictionInput:
    return PredictionInput(cases=(Case(id="a", patient="a", images=(Path("a.nii.gz"),)),), is_single=True, **more)


def formats(*names: str) -> PredictOptions:
    return PredictOptions(extra_formats=names)


def test_label_names_are_next_to_each_mask(tmp_path: Path) -> None:
    masks = [tmp_path / "a.nii.gz", tmp_path / "b.nrrd"]
    assert mask_formats.write_formats(masks, [], source(), MODEL, formats(mask_formats.LABELS)) == [
        tmp_path / "a_labels.txt",
        tmp_path / "b_labels.txt",
    ]
    assert '"proximal"' in (tmp_path / "a_labels.txt").read_text()
    assert mask_formats.write_formats(masks, [], source(), MODEL, formats()) == []


def test_an_object_needs_a_series(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"mask")
    with pytest.raises(ValueError, match="needs a DICOM series"):
        mask_formats.write_formats(
            [tmp_path / "a.nii.gz"], [], source(source_volumes=((),)), MODEL, formats(mask_formats.DICOM_SEG)
        )


def test_an_object_that_its_series_cannot_carry_is_refused_before_the_prediction(
    scan: Path, bright: Model, tmp_path: Path
) -> None:
    for path in scan.iterdir():
        ds = pydicom.dcmread(path)
        ds.StudyInstanceUID = ""
        ds.save_as(path)
    with pytest.raises(DvtError, match=r"scan: series 5: StudyInstanceUID of \w+ is empty"):
        predict_path(scan, tmp_path / "out", bright, formats(mask_formats.DICOM_SEG))
    assert not (tmp_path / "out").exists()


def test_an_object_is_named_after_its_mask() -> None:
    assert mask_files.dicom_seg_path(Path("x/a.nii.gz")) == Path("x/a_seg.dcm")


def test_a_format_that_is_unknown_is_refused() -> None:
    with pytest.raises(DvtError, match=r"`extra_formats`: nrrd is not a format"):
        PredictOptions(extra_formats=("nrrd",))
