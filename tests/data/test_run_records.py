"""The record beside masks: what made each, over several runs, and no other file is mistaken for it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from dvtplan import __version__
from dvtplan.core import digests, json_records
from dvtplan.core.errors import DvtError
from dvtplan.data import prediction_log
from dvtplan.data.prediction_log import Diary, Prediction, PredictionOfCase, PredictionStart

START = PredictionStart(
    started="2026-01-02T03:04:05+00:00", device="cpu", precision="fp32", setup="Running.", options={}, versions={}
)
LATER = replace(START, started="2026-01-02T04:00:00+00:00", device="cuda:0")
CASE = PredictionOfCase(
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
VOUCHED = {name: digests.combine_digests([CASE.mask_digest]) for name in "abc"}


def opening(start: PredictionStart = START, digest: str = "m") -> Prediction:
    return Prediction(
        model="m.zip",
        model_digest=digest,
        network="gn_unet",
        folds=(0,),
        classes={"clot": 1},
        starts=(start,),
        cases={},
    )


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(DvtError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(path: Path) -> Prediction:
    return json_records.load(Prediction, path, "test")


def test_versions_are_those_that_are_imported() -> None:
    assert prediction_log.versions() == {
        "dvtplan": __version__,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "SimpleITK": sitk.__version__,
        "numpy": np.__version__,
    }
    assert str(torch.__version__).partition("+")[0] in prediction_log.versions()["torch"]


def test_a_case_kept_from_before_keeps_the_run_that_made_it(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    first = Diary(path, opening())
    first.add("b", CASE)
    first.add("a", CASE)
    second = Diary(path, opening(LATER))
    second.keep([path], VOUCHED, VOUCHED)
    second.add("c", CASE)
    found = read(path)
    assert found.starts == (START, LATER)
    assert {name: case.start for name, case in found.cases.items()} == {"a": 0, "b": 0, "c": 1}
    assert list(found.cases) == ["a", "b", "c"]


def test_a_run_whose_masks_were_all_made_anew_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    Diary(path, opening()).add("a", CASE)
    again = Diary(path, opening(LATER))
    again.keep([path], VOUCHED, VOUCHED)
    again.add("a", CASE)
    assert read(path).starts == (LATER,) and read(path).cases["a"].start == 0


@pytest.mark.parametrize("how", ["another model", "another mask", "not vouched for", "another share"])
def test_what_no_longer_stands_is_not_listed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "run.json"
    Diary(path, opening()).add("a", CASE)
    vouched = {"another mask": VOUCHED | {"a": "2" * 64}, "not vouched for": {}}.get(how, VOUCHED)
    second = Diary(path, opening(LATER, digest="n" if how == "another model" else "m"))
    second.keep([path], vouched, {"b"} if how == "another share" else vouched)
    second.add("b", CASE)
    assert set(read(path).cases) == {"b"} and read(path).starts == (LATER,)


@pytest.mark.parametrize("body", ['{"record": "Run", "schema": 1}', "[]", '{"mine": 1}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_another_file_of_that_name_is_never_replaced(tmp_path: Path, body: str, overwrite: bool) -> None:
    path = tmp_path / "run.json"
    path.write_text(body)
    told = refused(lambda: Diary(path, opening(), overwrite=overwrite))
    assert told.startswith(f"{path}: expected Prediction") and told.endswith("Or name another -o.")
    assert path.read_text() == body


def test_a_damaged_record_is_replaced_where_masks_are_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("{")
    assert "not readable JSON" in refused(lambda: Diary(path, opening()))
    Diary(path, opening(), overwrite=True).add("a", CASE)
    assert set(read(path).cases) == {"a"}


def test_a_start_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    Diary(path, opening()).add("a", CASE)
    body = json.loads(path.read_text())
    body["cases"]["a"]["start"] = 1
    path.write_text(json.dumps(body))
    assert "start must be a number below 1" in refused(lambda: read(path))
