"""A comparison with nnU-Net without nnU-Net: programs that do nothing but write the files of the real ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
from compare.methods import Method
from compare.settings import Conditions, Setup, splits_digest

from dvtplan.core import json_records
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace
from dvtplan.models.training_run import Run, Schedule
from dvtplan.planning.recipe import Recipe

FAKE = '''\
#!{python} -SE
"""Fake programs: this script is called by the name of each."""
import json, os, pathlib, shutil, sys
words = sys.argv[1:]
after = lambda name: words[words.index(name) + 1]
with open({calls!r}, "a") as log:
    log.write(" ".join([os.path.basename(sys.argv[0]), *words]) + chr(10))
def predict(out):
    os.makedirs(out, exist_ok=True)
    for image in os.listdir(after("-i")):
        case = image.split("_0000")[0]
        shutil.copy(os.path.join({labels!r}, case + ".nii.gz"), os.path.join(out, case + ".nii.gz"))
if "{fail}" and "{fail}" in words:
    sys.exit("the disk is on fire")
if sys.argv[0].endswith("plan_and_preprocess"):
    (name,) = os.listdir(os.environ["nnUNet_raw"])
    place = pathlib.Path(os.environ["nnUNet_preprocessed"], name)
    place.mkdir(parents=True)
    (place / "nnUNetPlans.json").write_text(json.dumps({{"configurations": {{"2d": {{"batch_size": 366}}}}}}))
elif "predict" in words:
    predict(after("-o"))
elif "--root" in words:
    shutil.copytree({results!r}, os.path.join(after("--root"), "results"))
else:
    batch = int(os.environ["DVT_COMPARE_BATCH"])
    record = {{"training_s": 9.5, "steps": 7, "batch_size": batch, "parameters": 1500000}}
    pathlib.Path(os.environ["DVT_COMPARE_RECORD"]).write_text(json.dumps(record))
'''


def run_record(**changes: object) -> Run:
    """The record of a training of the first fold of the toy data set."""
    plain: dict[str, object] = {
        "network": "gn_unet", "fold": 0, "recipe": Recipe(epochs=2), "classes": {"lesion": 1}, "channels": 1,
        "parameters": 7_800_000, "train": ("c0", "c1"), "test": ("c2", "c3"), "plan_digest": "p", "splits_digest": "s",
        "setup": "cpu (fp32)", "processes": 1, "versions": {}, "started": "now", "epochs_done": 2, "seconds": 11.0,
        "waiting_share": 0.0,
        "schedule": Schedule(
            budget_s=12, recipe_epochs=250, steps_per_epoch=9, planned=14, steps=14, taken=13, drops=(4, 5)
        ),
    }  # fmt: skip
    return Run(**{**plain, **changes})  # type: ignore[arg-type]


def fake_programs(folder: Path, workspace: Workspace, *, fail: str = "") -> tuple[Path, Path]:
    """Make fake programs of nnU-Net and dvtplan.

    Args:
        folder: of the environment.
        workspace: whose labels they predict.
        fail: a program that gets this argument fails.

    Returns:
        The environment, and the list of calls.
    """
    results, calls = folder / "results", folder / "calls.txt"
    json_records.save(run_record(), results / workspace.dataset / "gn_unet" / "fold_0" / "run.json")
    names = {"python": sys.executable, "calls": str(calls), "results": str(results), "fail": fail}
    text = FAKE.format(**names, labels=str(workspace.raw / "labelsTr"))
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "dvt", "nnUNetv2_plan_and_preprocess", "nnUNetv2_evaluate_simple"):
        path = folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    return folder, calls


def setup_of(workspace: Workspace, out: Path, **changes: object) -> Setup:
    """A comparison of the first fold of a planned data set."""
    plain: dict[str, object] = {
        "dataset": workspace.dataset, "fold": 0, "budget_s": 60.0, "threads": 1,
        "splits_digest": splits_digest(workspace), "processor": "a processor", "precision": "auto",
    }  # fmt: skip
    return Setup(
        workspace=workspace,
        out=out,
        conditions=Conditions(**{**plain, **changes}),  # type: ignore[arg-type]
        fold=splits_of(workspace).folds[0],
    )


def splits_of(workspace: Workspace) -> Splits:
    """The folds of a planned data set."""
    return json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess")


def method(name: str, **changes: object) -> Method:
    """The record of a method with made-up numbers."""
    plain: dict[str, object] = {
        "name": name, "training_s": 70.0, "steps": 10, "batch_size": 4, "parameters": 7_850_000, "precision": "bf16",
        "peak_bytes": 2_000_000_000, "prediction_s": 6.0, "cases": 4,
    }  # fmt: skip
    return Method(**{**plain, **changes})  # type: ignore[arg-type]


def words_of(path: Path) -> object:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def rows(hits: list[int], region: str = "all", truth: int = 10) -> pd.DataFrame:
    """Voxel counts of patients; each prediction holds 10 voxels."""
    return pd.DataFrame(
        [
            {
                "region": region, "patient_id": f"p{n}",
                "tp": tp if truth else 0, "fp": 10 - tp, "fn": truth and 10 - tp,
                "truth_ml": 1.0, "predicted_ml": 1.0, "false_positive_ml": 0.0,
            }
            for n, tp in enumerate(hits)
        ]
    )  # fmt: skip
