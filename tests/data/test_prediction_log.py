"""The index of the prediction log: masks by their bytes, over several runs, models and processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dvtplan.core import json_records
from dvtplan.core.digests import sha256
from dvtplan.core.errors import DvtError
from dvtplan.data import prediction_log
from dvtplan.data.edited_masks import edited_masks, known_digests, remove_mask
from dvtplan.data.prediction_log import LOCK_NAME, PredictionLog
from dvtplan.data.prediction_records import (
    CasePrediction,
    PredictionIndex,
    PredictionRecord,
    PredictionSession,
    StitchingRecord,
)

CLASSES = {"thrombus": 1}
IMAGES = ["aa" * 32]
SESSION = PredictionSession(
    started="2026-01-02T03:04:05+00:00", device="cpu", precision="fp32", setup="Running.", options={}, versions={}
)


def opened(
    folder: Path,
    model: str = "m",
    cases: tuple[str, ...] = ("a", "b", "c"),
    *,
    part: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> PredictionLog:
    """Open the log of a folder for a run of a model."""
    record = PredictionRecord(
        model="m.zip", model_digest=model, network="gn_unet", folds=(0,), classes=CLASSES, starts=(SESSION,), cases={}
    )
    return PredictionLog(folder, record, cases, part=part, overwrite=overwrite)


def case(mask: Path) -> CasePrediction:
    """Return the record of a mask on disk."""
    return CasePrediction(
        images={"a.nii.gz": IMAGES[0]}, mask=mask.name, mask_digest=sha256(mask), slices=3, reading_s=0.1,
        network_s=0.2, writing_s=0.3, finished="2026-01-02T03:04:06+00:00", start=0,
    )  # fmt: skip


def put(folder: Path, case_id: str, text: str = "mask") -> Path:
    path = folder / f"{case_id}.nii.gz"
    path.write_text(text)
    return path


def predicted(folder: Path, *names: str, model: str = "m", part: tuple[int, int] | None = None) -> PredictionLog:
    """Run a model that writes these masks; return its log."""
    log = opened(folder, model, part=part)
    for name in names:
        log.record(name, case(put(folder, name, f"{model} {name}")))
    return log


def test_a_mask_is_current_if_this_model_made_it_of_these_images(tmp_path: Path) -> None:
    predicted(tmp_path, "a", "b")
    (tmp_path / "b.nii.gz").unlink()
    again, other = opened(tmp_path, "m"), opened(tmp_path, "n")
    assert again.is_current("a", IMAGES, [])
    assert not again.is_current("b", IMAGES, []) and not again.is_current("c", IMAGES, [])
    assert not again.is_current("a", ["bb" * 32], []) and not again.is_current("a", IMAGES, [tmp_path / "p.nii.gz"])
    assert not other.is_current("a", IMAGES, [])
    assert not opened(tmp_path, "m", overwrite=True).is_current("a", IMAGES, [])


def test_a_log_is_read_again_only_if_another_run_wrote_into_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, reads = opened(tmp_path, "m"), list[Path]()
    read = prediction_log.read_record
    monkeypatch.setattr(prediction_log, "read_record", lambda kind, path: reads.append(path) or read(kind, path))
    log.refresh()
    assert reads == []
    predicted(tmp_path, "a")
    mask = tmp_path / "a.nii.gz"
    assert log.is_edited(mask)
    log.refresh()
    assert reads and not log.is_edited(mask) and log.is_current("a", IMAGES, [])
    reads.clear()
    log.refresh()
    assert reads == []


def test_probabilities_are_those_of_the_mask_next_to_them(tmp_path: Path) -> None:
    log = predicted(tmp_path, "a")
    volume = put(tmp_path, "a_probability_thrombus")
    assert not log.is_current("a", IMAGES, [volume])
    log.record("a", case(tmp_path / "a.nii.gz"), with_probabilities=True)
    assert opened(tmp_path).is_current("a", IMAGES, [volume])


@pytest.mark.parametrize("overwrite", [False, True])
def test_masks_of_other_models_and_processes_stay_known(tmp_path: Path, overwrite: bool) -> None:
    """Also after a run that reached only one of them, and replaced the first index."""
    predicted(tmp_path, "a", "b", model="first")
    predicted(tmp_path, "c", model="first", part=(2, 2))
    second = opened(tmp_path, "second", overwrite=overwrite)
    assert not any(second.is_edited(tmp_path / f"{name}.nii.gz") for name in "abc")
    second.record("a", case(put(tmp_path, "a", "second a")))
    third = opened(tmp_path, "third")
    assert not any(third.is_edited(tmp_path / f"{name}.nii.gz") for name in "abc")
    assert not third.is_edited(tmp_path / "missing.nii.gz")


def test_a_mask_that_no_prediction_wrote_is_edited(tmp_path: Path) -> None:
    log = predicted(tmp_path, "a", "b")
    put(tmp_path, "a", "by hand")
    foreign = put(tmp_path, "foreign")
    assert log.is_edited(tmp_path / "a.nii.gz") and log.is_edited(foreign)
    masks = [tmp_path / f"{name}.nii.gz" for name in ("a", "b", "foreign", "missing")]
    assert edited_masks(masks) == {masks[0], masks[2]}


def test_masks_of_stations_are_known_by_their_record(tmp_path: Path) -> None:
    station = put(tmp_path, "a_station_5")
    digests = {station.name: sha256(station)}
    record = StitchingRecord(stations_from_head_to_foot=("5",), gains=(1.0,), seams_lps_z_mm=(), masks=digests)
    json_records.save(record, tmp_path / "a_stations.json")
    assert edited_masks([station]) == set()
    put(tmp_path, "a_station_5", "by hand")
    assert edited_masks([station]) == {station}


def test_a_mask_is_removed_unless_it_was_edited(tmp_path: Path) -> None:
    log = predicted(tmp_path, "a", "b")
    edited = put(tmp_path, "b", "by hand")
    kept = [
        path for name in ("a", "b", "missing") for path in remove_mask(tmp_path / f"{name}.nii.gz", log.known_digests)
    ]
    assert not (tmp_path / "a.nii.gz").exists() and edited.read_text() == "by hand" and kept == [edited]


def test_a_removed_case_is_not_current(tmp_path: Path) -> None:
    predicted(tmp_path, "a").remove("a")
    again = opened(tmp_path)
    assert not again.is_current("a", IMAGES, []) and again.masks == {}


def test_a_damaged_index_is_an_error_unless_overwritten(tmp_path: Path) -> None:
    predicted(tmp_path, "a")
    (tmp_path / "predictions.json").write_text("{")
    with pytest.raises(DvtError, match=r"predictions\.json"):
        opened(tmp_path)
    assert opened(tmp_path, overwrite=True).masks == {}
    assert known_digests(tmp_path) == {}


@pytest.mark.parametrize("name", ["predictions.json", "run.json"])
def test_a_file_of_an_earlier_version_is_named_and_can_be_overwritten(tmp_path: Path, name: str) -> None:
    old = {"predictions.json": "Predicted", "run.json": "Prediction"}[name]
    (tmp_path / name).write_text(f'{{\n "schema": 1,\n "record": "{old}"\n}}\n')
    with pytest.raises(DvtError) as caught:
        opened(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and "earlier version" in str(caught.value)
    opened(tmp_path, overwrite=True).record("a", case(put(tmp_path, "a")))
    assert opened(tmp_path).is_current("a", IMAGES, [])


RUN = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_prediction_log import case, opened, put
folder, name = Path(sys.argv[1]), sys.argv[2]
log = opened(folder, cases=[f"{name}{k}" for k in range(10)])
for k in range(10):
    log.record(f"{name}{k}", case(put(folder, f"{name}{k}")))
"""


def test_runs_in_several_processes_lose_no_entry(tmp_path: Path) -> None:
    here = Path(__file__).parent
    words = [sys.executable, "-c", RUN, str(tmp_path)]
    runs = [subprocess.Popen([*words, name, str(here), str(here.parents[1])]) for name in "xyz"]
    assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    cases = {f"{name}{k}" for name in "xyz" for k in range(10)}
    index = json_records.load(PredictionIndex, tmp_path / "predictions.json", "test")
    record = json_records.load(PredictionRecord, tmp_path / "run.json", "test")
    assert set(index.masks) == set(record.cases) == cases
    assert not (tmp_path / LOCK_NAME).exists()
