"""The command that checks a phantom cohort: its table, its JSON file, its refusals, its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import check_phantom
import pytest
import SimpleITK as sitk
from check_phantom import main
from helpers.cohort_checks import assert_one_line
from helpers.processes import assert_workers_end, python
from phantom import probes
from phantom.cohort import Design, make_cohort
from validation import cohort_check
from validation.cohort_check import check_cohort

TOOL = Path(check_phantom.__file__)


def test_command_prints_a_table_and_writes_json_without_nan(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    command = [sys.executable, TOOL, "--root", root, "--dataset", "Phantom", "--cases", "1", "--json", file]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Phantom: 1 cases, scale tiny, difficulty default")
    assert done.stdout.endswith("Every required row is met.\n")
    content = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert [row["probe"] for row in content["rows"]] == [row.probe for row in check_cohort(root, "Phantom", 1)[1]]
    assert set(content["cases"][0]["statistics"]) == set(probes.STATISTICS)


def test_a_cohort_with_centres_is_made_again_from_its_metadata(tmp_path: Path) -> None:
    make_cohort(tmp_path, Design(cases=2, seed=3, centres=2))
    results, rows = check_cohort(tmp_path, "Phantom")
    assert sorted(result.centre for result in results) == [1, 2]
    assert {row.verdict for row in rows if row.clause == "0"} == {"met"}
    assert not any(row.verdict == "NOT MET" for row in rows)


def test_failed_cases_are_named_below_the_table(copy: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for case in ("leg_001", "leg_003"):
        path = copy / "labelsTr" / f"{case}.nii.gz"
        label = sitk.ReadImage(path)
        label[0, 0, 0] = 2
        sitk.WriteImage(label, path)
    flags = ["--root", str(copy.parents[1]), "--cases", "3", "--json", str(tmp_path / "check.json")]
    assert main(flags) == 1
    _, below = capsys.readouterr().out.split("\n\nlabel is what its metadata make: ")
    assert below.splitlines() == ["leg_001, leg_003", "", "1 of the required rows are NOT MET."]
    rows = json.loads((tmp_path / "check.json").read_text())["rows"]
    assert [row["failed"] for row in rows if row["failed"]] == [["leg_001", "leg_003"]]


def test_a_json_file_that_cannot_be_written_is_refused_beforehand(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(root), "--json", str(tmp_path / "no" / "check.json")]) == 2
    assert_one_line(capsys, "check.json")


def test_a_folder_in_the_place_of_the_json_file_is_refused_beforehand(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_phantom, "check_cohort", lambda *given: pytest.fail("checked"))
    assert main(["--root", str(root), "--json", str(tmp_path)]) == 2
    assert_one_line(capsys, f"{tmp_path}: expected a file, found a folder")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert main(["--root", str(root), "--json", str(tmp_path / "check.json")]) == 2
    assert_one_line(capsys, "check.json: no permission to write")


def test_the_table_is_printed_even_if_the_json_file_fails_later(root: Path, tmp_path: Path) -> None:
    flags = ["--root", root, "--cases", "1", "--json", tmp_path / "check.json"]
    done = python([TOOL, *flags], file_limit=1000)
    assert done.returncode == 2 and done.stdout.endswith("Every required row is met.\n")
    assert "check.json: cannot be written (File too large). Free space" in done.stderr.splitlines()[-1]


def test_an_interruption_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort_check, "check_case", interrupt)
    assert main(["--root", str(root)]) == 130
    assert_one_line(capsys, "interrupted")


def test_processes_end_when_their_parent_is_killed(root: Path) -> None:
    assert_workers_end([TOOL, "--root", root, "--jobs", "2"])


@pytest.mark.parametrize("flags", [["--jobs", "0"], ["--cases", "x"], []])
def test_bad_options_are_refused(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*(["--root", str(tmp_path)] if flags else []), *flags])
    assert stop.value.code == 2
