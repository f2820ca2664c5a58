"""Landmarks of images on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.legs import UPRIGHT, legs

from dvtplan.anatomy import scan_landmarks
from dvtplan.anatomy.knee import estimate
from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io


def test_every_image_has_its_landmarks(tmp_path: Path) -> None:
    images = {"b": legs(), "a": np.zeros(UPRIGHT.shape)}
    paths = {name: tmp_path / f"{name}.nii.gz" for name in images}
    for name, image in images.items():
        volume_io.write_probabilities(paths[name], image, UPRIGHT)
    found = scan_landmarks.estimate_scans(paths)
    assert list(found) == ["b", "a"]
    assert found["b"] == estimate(*volume_io.read(paths["b"])) and found["b"].levels is not None
    assert found["a"].levels is None
    assert scan_landmarks.estimate_scans({}) == {}


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"")
    with pytest.raises(DvtError, match=r"a.nii.gz: is empty"):
        scan_landmarks.estimate_scans({"a": tmp_path / "a.nii.gz"})
