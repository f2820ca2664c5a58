"""Fixtures of the tests of prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import OBLIQUE, write_series
from helpers.models import Bright, model_of
from helpers.predictions import EDITED, age, picture, write

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.inference.model import Model
from dvtplan.inference.predict import predict_path
from dvtplan.planning.plan import Plan


@pytest.fixture
def plan(toy_once: Workspace) -> Plan:
    """Coronal slices as 32x32."""
    return json_records.load(Plan, toy_once.plan, "test")


@pytest.fixture
def bright(plan: Plan) -> Model:
    """A model that segments bright voxels."""
    return model_of(plan, Bright())


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """The picture as an oblique DICOM series of shuffled slices."""
    write_series(tmp_path / "scan", picture().astype(np.uint16), plane=OBLIQUE)
    return tmp_path / "scan"


@pytest.fixture
def half_done(tmp_path: Path, bright: Model) -> Path:
    """A folder of two predicted cases; the first mask has an old time, see ``age``."""
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.nii.gz")
    predict_path(tmp_path / "in", tmp_path / "out", bright)
    age(tmp_path / "out" / "a.nii.gz")
    return tmp_path / "out"


@pytest.fixture
def corrected(half_done: Path) -> Path:
    """The folder with its first mask edited."""
    (half_done / "a.nii.gz").write_bytes(EDITED)
    return half_done
