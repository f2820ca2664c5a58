"""Jobs side by side: each on its core, a failure alone, an interrupt ends all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ablation_study import schedule
from compare.settings import first_cores
from compare.stages import Planned, Work
from helpers.processes import interrupted_when_started


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.01)


def work(folder: Path, job: str, *commands: str) -> Work[object]:
    """Run shell commands one after the other."""
    for number, text in enumerate(commands):
        record = folder / job / f"{number}.json"
        yield Planned(title=job, record=record, command=["sh", "-c", text], variables={})
    return None


def test_each_job_runs_its_commands_in_order_and_a_failed_one_alone_stops(tmp_path: Path) -> None:
    texts = {"a": ["true", f"echo a > {tmp_path}/a.txt"], "b": ["echo no memory; exit 4", "true"], "c": ["true"]}
    done: list[str] = []
    failed = schedule.run(
        list(texts), first_cores(1, "--jobs"), lambda job: work(tmp_path, job, *texts[job]), done.append
    )
    assert done == ["a", "c"] and list(failed) == ["b"] and "status 4 (no memory)" in failed["b"]
    assert (tmp_path / "a.txt").exists() and not (tmp_path / "b" / "1.json").exists()


def test_finished_commands_are_not_repeated(tmp_path: Path) -> None:
    command = f"echo x >> {tmp_path}/trace"
    for _ in range(2):
        assert schedule.run(["a"], first_cores(1, "--jobs"), lambda job: work(tmp_path, job, command), print) == {}
    assert (tmp_path / "trace").read_text() == "x\n"


def test_an_error_of_any_kind_stops_one_job(tmp_path: Path) -> None:
    def start(job: str) -> Work[object]:
        yield from work(tmp_path, job, "true")
        if job == "a":
            raise ZeroDivisionError("a mistake")
        return None

    def done(job: str) -> None:
        if job == "b":
            raise OSError("the disk is full")

    failed = schedule.run(["a", "b", "c"], first_cores(1, "--jobs"), start, done)
    assert failed == {"a": "a mistake", "b": "the disk is full"}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not pin processes")
def test_jobs_run_at_the_same_time_each_on_one_core(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("one core")
    # Each waits for the other one, so they end only if both run.
    text = "grep Cpus_allowed_list /proc/self/status > {0}/{1}.txt; while [ ! -e {0}/{2}.txt ]; do sleep 0.02; done"
    others = {"a": "b", "b": "a"}
    failed = schedule.run(
        ["a", "b"], cores, lambda job: work(tmp_path, job, text.format(tmp_path, job, others[job])), lambda _: None
    )
    assert failed == {}
    used = {(tmp_path / f"{job}.txt").read_text().split()[-1] for job in others}
    assert used == set(map(str, cores)) and os.sched_getaffinity(0) >= set(cores)


def test_an_interrupt_ends_all_commands(tmp_path: Path) -> None:
    started = tmp_path / "started"
    text = interrupted_when_started(started)
    with pytest.raises(KeyboardInterrupt):
        schedule.run(["a"], first_cores(1, "--jobs"), lambda job: work(tmp_path, job, text), print)
    assert subprocess.run(["kill", "-0", started.read_text().strip()], capture_output=True).returncode
