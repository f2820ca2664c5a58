"""OpenMP's settings: how threads wait, how many there are, and that PyTorch's library reads them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dvtplan
from dvtplan.cli import runner
from dvtplan.core import threads, worker_pool

SPINS = {"GOMP_SPINCOUNT": str(threads.SPINS)}


@pytest.fixture
def of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that sees eight cores and may use the time of two and a half."""
    monkeypatch.setattr(threads, "_visible_cores", lambda: 8)
    monkeypatch.setattr(threads, "container_limit", lambda: 2.5)


def cgroup(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root folder with the process's groups and the files of the groups."""
    for name, content in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def test_a_container_with_fewer_cores_than_it_sees_gets_as_many_threads(of_eight: None) -> None:
    assert threads.settings({}) == {**SPINS, "OMP_NUM_THREADS": "3"}
    assert threads.usable_cores() == 3 and worker_pool.available_cores() == 3


def test_without_a_limit_openmp_chooses_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_visible_cores", lambda: 8)
    for limit in (None, 8.0, 16.0):
        monkeypatch.setattr(threads, "container_limit", lambda limit=limit: limit)
        assert threads.settings({}) == SPINS
    monkeypatch.setattr(threads, "container_limit", lambda: 0.1)
    assert threads.usable_cores() == 1


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("OMP_WAIT_POLICY", {"OMP_NUM_THREADS": "3"}),
        ("GOMP_SPINCOUNT", {"OMP_NUM_THREADS": "3"}),
        ("OMP_NUM_THREADS", SPINS),  # also set by torchrun
        ("MKL_NUM_THREADS", SPINS),
    ],
)
def test_a_choice_of_the_user_stays(of_eight: None, name: str, left: dict[str, str]) -> None:
    assert threads.settings({name: "7"}) == left


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (  # the group above allows less
            "0::/pod/job",
            {"sys/fs/cgroup/pod/job/cpu.max": "400000 100000", "sys/fs/cgroup/pod/cpu.max": "200000 100000"},
            2.0,
        ),
        (  # version 1: the path is that of the host
            "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        ("1:cpu:/", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1"}, None),
        ("0::/../..", {"sys/fs/cgroup/cpu.max": "100000 100000"}, 1.0),
        ("0::/", {"sys/fs/cgroup/cpu.max": "what"}, None),
        ("what", {}, None),
        ("0::/", {}, None),
    ],
)
def test_the_limit_of_a_container_is_read(
    tmp_path: Path, groups: str, files: dict[str, str], limit: float | None
) -> None:
    assert threads.container_limit(cgroup(tmp_path, groups, files)) == limit


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert threads.container_limit(tmp_path) is None


def openmp_of_torch() -> Path | None:
    """PyTorch's own copy of GNU's OpenMP; found without loading PyTorch."""
    place = importlib.util.find_spec("torch")
    found = sorted((Path(place.origin).parent / "lib").glob("libgomp*")) if place and place.origin else []
    return found[0] if found else None


@pytest.mark.skipif(openmp_of_torch() is None, reason="PyTorch has no copy of GNU's OpenMP here")
def test_the_library_of_pytorch_reads_the_setting_of_its_own_process() -> None:
    program = "import ctypes; from dvtplan.core import threads; threads.prepare(); "
    program += f"ctypes.CDLL({str(openmp_of_torch())!r})"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": str(Path(dvtplan.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{threads.SPINS}'" in done.stderr


def test_the_first_use_of_the_library_prepares_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.WAITING:
        monkeypatch.setenv(name, "")  # restored afterwards, whatever the code does
        monkeypatch.delenv(name)
    assert issubclass(dvtplan.DvtError, Exception)
    assert os.environ["GOMP_SPINCOUNT"] == str(threads.SPINS)


def test_a_command_prepares_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.WAITING:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    seen: list[str | None] = []
    runner.command(lambda _: seen.append(os.environ.get("GOMP_SPINCOUNT")))()
    assert seen == [str(threads.SPINS)]
