"""Children end with their parent, and signals end a process in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from helpers.processes import ended

from dvtplan.core import child_processes
from dvtplan.core.child_processes import end_children, ends_in_order, is_running, startable_main
from dvtplan.core.errors import DvtError


def start(code: str, *words: str) -> subprocess.Popen[str]:
    """Start a program, and return when it has printed its first line."""
    begun = [sys.executable, "-c", code, *words]
    process = subprocess.Popen(begun, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_children_are_asked_to_end_and_killed_if_they_do_not() -> None:
    obedient = start("import time; print('on', flush=True); time.sleep(60)")
    deaf = start(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    assert is_running(obedient) and is_running(deaf)
    end_children([obedient, deaf], grace_s=0.2)
    assert (obedient.wait(20), deaf.wait(20)) == (-signal.SIGTERM, -signal.SIGKILL)


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    child = (
        "import sys, time; from dvtplan.core.child_processes import end_with_parent\n"
        "end_with_parent(int(sys.argv[1])); print('on', flush=True); time.sleep(60)"
    )
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, child], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    assert ended(pid, 20)


def test_a_child_whose_parent_ended_before_ends_at_once() -> None:
    code = "import os, time; from dvtplan.core.child_processes import end_with_parent; end_with_parent(1 << 30)"
    assert subprocess.run([sys.executable, "-c", code + "; time.sleep(60)"], timeout=20).returncode == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_block_in_order_once(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    cleaned = False
    with pytest.raises(KeyboardInterrupt), ends_in_order():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), number)  # while it cleans up
            cleaned = True
    assert cleaned and child_processes.exit_status() == status
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored() -> None:
    """As ``nohup`` does with SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_children_do_not_import_a_program_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    script = tmp_path / "script.py"
    script.touch()
    for file, hidden in (("<stdin>", True), (str(script), False)):
        main.__file__ = file
        with startable_main():
            assert hasattr(main, "__file__") is not hidden
        assert main.__file__ == file


def test_a_script_that_works_when_it_is_imported_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.process._current_process._inheriting", True, raising=False)
    with pytest.raises(DvtError, match="__main__"), startable_main():
        pass
