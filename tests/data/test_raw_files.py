"""Raw files that change after the planning or the prediction, and files that only look changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import TINY_SPACING, TOY_GRID, tiny_dataset, tiny_image
from helpers.preparation import run
from helpers.trainings import CPU, TINY
from helpers.volumes import write_volume

from dvtplan.core.errors import DvtError
from dvtplan.data import raw_files
from dvtplan.data.dataset import discover
from dvtplan.data.paths import Workspace
from dvtplan.data.raw_files import require_unchanged
from dvtplan.evaluation.evaluate import evaluate
from dvtplan.imaging import volume_io
from dvtplan.inference.predict import predict_fold
from dvtplan.reporting.overlays import draw_overlays
from dvtplan.reporting.report import write_report
from dvtplan.training.train import train_fold

CASES = ("c0", "c1", "c2", "c3")


def check(place: Workspace) -> None:
    require_unchanged(place, discover(place.raw), CASES)


def refusal(work: Callable[[], Any]) -> str:
    """Return the message, which must be one line."""
    with pytest.raises(DvtError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_label(place: Workspace, case: str = "c0") -> Path:
    """Change a voxel of a label; keep the time of the file."""
    path = place.raw / "labelsTr" / f"{case}.nii.gz"
    times = path.stat()
    mask = volume_io.read(path)[0]
    mask[2, 0, 0] = 1 - mask[2, 0, 0]
    volume_io.write_mask(path, mask, TOY_GRID)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return path


def change_image(place: Workspace, case: str) -> Path:
    path = place.raw / "imagesTr" / f"{case}_0000.nii.gz"
    image = volume_io.read(path)[0]
    volume_io.write_probabilities(path, np.flip(image, axis=2).copy(), TOY_GRID)
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read for their digest."""
    names: list[str] = []

    def sha256(path: Path) -> str:
        names.append(path.name)
        return original(path)

    original = raw_files.sha256
    monkeypatch.setattr(raw_files, "sha256", sha256)
    return names


def test_a_planned_data_set_is_not_read_again(toy_once: Workspace, tmp_path: Path, read: list[str]) -> None:
    place = Workspace(tmp_path, "DVT")
    tiny_dataset(place.raw, CASES)
    run(tmp_path)
    assert len(read) == 8
    read.clear()
    check(place)
    assert read == []


def test_a_file_with_another_time_is_read_once_and_not_refused(toy: Workspace, read: list[str]) -> None:
    """A copy, in which all times are new."""
    check(toy)
    assert len(read) == 8
    read.clear()
    check(toy)
    assert read == []
    (toy.raw / "imagesTr" / "c1_0000.nii.gz").touch()
    check(toy)
    check(toy)
    assert read == ["c1_0000.nii.gz"]


def test_without_the_file_of_what_was_seen_everything_is_read(toy: Workspace, read: list[str]) -> None:
    toy.seen_files.write_text("{")
    check(toy)
    toy.seen_files.unlink()
    check(toy)
    assert len(read) == 16


def test_voxels_outside_the_data_set_are_noticed_too(tmp_path: Path) -> None:
    """A header may name its file of voxels by a whole path."""
    place = Workspace(tmp_path, "DVT")
    tiny_dataset(place.raw, CASES, ending=".mha")
    voxels = write_volume(tmp_path / "elsewhere" / "c1.mhd", tiny_image(1), TINY_SPACING).with_suffix(".raw")
    text = voxels.with_suffix(".mhd").read_text().replace("= c1.raw", f"= {voxels}")
    (place.raw / "imagesTr" / "c1_0000.mha").write_text(text)
    run(tmp_path)
    check(place)
    voxels.write_bytes(voxels.read_bytes()[::-1])
    assert refusal(lambda: check(place)).startswith(f"{voxels}: has changed")


def test_a_label_that_changed_is_not_trained_on_in_its_old_form(toy: Workspace) -> None:
    check(toy)
    path = change_label(toy)
    message = refusal(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert message.startswith(f"{path}: has changed") and "`plan_and_preprocess` again" in message
    assert not toy.fold("gn_unet", 0).path.exists()
    run(toy.root, folds=None)
    check(toy)


def test_a_replaced_image_and_a_case_that_left_are_named(toy: Workspace) -> None:
    change_image(toy, "c2")
    toy.seen_files.unlink()
    assert "c2.nii.gz or its image: has changed" in refusal(lambda: check(toy))
    for path in toy.raw.glob("*/c2*"):
        path.unlink()
    assert "the case c2 is not there" in refusal(lambda: check(toy))
    assert "the case c2 is not there" in refusal(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))


def test_preprocessed_slices_alone_can_be_trained_on(toy: Workspace) -> None:
    shutil.rmtree(toy.raw / "imagesTr")
    train_fold(toy, 0, recipe=TINY, epochs=1, options=CPU)
    assert toy.fold("gn_unet", 0).checkpoint.exists()


def test_labels_that_were_renamed_after_the_planning_are_refused(trained: Workspace) -> None:
    path = trained.raw / "dataset.json"
    path.write_text(path.read_text().replace('"thrombus"', '"clot"'))
    for work in (lambda: train_fold(trained, 0, recipe=TINY, options=CPU), lambda: evaluate(trained, "gn_unet")):
        message = refusal(work)
        assert "dataset.json: names other labels" in message or "already holds a training" in message


@pytest.mark.parametrize("stage", ["evaluate", "report", "overlays"])
def test_a_mask_of_an_image_that_was_replaced_is_not_scored(trained: Workspace, stage: str) -> None:
    evaluate(trained, "gn_unet")
    image = change_image(trained, "c1")
    stages: dict[str, Callable[[], Any]] = {
        "evaluate": lambda: evaluate(trained, "gn_unet"),
        "report": lambda: write_report(trained),
        "overlays": lambda: draw_overlays(trained, "gn_unet"),
    }
    message = refusal(stages[stage])
    assert "c1.nii.gz: was predicted from another image" in message and str(image) in message
    assert "predict again" in message


def test_a_replaced_image_that_was_predicted_again_is_scored_and_told(
    trained: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    image = change_image(trained, "c1")
    fold = next(f["index"] for f in json.loads(trained.splits.read_text())["folds"] if "c1" in f["test"])
    predict_fold(trained, "gn_unet", fold)
    evaluate(trained, "gn_unet")
    shown = capsys.readouterr().err
    assert "changed after the data set was planned" in shown and ("c1.nii.gz" in shown or str(image) in shown)


def test_a_corrected_label_is_scored_as_it_is_now_and_told(
    trained: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = evaluate(trained, "gn_unet").rows
    assert "changed after" not in capsys.readouterr().err
    change_label(trained)
    after = evaluate(trained, "gn_unet").rows
    assert "c0.nii.gz" in capsys.readouterr().err
    assert (before["truth_ml"] != after["truth_ml"]).sum() == 1
    run(trained.root, folds=None)
    capsys.readouterr()
    evaluate(trained, "gn_unet")
    shown = capsys.readouterr().err
    assert "changed after" not in shown and "gn_unet: was trained before" in shown
