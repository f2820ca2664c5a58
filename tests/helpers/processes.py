"""Commands and processes as a user runs them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path


def command(
    *words: str | Path, file_limit: int | None = None, powerless: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run one of the package's commands in a process of its own.

    Args:
        words: the command's function in ``dvtplan.cli``, then its options.
        file_limit: bytes beyond which no file grows: what a full disk is to a writer.
        powerless: take root's right to read what its permissions forbid.
    """
    return python(["-m", "dvtplan.cli", *words], file_limit=file_limit, powerless=powerless)


def python(
    words: Sequence[str | Path], *, file_limit: int | None = None, powerless: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Python with some arguments; the rest as ``command``."""

    def before() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        if powerless:
            _drop_root()

    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=before,
        env={**os.environ, "PYTHONWARNINGS": "default", "COLUMNS": "100"},
    )


def _drop_root() -> None:
    """Take CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from what root gets by the next exec (prctl(2))."""
    with contextlib.suppress(OSError, AttributeError):
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def interrupted_when_started(started: Path) -> str:
    """Return a shell command that writes its PID to a file and sleeps. Once it runs, this process is interrupted."""

    def interrupt() -> None:
        while not started.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    return f"echo $$ > {started}.pid; mv {started}.pid {started}; sleep 60"


def ended(pid: int, within_s: float) -> bool:
    """Return whether a process ends in time; a zombie (Z) has ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def descendants(pid: int) -> list[int]:
    """Return the processes that a process and its children have started and that have not ended."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [child, *descendants(child)]
    return found


def assert_ends_with_descendants(parent: subprocess.Popen[bytes], number: signal.Signals, status: int) -> None:
    """Send a signal to one process only; check its exit status, and that all below it end."""
    below = descendants(parent.pid)
    parent.send_signal(number)
    try:
        assert below and parent.wait(40) == status
        assert all(ended(pid, 20) for pid in below)  # ample time on a busy machine
    finally:
        for pid in (parent.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def assert_workers_end(words: Sequence[str | Path]) -> None:
    """Run Python, kill it when two child processes work, and check that these end."""
    parent = subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + 60
    while len(pids := [pid for pid in map(int, children.read_text().split()) if _at_work(pid)]) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    try:
        assert all(ended(pid, 20) for pid in pids)  # ample time on a busy machine
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _at_work(pid: int) -> bool:
    """Return whether a process has used 0.2 s of processor time; a waiting or ending process has not."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]
    return int(ticks) >= 0.2 * os.sysconf("SC_CLK_TCK")


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder, also hidden ones, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
