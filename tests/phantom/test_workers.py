"""Worker processes of the phantom: order, errors, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.processes import ended
from helpers.workers import killed_on_two, slow_first
from phantom.workers import over_cases


def fails(number: int) -> int:
    raise OSError(f"file {number}: cannot be written.")


def waits(folder: str) -> None:
    """Write the number of this process into a folder, then run until the file 'stop' exists."""
    Path(folder, str(os.getpid())).touch()
    for _ in range(6000):
        if Path(folder, "stop").exists():
            break
        time.sleep(0.01)


# What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
TWO_WORKERS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {path!r}
import test_workers
from phantom.workers import over_cases
try:
    list(over_cases(test_workers.waits, [{folder!r}] * 2, 2))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A process in a group of its own with two workers, and their numbers once both are at work."""
    folder.mkdir()
    tests = Path(__file__).parent
    code = TWO_WORKERS.format(path=[str(tests), str(tests.parent), str(tests.parents[1] / "tools")], folder=str(folder))
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(found := [int(p.name) for p in folder.iterdir()]) < 2:
        assert parent.poll() is None
        time.sleep(0.01)
    return parent, found


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_keep_the_order_of_the_items(jobs: int) -> None:
    found = list(over_cases(slow_first, range(5), jobs))
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    assert (os.getpid() in {process for _, process in found}) is (jobs == 1)


def test_a_single_case_needs_no_second_process() -> None:
    assert list(over_cases(slow_first, [7], 8)) == [(7, os.getpid())]
    assert list(over_cases(slow_first, [], 8)) == []


def test_a_thread_may_start_processes(tmp_path: Path) -> None:
    found: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: found.extend(over_cases(slow_first, range(2), 2)))
    thread.start()
    thread.join()
    assert [number for number, _ in found] == [0, 1]


def test_a_killed_worker_is_one_clear_line() -> None:
    with pytest.raises(ChildProcessError, match=r"memory.*fewer --jobs"):
        list(over_cases(killed_on_two, range(6), 2))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_comes_back_as_it_was_raised(jobs: int) -> None:
    with pytest.raises(OSError, match=r"^file 0: cannot be written\.$"):
        list(over_cases(fails, range(3), jobs))


def test_ctrl_c_is_heard_again_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    list(over_cases(slow_first, range(2), 2))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("with_what", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, with_what: signal.Signals) -> None:
    parent, pids = start(tmp_path / "pids")
    parent.send_signal(with_what)
    parent.communicate()
    assert all(ended(pid, 20) for pid in pids)  # ample time on a busy machine


def test_an_interruption_is_heard_by_the_parent_alone(tmp_path: Path) -> None:
    parent, pids = start(tmp_path / "pids")
    os.killpg(parent.pid, signal.SIGINT)
    time.sleep(0.3)  # a worker that reacts would print its traceback at once
    (tmp_path / "pids" / "stop").touch()
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 130 and said == ""
    assert all(ended(pid, 20) for pid in pids)
