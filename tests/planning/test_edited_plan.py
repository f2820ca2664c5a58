"""A plan edited by hand is followed and reported, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.datasets import TINY_SPACING, tiny_image
from helpers.preparation import edit_plan, run, stamps, tiny_workspace
from helpers.processes import tree
from helpers.volumes import write_volume

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.planning import preprocessed_cases
from dvtplan.planning.plan import Plan


def test_an_edited_plan_is_kept_followed_and_reported(place: Workspace) -> None:
    run(place.root)
    edit_plan(place, target_shape=[48, 16], variants=[{"angle_deg": 0, "scale": 1, "mirror": False}])
    for _ in range(2):
        made = run(place.root)
        assert made.plan.target_shape == (48, 16)
        assert len(made.plan.variants) == 1
        assert made.plan.because["target_shape"].startswith("Edited by hand; the rule gave: The median slice")
        assert made.plan.because["slice_axis"].startswith("AP has the fewest voxels")
        (warning,) = made.warnings
        assert warning.startswith(f"{place.plan}: edited by hand") and "target_shape, variants" in warning
        assert "`replan=True`" in warning
        assert preprocessed_cases.arrays(place.preprocessed_case("a"))[0].shape == (3, 1, 48, 16)
        assert json_records.load(Plan, place.plan, "") == made.plan


def test_new_variants_alone_preprocess_nothing_again(place: Workspace) -> None:
    run(place.root)
    before = stamps(place)
    edit_plan(place, variants=[{"angle_deg": 0, "scale": 1, "mirror": False}])
    run(place.root)
    assert stamps(place) == before


def test_replan_undoes_every_edit(place: Workspace) -> None:
    derived = run(place.root).plan
    edit_plan(place, target_shape=[48, 16], slice_axis="SI")
    made = run(place.root, replan=True)
    assert (made.plan, made.warnings) == (derived, ())
    assert preprocessed_cases.arrays(place.preprocessed_case("a"))[0].shape == (3, 1, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_shape": [961, 345]}, "target_shape must be multiples of 16"),
        ({"target_shape": "960x320"}, "target_shape must be a list, not '960x320'"),
        ({"slice_axis": "coronal"}, "slice_axis must be one of LR, AP, SI, not 'coronal'"),
        ({"normalization": {"scope": "cohort"}}, "scope must be 'slice' or 'volume', not 'cohort'"),
        ({"variants": [{"angle_deg": 0, "scale": 0, "mirror": False}]}, "scale must lie in 0.1..10, not 0.0"),
        ({"colour": "red"}, r"unknown field colour \(known: because, channels"),
    ],
)
@pytest.mark.parametrize("verify_only", [False, True])
def test_an_edit_that_cannot_be_followed_names_file_and_field_and_changes_nothing(
    place: Workspace, change: dict[str, Any], message: str, verify_only: bool
) -> None:
    run(place.root)
    edit_plan(place, **change)
    before = tree(place.root)
    with pytest.raises(DvtError, match=message) as caught:
        run(place.root, verify_only=verify_only)
    assert str(caught.value).startswith(f"{place.plan}: ")
    assert "`plan_and_preprocess` with `replan=True`" in str(caught.value)
    assert tree(place.root) == before


@pytest.mark.parametrize("change", [{"labels": {"clot": 1}}, {"channels": ["MR", "T2"]}])
def test_labels_and_channels_of_a_plan_stay_those_of_the_data(place: Workspace, change: dict[str, Any]) -> None:
    run(place.root)
    edit_plan(place, **change)
    with pytest.raises(DvtError, match=r"labels and channels must .* dataset.json") as caught:
        run(place.root)
    assert str(caught.value).startswith(f"{place.plan}: ")


def test_an_edit_that_new_raw_data_replace_is_reported(place: Workspace) -> None:
    run(place.root)
    edit_plan(place, target_shape=[48, 16])
    write_volume(place.raw / "imagesTr" / "b_0000.nii.gz", tiny_image(9), TINY_SPACING)
    made = run(place.root)
    assert made.plan.target_shape == (32, 32)
    (warning,) = made.warnings
    assert warning.startswith(f"{place.plan}: ") and "because the raw data changed" in warning
    assert "target_shape" in warning


def test_a_plan_of_another_preset_is_derived_again_with_a_warning(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, ("a", "b"))
    run(tmp_path, preset="paper")
    (warning,) = run(tmp_path).warnings
    assert warning.startswith(f"{place.plan}: ") and "`preset=auto`" in warning
    assert "target_shape" in warning
