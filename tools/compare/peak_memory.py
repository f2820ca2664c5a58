"""Run a command, and write the peak memory of its largest process and the processor time of all.

    python peak_memory.py FILE COMMAND ...

Linux counts the memory of the parent at the start of a process as its own, so a small program starts the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main(file: str, *command: str) -> int:
    """Run the command, write the bytes and the seconds, and return its exit status."""
    parent, children = os.getppid(), list[subprocess.Popen[bytes]]()

    def end(*_: object) -> None:
        for child in children:
            child.terminate()  # it ends in order

    signal.signal(signal.SIGTERM, end)
    if sys.platform == "linux":  # SIGTERM also if the parent is killed
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            return 1
    children.append(subprocess.Popen(command))
    status = children[0].wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    Path(file).write_text(f"{peak} {used.ru_utime + used.ru_stime:.3f}", encoding="utf-8")
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
