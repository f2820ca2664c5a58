"""The description of a model, of a folder and of an archive alike."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.model_archives import load, rebuilt
from helpers.refusals import refused

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.models import description, weight_files
from dvtplan.models.training_run import Run
from dvtplan.reporting import model_export


def test_folder_and_archive_are_described_alike(trained_once: Workspace, good: Path) -> None:
    here = description.to_text(description.describe_archive(good)).splitlines()
    there = description.to_text(model_export.describe_folder(trained_once.results("gn_unet"))).splitlines()
    assert here[2:] == there[2:]
    text = "\n".join(here)
    run = json_records.load(Run, trained_once.fold("gn_unet", 0).run, "")
    for words in (
        "gn_unet, width 4, ",
        "weights     float32",
        f"{run.parameters:,} parameters",
        "channels    MR0",
        "classes     thrombus = 1",
        "0: 8 epochs on 2 training cases; 2 test cases",
        "1: 8 epochs on 2 training cases; 2 test cases",
        "slices along AP, as 32x32",
        "Toy: 4 cases of 4 patients, not phantoms",
        "spacing in mm: LR 2; AP 5; SI 2",
        "thrombus: in 4 cases; fewer than 5",
        load(good).digest,
        "not a medical device",
    ):
        assert words in text


INFO = """
import sys
from pathlib import Path
from dvtplan.models import description
description.to_text(description.describe_archive(Path(sys.argv[1])))
print(*[name for name in ("pandas", "scipy", "matplotlib", "pydicom") if name in sys.modules])
"""


def test_describing_an_archive_loads_nothing_heavy(good: Path) -> None:
    done = subprocess.run([sys.executable, "-c", INFO, good], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("head.weight", lambda array: np.full_like(array, np.nan), "not finite"),
        ("head.weight", lambda array: array.reshape(-1), "shape (1, 4, 1, 1)"),
        ("head.weight", lambda array: np.zeros((2, 4, 1, 1), "f4"), "bytes"),
    ],
)
def test_weights_that_no_network_can_use_are_not_vouched_for(
    members: dict[str, bytes], tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], word: str
) -> None:
    """Although every digest fits; to describe and to load."""
    member = weight_files.weights_name(1, name)
    array = np.load(io.BytesIO(members[member]))
    path = rebuilt(tmp_path / "a.zip", members | {member: weight_files.npy(change(array))})
    for use in (description.describe_archive, load):
        message = refused(lambda use=use: use(path))
        assert member in message and word in message


def test_a_number_of_parameters_that_is_not_the_networks_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    text = re.sub(rb'"parameters": \d+', b'"parameters": 7', members["fold_0/run.json"])
    path = rebuilt(tmp_path / "a.zip", members | {"fold_0/run.json": text})
    assert "fold_0/run.json states 7 parameters" in refused(lambda: description.describe_archive(path))


def test_a_checkpoint_whose_weights_are_not_finite_is_not_loaded(trained: Workspace) -> None:
    path = trained.fold("gn_unet", 1).checkpoint
    state = torch.load(path, weights_only=True)
    state["network"]["head.weight"][0, 1] = float("inf")
    torch.save(state, path)
    assert "checkpoint.pt: head.weight has weights that are not finite" in refused(
        lambda: load(trained.results("gn_unet"))
    )
