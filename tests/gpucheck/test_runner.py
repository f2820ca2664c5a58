"""Parts in processes of their own: crashes, time limits, and what the record says of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bench import results
from gpucheck.parts import PARTS
from gpucheck.record import NAME, Record
from gpucheck.runner import SHARES, STAGES, Runner, shorten_log
from gpucheck.settings import LOG
from helpers.gpu_checks import GPU_ONLY, TOOL, alive, read, row_of, settings_of

CHILD = """
import json, os, subprocess, sys, time
part, settings, pipe = sys.argv[1:]
events = os.fdopen(int(pipe), "w")
def report(**event):
    events.write(json.dumps(event) + chr(10))
    events.flush()
row = dict(section="s", what="w", value=1.0, unit="", at_least=None, at_most=None, note="", detail={}, verdict="")
report(event="begin", check="one")
report(event="row", check="one", row=row)
report(event="end", check="one", state="passed", error="", seconds=0.1)
report(event="begin", check="two")
if part == "machine":
    print("the last words", flush=True)
    os.kill(os.getpid(), 9)
if part == "correctness":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", json.loads(settings)["out"]])
    time.sleep(600)
if part == "speed":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", json.loads(settings)["out"]],
                     pass_fds=[int(pipe)])
report(event="end", check="two", state="passed", error="", seconds=0.1)
report(event="done")
"""


def test_a_part_that_crashes_or_hangs_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("gpucheck.runner.SHARES", {"machine": 1.0, "correctness": 0.1, "speed": 1.0, "study": 1.0})
    names = ["machine", "correctness", "speed", "study"]
    record = Record(tmp_path / NAME, {"command": "c"}, {name: ["one", "two", "three"] for name in names})
    said: list[str] = []
    Runner(settings_of(tmp_path, 30.0), record, said.append, child="fake_child").run([[name] for name in names])
    found = {part["name"]: part for part in read(tmp_path)["parts"]}
    assert [found[name]["state"] for name in names] == ["failed", "stopped", "done", "done"]
    assert "status -9" in found["machine"]["error"] and "the last words" in found["machine"]["error"]
    assert all(part["checks"][0]["rows"][0]["value"] == 1.0 for part in found.values())
    assert [check["state"] for check in found["correctness"]["checks"]] == ["passed", "stopped", "not reached"]
    assert [check["state"] for check in found["speed"]["checks"]] == ["passed", "passed", "not reached"]
    assert record.failed and "machine: its process ended" in record.to_text()
    assert alive(tmp_path) == []


def test_parallel_parts_may_end_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one part is ended, other parts report that they are done or reach their own time limit."""
    child = CHILD.replace('part == "correctness"', 'part in ("correctness", "compiled")').replace(
        'report(event="done")', "time.sleep(3.0)" + chr(10) + 'report(event="done")'
    )
    (tmp_path / "fake_child.py").write_text(child)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ["correctness", "compiled", "study", "cohort"]
    monkeypatch.setattr("gpucheck.runner.SHARES", dict.fromkeys(names, 0.1))
    record = Record(tmp_path / NAME, {}, {name: ["one", "two", "three"] for name in names})
    Runner(settings_of(tmp_path, 30.0), record, lambda text: None, child="fake_child").run([names])
    found = {part["name"]: part["state"] for part in read(tmp_path)["parts"]}
    assert found["correctness"] == found["compiled"] == "stopped"
    assert {found["study"], found["cohort"]} <= {"stopped", "done"}
    assert all(part["checks"][0]["state"] == "passed" for part in read(tmp_path)["parts"])
    assert alive(tmp_path) == []


def test_parts_not_reached_in_time_are_named(tmp_path: Path) -> None:
    record = Record(tmp_path / NAME, {}, {"machine": ["limits"]})
    Runner(settings_of(tmp_path, 1.0), record, lambda text: None).run([["machine"]])
    assert not record.failed and record.empty
    assert "machine, limits: its part was not reached" in record.to_text()


def test_a_process_ends_with_an_ancestor_that_is_not_its_parent(tmp_path: Path) -> None:
    """Like a worker of torchrun, which has its own session, after its part was killed."""
    ancestor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    program = "import sys, time; from gpucheck import lifetime; lifetime.end_with_the_parent(int(sys.argv[1])); "
    worker = subprocess.Popen(
        [sys.executable, "-c", program + "print('ready', flush=True); time.sleep(60)", str(ancestor.pid)],
        stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, "PYTHONPATH": str(TOOL.parent)},
    )  # fmt: skip
    assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
    assert worker.poll() is None
    ancestor.kill()
    ancestor.wait()
    assert worker.wait(timeout=30) == -signal.SIGKILL


def test_the_table_names_what_failed_what_missed_its_goal_and_what_was_not_reached(tmp_path: Path) -> None:
    record = Record(tmp_path / NAME, {"command": "c"}, {"correctness": ["a", "b"], "speed": ["c", "d"]})
    for part, check, state, error in (
        ("correctness", "a", "failed", "Traceback\nValueError: why"), ("correctness", "b", "passed", ""),
        ("speed", "c", "missed", ""),
    ):  # fmt: skip
        record.take(part, {"event": "begin", "check": check})
        record.take(part, {"event": "row", "check": check, "row": results.to_json(row_of(3.0, at_most=2.0))})
        record.take(part, {"event": "end", "check": check, "state": state, "error": error, "seconds": 1.0})
    record.end("speed", "stopped", 9.0)
    failed, _, rest = record.to_text().partition("Failed:")[2].partition("Goals missed:")
    missed, _, unreached = rest.partition("Not reached:")
    assert "correctness, a: Traceback" in failed and "ValueError: why" in failed
    assert "speed, c: w: 3 x, expected <= 2" in missed
    assert "speed, d: its part was stopped" in unreached
    assert "1 passed, 1 failed, 1 missed, 1 not reached" in record.to_text()
    assert record.failed


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = tmp_path / LOG
    log.write_text("begin" + "x" * 10_000 + "end")
    shorten_log(log, 1000)
    text = log.read_text()
    assert text.startswith("begin") and text.endswith("end") and "omitted" in text and len(text) < 1100


def test_every_part_is_in_a_stage_and_every_check_has_its_own_name() -> None:
    assert [part for stage in STAGES for part in stage] == list(PARTS) == list(SHARES)
    names = [check.name for checks in PARTS.values() for check in checks]
    assert len(set(names)) == len(names) and set(names) > GPU_ONLY
