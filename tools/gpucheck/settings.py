"""What a run of the check was asked to do; every process of it gets the same."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.inputs import Bench

from dvtplan.core import worker_pool
from dvtplan.data.paths import Workspace

TOOLS = Path(__file__).parents[1]
ROOT = TOOLS.parent
"""The repository; nothing needs to be installed from it."""

COHORTS = {"tiny": (6, 3), "small": (16, 4), "half": (20, 5), "paper": (16, 4)}
"""Scale -> phantom patients and folds of the study; fold 0 is trained and its patients are tested."""
BYTES_PER_CASE = {"tiny": 2e8, "small": 4e8, "half": 8e8, "paper": 3e9}
"""Memory that making one phantom takes."""
SEED = 2019
LOG = "gpu_check.log"
"""Name of the log among the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run of the check."""

    out: Path
    """Folder of the results."""
    scratch: Path
    """Folder of phantoms and trainings; not among the results."""
    device: str
    """'cpu' or 'cuda:N'."""
    scale: str
    """A key of ``COHORTS``."""
    until: float
    """When the process that has these settings must have ended, as ``time.time()``."""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def tiny(self) -> bool:
        """Whether everything is as small as possible: to see that it runs, not for figures."""
        return self.scale == "tiny"

    @property
    def remaining_s(self) -> float:
        """Seconds until this process must have ended."""
        return self.until - time.time()

    @property
    def study(self) -> Workspace:
        """The phantom cohort that is trained on."""
        return Workspace(self.scratch / "study", "Phantom")

    @property
    def study_is_ready(self) -> bool:
        """Whether that cohort is planned and preprocessed, every patient."""
        return self.ready_mark.exists()

    @property
    def ready_mark(self) -> Path:
        """The file that says so."""
        return self.study.root / "ready"

    @property
    def small(self) -> Workspace:
        """A cohort of four tiny phantoms for checks of processes."""
        return Workspace(self.scratch / "small", "Phantom")

    @property
    def jobs(self) -> int:
        """Phantoms to make at the same time; other parts run next to them."""
        half = max(1, worker_pool.available_cores() // 2)
        return worker_pool.choose_workers(half, COHORTS[self.scale][0], int(BYTES_PER_CASE[self.scale]))

    def bench(self) -> Bench:
        """How the benchmark measures here."""
        study = self.small if self.tiny else self.study
        return Bench(scratch=self.scratch / "bench", device=self.device, rounds=1, tiny=self.tiny, study=study)

    def to_json(self) -> str:
        """For the command line of a process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What ``to_json`` wrote."""
        made = cls(**json.loads(text))
        return replace(made, out=Path(made.out), scratch=Path(made.scratch))
