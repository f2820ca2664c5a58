"""The files that nnU-Net gets: our raw data, folds and batch size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from compare import inputs, nnunet
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


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "nnUNetPlans.json").write_text("{}")
    with pytest.raises(DvtError, match=r"nnUNetPlans\.json"):
        nnunet.planned_batch(tmp_path / "nnUNetPlans.json")


def test_the_data_are_prepared_once_and_batches_stay_below_that_of_the_plan(toy: Workspace, tmp_path: Path) -> None:
    environment, calls = fake_programs(tmp_path / "env", toy)
    setup = setup_of(toy, tmp_path / "out")
    for wanted, expected in (([32, 12], [12, 32]), ([400, 500, 12], [12, 366])):
        assert nnunet.prepare(setup, splits_of(toy), environment / "bin", wanted) == expected
    (line,) = calls.read_text().splitlines()
    assert "--verify_dataset_integrity" in line
    assert (setup.folder(nnunet.FOLDER) / "preprocessed" / "Dataset001_Toy" / "splits_final.json").exists()


def test_every_stage_runs_once(toy: Workspace, tmp_path: Path) -> None:
    environment, calls = fake_programs(tmp_path / "env", toy)
    setup = setup_of(toy, tmp_path / "out")
    inputs.link(toy.raw / "imagesTr" / "c2_0000.nii.gz", setup.test_images / "c2_0000.nii.gz")
    first = nnunet.run(setup, environment / "bin", 3)
    assert (first.name, first.steps, first.slices, first.training_s) == ("nnunet_batch_3/run_0", 7, 21, 9.5)
    assert first.parameters == 1_500_000 and first.precision == "fp32" and first.peak_bytes > 1e6
    assert nnunet.run(setup, environment / "bin", 3) == first
    training, predicting = calls.read_text().splitlines()
    assert "train 1 2d 0" in training and "predict" in predicting and "checkpoint_final.pth" in predicting
    assert (setup.predictions("nnunet_batch_3/run_0") / "c2.nii.gz").exists()
    assert nnunet.run(setup, environment / "bin", 4).batch_size == 4  # has results of its own
    assert nnunet.run(setup, environment / "bin", 3, 1).name == "nnunet_batch_3/run_1"  # likewise
    assert len(calls.read_text().splitlines()) == 6


def test_a_lost_record_of_the_training_is_named(toy: Workspace, tmp_path: Path) -> None:
    environment, _ = fake_programs(tmp_path / "env", toy)
    setup = setup_of(toy, tmp_path / "out")
    setup.test_images.mkdir(parents=True)
    nnunet.run(setup, environment / "bin", 3)
    (setup.folder("nnunet_batch_3/run_0") / "training.json").unlink()
    with pytest.raises(DvtError, match=r"training\.json.*train\.json"):
        nnunet.run(setup, environment / "bin", 3)
