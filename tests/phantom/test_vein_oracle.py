"""A cohort with the map of its veins as a second channel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import vein_oracle
from helpers.processes import tree
from phantom.cohort import Design, make_cohort

from dvtplan.data import dataset
from dvtplan.imaging import volume_io


def call(root: Path, *more: str) -> int:
    return vein_oracle.main(["--root", str(root), "--dataset", "Phantom", "--into", "Veins", *more])


def test_the_second_channel_marks_the_veins_on_the_grid_of_the_image(tmp_path: Path) -> None:
    source = make_cohort(tmp_path, Design(cases=2, seed=3), extras=("veins",))
    assert call(tmp_path) == 0
    found = dataset.discover(tmp_path / "datasets_raw" / "Veins")
    assert [len(case.images) for case in found.cases] == [2, 2]
    for case in found.cases:
        (first, grid), (second, same) = (volume_io.read(path) for path in case.images)
        veins, _ = volume_io.read(source / "veins" / f"{case.id}.nii.gz")
        assert grid == same and np.array_equal(second, veins > 0) and 0 < second.mean() < 0.05
        assert np.array_equal(first, volume_io.read(source / "imagesTr" / f"{case.id}_0000.nii.gz")[0])
    content = json.loads((found.folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CE-MR", "1": "veins"} and "second channel" in content["description"]
    assert [path.name for path in (tmp_path / "datasets_raw").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("lacking", "word"), [("veins", "--extras veins"), ("nothing", "already exists")])
def test_a_refusal_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lacking: str, word: str
) -> None:
    make_cohort(tmp_path, Design(cases=1), extras=() if lacking == "veins" else ("veins",))
    if lacking == "nothing":
        (tmp_path / "datasets_raw" / "Veins").mkdir()
    before = tree(tmp_path)
    capsys.readouterr()  # the bar of the cohort
    assert call(tmp_path) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("vein_oracle: ") and word in shown.err
    assert shown.err.count("\n") == 1 and tree(tmp_path) == before


def test_a_failed_write_leaves_no_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cohort(tmp_path, Design(cases=1), extras=("veins",))
    before = tree(tmp_path)

    def full(*what: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vein_oracle.volume_io, "write_image", full)
    assert call(tmp_path) == 2 and "No space left" in capsys.readouterr().err and tree(tmp_path) == before
