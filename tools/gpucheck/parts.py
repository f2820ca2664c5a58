"""The parts of the check, in order."""

from __future__ import annotations

from gpucheck import networks, operations, processes, speed, study
from gpucheck.checks import Check

PARTS: dict[str, tuple[Check, ...]] = {
    "machine": speed.limit_checks(),
    "cohort": study.cohort_checks(),
    "correctness": (*operations.checks(), *networks.checks()),
    "compiled": (networks.compiled_check(),),
    "processes": processes.checks(),
    "collectives": processes.collectives_checks(),
    "memory": (processes.memory_check(),),
    "speed": speed.checks(),
    "study": study.checks(),
}
"""Part -> its checks."""
