"""A command runs once; a failed or interrupted one leaves no record."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from compare import stages
from compare.stages import Planned, Stage
from compare.stages import once as run_once
from helpers.processes import interrupted_when_started

from dvtplan.core.errors import DvtError


def once(record: Path, command: list[str], variables: dict[str, str]) -> Stage:
    """Run a command once."""
    return run_once(Planned(title="method", record=record, command=command, variables=variables))


def test_a_finished_command_is_not_run_again(tmp_path: Path) -> None:
    record, trace = tmp_path / "method" / "train.json", tmp_path / "trace"
    command = ["sh", "-c", f'echo "$WORD" >> {trace}; echo shown']
    first = once(record, command, {"WORD": "hello"})
    assert once(record, command, {"WORD": "hello"}) == first
    assert trace.read_text() == "hello\n" and record.with_suffix(".log").read_text() == "shown\n"
    assert 0 <= first.processor_s <= 10 * first.seconds and first.processor_share == first.processor_s / first.seconds
    assert first.seconds > 0 and 100_000 < first.peak_bytes < 30_000_000  # not that of this process


def test_a_failed_command_is_named_with_its_last_line_and_runs_again(tmp_path: Path) -> None:
    record = tmp_path / "train.json"
    with pytest.raises(DvtError, match=r"train\.log: the command ended with status 3 \(no space left\)"):
        once(record, ["sh", "-c", "echo no space left; exit 3"], {})
    assert not record.exists()
    once(record, ["true"], {})
    assert record.exists()


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(DvtError, match="nowhere/program"):
        once(tmp_path / "train.json", ["/nowhere/program"], {})


def test_an_interrupt_ends_the_command(tmp_path: Path) -> None:
    started = tmp_path / "started"
    text = interrupted_when_started(started)
    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "train.json", ["sh", "-c", text], {})
    assert not (tmp_path / "train.json").exists()
    assert subprocess.run(["kill", "-0", started.read_text().strip()], capture_output=True).returncode


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent was killed")
def test_a_command_ends_with_a_killed_parent(tmp_path: Path) -> None:
    started, tools = tmp_path / "started", Path(stages.__file__).parents[1]
    command = ["sh", "-c", f"echo $$ > {started}.pid; mv {started}.pid {started}; exec sleep 60"]
    text = (
        f"import sys; sys.path[:0] = {[str(tools), str(tools.parent)]!r}\n"
        "from pathlib import Path\n"
        "from compare.stages import Planned, once\n"
        f"once(Planned(title='m', record=Path({str(tmp_path / 'train.json')!r}), command={command!r}, variables={{}}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", text])
    while not started.exists():
        assert parent.poll() is None
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while Path("/proc", started.read_text().strip()).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path("/proc", started.read_text().strip()).exists()
