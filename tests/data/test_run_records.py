"""The record of the prediction log: origin of each mask over several runs, and no other file is replaced."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers.refusals import refused

from dvtplan import __version__
from dvtplan.core import digests, json_records
from dvtplan.data.prediction_log import PredictionLog, write_single_record
from dvtplan.data.prediction_records import (
    CasePrediction,
    PredictionIndex,
    PredictionRecord,
    PredictionSession,
    software_versions,
)

SESSION = PredictionSession(
    started="2026-01-02T03:04:05+00:00", device="cpu", precision="fp32", setup="Running.", options={}, versions={}
)
LATER = replace(SESSION, started="2026-01-02T04:00:00+00:00", device="cuda:0")
CASE = CasePrediction(
    images={"a.nii.gz": "0" * 64},
    mask="a.nii.gz",
    mask_digest="1" * 64,
    slices=3,
    reading_s=0.1,
    network_s=0.2,
    writing_s=0.3,
    finished="2026-01-02T03:04:06+00:00",
    start=0,
)


def opened(
    folder: Path, session: PredictionSession = SESSION, model: str = "m", cases: Collection[str] = "abc", **how: Any
) -> PredictionLog:
    """Open the log of a folder for one session of a model."""
    record = PredictionRecord(
        model="m.zip", model_digest=model, network="gn_unet", folds=(0,), classes={"clot": 1}, starts=(session,),
        cases={},
    )  # fmt: skip
    return PredictionLog(folder, record, cases, **how)


def enter(log: PredictionLog, folder: Path, *names: str) -> None:
    """Enter masks and write them."""
    for name in names:
        (folder / f"{name}.nii.gz").write_text(name)
        digest = digests.sha256(folder / f"{name}.nii.gz")
        log.record(name, replace(CASE, mask=f"{name}.nii.gz", mask_digest=digest))


def read(folder: Path, name: str = "run.json") -> PredictionRecord:
    return json_records.load(PredictionRecord, folder / name, "test")


def test_versions_are_those_of_the_imported_packages() -> None:
    assert software_versions() == {
        "dvtplan": __version__,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "SimpleITK": sitk.__version__,
        "numpy": np.__version__,
    }
    assert str(torch.__version__).partition("+")[0] in software_versions()["torch"]


def test_a_kept_case_keeps_the_session_that_made_it(tmp_path: Path) -> None:
    enter(opened(tmp_path), tmp_path, "b", "a")
    enter(opened(tmp_path, LATER), tmp_path, "c")
    record = read(tmp_path)
    assert record.starts == (SESSION, LATER)
    assert {name: case.start for name, case in record.cases.items()} == {"a": 0, "b": 0, "c": 1}
    assert list(record.cases) == ["a", "b", "c"]


def test_a_session_without_a_mask_is_removed(tmp_path: Path) -> None:
    enter(opened(tmp_path), tmp_path, "a")
    enter(opened(tmp_path, LATER), tmp_path, "a")
    assert read(tmp_path).starts == (LATER,) and read(tmp_path).cases["a"].start == 0


@pytest.mark.parametrize("how", ["another model", "another mask", "not in the index", "another part"])
def test_a_case_that_is_no_longer_valid_is_not_listed(tmp_path: Path, how: str) -> None:
    enter(opened(tmp_path), tmp_path, "a")
    index = json_records.load(PredictionIndex, tmp_path / "predictions.json", "test")
    if how == "another mask":
        json_records.save(replace(index, masks={"a": "2" * 64}), tmp_path / "predictions.json")
    elif how == "not in the index":
        (tmp_path / "predictions.json").unlink()
    part = (2, 2) if how == "another part" else None
    cases = "b" if how == "another part" else "abc"
    log = opened(tmp_path, LATER, "n" if how == "another model" else "m", cases, part=part)
    enter(log, tmp_path, "b")
    record = read(tmp_path, "run.json" if part is None else "run_2_of_2.json")
    assert set(record.cases) == {"b"} and record.starts == (LATER,)


@pytest.mark.parametrize("body", ['{"record": "Run", "schema": 1}', "[]", '{"mine": 1}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_another_file_of_that_name_is_never_replaced(tmp_path: Path, body: str, overwrite: bool) -> None:
    path = tmp_path / "run.json"
    path.write_text(body)
    message = refused(lambda: opened(tmp_path, overwrite=overwrite))
    assert message.startswith(f"{path}: is not the record of a prediction") and "another `output`" in message
    assert path.read_text() == body


def test_a_damaged_record_is_replaced_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    assert "not readable JSON" in refused(lambda: opened(tmp_path))
    enter(opened(tmp_path, overwrite=True), tmp_path, "a")
    assert set(read(tmp_path).cases) == {"a"}


def test_a_case_of_a_missing_session_is_refused(tmp_path: Path) -> None:
    enter(opened(tmp_path), tmp_path, "a")
    body = json.loads((tmp_path / "run.json").read_text())
    body["cases"]["a"]["start"] = 1
    (tmp_path / "run.json").write_text(json.dumps(body))
    assert "start must be below 1" in refused(lambda: read(tmp_path))


def test_the_record_of_a_single_mask_replaces_an_earlier_one(tmp_path: Path) -> None:
    record = replace(read_after(tmp_path), cases={})
    path = tmp_path / "mask_run.json"
    for name in ("x", "y"):
        write_single_record(path, record, name, CASE)
    assert set(read(tmp_path, "mask_run.json").cases) == {"y"}


def read_after(folder: Path) -> PredictionRecord:
    """Return the record of a log with one mask."""
    enter(opened(folder), folder, "a")
    return read(folder)
