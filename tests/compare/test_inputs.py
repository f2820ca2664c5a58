"""What every method needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare import inputs
from helpers.comparisons import setup_of

from dvtplan.data.dataset import discover
from dvtplan.data.paths import Workspace


def test_a_data_set_is_planned_if_it_is_not(toy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []
    monkeypatch.setattr("dvtplan.planning.preprocess.plan_and_preprocess", lambda *place: planned.append(place))
    inputs.plan(toy)
    assert planned == []
    toy.splits.unlink()
    inputs.plan(toy)
    assert planned == [(toy.root, "Toy")]


def test_images_and_truth_of_the_test_cases_are_linked(toy: Workspace, tmp_path: Path) -> None:
    setup = setup_of(toy, tmp_path / "out")
    for _ in range(2):
        inputs.link_test(setup, discover(toy.raw))
    (first, *_) = setup.fold.test
    assert len(list(setup.test_images.iterdir())) == len(list(setup.test_labels.iterdir())) == len(setup.fold.test)
    assert (setup.test_labels / f"{first}.nii.gz").samefile(toy.raw / "labelsTr" / f"{first}.nii.gz")
