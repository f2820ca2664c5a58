"""Threads of PyTorch next to other programs: how they wait for each other, and how many there are.

OpenMP reads these settings from the environment when PyTorch is loaded, so they are made before. A thread that is done
waits in a busy loop for the others. By default GNU's OpenMP does so for 300,000 rounds (several milliseconds) before it
sleeps. If another program uses one of the cores, this wastes the time that the threads need. A short loop does not,
and is as fast on a quiet machine (docs/performance.md).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

SPINS = 3000
"""Rounds in which a thread waits before it sleeps: 75 µs on an AMD EPYC (Zen 4). Fewer make small networks slower on a
quiet machine, more make them slower next to other programs."""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Variables with which a user sets how threads wait."""
NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables with which a user, or torchrun, sets how many there are."""


def prepare() -> None:
    """Set how the threads of PyTorch wait and how many there are, for this process and its children.

    Variables that the user has set stay. A PyTorch that is already loaded does not change.
    """
    os.environ.update(settings(os.environ))


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to add to an environment.

    The number of threads is set only if a container may use fewer cores than it sees. It does not depend on the load:
    another number of threads changes the last digits of the results.
    """
    found = {}
    if not any(name in environment for name in WAITING):
        found["GOMP_SPINCOUNT"] = str(SPINS)
    if not any(name in environment for name in NUMBER) and usable_cores() < _visible_cores():
        found["OMP_NUM_THREADS"] = str(usable_cores())
    return found


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, and the limit of its container (rounded up)."""
    limit = container_limit()
    return _visible_cores() if limit is None else max(1, min(_visible_cores(), math.ceil(limit)))


def _visible_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def container_limit(root: Path = Path("/")) -> float | None:
    """Return the CPU time per second that Linux's control groups allow this process; None without a limit.

    Args:
        root: folder with ``proc`` and ``sys``.
    """
    limits = []
    with contextlib.suppress(OSError, ValueError):  # no Linux, or an unknown format
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for folder in _group_folders(root / "sys/fs/cgroup", controllers, path):
                with contextlib.suppress(OSError, ValueError):
                    limits.append(_limit_of(folder, controllers))
    return min((limit for limit in limits if limit is not None), default=None)


def _group_folders(top: Path, controllers: str, path: str) -> Iterator[Path]:
    """Yield the folders of a group and of the groups that contain it.

    In a container the path may be that of the host. The folder at the top is then that of the container.
    """
    if controllers and "cpu" not in controllers.split(","):
        return
    top = top / ("cpu" if controllers else "")
    folder = top / path.lstrip("/")
    while folder != top and top in folder.parents:
        yield folder
        folder = folder.parent
    yield top


def _limit_of(folder: Path, controllers: str) -> float | None:
    """Return the limit of one group (version 2 if ``controllers`` is empty, else version 1); None without a limit."""
    if controllers:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    else:
        quota, period = (folder / "cpu.max").read_text().split()
    return None if quota in ("max", "-1") else int(quota) / int(period)
