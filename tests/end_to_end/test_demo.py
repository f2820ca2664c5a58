"""The script of the demo, with stand-ins that only record the commands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "demo.sh"
STAND_INS = """
for name in python dvt_plan_and_preprocess dvt_train dvt_predict dvt_evaluate dvt_report; do
    eval "$name() { echo \"$name \\$*\" >> commands; }"
done
"""


def demo(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script in a folder; return its outcome and the commands that it started."""
    (folder / "tools").mkdir(exist_ok=True)
    shutil.copy(SCRIPT, folder / "tools")
    (folder / "tools" / "environment.sh").write_text(STAND_INS)
    (folder / "commands").write_text("")
    script = ["bash", str(folder / "tools" / "demo.sh"), *words]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    return done, (folder / "commands").read_text().splitlines()


@pytest.mark.parametrize(("words", "minutes"), [([], "5"), (["2"], "2"), (["0.5"], "0.5")])
def test_every_command_runs_once_with_the_given_minutes(tmp_path: Path, words: list[str], minutes: str) -> None:
    done, commands = demo(tmp_path, *words)
    assert done.returncode == 0
    assert [c.split()[0].removeprefix("dvt_") for c in commands] == [
        "python", "plan_and_preprocess", "train", "predict", "evaluate", "report",
    ]  # fmt: skip
    assert f"--time-budget {minutes}m" in commands[2]


@pytest.mark.parametrize("words", [["x"], ["0"], ["0.0"], ["-1"], ["5m"], [""], ["1", "2"], ["--help"], ["1e3"]])
def test_an_invalid_number_of_minutes_is_refused_before_anything_starts(tmp_path: Path, words: list[str]) -> None:
    done, commands = demo(tmp_path, *words)
    assert done.returncode == 2 and commands == [] and done.stdout == ""
    assert done.stderr.startswith("demo.sh: expected how many minutes") and done.stderr.count("\n") == 1
    assert f"'{' '.join(words)}'" in done.stderr


def test_a_complete_phantom_is_kept_and_an_incomplete_one_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "datasets_raw" / "Phantom"
    folder.mkdir(parents=True)
    (folder / "cases.csv").touch()  # everything except the file that is written last
    assert "--overwrite" in demo(tmp_path)[1][0].split()
    (folder / "dataset.json").touch()
    assert not any(command.startswith("python") for command in demo(tmp_path)[1])
