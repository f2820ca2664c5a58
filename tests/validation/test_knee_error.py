"""Errors of estimated knees and levels of phantoms."""

from __future__ import annotations

from pathlib import Path

import knee_error
import pytest
from phantom.cohort import Design, make_cohort
from validation.knee_error import KneeErrors, summarize


def test_a_phantom_s_knees_are_found_and_its_thighs_and_calves_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within a voxel of the coarse scale, and the level within what a leg's size makes of it."""
    make_cohort(tmp_path, Design(scale="small", cases=1, seed=4), dataset="Phantom")
    assert knee_error.main(["--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "error in mm     n  median  95 %  worst   bias"
    assert lines[1].split()[:2] == ["knee", "2"] and float(lines[1].split()[4]) < 4.4
    assert lines[2].split()[:2] == ["level", "2"] and float(lines[2].split()[4]) < 12
    assert lines[4] == "declined: 0 of 2 limbs"
    assert lines[5:] == [f"{part} without a knee: wrong estimates in 0 of 2 limbs" for part in ("thighs", "calves")]


def test_errors_declined_limbs_and_guesses_are_summed() -> None:
    found = [
        KneeErrors(
            case_id="a",
            errors_mm={"knee": [-1.0, 3.0], "level": [-4.0, 2.0], "midline": [0.5]},
            declined=(),
            guesses={"thighs": 1, "calves": 0},
        ),
        KneeErrors(
            case_id="b",
            errors_mm={"knee": [-2.0], "level": [1.0], "midline": []},
            declined=("b left: no knee in view",),
            guesses={"thighs": 0, "calves": 0},
        ),
    ]
    assert summarize(found) == [
        "error in mm     n  median  95 %  worst   bias",
        "knee            3    2.0    2.9    3.0    0.0",
        "level           3    2.0    3.8    4.0   -0.3",
        "midline         1    0.5    0.5    0.5    0.5",
        "declined: 1 of 4 limbs",
        "thighs without a knee: wrong estimates in 1 of 4 limbs",
        "calves without a knee: wrong estimates in 0 of 4 limbs",
        "b left: no knee in view",
    ]


def test_a_folder_without_phantoms_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert knee_error.main(["--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"knee_error: {tmp_path / 'datasets_raw' / 'Phantom'}: ")
    assert error.endswith("tools/make_phantom.py.\n") and error.count("\n") == 1
