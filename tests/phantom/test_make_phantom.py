"""The command that makes a phantom cohort: its flags, its refusals, its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import make_phantom
import pytest
from helpers.processes import assert_workers_end, python, tree
from make_phantom import main
from phantom import cohort
from phantom.cohort import EXTRAS, Design, make_cohort
from phantom.grid import SCALES

TOOL = Path(make_phantom.__file__)


def test_the_command_writes_the_same_files_as_the_function_and_prints_their_folder(tmp_path: Path) -> None:
    flags = ["--root", tmp_path / "a", "--cases", "1", "--seed", "5"]
    done = subprocess.run([sys.executable, TOOL, *map(str, flags)], check=True, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path / 'a' / 'datasets_raw' / 'Phantom'}\n"
    assert tree(tmp_path / "a") == tree(make_cohort(tmp_path / "b", Design(cases=1, seed=5)).parents[1])


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--dataset", "Legs-2.a"], {"dataset": "Legs-2.a"}),
        (["--scale", "half", "--cases", "3"], {"scale": "half", "cases": 3}),
        (["--seed", "12", "--jobs", "4"], {"seed": 12, "jobs": 4}),
        (["--difficulty", "hard", "--thrombus-off"], {"difficulty": "hard", "thrombus": False}),
        (["--extras", "truth", "rater2"], {"extras": ["truth", "rater2"]}),
        (["--overwrite"], {"overwrite": True}),
        (["--centres", "3"], {"centres": 3}),
    ],
)
def test_every_flag_reaches_the_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], options: dict[str, object]
) -> None:
    passed: dict[str, object] = {}

    def note(root: Path, design: Design, dataset: str, **how: object) -> Path:
        passed.update(root=root, dataset=dataset, **asdict(design), **how)
        return root

    monkeypatch.setattr(make_phantom, "make_cohort", note)
    assert main(["--root", str(tmp_path), *flags]) == 0
    defaults = {
        "root": tmp_path,
        "dataset": "Phantom",
        "scale": "tiny",
        "cases": None,
        "seed": 0,
        "difficulty": "default",
        "jobs": 1,
        "thrombus": True,
        "centres": 1,
        "extras": (),
        "overwrite": False,
    }
    assert passed == {**defaults, **options}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overwrite: bool
) -> None:
    folder = tmp_path / "datasets_raw" / "Phantom"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "imagesTr" / "leg_001_0000.nii.gz").write_bytes(b"a patient")
    flags = ["--overwrite"] if overwrite else []
    assert main(["--root", str(tmp_path), "--cases", "1", *flags]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("make_phantom: ")
    assert shown.err.count("\n") == 1 and str(folder) in shown.err
    assert tree(tmp_path) == {"datasets_raw/Phantom/imagesTr/leg_001_0000.nii.gz": b"a patient"}


def test_a_root_that_is_a_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    for root in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert main(["--root", str(root), "--cases", "1"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"make_phantom: {tmp_path / 'file'}: expected a folder, found a file. ")
        assert error.endswith("--root.\n") and error.count("\n") == 1


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(("limit", "file"), [(200_000, "imagesTr/leg_001_0000.nii.gz"), (500, "metadata/leg_00")])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path, jobs: str, limit: int, file: str) -> None:
    done = python([TOOL, "--root", tmp_path, "--cases", "2", "--jobs", jobs], file_limit=limit)
    assert done.returncode == 2 and done.stdout == ""
    *progress, line = done.stderr.splitlines()
    assert all(text.startswith("Phantom: ") for text in progress if text)
    assert line.startswith(f"make_phantom: {tmp_path / 'datasets_raw' / 'Phantom' / file}")
    assert ": cannot be written (File too large). Free space" in line and line.endswith("--root.")
    assert all(name.startswith("datasets_raw/Phantom/metadata/leg_") for name in tree(tmp_path))


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "datasets_raw").mkdir(mode=0o500)
    done = python([TOOL, "--root", tmp_path, "--cases", "1"], powerless=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"make_phantom: {tmp_path / 'datasets_raw'}: ") and "(Permission" in done.stderr


def test_an_interruption_is_one_line_that_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort, "_write_case", interrupt)
    assert main(["--root", str(tmp_path), "--cases", "2"]) == 130
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("make_phantom: interrupted") and "--overwrite" in line


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    assert_workers_end([TOOL, "--root", tmp_path, "--cases", "60", "--jobs", "2"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cases", "0"], "'0' is not a whole number of at least 1"),
        (["--cases", "1.5"], "'1.5' is not a whole number of at least 1"),
        (["--jobs", "x"], "'x' is not a whole number of at least 1"),
        (["--seed", "-1"], "--seed"),
        (["--scale", "huge"], "huge"),
        (["--difficulty", "fair"], "fair"),
        (["--extras", "mask"], "mask"),
        (["--extras"], "--extras"),
        (["--dataset", "../up"], "'../up' is not a folder name"),
        (["--dataset", ""], "'' is not a folder name"),
        (["--dataset", ".hidden"], "'.hidden' is not a folder name"),
        (["--threads", "2"], "--threads"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--root", str(tmp_path), *flags])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_root_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2 and "--root" in capsys.readouterr().err


def test_help_shows_the_choices_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(word in text for word in ("tiny", "paper", "easy", "hard", "example:", *EXTRAS))
    words = " ".join(text.split())
    for default in ("Phantom", "tiny", "default", "0", "1"):  # dataset, scale, difficulty, seed, jobs
        assert f"(default: {default})" in words
    assert all(f"{scale.cases} at {name}" in words for name, scale in SCALES.items())


def test_the_same_patients_without_clot(tmp_path: Path) -> None:
    flags = ["--root", str(tmp_path), "--cases", "1", "--dataset", "Well", "--thrombus-off", "--extras", "truth"]
    assert main(flags) == 0
    folder = tmp_path / "datasets_raw" / "Well"
    assert json.loads((folder / "metadata" / "leg_001.json").read_text())["lesions"] == []
    assert (folder / "truth" / "leg_001.nii.gz").exists()
