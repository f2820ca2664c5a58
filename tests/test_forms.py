"""A mask in further forms. Objects are tried on whole scans in test_end_to_end_dicom."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dvtplan import forms
from dvtplan.inference import Model
from dvtplan.records import Case
from dvtplan.scans import Given

MODEL = cast(Model, SimpleNamespace(classes={"proximal": 1, "distal": 2}, digest="d" * 64))


def given(**more: Any) -> Given:
    return Given(cases=(Case(id="a", patient="a", images=(Path("a.nii.gz"),)),), one=True, **more)


def test_names_of_values_lie_beside_each_mask(tmp_path: Path) -> None:
    masks = [tmp_path / "a.nii.gz", tmp_path / "b.nrrd"]
    assert forms.write(masks, [], given(), MODEL, [forms.LABELS], overwrite=False) == [
        tmp_path / "a_labels.txt",
        tmp_path / "b_labels.txt",
    ]
    assert '"proximal"' in (tmp_path / "a_labels.txt").read_text()
    assert forms.write(masks, [], given(), MODEL, [], overwrite=False) == []


def test_an_object_needs_a_series(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"mask")
    with pytest.raises(ValueError, match="without a series"):
        forms.write([tmp_path / "a.nii.gz"], [], given(shown=((),)), MODEL, [forms.DICOM_SEG], overwrite=False)


def test_an_object_is_called_after_its_mask() -> None:
    assert forms.object_path(Path("x/a.nii.gz")) == Path("x/a_seg.dcm")
