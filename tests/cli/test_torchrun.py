"""Commands in several processes that torchrun starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import processes
from helpers.commands import start

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.models.training_run import Run

SMALL_TRAINING = ["--width", "4", "--norm-groups", "2", "--device", "cpu", "--workers", "0"]


def pair(command: str, *words: object) -> list[tuple[int, str, str]]:
    """Run two processes in torchrun's environment, as on two machines; return status, stdout and stderr of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    both = [start(command, *words, RANK=str(rank), **world) for rank in (0, 1)]
    try:
        said = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.send_signal(signal.SIGKILL)
    return [(process.returncode, *words) for process, words in zip(both, said, strict=True)]


def test_under_torchrun_the_processes_train_together_and_one_of_them_predicts(toy: Workspace) -> None:
    one, other = pair("train", "0", "--root", toy.root, "--epochs", "1", *SMALL_TRAINING)
    (status, out, err), (other_status, other_out, other_err) = one, other
    folder = toy.fold("gn_unet", 0)
    assert [status, other_status] == [0, 0], err + other_err
    assert out == f"{folder.path}\n" and other_out == ""
    assert "Trained 1 epoch" in err and "Trained" not in other_err
    assert '"processes": 2' in folder.run.read_text()
    assert len(list(folder.predictions.glob("c*.nii.gz"))) == 2


def test_under_torchrun_preprocessing_is_distributed(toy: Workspace) -> None:
    """Two processes write the same bytes as one; the second prints nothing."""
    alone = processes.tree(toy.preprocessed)
    shutil.rmtree(toy.preprocessed)
    (status, out, err), (other_status, other_out, other_err) = pair(
        "plan_and_preprocess", "--root", toy.root, "--folds", "2", "--jobs", "1"
    )
    assert [status, other_status] == [0, 0], err + other_err
    assert f"Preprocessed in {toy.preprocessed}" in out and other_out == ""
    assert processes.tree(toy.preprocessed) == alone
    for printed in (err, other_err):
        assert "Preprocess: 100%" in printed and "2/2" in printed


def test_under_torchrun_a_bad_case_is_reported_whichever_process_read_it(toy: Workspace) -> None:
    """The first process reports all of it, the other one line."""
    shutil.rmtree(toy.preprocessed)
    bad = toy.raw / "imagesTr" / "c1_0000.nii.gz"
    bad.write_bytes(b"no image")
    both = pair("plan_and_preprocess", "--root", toy.root, "--folds", "2", "--jobs", "1")
    assert [status for status, _, _ in both] == [1, 1]
    assert f"\n{bad}: " in both[0][2] and "1 problem found; nothing was written." in both[0][2]
    assert "(process 2 of 2): 1 problem found" in both[1][2] and str(bad) not in both[1][2]
    assert not toy.preprocessed.exists()


def test_under_torchrun_scans_are_distributed(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = ["-i", trained_once.raw / "imagesTr", "--model", trained_once.results("gn_unet"), "--device", "cpu"]
    both = pair("predict", *scans, "-o", tmp_path / "two")
    assert [status for status, _, _ in both] == [0, 0], both[0][2] + both[1][2]
    assert [sorted(Path(line).name[:2] for line in out.split()) for _, out, _ in both] == [["c0", "c2"], ["c1", "c3"]]
    assert sorted(p.name for p in (tmp_path / "two").glob("c*.nii.gz")) == [f"c{k}.nii.gz" for k in range(4)]
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert "--part and torchrun" in call("predict", *scans, "-o", tmp_path / "none", "--part", "1/2")
    assert not (tmp_path / "none").exists()


def child_of_rank(parent: int, rank: int) -> int | None:
    """Return the process that a launcher started for a rank."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            environment = (folder / "environ").read_bytes().split(b"\0")
            if int(fields[1]) == parent and f"RANK={rank}".encode() in environment:
                return int(folder.name)
    return None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find the worker")
def test_torchrun_resumes_from_the_last_checkpoint_after_a_worker_died(toy: Workspace) -> None:
    """The first process dies, which writes the files. The result is bit-identical to an uninterrupted training."""
    words = ["train", "0", "--root", str(toy.root), "--epochs", "8", *SMALL_TRAINING]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "--max-restarts", "1", "-m", "dvtplan.cli", *words]
    folder = toy.fold("gn_unet", 0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not folder.checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        victim = child_of_rank(process.pid, 0)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        try:
            said, _ = process.communicate(timeout=120)
        finally:
            process.terminate()
    assert process.returncode == 0, said
    assert "from the start" in said and "resumed after epoch" in said
    died = folder.checkpoint.read_bytes()
    assert json_records.load(Run, folder.run, "").epochs_done == 8
    straight = pair(*words, "--overwrite")
    assert [status for status, _, _ in straight] == [0, 0]
    assert folder.checkpoint.read_bytes() == died


@pytest.mark.parametrize("command", ["train 0", "plan_and_preprocess", "predict -i a -o b --model c"])
def test_variables_that_describe_no_group_are_one_line(
    toy_once: Workspace, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(toy_once.root)
    name, *words = command.split()
    for rank, world, fault in (("3", "2", "RANK=3"), ("x", "2", "RANK=x"), ("0", "2", "MASTER_ADDR")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world)
        if name == "predict" and fault == "MASTER_ADDR":
            continue  # its processes need not meet
        line = call(name, *words)
        assert isinstance(line, str) and line.startswith(f"dvt_{name}: {fault}") and "\n" not in line
