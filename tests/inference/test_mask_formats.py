"""A mask in further forms. Objects are tried on whole scans in test_end_to_end_dicom."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dvtplan.data import mask_files
from dvtplan.data.dataset import Case
from dvtplan.inference import mask_formats
from dvtplan.inference.inputs import PredictionInput
from dvtplan.inference.model import Model

MODEL = cast(Model, SimpleNamespace(classes={"proximal": 1, "distal": 2}, digest="d" * 64))


def given(**more: Any) -> PredictionInput:
    return PredictionInput(cases=(Case(id="a", patient="a", images=(Path("a.nii.gz"),)),), one=True, **more)


def test_names_of_values_lie_beside_each_mask(tmp_path: Path) -> None:
    masks = [tmp_path / "a.nii.gz", tmp_path / "b.nrrd"]
    assert mask_formats.write_formats(masks, [], given(), MODEL, [mask_formats.LABELS], overwrite=False) == [
        tmp_path / "a_labels.txt",
        tmp_path / "b_labels.txt",
    ]
    assert '"proximal"' in (tmp_path / "a_labels.txt").read_text()
    assert mask_formats.write_formats(masks, [], given(), MODEL, [], overwrite=False) == []


def test_an_object_needs_a_series(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"mask")
    with pytest.raises(ValueError, match="without a series"):
        mask_formats.write_formats(
            [tmp_path / "a.nii.gz"], [], given(shown=((),)), MODEL, [mask_formats.DICOM_SEG], overwrite=False
        )


def test_an_object_is_called_after_its_mask() -> None:
    assert mask_files.dicom_seg_path(Path("x/a.nii.gz")) == Path("x/a_seg.dcm")
