"""Scores of one case and region, from masks on disk; masks that cannot be scored."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.films import EMPTY, FILM, PREDICTIONS, TWO_LABELS, film, make, prediction, put, score

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.evaluate import evaluate, evaluate_folders
from dvtplan.imaging import volume_io


def test_workers_load_neither_tables_nor_what_no_mask_needs() -> None:
    """Every worker process would wait for them."""
    code = "import sys, dvtplan.evaluation.case_scores; print(sorted({'pandas', 'SimpleITK'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# --- what is measured -----------------------------------------------------------------------------


def test_surfaces_lesions_and_volumes_are_measured_per_case_and_region(workspace: Workspace) -> None:
    rows = score(workspace, region_rule="level").rows.set_index(["case_id", "region"])
    # Case c proximal: truth is two voxels, both predicted, and one more 10 mm below: distances 0 0, 0 0 10.
    row = rows.loc[("c", "proximal")]
    assert (row["assd_mm"], row["hd95_mm"], row["surface_dice"]) == pytest.approx((10 / 5, 9.0, 4 / 5))
    assert (row["iou"], row["volume_difference_ml"], row["volume_difference_percent"]) == pytest.approx(
        (2 / 3, 0.5, 50)
    )
    assert (row["true_lesions"], row["detected_lesions_from_0.5_ml"], row["true_positive_lesions"]) == (1, 1, 1)
    # Case a proximal: one of four voxels is missed, 5 mm from the others.
    row = rows.loc[("a", "proximal")]
    assert (row["assd_mm"], row["hd95_mm"], row["surface_dice"]) == pytest.approx((5 / 7, 4.25, 6 / 7))


def test_volumes_are_in_millilitres(workspace: Workspace) -> None:
    row = score(workspace, region_rule="level").rows.set_index(["case_id", "region"]).loc[("c", "all")]
    assert (row["truth_ml"], row["predicted_ml"], row["false_positive_ml"]) == pytest.approx((1.5, 2.0, 0.5))


def test_a_thrombus_across_the_level_is_a_lesion_of_each_region_and_one_of_all(workspace: Workspace) -> None:
    rows = score(workspace, region_rule="level").rows.set_index(["case_id", "region"])
    lesions = rows.loc["a", ["true_lesions", "detected_lesions", "predicted_lesions", "true_positive_lesions"]]
    assert lesions.to_numpy().tolist() == [[1, 1, 1, 1]] * 3
    assert rows.loc[("a", "all"), "true_lesions_from_2_ml"] == 1  # 3 mL, of which 2 are proximal
    assert rows.loc[("a", "distal"), "true_lesions_from_0.5_ml"] == 1


def test_a_lesion_predicted_as_another_region_is_missed_there_and_false_here(tmp_path: Path) -> None:
    rows = evaluate(make(tmp_path, predicted=TWO_LABELS), "unet").rows.set_index(["case_id", "region"])
    assert rows.loc[("c", "distal"), "lesion_sensitivity"] == 0  # its only voxel is predicted as proximal
    assert rows.loc[("c", "proximal"), "false_positive_lesions"] == 1
    assert rows.loc[("c", "all"), "lesion_sensitivity"] == 1


def test_a_case_without_truth_has_false_positive_lesions_and_no_scores(workspace: Workspace) -> None:
    row = score(workspace, region_rule="level").rows.set_index(["case_id", "region"]).loc[("d", "all")]
    assert (row["false_positive_lesions"], row["volume_difference_ml"]) == pytest.approx((1, 0.5))
    without = ["iou", "volume_difference_percent", "assd_mm", "hd95_mm", "surface_dice", "lesion_f1"]
    assert row[without].isna().all()


def test_a_case_with_nothing_at_all_is_measured_too(workspace: Workspace) -> None:
    put(prediction(workspace, "d"), EMPTY)
    row = score(workspace, region_rule="level").rows.set_index(["case_id", "region"]).loc[("d", "all")]
    assert (row["predicted_lesions"], row["volume_difference_ml"]) == (0, 0)
    assert np.isnan(row["surface_dice"])


# --- what is refused ------------------------------------------------------------------------------


def test_a_prediction_that_is_a_slice_off_is_refused_with_the_distance(workspace: Workspace) -> None:
    put(prediction(workspace, "c"), PREDICTIONS["c"], replace(FILM, origin_mm=(0.0, 10.0, 30.0)))
    with pytest.raises(DvtError, match=r"c.nii.gz: is up to 10 mm away from .*c.nii.gz"):
        evaluate(workspace, "unet")


def test_a_prediction_of_another_shape_is_refused(workspace: Workspace) -> None:
    put(prediction(workspace, "c"), ".... .... ....", replace(FILM, shape=(1, 3, 4)))
    with pytest.raises(DvtError, match=r"shape \(4, 3, 1\) differs from .* \(4, 4, 1\)"):
        evaluate(workspace, "unet")


@pytest.mark.parametrize("rows", ["3... .... .... ....", "1... 2... ...7 ...."])
def test_a_value_without_a_label_is_refused(tmp_path: Path, rows: str) -> None:
    workspace = make(tmp_path, predicted=TWO_LABELS)
    put(prediction(workspace, "c"), rows)
    with pytest.raises(DvtError, match=r"c.nii.gz: contains [37]; expected 0, 1, 2"):
        evaluate(workspace, "unet")


def test_a_truth_with_an_unknown_value_is_refused(workspace: Workspace) -> None:
    put(workspace.raw / "labelsTr" / "c.nii.gz", "5... .... .... ....")
    with pytest.raises(DvtError, match=r"labelsTr/c.nii.gz: contains 5; expected 0, 1, 2"):
        evaluate(workspace, "unet")


def test_probabilities_are_not_taken_for_a_mask(folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    volume_io.write_probabilities(theirs / "c.nii.gz", film(PREDICTIONS["c"]) * np.float32(0.25), FILM)
    with pytest.raises(DvtError, match=r"contains 0.25; expected whole numbers from 0"):
        evaluate_folders(labels, theirs, out, prediction_values="lesion")


@pytest.mark.parametrize("which", ["truth", "prediction"])
def test_a_mask_whose_header_names_its_values_otherwise_is_refused(tmp_path: Path, which: str) -> None:
    """As of a model whose labels are numbered in the other order, or a segmentation of 3D Slicer."""
    workspace = make(tmp_path, predicted=TWO_LABELS)
    path = workspace.raw / "labelsTr" / "c.nii.gz" if which == "truth" else prediction(workspace, "c")
    mask, grid = volume_io.read(path)
    volume_io.write_mask(path, mask, grid, names={"proximal": 1, "distal": 2})
    assert len(evaluate(workspace, "unet").rows) > 0
    volume_io.write_mask(path, mask, grid, names={"distal": 1, "proximal": 2})
    with pytest.raises(DvtError, match=r"c.nii.gz: its header names the values 1 distal"):
        evaluate(workspace, "unet")
