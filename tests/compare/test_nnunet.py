"""The files that nnU-Net gets: our raw data, folds and batch size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from compare import nnunet
from helpers.comparisons import fake_programs, setup_of, splits_of, words_of
from helpers.datasets import write_raw

from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import discover
from dvtplan.data.paths import Workspace


def test_the_raw_data_are_links_with_nnunets_names(tmp_path: Path) -> None:
    workspace = write_raw(tmp_path, labels=("proximal", "distal"), channels=2, cases=2)
    name = nnunet.write_raw(discover(workspace.raw), tmp_path / "raw")
    folder = tmp_path / "raw" / name
    assert name == "Dataset001_Toy"
    images = sorted(path.name for path in (folder / "imagesTr").iterdir())
    assert images == ["c0_0000.nii.gz", "c0_0001.nii.gz", "c1_0000.nii.gz", "c1_0001.nii.gz"]
    assert (folder / "imagesTr" / "c1_0001.nii.gz").samefile(workspace.raw / "imagesTr" / "c1_0001.nii.gz")
    assert (folder / "labelsTr" / "c0.nii.gz").samefile(workspace.raw / "labelsTr" / "c0.nii.gz")
    assert words_of(folder / "dataset.json") == {
        "channel_names": {"0": "MR0", "1": "MR1"},
        "labels": {"background": 0, "proximal": 1, "distal": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    assert nnunet.write_raw(discover(workspace.raw), tmp_path / "raw") == name  # again


def test_labels_with_gaps_are_refused(toy_once: Workspace) -> None:
    dataset = discover(toy_once.raw)
    nnunet.require_suitable(dataset)
    with pytest.raises(DvtError, match=r"dataset\.json.*\(1, 3\).*gaps"):
        nnunet.require_suitable(replace(dataset, labels={"a": 1, "b": 3}))


def test_a_format_that_nnunet_does_not_read_is_refused(toy_once: Workspace) -> None:
    dataset = discover(toy_once.raw)
    case = replace(dataset.cases[0], images=(Path("c0_0000.NII"),))
    with pytest.raises(DvtError, match=r"\.nii files"):
        nnunet.require_suitable(replace(dataset, cases=(case,)))


def test_validation_cases_are_the_test_cases(toy_once: Workspace, tmp_path: Path) -> None:
    splits = splits_of(toy_once)
    nnunet.write_splits(splits, tmp_path)
    written = words_of(tmp_path / "splits_final.json")
    assert written == [{"train": list(fold.train), "val": list(fold.test)} for fold in splits.folds]


@pytest.mark.parametrize(("batch", "most", "expected"), [(366, 32, 32), (12, 32, 12)])
def test_a_large_batch_is_limited(tmp_path: Path, batch: int, most: int, expected: int) -> None:
    plans = tmp_path / "nnUNetPlans.json"
    plans.write_text(json.dumps({"configurations": {"2d": {"batch_size": batch, "patch_size": [56, 40]}}}))
    nnunet.limit_batch(plans, most)
    assert words_of(plans) == {"configurations": {"2d": {"batch_size": expected, "patch_size": [56, 40]}}}


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "nnUNetPlans.json").write_text("{}")
    with pytest.raises(DvtError, match=r"nnUNetPlans\.json"):
        nnunet.limit_batch(tmp_path / "nnUNetPlans.json", 32)


@pytest.mark.parametrize(("threads", "processes"), [(1, "0"), (2, None)])
def test_every_stage_runs_once(toy: Workspace, tmp_path: Path, threads: int, processes: str | None) -> None:
    environment, calls = fake_programs(tmp_path / "env", toy)
    setup = setup_of(toy, tmp_path / "out", threads=threads)
    nnunet.link(toy.raw / "imagesTr" / "c2_0000.nii.gz", setup.test_images / "c2_0000.nii.gz")
    first = nnunet.run(setup, splits_of(toy), environment / "bin")
    assert (first.steps, first.batch_size, first.slices, first.training_s) == (7, 3, 21, 9.5)
    assert first.parameters == 1_500_000 and first.precision == "fp32" and first.peak_bytes > 1e6
    assert nnunet.run(setup, splits_of(toy), environment / "bin") == first
    lines = calls.read_text().splitlines()
    assert [("predict" in line, "train" in line.split()) for line in lines] == [
        (False, False), (False, True), (True, False),
    ]  # fmt: skip
    assert "--verify_dataset_integrity" in lines[0] and "checkpoint_final.pth" in lines[2]
    assert (setup.predictions(nnunet.FOLDER) / "c2.nii.gz").exists()


def test_a_lost_record_of_the_training_is_named(toy: Workspace, tmp_path: Path) -> None:
    environment, _ = fake_programs(tmp_path / "env", toy)
    setup = setup_of(toy, tmp_path / "out")
    setup.test_images.mkdir(parents=True)
    nnunet.run(setup, splits_of(toy), environment / "bin")
    (setup.folder(nnunet.FOLDER) / "training.json").unlink()
    with pytest.raises(DvtError, match=r"training\.json.*train\.json"):
        nnunet.run(setup, splits_of(toy), environment / "bin")
