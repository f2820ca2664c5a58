"""What is measured on: phantoms, made once into a scratch folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phantom.cohort import make_cohort

from dvtplan.core import json_records, worker_pool
from dvtplan.data.paths import Workspace
from dvtplan.inference.model import Model
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.networks.registry import build
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocess import plan_and_preprocess
from dvtplan.training.job import PREPARE

SEED = 5
CASES, TINY_CASES = 4, 2
"""Patients of a cohort to train on, in two folds."""


@dataclass(frozen=True)
class Bench:
    """How to measure, and on what."""

    scratch: Path
    device: str
    """As devices.choose takes it, resolved: 'cpu', 'cuda:0', ..."""
    rounds: int
    tiny: bool
    """Everything at the smallest scale: to see that the benchmark runs, not for figures."""
    nnunet: Path | None = None
    """A folder with an environment that has nnU-Net v2, to be measured beside ours."""
    study: Workspace | None = None
    """A planned and preprocessed cohort to train on and predict; None makes one."""

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def on_gpu(self) -> bool:
        """Whether PyTorch's CUDA tools (streams, graphs, memory counters) work on the device."""
        return self.device.startswith("cuda")

    def cohort(self, scale: str, cases: int) -> Workspace:
        """A cohort of raw phantoms of its own root."""
        root = self.scratch / f"{scale}_{cases}"
        if not (root / "datasets_raw" / "Phantom" / "dataset.json").exists():
            jobs = worker_pool.available_cores()
            make_cohort(root, scale=scale, cases=cases, seed=SEED, jobs=jobs, extras=("rater2",), overwrite=True)
        return Workspace(root, "Phantom")

    def prepared(self, scale: str, cases: int) -> Workspace:
        """The same, planned and prepared, in two folds."""
        workspace = self.cohort(scale, cases)
        plan_and_preprocess(workspace.root, "Phantom", n_folds=2)
        return workspace

    @property
    def large(self) -> str:
        """The paper's scale."""
        return "tiny" if self.tiny else "paper"

    @property
    def middle(self) -> str:
        """A scale that a CPU gets through in minutes."""
        return "tiny" if self.tiny else "half"

    def training_data(self) -> Workspace:
        """Preprocessed slices of the largest size that this device trains on in minutes."""
        if self.study is not None:
            return self.study
        if self.tiny:
            return self.prepared("tiny", TINY_CASES)
        return self.prepared("small" if self.on_cpu else "paper", CASES)

    def patients(self) -> tuple[Workspace, Plan]:
        """Raw scans of the largest scale, and the plan for them."""
        if self.study is not None:
            return self.study, json_records.load(Plan, self.study.plan, PREPARE)
        workspace = self.cohort(self.large, 2)
        planned = plan_and_preprocess(workspace.root, "Phantom", n_folds=2, verify_only=True)
        return workspace, planned.plan


def untrained(plan: Plan, setup: DeviceConfig) -> Model:
    """GN-U-Net as initialised; how long it takes does not depend on what it has learnt."""
    network = build("gn_unet", len(plan.channels), 1, width=32, norm_groups=32).eval()
    network = network.to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
    return Model(networks=(network,), folds=(0,), plan=plan, classes={"lesion": 1}, setup=setup, digest="none")
