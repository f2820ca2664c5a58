"""All commands on one small data set, as a user runs them."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from dvtplan.data.paths import Workspace


def dvt(command: str, *words: object) -> str:
    """Run a command; return what it printed."""
    line = [sys.executable, "-m", "dvtplan.cli", command, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def raw(toy_once: Workspace, tmp_path: Path) -> Workspace:
    """Return a folder with only the raw data of the toy data set."""
    (tmp_path / "datasets_raw").symlink_to(toy_once.root / "datasets_raw")
    return Workspace(tmp_path, toy_once.dataset)


def test_from_raw_volumes_to_table_1_and_a_new_scan(raw: Workspace) -> None:
    place = ("--root", raw.root)
    planned = dvt("plan_and_preprocess", *place, "--folds", 2, "--jobs", 1)
    assert "target_shape   32x32" in planned and "AP has the fewest voxels" in planned
    assert raw.fingerprint.exists() and raw.plan.exists() and raw.splits.exists()

    small = [
        "--epochs",
        "2",
        "--width",
        "4",
        "--norm-groups",
        "2",
        "--learning-rate",
        "5e-3",
        "--batch-size",
        "1",
        "--device",
        "cpu",
    ]
    folders = dvt("train", "all", *place, *small).split()
    assert folders == [str(raw.fold("gn_unet", k).path) for k in (0, 1)]
    for k in (0, 1):
        folder = raw.fold("gn_unet", k)
        for file in (folder.checkpoint, folder.run, folder.epochs, folder.progress, folder.log):
            assert file.stat().st_size > 0
        assert len(list(folder.predictions.glob("c*.nii.gz"))) == 2

    table = dvt("evaluate", *place, "--jobs", 1)
    assert "DSC" in table and "thrombus" in table
    with (raw.results("gn_unet") / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["case_id"] for row in rows if row["region"] == "all") == ["c0", "c1", "c2", "c3"]
    scores = [float(row["dsc"]) for row in rows]
    assert all(0 <= score <= 1 for score in scores) and max(scores) > 0.3

    scan, out = raw.raw / "imagesTr" / "c0_0000.nii.gz", raw.root / "new" / "mask.nii.gz"
    assert dvt("predict", "-i", scan, "-o", out, "--model", raw.results("gn_unet")) == f"{out}\n"
    image, mask = sitk.ReadImage(str(scan)), sitk.ReadImage(str(out))
    for read in (sitk.Image.GetSize, sitk.Image.GetOrigin, sitk.Image.GetSpacing, sitk.Image.GetDirection):
        assert read(mask) == read(image)
    assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1}
