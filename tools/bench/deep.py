"""A process that predicts one volume and tells its peak memory: ``python -m bench.deep PLAN VOLUME MASK DEVICE``."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from bench.inputs import untrained
from dvtplan.core import json_records
from dvtplan.inference.inputs import find_cases
from dvtplan.inference.predict_case import predict_case
from dvtplan.models import devices
from dvtplan.planning.plan import Plan


def main(plan: str, volume: str, mask: str, device: str) -> None:
    """Predict by a plan on disk with a network as initialised."""
    model = untrained(json_records.load(Plan, Path(plan), "tools/benchmark.py"), devices.choose(device))
    predict_case(find_cases(Path(volume), 1)[0], Path(mask), model)
    print(peak_bytes())


def peak_bytes() -> int:
    """Of this process since it was started; what the one that started it took does not count, where Linux tells."""
    told = Path("/proc/self/status")
    if told.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", told.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
