"""A pool of worker processes over cases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers.processes import ended
from helpers.workers import killed_on_two, slow_first

from dvtplan.core import worker_pool
from dvtplan.core.errors import DatasetProblems, DvtError
from dvtplan.core.files import atomic_write
from dvtplan.core.worker_pool import choose_workers, over_cases


def bad_file(name: str) -> str:
    if name == "b":
        raise DvtError("b.nii.gz: is empty (0 bytes). Copy or export it again.")
    return name


def many_problems(name: str) -> str:
    raise DatasetProblems([f"{name}: one.", f"{name}: two."])


def write_own_number(folder: str) -> None:
    """Write the number of this process into a folder, and wait until the other process has done so too."""
    Path(folder, str(os.getpid())).write_text("")
    while len(list(Path(folder).iterdir())) < 2:
        time.sleep(0.01)


def one_keeps_working(folder: str) -> None:
    """Do the same; then one process works until it is stopped, and the other is idle."""
    write_own_number(folder)
    if os.getpid() == min(int(p.name) for p in Path(folder).iterdir()):
        for _ in range(6000):
            if stop_file(folder).exists():
                break
            time.sleep(0.01)


def stop_file(folder: str | Path) -> Path:
    return Path(folder).with_suffix(".stop")


# What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
TWO_WORKERS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {path!r}
import test_worker_pool
from dvtplan.core.worker_pool import over_cases
over_cases(test_worker_pool.{function}, [{folder!r}] * 2, list("ab"), title="Verify", jobs=2)
"""


def start(function: str, folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a process with two workers in its own group; return it and the workers' numbers once both work."""
    folder.mkdir()
    here = Path(__file__).parent
    code = TWO_WORKERS.format(path=[str(here), str(here.parent)], function=function, folder=str(folder))
    words = [sys.executable, "-c", code]
    parent = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(found := [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]) < 2:
        assert parent.poll() is None
        time.sleep(0.01)
    return parent, found


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_keep_the_order_of_the_items(jobs: int, capfd: pytest.CaptureFixture[str]) -> None:
    found = over_cases(slow_first, range(5), list("abcde"), title="Verify", jobs=jobs)
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    assert (os.getpid() in {process for _, process in found}) is (jobs == 1)
    assert "Verify: 100%" in capfd.readouterr().err


def test_a_single_case_needs_no_second_process() -> None:
    assert over_cases(slow_first, [7], ["a"], title="Verify", jobs=8) == [(7, os.getpid())]


def test_without_cases_nothing_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    assert over_cases(slow_first, [], [], title="Verify", jobs=2) == []
    assert capfd.readouterr().err == ""


def test_a_killed_worker_is_one_clear_line_that_names_the_open_cases() -> None:
    with pytest.raises(DvtError) as caught:
        over_cases(killed_on_two, range(6), list("abcdef"), title="Prepare", jobs=2)
    message = str(caught.value)
    assert message.startswith("Prepare: a worker process was killed while one of these cases was open: ")
    assert "c" in message.split("open: ")[1].split(".")[0].split(", ")
    assert "`jobs=1`" in message
    assert "\n" not in message


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_user_error_is_raised_unchanged(jobs: int) -> None:
    with pytest.raises(DvtError, match=r"^b.nii.gz: is empty \(0 bytes\). Copy or export it again.$"):
        over_cases(bad_file, ["a", "b", "c"], ["a", "b", "c"], title="Verify", jobs=jobs)


def test_several_problems_are_raised_unchanged() -> None:
    with pytest.raises(DatasetProblems) as caught:
        over_cases(many_problems, ["a", "b"], ["a", "b"], title="Verify", jobs=2)
    assert caught.value.problems[1].endswith(": two.")


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent, pids = start("one_keeps_working", tmp_path / "pids")
    parent.kill()
    parent.communicate()
    assert all(ended(pid, 20) for pid in pids)  # ample time on a busy machine


def test_only_the_parent_reports_an_interruption(tmp_path: Path) -> None:
    parent, pids = start("one_keeps_working", tmp_path / "pids")
    time.sleep(0.3)  # the idle one has come to wait for work; where it has not, the test asks for less
    os.killpg(parent.pid, signal.SIGINT)
    time.sleep(0.3)  # what a worker says of it, it says at once
    stop_file(tmp_path / "pids").touch()
    _, said = parent.communicate(timeout=60)
    assert said.count("Traceback") == 1  # which the commands turn into one line
    assert all(ended(pid, 20) for pid in pids)


# In the process that workers are copied from, this import waits; the parent has its own copy at once.
SLOW_MODULE = """
import os, pathlib, time
def work(_): pass
if os.environ["PARENT"] != str(os.getpid()):
    here = pathlib.Path(__file__)
    here.with_suffix(".pid").write_text(str(os.getpid()))
    here.with_suffix(".started").touch()
    while not here.with_suffix(".go_on").exists():
        time.sleep(0.01)
"""
PARENT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["PARENT"] = str(os.getpid())
import slow
from dvtplan.core import worker_pool
try:
    {start}
    time.sleep(60)
except KeyboardInterrupt:
    print("Interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "start",
    ["worker_pool.preload('slow')", "worker_pool.over_cases(slow.work, [1, 2], ['a', 'b'], title='Verify', jobs=2)"],
)
def test_ctrl_c_while_the_workers_module_is_imported_is_reported_by_the_parent_alone(
    tmp_path: Path, start: str, number: signal.Signals
) -> None:
    """SIGTERM ends all of them."""
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW_MODULE)
    code = PARENT.format(start=start)
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    while not slow.with_suffix(".started").exists():
        assert parent.poll() is None
        time.sleep(0.01)
    os.killpg(parent.pid, number)
    if number == signal.SIGTERM:
        assert ended(int(slow.with_suffix(".pid").read_text()), 20)
    slow.with_suffix(".go_on").touch()
    printed, said = parent.communicate(timeout=60)
    assert "Traceback" not in said
    assert printed == ("Interrupted\n" if number == signal.SIGINT else "")
    assert ended(int(slow.with_suffix(".pid").read_text()), 20)


@pytest.mark.parametrize(
    ("jobs", "tasks", "gigabytes_each", "expected"),
    [
        (8, 100, 1, 7),  # 0.7 x 10 GB hold seven of 1 GB
        (4, 100, 1, 4),
        (8, 3, 1, 3),
        (8, 0, 1, 1),
        (8, 100, 50, 1),  # at least one, even where it does not fit
        (8, 100, 0, 8),  # nothing is known of the size
        (None, 100, 1, 5),
    ],
)
def test_workers_are_limited_by_the_option_the_cases_and_the_memory(
    monkeypatch: pytest.MonkeyPatch, jobs: int | None, tasks: int, gigabytes_each: int, expected: int
) -> None:
    monkeypatch.setattr(worker_pool, "free_memory_bytes", lambda: 10 * 10**9)
    monkeypatch.setattr(worker_pool, "available_cores", lambda: 5)
    assert choose_workers(jobs, [gigabytes_each * 10**8] * tasks, 10) == expected


def test_without_known_memory_the_option_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "free_memory_bytes", lambda: None)
    assert choose_workers(3, [10**15] * 100, 1) == 3


def test_this_machine_has_cores_and_may_report_its_memory() -> None:
    assert worker_pool.available_cores() >= 1
    free = worker_pool.free_memory_bytes()
    assert (free is not None and free > 0) or not Path("/proc/meminfo").exists()


def test_a_long_path_for_temporary_files_starts_workers_without_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 110)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert worker_pool._context("helpers.workers").get_start_method() == "spawn"
    assert [number for number, _ in over_cases(slow_first, range(2), ["a", "b"], title="Verify", jobs=2)] == [0, 1]


def test_without_shared_semaphores_one_process_does_everything(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As where /dev/shm is missing or read-only."""

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refuse)
    found = over_cases(slow_first, range(3), list("abc"), title="Verify", jobs=2)
    assert found == [(number, os.getpid()) for number in range(3)]
    assert "Verify: cannot start worker processes here (" in capfd.readouterr().err
    assert "Read-only" in worker_pool.sharing_fault()


@pytest.mark.parametrize("error", worker_pool.UNAVAILABLE)
def test_a_system_that_cannot_start_processes_early_is_no_error(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", refuse)
    worker_pool.preload("helpers.workers")


def test_a_start_of_workers_leaves_ctrl_c_to_this_process() -> None:
    worker_pool.preload("helpers.workers")
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    over_cases(slow_first, range(2), ["a", "b"], title="Verify", jobs=2)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def unfinished(folder: str) -> None:
    """Begin to write a file, and wait."""
    with atomic_write(Path(folder, f"{os.getpid()}.txt")):
        Path(folder, str(os.getpid())).write_text("")
        time.sleep(60)


def test_an_interrupt_of_the_parent_alone_ends_workers_at_once_and_their_files_are_cleaned_up(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    parent, pids = start("unfinished", tmp_path / "pids" / "in")
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=40)
    assert all(ended(pid, 20) for pid in pids)
    assert {p.name for p in (tmp_path / "pids" / "in").iterdir()} == {str(pid) for pid in pids}
