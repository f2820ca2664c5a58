"""A training that is ended by a signal to its parent alone leaves no process and no lock."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers.processes import assert_ends_with_descendants

from dvtplan.data.paths import Workspace

ENDLESS = ["--width", "4", "--norm-groups", "2", "--epochs", "100000", "--device", "cpu"]


def start(workspace: Workspace, folds: list[int], *words: str) -> subprocess.Popen[bytes]:
    """Start a training that does not end by itself, and return when every fold has finished an epoch."""
    command = [sys.executable, "-m", "dvtplan.cli", "train", *map(str, folds), *words]
    command += ["--root", str(workspace.root), *ENDLESS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not all(workspace.fold("gn_unet", fold).checkpoint.exists() for fold in folds):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def leftovers(workspace: Workspace) -> list[Path]:
    return sorted(workspace.results("gn_unet").rglob(".*"))


def test_folds_in_parallel_end_with_their_parent(fresh: Workspace) -> None:
    process = start(fresh, [0, 1], "--gpus", "2", "--workers", "0")
    assert_ends_with_descendants(process, signal.SIGTERM, 143)
    assert leftovers(fresh) == []


def test_one_of_several_folds_does_not_start_without_its_parent(fresh: Workspace) -> None:
    command = [sys.executable, "-m", "dvtplan.cli", "train", "0", "--root", str(fresh.root), "--only", "0"]
    assert subprocess.run([*command, "--parent", str(1 << 30), *ENDLESS], timeout=60).returncode == 1
    assert not fresh.fold("gn_unet", 0).path.exists()


def test_a_group_with_reading_processes_ends_with_its_parent(fresh: Workspace) -> None:
    process = start(fresh, [0], "--gpus", "2", "--workers", "1")
    assert_ends_with_descendants(process, signal.SIGINT, 130)
    assert leftovers(fresh) == []
