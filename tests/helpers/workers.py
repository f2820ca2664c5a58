"""Tasks for pools of worker processes."""

from __future__ import annotations

import os
import signal
import time


def slow_first(number: int) -> tuple[int, int]:
    """Return the number and the process; 0 takes longest."""
    time.sleep(0.2 if number == 0 else 0.0)
    return number, os.getpid()


def killed_on_two(number: int) -> int:
    """Kill this process on 2, as if the memory was exhausted."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
