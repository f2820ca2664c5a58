"""Options that all commands have; fast help; invalid options."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import processes
from helpers.commands import COMMANDS

from dvtplan import __version__
from dvtplan.core import console
from dvtplan.data.paths import Workspace

HELP = """
import contextlib, io, sys
from dvtplan import cli
for main in (cli.import_dicom, cli.plan_and_preprocess, cli.train, cli.predict, cli.evaluate, cli.report, cli.model,
             cli.overview):
    sys.argv, out = ["dvt", "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as done:
        assert done.code == 0
    assert "example: dvt_" in out.getvalue() and "--" in out.getvalue()
print(*[name for name in ("torch", "SimpleITK", "pandas", "scipy", "matplotlib", "tqdm") if name in sys.modules])
"""


def test_help_of_every_command_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture
def verbosity(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The verbosity of this process, as a command that has not begun leaves it."""
    monkeypatch.setattr(console, "verbosity", {"quiet": False, "verbose": False})
    return console.verbosity


def test_quiet_leaves_results_and_errors(trained_once: Workspace, tmp_path: Path) -> None:
    """In a process of its own, so that no library writes to stderr either."""
    image = next((trained_once.raw / "imagesTr").glob("*_0000.nii.gz"))
    words = ("predict", "-i", image, "-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet"))
    done = processes.command(*words, "--device", "cpu", "-q")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(tmp_path / "mask.nii.gz"), "")
    done = processes.command(
        "predict", "-i", tmp_path / "none", "-o", tmp_path, "--model", trained_once.results("gn_unet"), "-q"
    )
    assert done.returncode == 1 and "not found" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("word", "expected"), [("-q", "quiet"), ("--quiet", "quiet"), ("-v", "verbose"), ("--verbose", "verbose")]
)
def test_both_spellings_set_the_verbosity(
    word: str, expected: str, verbosity: dict[str, bool], call: Callable[..., Any], tmp_path: Path
) -> None:
    call("evaluate", "--root", tmp_path, word)
    assert [name for name, value in verbosity.items() if value] == [expected]


def test_verbose_prints_timings_and_tracebacks(
    trained_once: Workspace,
    tmp_path: Path,
    verbosity: dict[str, bool],
    call: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = next((trained_once.raw / "imagesTr").glob("*_0000.nii.gz"))
    words = ("-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet"), "--device", "cpu", "-v")
    assert call("predict", "-i", image, *words) == 0 and verbosity["verbose"]
    assert "s reading, " in capsys.readouterr().err
    assert call("predict", "-i", tmp_path / "none", *words).endswith("as --input.")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_version_is_printed(call: Callable[..., Any], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--version") == 0
    assert capsys.readouterr().out == f"dvtplan {__version__}\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("plan_and_preprocess", ["--fold", "3"]),
        ("plan_and_preprocess", ["--preset", "papre"]),
        ("plan_and_preprocess", ["--seed", "-1"]),
        ("import", ["-i", "export", "-o", "out"]),
        ("import", ["-o", "out", "--channels", "T1"]),
        ("import", ["-i", "export", "-o", "out", "--channels", "T1", "--patient-by", "name"]),
        ("train", []),
        ("train", ["0", "--epoch", "3"]),
        ("train", ["0", "--epochs", "0"]),
        ("train", ["0", "--epochs", "many"]),
        ("train", ["0", "--gpus", "0"]),
        ("train", ["0", "--batch-size", "large"]),
        ("train", ["0", "--workers", "-1"]),
        ("train", ["0", "--resume", "--overwrite"]),
        ("train", ["0", "--recipe", "slow"]),
        ("train", ["0", "--precision", "fp16"]),
        ("predict", ["-i", "a.nii.gz"]),
        ("predict", ["-i", "in", "-o", "out", "--model", "m", "--part", "3/2"]),
        ("predict", ["-i", "in", "-o", "out", "--model", "m", "--part", "0/2"]),
        ("predict", ["-i", "in", "-o", "out", "--model", "m", "--extra-formats", "rtstruct"]),
        ("evaluate", ["--split", "proximal/proximal"]),
        ("evaluate", ["--reference", "there"]),
        ("evaluate", ["--region-rule", "height"]),
        ("model", []),
        ("model", ["import"]),
        ("model", ["export", "results", "a.zip", "--fold", "0"]),
        ("model", ["export", "results", "a.zip", "--folds", "x"]),
        ("plan_and_preprocess", ["--folds", "x"]),
        ("train", ["0", "--learning-rate", "x"]),
        ("predict", ["-i", "in", "-o", "out", "--model", "m", "--folds", "-1"]),
        ("report", ["--folds", "x"]),
    ],
)
def test_an_invalid_option_is_refused_with_status_2(
    call: Callable[..., Any], command: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, *words) == 2
    message = capsys.readouterr().err
    assert f"dvt_{command}" in message and ": error: " in message
    assert "invalid int" not in message and "invalid float" not in message  # argparse's own words explain nothing
