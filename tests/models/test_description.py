"""The description of a model, of a folder and of an archive alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers.model_archives import load

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.models import description
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
print(*[name for name in ("torch", "SimpleITK", "pandas", "scipy", "matplotlib") if name in sys.modules])
"""


def test_describing_an_archive_loads_nothing_heavy(good: Path) -> None:
    done = subprocess.run([sys.executable, "-c", INFO, good], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
