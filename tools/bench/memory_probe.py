"""Predict one volume and print the peak memory: ``python -m bench.memory_probe PLAN VOLUME MASK DEVICE [tiny]``."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def main(plan: str, volume: str, mask: str, device: str, size: str = "") -> None:
    """Predict with a plan on disk and an untrained network."""
    # Imported here, so that ``peak_bytes`` can be used without PyTorch.
    from bench.inputs import untrained
    from dvtplan.core import json_records
    from dvtplan.inference.inputs import find_cases
    from dvtplan.inference.predict_case import predict_case
    from dvtplan.models import devices
    from dvtplan.planning.plan import Plan

    model = untrained(
        json_records.load(Plan, Path(plan), "tools/benchmark.py"), devices.choose(device), tiny=size == "tiny"
    )
    predict_case(find_cases(Path(volume), 1)[0], Path(mask), model)
    print(peak_bytes())


def peak_bytes() -> int:
    """Return the peak memory of this process; on Linux without that of its parent before the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
