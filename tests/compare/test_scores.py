"""The same score for every method, and paired tests against the first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from compare import scores
from helpers.comparisons import rows, setup_of, splits_of

from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import discover
from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io


def test_differences_are_the_method_minus_the_reference() -> None:
    found = scores.compare(
        {
            "nnU-Net 2D": [rows([1, 2, 3, 4, 5, 6])],
            "paper": [rows([3, 4, 5, 6, 7, 8])],
            "other": [rows([1, 2, 3, 4, 5, 7])],
        },
        ["nnU-Net 2D"],
        "labels",
        "by-label",
    )
    assert found.dsc["nnU-Net 2D"]["all"].mean == pytest.approx(0.35)
    assert found.dsc["paper"]["all"].mean == pytest.approx(0.55)
    paper, other = found.tests
    assert (paper.method, paper.region, paper.difference.n) == ("paper", "all", 6)
    assert paper.difference.estimate == pytest.approx(0.2)
    assert paper.difference.p == pytest.approx(0.0143, abs=1e-4)  # ties, so the normal approximation
    assert other.difference.zeros == 5 and other.p_holm == 1
    assert paper.p_holm == pytest.approx(2 * paper.difference.p)


def test_the_best_reference_is_taken() -> None:
    all_rows = {"small": [rows([1, 2, 3])], "large": [rows([4, 5, 6])], "paper": [rows([5, 6, 7])]}
    found = scores.compare(all_rows, ["small", "large"], "labels", "by-label")
    assert found.reference == "large" and [test.method for test in found.tests] == ["paper"]
    assert found.tests[0].difference.estimate == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("values", "rule", "best"),
    [("labels", "by-label. Text", "apart"), ("lesion", "by-label. Text", "union"), ("labels", "level. Text", "union")],
)
def test_the_labels_choose_the_reference_where_they_are_scored_as_predicted(values: str, rule: str, best: str) -> None:
    """One batch size finds the union, and confuses the labels; the other one tells them apart."""
    union = pd.concat([rows([2, 2], "anterior"), rows([2, 2], "posterior"), rows([9, 9])])
    apart = pd.concat([rows([7, 7], "anterior"), rows([6, 6], "posterior"), rows([8, 8])])
    found = scores.compare({"union": [union], "apart": [apart]}, ["union", "apart"], values, rule)
    assert found.reference == best


def test_a_single_region_chooses_the_reference() -> None:
    found = scores.compare({"a": [rows([1])], "b": [rows([2])]}, ["a", "b"], "labels", "by-label. Text")
    assert found.reference == "b"


def test_the_mean_over_the_runs_of_a_patient_comes_first() -> None:
    several = {"nnU-Net 2D": [rows([1, 2]), rows([3, 4])], "paper": [rows([4, 4]), rows([4, 6]), rows([4, 5])]}
    found = scores.compare(several, ["nnU-Net 2D"], "labels", "by-label")
    assert found.by_run["nnU-Net 2D"]["all"] == pytest.approx((0.15, 0.35))
    assert found.dsc["paper"]["all"].n == 2 and found.dsc["paper"]["all"].mean == pytest.approx(0.45)
    assert found.dsc["paper"]["all"].maximum == pytest.approx(0.5)  # not .6, that of one run
    assert found.tests[0].difference.n == 2 and found.tests[0].difference.estimate == pytest.approx(0.2)


def test_without_a_reference_there_is_no_test() -> None:
    found = scores.compare({"paper": [rows([1, 2])]}, ["nnU-Net 2D"], "labels", "by-label")
    assert (found.reference, found.tests) == ("", ()) and found.dsc["paper"]["all"].n == 2


def test_a_reference_that_is_not_finished_is_passed_over() -> None:
    found = scores.compare({"large": [rows([1])], "paper": [rows([2])]}, ["small", "large"], "labels", "by-label")
    assert found.reference == "large" and [test.method for test in found.tests] == ["paper"]


def test_patients_without_truth_in_a_region_do_not_count() -> None:
    both = pd.concat([rows([5, 5]), rows([5], "distal", truth=0)])
    found = scores.compare({"a": [both], "b": [both]}, ["a"], "labels", "by-label")
    assert list(found.dsc["a"]) == ["all"] and found.dsc["a"]["all"].n == 2


def test_regions_keep_their_order_where_the_first_patient_lacks_one() -> None:
    first = pd.concat([rows([5], "distal", truth=0), rows([5])])
    second = pd.concat([rows([5], "distal"), rows([5])]).assign(patient_id="p9")
    both = pd.concat([first, second])
    assert list(scores.compare({"a": [both]}, ["a"], "labels", "by-label").dsc["a"]) == ["distal", "all"]


def test_other_patients_are_refused() -> None:
    with pytest.raises(DvtError, match="same patients"):
        scores.compare({"a": [rows([5, 5])], "b": [rows([5, 5]), rows([5])]}, ["a"], "labels", "by-label")


def test_where_one_predicts_the_union_no_label_counts(toy_once: Workspace, tmp_path: Path) -> None:
    setup = setup_of(toy_once, tmp_path)
    cases = {case.id: case for case in discover(toy_once.raw).cases}
    for name, labels in (("nnunet", {"background": 0, "thrombus": 1}), ("paper", {"background": 0, "lesion": 1})):
        for case in splits_of(toy_once).folds[0].test:
            label = cases[case].label or Path()
            mask, grid = volume_io.read(label)
            if name == "paper":
                mask[:3] = 0  # half of the slices
            volume_io.write_mask(setup.predictions(name) / f"{case}.nii.gz", mask.astype(np.uint8), grid)
            truth = setup.test_labels / f"{case}.nii.gz"
            truth.parent.mkdir(exist_ok=True)
            truth.unlink(missing_ok=True)
            truth.symlink_to(label.absolute())
        body = {"channel_names": {"0": "MR0"}, "labels": labels, "file_ending": ".nii.gz"}
        (setup.predictions(name) / "dataset.json").write_text(json.dumps(body))
    assert not scores.predicts_union(setup.predictions("nnunet")) and scores.predicts_union(setup.predictions("paper"))
    known: scores.Known = {}
    found = scores.score(setup, {"nnU-Net 2D": ["nnunet"], "paper": ["paper"]}, ["nnU-Net 2D"], known)
    assert found.values == "lesion" and set(known) == {("nnunet", "lesion"), ("paper", "lesion")}
    regions = list(found.dsc["paper"])
    assert found.dsc["nnU-Net 2D"][regions[0]].mean == 1.0 and 0.3 < found.dsc["paper"][regions[0]].mean < 0.9
    assert (tmp_path / "paper" / "scores" / "metrics.csv").exists()
