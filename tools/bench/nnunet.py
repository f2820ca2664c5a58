"""Run nnU-Net v2 on the same files and cores: install it, and run two of its commands."""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

from bench.inputs import Bench
from bench.timing import child
from dvtplan.core import worker_pool
from dvtplan.data.paths import Workspace

VERSION = "2.8.1"


def ready(folder: Path) -> Path:
    """Make an environment with nnU-Net if it does not exist; return its folder of programs.

    Raises:
        RuntimeError: if nnU-Net cannot be installed.
    """
    programs = folder / "bin"
    if not (programs / "nnUNetv2_evaluate_simple").exists():
        venv.create(folder, with_pip=True)
        constraints = Path(__file__).parents[1] / "constraints.txt"
        command = [programs / "python", "-m", "pip", "install", "-q", f"nnunetv2=={VERSION}"]
        torch = [line for line in constraints.read_text().splitlines() if line.startswith("torch")]
        installed = subprocess.run([*map(str, command), *torch], capture_output=True, text=True)
        if installed.returncode:
            reason = installed.stderr.strip().splitlines()[-1]
            raise RuntimeError(f"{folder}: nnU-Net could not be installed ({reason})")
    return programs


def preprocess(bench: Bench, workspace: Workspace) -> Callable[[], float]:
    """Return a task: nnU-Net's verification, fingerprint, plan and 2-D preprocessing of the same files."""
    root = bench.scratch / "nnunet"
    raw = root / "raw" / "Dataset001_Phantom"
    if not raw.exists():
        raw.mkdir(parents=True)
        for part in ("imagesTr", "labelsTr"):
            (raw / part).symlink_to(workspace.raw.absolute() / part)
        (raw / "dataset.json").write_text((workspace.raw / "dataset.json").read_text())
    cores = str(worker_pool.available_cores())
    variables = {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}

    def run() -> float:
        shutil.rmtree(root / "preprocessed", ignore_errors=True)
        program = bench.nnunet / "nnUNetv2_plan_and_preprocess"  # type: ignore[operator]
        options = ["-d", "1", "-c", "2d", "--verify_dataset_integrity", "-npfp", cores, "-np", cores]
        return child([str(program), *options], variables)[0]

    return run


def evaluate(bench: Bench, labels: Path, masks: Path) -> Callable[[], float]:
    """Return a task: nnU-Net's evaluation per case and label of the same files."""
    out = bench.scratch / "nnunet_scores.json"
    program = str(bench.nnunet / "nnUNetv2_evaluate_simple")  # type: ignore[operator]
    options = ["-l", "1", "2", "-np", str(worker_pool.available_cores()), "-o", str(out)]
    return lambda: child([program, str(labels), str(masks), *options])[0]
