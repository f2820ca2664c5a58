"""Folds of a planned data set: nothing that reads them goes on with a patient in training and test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.data.planned_splits import current_patients, find_leak, load_splits
from dvtplan.evaluation.evaluate import compare_networks, evaluate
from dvtplan.inference.predict import predict_fold
from dvtplan.reporting.model_export import export_model
from dvtplan.reporting.overlays import draw_overlays
from dvtplan.reporting.report import write_report
from dvtplan.training.job import TrainingOptions
from dvtplan.training.train import train_fold

PATIENTS = {"a": "A", "b": "B", "c": "C", "d": "D"}

READERS: dict[str, Callable[[Workspace, Path], Any]] = {
    "train": lambda w, out: train_fold(w, 0, options=TrainingOptions(device="cpu", workers=0, overwrite=True)),
    "predict": lambda w, out: predict_fold(w, "gn_unet", 0),
    "evaluate": lambda w, out: evaluate(w, "gn_unet"),
    "compare": lambda w, out: compare_networks(w, ["gn_unet", "gn_unet_2"]),
    "report": lambda w, out: write_report(w, ["gn_unet"]),
    "overlays": lambda w, out: draw_overlays(w, "gn_unet"),
    "export": lambda w, out: export_model(w.results("gn_unet"), out / "m.zip"),
}
"""Everything that reads cases and folds together."""


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace with folds of four cases."""
    return write(Workspace(tmp_path, "DVT"), ("a b", "c d"), ("c d", "a b"))


def write(place: Workspace, *folds: tuple[str, str]) -> Workspace:
    """Write ``splits.json``: the training cases and the test cases of each fold."""
    listed = [{"index": k, "train": a.split(), "test": b.split()} for k, (a, b) in enumerate(folds)]
    place.splits.parent.mkdir(parents=True, exist_ok=True)
    place.splits.write_text(json.dumps({"schema": 1, "record": "Splits", "source": "seed 0", "folds": listed}))
    return place


def leave_out(place: Workspace, *groups: str) -> None:
    """Let each fold of ``splits.json`` leave out a centre; write the ``cases.csv`` that says so."""
    body = json.loads(place.splits.read_text())
    body["by"] = "centre"
    rows = ["case_id,centre"]
    for fold, group in zip(body["folds"], groups, strict=True):
        fold["group"] = group
        rows += [f"{case_id},{group}" for case_id in fold["test"]]
    place.splits.write_text(json.dumps(body))
    place.raw.mkdir(parents=True, exist_ok=True)
    (place.raw / "cases.csv").write_text("\n".join(rows))


def refusal(work: Callable[[], Any]) -> str:
    """Return the message, which must be one line."""
    with pytest.raises(DvtError) as caught:
        work()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


def test_sound_folds_are_read(place: Workspace) -> None:
    assert [fold.test for fold in load_splits(place, PATIENTS).folds] == [("c", "d"), ("a", "b")]
    assert len(load_splits(place, PATIENTS | {"new": "N"}).folds) == 2, "a case that was added later is in no fold"


@pytest.mark.parametrize(
    ("folds", "words"),
    [
        ([("a b", "c d"), ("c d a", "a b")], "fold 1 lists a more than once"),
        ([("a b b", "c d")], "fold 0 lists b more than once"),
        ([("a b", "c x")], "fold 0 tests x, which"),
        ([("a y", "c d")], "fold 0 trains on y, which"),
        ([("a b", "")], "fold 0 has no test case"),
        ([("", "c d")], "fold 0 has no training case"),
        ([], "contains no fold"),
    ],
)
def test_edited_folds_are_refused(place: Workspace, folds: list[tuple[str, str]], words: str) -> None:
    message = refusal(lambda: load_splits(write(place, *folds), PATIENTS))
    assert message.startswith(f"{place.splits}: ") and words in message and "`plan_and_preprocess` again" in message


def test_a_patient_in_training_and_test_is_named_with_the_cases(place: Workspace) -> None:
    message = refusal(lambda: load_splits(place, PATIENTS | {"a": "P", "d": "P"}))
    assert "fold 0 trains on a and tests d, all of the patient P" in message


def test_patients_that_differ_only_in_case_are_told_once(
    place: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    similar = PATIENTS | {"a": "P", "d": "p"}
    load_splits(place, similar)
    (warning,) = capsys.readouterr().err.splitlines()
    assert "trains on a and tests d" in warning and "differ only in case: p." in warning
    load_splits(place, PATIENTS)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    load_splits(place, similar)
    assert capsys.readouterr().err == ""


def test_a_case_without_a_patient_is_its_own() -> None:
    assert find_leak(["a"], ["b"], {}) is None
    leak = find_leak(["a", "b"], ["a"], {})
    assert leak is not None and (leak.patient, leak.trained, leak.tested) == ("a", "a", "a")


def test_the_table_decides_on_patients_wherever_there_is_one(place: Workspace) -> None:
    assert current_patients(place, PATIENTS) == PATIENTS
    place.raw.mkdir(parents=True)
    (place.raw / "cases.csv").write_text("case_id,patient_id\na,P\nb,P\nc,C\n")
    assert current_patients(place, PATIENTS) == {"a": "P", "b": "P", "c": "C", "d": "d"}
    (place.raw / "cases.csv").write_text("case_id,patient_id\na\n")
    assert "cases.csv, line 2" in refusal(lambda: current_patients(place, PATIENTS))


@pytest.mark.parametrize("reader", READERS)
def test_a_table_that_joins_patients_of_training_and_test_stops_everything(
    trained: Workspace, tmp_path: Path, reader: str
) -> None:
    first = json.loads(trained.splits.read_text())["folds"][0]
    train, test = first["train"][0], first["test"][0]
    if reader == "compare":
        trained.results("gn_unet_2").symlink_to(trained.results("gn_unet"))
    if reader == "report":
        evaluate(trained, "gn_unet")
    rows = "".join(f"c{k},{'P' if f'c{k}' in (train, test) else k}\n" for k in range(4))
    (trained.raw / "cases.csv").write_text("case_id,patient_id\n" + rows)
    message = refusal(lambda: READERS[reader](trained, tmp_path))
    assert "P." in message and train in message and test in message
    assert not (tmp_path / "m.zip").exists()


@pytest.mark.parametrize("reader", [name for name in READERS if name not in ("compare", "export")])
def test_folds_that_were_edited_stop_everything(trained: Workspace, tmp_path: Path, reader: str) -> None:
    """Two cases of one patient were in training; one of them is moved to the tests."""
    if reader == "report":
        evaluate(trained, "gn_unet")
    body = json.loads(trained.splits.read_text())
    first = body["folds"][0]
    first["test"].append(first["train"][0])
    trained.splits.write_text(json.dumps(body))
    message = refusal(lambda: READERS[reader](trained, tmp_path))
    assert message.startswith(f"{trained.splits}: fold 0 ") and first["train"][0] in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a,South", "a,North", "fold 0 leaves out centre North, but trains on a, of centre North"),
        ("c,North", "c,South", "fold 0 leaves out centre North, but tests c, of centre South"),
        ("c,North", "c,", "fold 0 leaves out centre North, but tests c, of centre (none)"),
        ("centre", "scanner", "has no column centre"),
    ],
)
def test_folds_must_leave_out_the_groups_that_the_table_gives_now(
    place: Workspace, old: str, new: str, words: str
) -> None:
    leave_out(place, "North", "South")
    table = place.raw / "cases.csv"
    sound = table.read_text()
    table.write_text(f"{sound}\nnew,North\n")
    load_splits(place, PATIENTS | {"new": "N"})  # a case that was added later is in no fold
    table.write_text(sound.replace(old, new))
    message = refusal(lambda: load_splits(place, PATIENTS))
    assert words in message and f"Restore {table}" in message and "`folds_by=centre`" in message
    table.unlink()
    assert load_splits(place, PATIENTS).by == "centre"


def test_a_group_that_is_not_tested_is_named(place: Workspace) -> None:
    leave_out(place, "North", "South")
    place.splits.write_text(place.splits.read_text().replace('"test": ["c", "d"]', '"test": ["c"]'))
    assert "but does not test d, of centre North" in refusal(lambda: load_splits(place, PATIENTS))


@pytest.mark.parametrize("reader", ["train", "evaluate", "report"])
def test_a_patient_who_moved_to_the_group_that_is_left_out_stops_everything(
    trained: Workspace, tmp_path: Path, reader: str
) -> None:
    evaluate(trained, "gn_unet")
    leave_out(trained, "North", "South")
    moved = json.loads(trained.splits.read_text())["folds"][0]["train"][0]
    table = trained.raw / "cases.csv"
    table.write_text(table.read_text().replace(f"{moved},South", f"{moved},North"))
    assert f"but trains on {moved}" in refusal(lambda: READERS[reader](trained, tmp_path))


def test_a_network_does_not_predict_what_it_was_trained_on(trained: Workspace) -> None:
    """The folds were swapped after the training."""
    body = json.loads(trained.splits.read_text())
    first, second = body["folds"]
    first["train"], second["train"], first["test"], second["test"] = (
        second["train"], first["train"], second["test"], first["test"],
    )  # fmt: skip
    trained.splits.write_text(json.dumps(body))
    assert "run.json: the network was trained on" in refusal(lambda: predict_fold(trained, "gn_unet", 0))
    assert "run.json: the network was trained on" in refusal(lambda: evaluate(trained, "gn_unet"))


def test_folds_of_different_splits_are_not_exported_together(trained: Workspace, tmp_path: Path) -> None:
    run = trained.fold("gn_unet", 1).run
    run.write_text(run.read_text().replace(json.loads(run.read_text())["splits_digest"], "0" * 64))
    message = refusal(lambda: export_model(trained.results("gn_unet"), tmp_path / "m.zip"))
    assert "other splits than fold 0" in message and "`folds=[0]`" in message
    assert not (tmp_path / "m.zip").exists()
    export_model(trained.results("gn_unet"), tmp_path / "m.zip", folds=[0])
