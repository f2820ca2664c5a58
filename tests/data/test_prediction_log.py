"""Which masks predictions made: by their bytes, over several runs, models and processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvtplan.core import json_records
from dvtplan.core.digests import sha256
from dvtplan.core.errors import DvtError
from dvtplan.data import prediction_log
from dvtplan.data.prediction_log import Composition, Ledger

CLASSES = {"thrombus": 1}
IMAGES = ["aa" * 32]


def put(folder: Path, case_id: str, text: str = "mask") -> Path:
    path = folder / f"{case_id}.nii.gz"
    path.write_text(text)
    return path


def made(folder: Path, *names: str, model: str = "m", part: tuple[int, int] | None = None) -> Ledger:
    """A run that made some masks."""
    held = Ledger(folder, model, CLASSES, part=part)
    for name in names:
        held.add(name, IMAGES, sha256(put(folder, name, f"{model} {name}")))
    return held


def test_a_mask_is_kept_that_this_model_made_of_these_images(tmp_path: Path) -> None:
    made(tmp_path, "a", "b")
    (tmp_path / "b.nii.gz").unlink()
    again, other = Ledger(tmp_path, "m", CLASSES), Ledger(tmp_path, "n", CLASSES)
    assert again.keeps("a", IMAGES, []) and not again.keeps("b", IMAGES, []) and not again.keeps("c", IMAGES, [])
    assert not again.keeps("a", ["bb" * 32], []) and not again.keeps("a", IMAGES, [tmp_path / "p.nii.gz"])
    assert not other.keeps("a", IMAGES, [])
    assert not Ledger(tmp_path, "m", CLASSES, overwrite=True).keeps("a", IMAGES, [])


def test_probabilities_are_those_of_the_mask_beside_them(tmp_path: Path) -> None:
    held = made(tmp_path, "a")
    beside = put(tmp_path, "a_probability_thrombus")
    assert not held.keeps("a", IMAGES, [beside])
    held.add("a", IMAGES, sha256(tmp_path / "a.nii.gz"), with_probabilities=True)
    assert Ledger(tmp_path, "m", CLASSES).keeps("a", IMAGES, [beside])


@pytest.mark.parametrize("overwrite", [False, True])
def test_masks_of_other_models_and_processes_are_known_for_good(tmp_path: Path, overwrite: bool) -> None:
    """Also after a run that reached only one of them, and wrote its own ledger over the first."""
    made(tmp_path, "a", "b", model="first")
    made(tmp_path, "c", model="first", part=(2, 2))
    second = Ledger(tmp_path, "second", CLASSES, overwrite=overwrite)
    assert not any(second.is_changed(tmp_path / f"{name}.nii.gz") for name in "abc")
    second.add("a", IMAGES, sha256(put(tmp_path, "a", "second a")))
    third = Ledger(tmp_path, "third", CLASSES)
    assert not any(third.is_changed(tmp_path / f"{name}.nii.gz") for name in "abc")
    assert not third.is_changed(tmp_path / "missing.nii.gz")


def test_what_no_prediction_wrote_is_changed(tmp_path: Path) -> None:
    held = made(tmp_path, "a", "b")
    put(tmp_path, "a", "by hand")
    foreign = put(tmp_path, "foreign")
    assert held.is_changed(tmp_path / "a.nii.gz") and held.is_changed(foreign)
    masks = [tmp_path / f"{name}.nii.gz" for name in ("a", "b", "foreign", "missing")]
    assert prediction_log.changed(masks) == {masks[0], masks[2]}


def test_masks_of_stations_are_known_by_their_table(tmp_path: Path) -> None:
    station = put(tmp_path, "a_station_5")
    digests = {station.name: sha256(station)}
    about = Composition(stations_from_head_to_foot=("5",), gains=(1.0,), seams_lps_z_mm=(), masks=digests)
    json_records.save(about, tmp_path / "a_stations.json")
    assert prediction_log.changed([station]) == set()
    put(tmp_path, "a_station_5", "by hand")
    assert prediction_log.changed([station]) == {station}


def test_a_mask_is_withdrawn_unless_it_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = made(tmp_path, "a", "b")
    put(tmp_path, "b", "by hand")
    for name in ("a", "b", "missing"):
        prediction_log.withdraw(tmp_path / f"{name}.nii.gz", held.written)
    assert not (tmp_path / "a.nii.gz").exists() and (tmp_path / "b.nii.gz").read_text() == "by hand"
    told = capsys.readouterr().err
    assert told.count("warning") == 1 and "b.nii.gz: was changed since it was made" in told


def test_what_is_dropped_is_made_again(tmp_path: Path) -> None:
    made(tmp_path, "a").drop("a")
    again = Ledger(tmp_path, "m", CLASSES)
    assert not again.keeps("a", IMAGES, []) and again.masks == {}


def test_a_damaged_ledger_is_refused_unless_all_is_made_anew(tmp_path: Path) -> None:
    made(tmp_path, "a")
    (tmp_path / "predictions.json").write_text("{")
    with pytest.raises(DvtError, match=r"predictions\.json"):
        Ledger(tmp_path, "m", CLASSES)
    assert Ledger(tmp_path, "m", CLASSES, overwrite=True).masks == {}
    assert prediction_log.written(tmp_path) == {}
