"""Settings of a run of the check, shared by all its processes."""

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
"""The repository; it need not be installed."""

COHORTS = {"tiny": (6, 3), "small": (16, 4), "half": (20, 5), "paper": (16, 4)}
"""Scale -> phantom patients and folds of the study; fold 0 is trained and its test patients are predicted."""
BYTES_PER_CASE = {"tiny": 2e8, "small": 4e8, "half": 8e8, "paper": 3e9}
"""Scale -> memory for making one phantom."""
SEED = 2019
LOG = "gpu_check.log"
"""Name of the log file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one run of the check."""

    out: Path
    """Folder of the results."""
    scratch: Path
    """Folder of phantoms and trainings; not among the results."""
    device: str
    """'cpu' or 'cuda:N'."""
    scale: str
    """A key of ``COHORTS``."""
    until: float
    """Deadline of the process with these settings, as ``time.time()``."""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def tiny(self) -> bool:
        """Whether everything is as small as possible: a test run, not a measurement."""
        return self.scale == "tiny"

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline of this process."""
        return self.until - time.time()

    @property
    def study(self) -> Workspace:
        """The phantom cohort of the study."""
        return Workspace(self.scratch / "study", "Phantom")

    @property
    def study_is_ready(self) -> bool:
        """Whether that cohort is completely planned and preprocessed."""
        return self.ready_mark.exists()

    @property
    def ready_mark(self) -> Path:
        """File that marks the cohort as ready."""
        return self.study.root / "ready"

    @property
    def small(self) -> Workspace:
        """A cohort of two tiny phantoms for checks of processes."""
        return Workspace(self.scratch / "small", "Phantom")

    @property
    def jobs(self) -> int:
        """Number of phantoms made at the same time, while other parts run."""
        half = max(1, worker_pool.available_cores() // 2)
        return worker_pool.choose_workers(half, [int(BYTES_PER_CASE[self.scale])] * COHORTS[self.scale][0], 1)

    def bench(self) -> Bench:
        """Return the settings of the benchmark's measurements."""
        study = self.small if self.tiny else self.study
        return Bench(scratch=self.scratch / "bench", device=self.device, rounds=1, tiny=self.tiny, study=study)

    def to_json(self) -> str:
        """Return the settings as JSON, for the command line of a process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Return the settings that ``to_json`` wrote."""
        made = cls(**json.loads(text))
        return replace(made, out=Path(made.out), scratch=Path(made.scratch))
