"""The check of the GPU code: complete on a CPU, killed at any moment, and its checks fail on errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu_check
import pytest
from gpucheck.parts import PARTS
from gpucheck.record import NAME
from gpucheck.runner import LAST
from gpucheck.settings import LOG
from helpers.gpu_checks import GPU_ONLY, TOOL, alive, read

from dvtplan.core.files import exclusive_lock


def command(out: Path, *options: object) -> list[str]:
    fixed = ["--device", "cpu", "--scale", "tiny", "--out", out]
    return [sys.executable, str(TOOL), *map(str, [*fixed, *options])]


def states(record: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for part in record["parts"] for check in part["checks"]}


def test_all_parts_run_on_a_cpu(tmp_path: Path) -> None:
    """A slow machine may not reach every check, but no check may fail.

    The last part trains until the time is over, so it has tests of its own.
    """
    parts = [part for part in PARTS if part != LAST]
    options = ("--minutes", 2, "--parts", *parts)
    done = subprocess.run(command(tmp_path / "x", *options), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read(tmp_path / "x")
    assert [part["name"] for part in record["parts"]] == parts
    found = states(record)
    assert {name for name, state in found.items() if state == "no GPU"} <= GPU_ONLY
    assert not any(found[name] in ("passed", "missed") for name in GPU_ONLY)
    assert set(found.values()) <= {"passed", "missed", "no GPU", "not reached", "stopped"}
    assert {found[name] for name in ("limits", "focal loss", "augmentation")} == {"passed"}
    assert record["machine"]["versions"]["torch"] and record["minutes"] == 2
    files = list((tmp_path / "x").iterdir())
    assert len(files) <= 8 and all(file.stat().st_size < 15e6 for file in files)
    text = (tmp_path / "x" / LOG).read_text(encoding="utf-8")
    assert "Not reached:" in done.stdout and done.stdout.strip().splitlines()[-1] in text
    assert "Failed: nothing." in done.stdout


def test_the_last_part_alone_has_no_cohort_and_reaches_nothing(tmp_path: Path) -> None:
    options = ("--minutes", 1, "--parts", LAST)
    done = subprocess.run(command(tmp_path, *options), capture_output=True, text=True, check=False)
    (part,) = read(tmp_path)["parts"]
    assert done.returncode == 1 and part["state"] == "done"
    assert {check["state"] for check in part["checks"]} == {"not reached"}
    assert "cohort was not ready" in done.stdout


def started(out: Path) -> subprocess.Popen[str]:
    """Start a check and return it when a result is on disk and a part is running."""
    process = subprocess.Popen(command(out, "--minutes", 2), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if (out / NAME).exists() and states(read(out))["limits"] == "passed" and alive(out):
            return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError("no result came")


def test_a_killed_check_leaves_its_results_and_no_process(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.kill()
    process.wait()
    record = read(tmp_path)
    assert states(record)["limits"] == "passed" and record["machine"]["cores"]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and alive(tmp_path):
        time.sleep(0.2)
    assert alive(tmp_path) == []


def test_a_check_that_is_stopped_prints_its_results(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "matrix product" in text and "Not reached:" in text
    assert "stopped" in {part["state"] for part in read(tmp_path)["parts"]}
    assert alive(tmp_path) == []


@pytest.mark.parametrize("minutes", ["0", "many", "-1", "nan"])
def test_minutes_are_a_number_in_range(tmp_path: Path, capsys: pytest.CaptureFixture[str], minutes: str) -> None:
    with pytest.raises(SystemExit) as caught:
        gpu_check.main(["--out", str(tmp_path / "x"), "--minutes", minutes])
    assert caught.value.code == 2 and f"'{minutes}'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_gpu_that_is_not_there_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--out", str(tmp_path / "x"), "--device", "cuda"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    (tmp_path / NAME).write_text("{}")
    assert gpu_check.main(["--out", str(tmp_path), "--device", "cpu"]) == 1
    assert "thesis.docx" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {"thesis.docx", NAME}


def test_a_second_check_does_not_touch_the_results_of_one_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).write_text("{}")
    with exclusive_lock(tmp_path):
        assert gpu_check.main(["--out", str(tmp_path), "--device", "cpu"]) == 1
    assert str(tmp_path) in capsys.readouterr().err and (tmp_path / NAME).read_text() == "{}"


def test_an_output_that_is_a_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("of the user")
    for out in (tmp_path / "x", tmp_path / "x" / "sub"):
        assert gpu_check.main(["--out", str(out), "--device", "cpu"]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "x").read_text() == "of the user"


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "SimpleITK.py").write_text("raise ModuleNotFoundError(name='SimpleITK')")
    done = subprocess.run(
        [sys.executable, TOOL, "--out", tmp_path / "x"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "SimpleITK" in done.stderr and "gpu_check.md" in done.stderr
