"""Inputs of the measurements: phantoms in a scratch folder, plans and untrained networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from phantom.cohort import Design, make_cohort
from torch import nn

from dvtplan.core import allocator, json_records, worker_pool
from dvtplan.data.paths import Workspace
from dvtplan.inference.model import Model
from dvtplan.models import devices, speed_trial
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.networks.registry import build
from dvtplan.planning.patches import decide_patch
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocess import PreprocessOptions, plan_and_preprocess
from dvtplan.planning.preprocessed_cases import STAGE
from dvtplan.planning.recipe import RECIPES, Recipe, override

SEED = 5
CASES, TINY_CASES = 4, 2
"""Patients of a cohort for training, in two folds."""
WIDTH, TINY_WIDTH = 32, 4
"""Channels of the first level, and groups of a normalization: the paper's GN-U-Net, and one for tests."""


@dataclass(frozen=True)
class Bench:
    """How to measure, and the inputs."""

    scratch: Path
    device: str
    """Resolved name of the device: 'cpu', 'cuda:0', ..."""
    rounds: int
    tiny: bool
    """Use the smallest inputs and no warm-up: a test that the benchmark runs, not a measurement."""
    nnunet: Path | None = None
    """Folder of programs of an environment with nnU-Net v2, for comparison; None omits it."""
    earlier: Path | None = None
    """Source tree of an earlier commit, for comparison; None omits it."""
    study: Workspace | None = None
    """A planned and preprocessed cohort for training and prediction; None makes one."""

    @property
    def warm_up(self) -> bool:
        """Whether tasks run once before they are measured."""
        return not self.tiny

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def on_gpu(self) -> bool:
        """Whether the device supports CUDA streams, graphs and memory counters."""
        return self.device.startswith("cuda")

    def cohort(self, scale: str, cases: int) -> Workspace:
        """Return a cohort of raw phantoms, made on first use, in its own root."""
        root = self.scratch / f"{scale}_{cases}"
        if not (root / "datasets_raw" / "Phantom" / "dataset.json").exists():
            jobs = 1 if self.tiny else worker_pool.available_cores()
            make_cohort(
                root, Design(scale=scale, cases=cases, seed=SEED), jobs=jobs, extras=("rater2",), overwrite=True
            )
        return Workspace(root, "Phantom")

    def prepared(self, scale: str, cases: int) -> Workspace:
        """Return a cohort that is planned and preprocessed in two folds."""
        workspace = self.cohort(scale, cases)
        plan_and_preprocess(workspace.root, "Phantom", options=PreprocessOptions(folds=2))
        return workspace

    @property
    def large(self) -> str:
        """The paper's phantom scale."""
        return "tiny" if self.tiny else "paper"

    @property
    def middle(self) -> str:
        """A phantom scale that a CPU processes in minutes."""
        return "tiny" if self.tiny else "half"

    def training_data(self) -> Workspace:
        """Return a preprocessed cohort with the largest slices that this device trains on in minutes."""
        if self.study is not None:
            return self.study
        if self.tiny:
            return self.prepared("tiny", TINY_CASES)
        return self.prepared("small" if self.on_cpu else "paper", CASES)

    @property
    def recipe(self) -> Recipe:
        """The paper's recipe with two epochs, of which the second is measured; the smallest network if tiny."""
        return override("paper", epochs=1, width=4, norm_groups=4) if self.tiny else override("paper", epochs=2)

    def patients(self) -> tuple[Workspace, Plan]:
        """Return raw scans of the largest scale, and their plan."""
        if self.study is not None:
            return self.study, json_records.load(Plan, self.study.plan, STAGE)
        workspace = self.cohort(self.large, 2)
        planned = plan_and_preprocess(workspace.root, "Phantom", options=PreprocessOptions(folds=2, verify_only=True))
        return workspace, planned.plan


def gn_unet(setup: DeviceConfig, channels: int = 1, *, tiny: bool = False) -> nn.Module:
    """Return an untrained GN-U-Net on a device. Training does not change its speed."""
    return setup.place(_build(channels, tiny))


def _build(channels: int, tiny: bool) -> nn.Module:
    torch.manual_seed(0)
    width = TINY_WIDTH if tiny else WIDTH
    return build("gn_unet", channels, 1, width=width, norm_groups=width)


def untrained(plan: Plan, setup: DeviceConfig, *, recipe: Recipe | None = None, tiny: bool = False) -> Model:
    """Return a model with an untrained GN-U-Net of a recipe, the paper's by default, as ``load_model`` would run it.

    Slices are not predicted mirrored.
    """
    recipe = decide_patch(recipe or RECIPES["paper"], plan)
    channels, tile = len(plan.channels) * (2 * recipe.context + 1), recipe.patch_shape
    shape = tile or plan.target_shape
    setup = speed_trial.fastest_for_prediction(_build(channels, tiny).eval(), channels, shape, setup)
    if setup.device == "cpu":
        allocator.keep_freed_memory()
    network = gn_unet(setup, channels, tiny=tiny).eval()
    return Model(
        networks=(network,), folds=(0,), plan=plan, classes={"lesion": 1}, setup=setup, digest="none",
        context=recipe.context, tile=tile,
    )  # fmt: skip


def training_setup(bench: Bench, batch: tuple[int, int, int, int], *, compiled: bool | None = None) -> DeviceConfig:
    """Return how ``train_fold`` would train a GN-U-Net on batches (B, C, H, W)."""
    setup = devices.choose(bench.device, training=True, compiled=compiled)
    if setup.device == "cpu":
        allocator.keep_freed_memory()
    return speed_trial.fastest_for_training(_build(batch[1], bench.tiny), batch, setup)
