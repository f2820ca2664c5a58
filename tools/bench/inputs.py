"""What is measured on: phantoms, made once into a scratch folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phantom.cohort import make_cohort

from dvtplan.devices import Setup
from dvtplan.networks import build
from dvtplan.predict import Model
from dvtplan.preprocess import Preprocessed, plan_and_preprocess
from dvtplan.records import Plan
from dvtplan.workspace import Workspace

SEED = 5


@dataclass(frozen=True)
class Bench:
    """How to measure, and on what."""

    scratch: Path
    device: str
    """As devices.choose takes it, resolved: 'cpu', 'cuda:0', ..."""
    rounds: int
    tiny: bool
    """Everything at the smallest scale: to see that the benchmark runs, not for figures."""
    nnunet: Path | None
    """A folder with an environment that has nnU-Net v2, to be measured beside ours."""

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    def cohort(self, scale: str, cases: int) -> Workspace:
        """A cohort of raw phantoms of its own root."""
        root = self.scratch / f"{scale}_{cases}"
        if not (root / "datasets_raw" / "Phantom" / "dataset.json").exists():
            make_cohort(root, scale=scale, cases=cases, seed=SEED, jobs=2, extras=("rater2",))
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

    def planned(self, scale: str, cases: int) -> Preprocessed:
        """The plan for a cohort, nothing prepared."""
        return plan_and_preprocess(self.cohort(scale, cases).root, "Phantom", n_folds=2, verify_only=True)


def untrained(plan: Plan, setup: Setup) -> Model:
    """GN-U-Net as initialised; how long it takes does not depend on what it has learnt."""
    network = build("gn_unet", len(plan.channels), 1, width=32, norm_groups=32).eval()
    network = network.to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
    return Model(networks=(network,), folds=(0,), plan=plan, classes={"lesion": 1}, setup=setup, digest="none")
