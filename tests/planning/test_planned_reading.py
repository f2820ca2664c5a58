"""A data set whose headers contradict themselves: refused, or planned and read ever after by one form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.preparation import edit_plan, run, stamps
from helpers.volumes import move_qform

from dvtplan.core.errors import DatasetProblems, DvtError
from dvtplan.core.worker_pool import over_cases
from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io
from dvtplan.planning import preprocessed_cases
from dvtplan.planning.planned_reading import read_as_planned


@pytest.fixture
def moved(place: Workspace) -> Workspace:
    """The qform of every file lies 100 mm to the right of its sform."""
    for path in place.raw.glob("*/*.nii.gz"):
        move_qform(path)
    return place


def test_without_trust_every_file_is_named_and_with_it_all_workers_read(moved: Workspace) -> None:
    with pytest.raises(DatasetProblems) as caught:
        run(moved.root, jobs=2)
    assert len(caught.value.problems) == 8
    assert all("lie up to 100 mm apart" in line and "`trust=sform`" in line for line in caught.value.problems)
    assert not moved.preprocessed.exists()
    assert run(moved.root, jobs=2, trust="sform").plan.trust == "sform"


def test_slices_of_another_trust_are_outdated(moved: Workspace) -> None:
    first = run(moved.root, trust="sform")
    before = stamps(moved)
    assert run(moved.root, trust="sform").plan == first.plan and stamps(moved) == before
    second = run(moved.root, trust="qform")
    assert second.plan.trust == "qform" and not set(stamps(moved).values()) & set(before.values())
    case = first.fingerprint.cases[0]
    assert not preprocessed_cases.is_current(moved.preprocessed_case(case.id), first.plan, case.source_digest)


def test_an_edited_plan_keeps_its_edit_and_takes_the_trust(moved: Workspace) -> None:
    run(moved.root, trust="sform")
    edit_plan(moved, target_shape=[48, 48])
    made = run(moved.root, trust="qform")
    assert (made.plan.target_shape, made.plan.trust) == ((48, 48), "qform")


@read_as_planned
def place_of_label(workspace: Workspace | Path | str, case: str, jobs: int) -> float:
    """Return x of a label's first voxel, read in two processes."""
    assert isinstance(workspace, Workspace)
    path = workspace.raw / "labelsTr" / f"{case}.nii.gz"
    first, second = over_cases(volume_io.read_grid, [path, path], [case, case], title="Read", jobs=jobs)
    assert first == second
    return first.origin_mm[0]


def test_later_stages_read_as_planned(moved: Workspace) -> None:
    with pytest.raises(DvtError, match="trust=sform"):
        place_of_label(moved, "a", jobs=1)
    run(moved.root, trust="sform")
    by_sform = place_of_label(moved, "a", jobs=2)
    run(moved.root, trust="qform")
    np.testing.assert_allclose(place_of_label(moved.root, "a", jobs=1), by_sform - 100)  # RAS and LPS


def test_a_workspace_may_be_given_by_name(place: Workspace) -> None:
    run(place.root)
    assert place_of_label(workspace=place.root, case="a", jobs=1) == place_of_label(place, "a", 1)
