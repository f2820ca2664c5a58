"""A few hundred damaged scans, and the judge of their outcomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz_readers import main
from fuzzing import trial
from fuzzing.damage import BYTES, damage_tag
from fuzzing.sound_inputs import KINDS, truth
from fuzzing.trial import (
    CRASH,
    FAILURES,
    REFUSED,
    RIGHT,
    SHORT,
    UNCLEAR,
    Outcome,
    read_scan,
    reader_of,
    summarize,
    try_damaged,
)

from dvtplan.core.errors import DvtError
from dvtplan.imaging.geometry import Grid

DAMAGED = 40
"""Damaged scans of each kind."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_scan_is_right_or_refused(kind: str) -> None:
    outcomes = [try_damaged(kind, seed) for seed in range(DAMAGED)]
    assert [one.line for one in outcomes if one.verdict in FAILURES] == []
    assert sum(one.verdict == REFUSED for one in outcomes) > DAMAGED / 5


@pytest.mark.parametrize("kind", KINDS)
def test_sound_inputs_are_read_right(kind: str, tmp_path: Path) -> None:
    paths = KINDS[kind](tmp_path)
    is_folder = kind.startswith("dicom") and not kind.endswith("zip")
    array, grid = reader_of(kind)(tmp_path if is_folder else paths[0])
    assert np.array_equal(array, truth(kind))
    assert grid.spacing_mm == pytest.approx((3.0, 2.0, 1.5))
    assert grid.origin_mm == pytest.approx((-20.0, -10.0, 80.0))


@pytest.mark.parametrize("name", BYTES)
def test_damage_changes_the_file_and_is_repeatable(name: str) -> None:
    body = np.random.default_rng(3).bytes(800)
    changed = BYTES[name](body, 400, np.random.default_rng(1))
    assert changed != body
    assert changed == BYTES[name](body, 400, np.random.default_rng(1))


def test_damaged_tags_are_written(tmp_path: Path) -> None:
    paths = KINDS["dicom_series"](tmp_path)
    before = [path.read_bytes() for path in paths]
    told = [damage_tag([paths[k]], np.random.default_rng(k)) for k in range(len(paths))]
    assert all(line.startswith("1 files: ") for line in told) and len(set(told)) > 1
    assert sum(path.read_bytes() != body for path, body in zip(paths, before, strict=True)) == len(paths)


def _shorter(path: Path) -> tuple[np.ndarray, Grid]:
    array, grid = read_scan(path)
    return array[:-1], grid.window(np.zeros(3), (len(array) - 1, *array.shape[1:]))


def _crashing(path: Path) -> tuple[np.ndarray, Grid]:
    raise ZeroDivisionError(path)


def _mumbling(path: Path) -> tuple[np.ndarray, Grid]:
    raise DvtError("something is wrong")


@pytest.mark.parametrize(("reader", "verdict"), [(_shorter, SHORT), (_crashing, CRASH), (_mumbling, UNCLEAR)])
def test_a_faulty_reader_is_found(reader: trial.Reader, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "damage", lambda kind, paths, rng: "none")
    assert try_damaged("metaimage", 0, reader).verdict == verdict
    assert try_damaged("metaimage", 0).verdict == RIGHT


def test_a_summary_counts_verdicts_and_shows_failures() -> None:
    outcomes = [
        Outcome(kind="nifti", seed=k, damage="cut", verdict=verdict, message="why")
        for k, verdict in enumerate((RIGHT, REFUSED, REFUSED, CRASH))
    ]
    lines = summarize(outcomes)
    assert lines[0] == "nifti: 2 refused, 1 right, 1 TRACEBACK"
    assert lines[1].startswith("nifti 3: cut: TRACEBACK")
    assert lines[-1] == "4 damaged scans, 1 failures"


def test_the_command_repeats_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kinds", "nifti", "--first", "7", "--count", "2", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "nifti 7: " in out and "nifti 8: " in out and "2 damaged scans" in out
