"""nnU-Net v2 on the same files and cores: its environment, and two of its commands."""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

from bench.clock import child
from bench.inputs import Bench
from dvtplan.core import worker_pool
from dvtplan.data.paths import Workspace

VERSION = "2.8.1"


def ready(folder: Path) -> Path:
    """Make an environment with nnU-Net where it is not there yet; gives its folder of programs.

    Raises:
        RuntimeError: if it cannot be installed.
    """
    programs = folder / "bin"
    if not (programs / "nnUNetv2_evaluate_simple").exists():
        venv.create(folder, with_pip=True)
        constraints = Path(__file__).parents[1] / "constraints.txt"
        command = [programs / "python", "-m", "pip", "install", "-q", f"nnunetv2=={VERSION}"]
        torch = [line for line in constraints.read_text().splitlines() if line.startswith("torch")]
        made = subprocess.run([*map(str, command), *torch], capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"{folder}: nnU-Net could not be installed ({made.stderr.strip().splitlines()[-1]})")
    return programs


def preprocess(bench: Bench, workspace: Workspace) -> Callable[[], float]:
    """Fingerprint, plan and 2-D preprocessing by nnU-Net with its check of the data, on the same files."""
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
    """Overlap per case and label by nnU-Net, on the same files."""
    out = bench.scratch / "nnunet_scores.json"
    program = str(bench.nnunet / "nnUNetv2_evaluate_simple")  # type: ignore[operator]
    options = ["-l", "1", "2", "-np", str(worker_pool.available_cores()), "-o", str(out)]
    return lambda: child([program, str(labels), str(masks), *options])[0]
