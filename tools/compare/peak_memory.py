"""Run a command and write the peak memory of its largest process: ``python peak_memory.py FILE COMMAND ...``.

Linux counts the memory of the parent at the start of a process as its own, so a small program starts the command.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path


def main(file: str, *command: str) -> int:
    """Run the command, write the number of bytes and return its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # the command gets it, too, and ends in order
    status = subprocess.run(command).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    Path(file).write_text(str(used * (1 if sys.platform == "darwin" else 1024)), encoding="utf-8")
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
