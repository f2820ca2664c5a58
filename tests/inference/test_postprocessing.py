"""A mask rule decides the mask, and everything that is measured on it; probabilities stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.models import model_of
from helpers.predictions import CORONAL, Constant, mask_of, picture, read_findings, write

from dvtplan.findings import patient_text
from dvtplan.findings.options import FindingsOptions
from dvtplan.inference.model import Model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.postprocessing import decide, smallest_voxels, without_small_components
from dvtplan.inference.predict import predict_path
from dvtplan.models.postprocessing import MaskRule
from dvtplan.planning.plan import Plan

DOT_MM3 = 4 * 4 * 1000 * CORONAL.voxel_ml
"""Volume of the small bright dot of the picture, about."""


def voxels(*probabilities: tuple[float, ...]) -> np.ndarray:
    """Return probabilities (1, classes, 1, voxels)."""
    return np.array(probabilities, np.float32).T[None, :, None, :]


@pytest.mark.parametrize(
    ("threshold", "expected"), [(None, [0, 0, 1, 1]), (0.5, [0, 0, 1, 1]), (0.3, [0, 1, 1, 1]), (0.75, [0, 0, 0, 1])]
)
def test_one_class_is_segmented_from_the_threshold_on(threshold: float | None, expected: list[int]) -> None:
    assert decide(voxels((0.2,), (0.4,), (0.5,), (0.8,)), threshold).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("threshold", "expected"), [(None, [0, 0, 1, 2]), (0.5, [0, 1, 1, 2]), (0.3, [1, 1, 1, 2]), (0.75, [0, 0, 0, 2])]
)
def test_of_several_classes_the_threshold_is_of_their_sum_and_the_most_probable_wins(
    threshold: float | None, expected: list[int]
) -> None:
    """The second voxel: background .42 is the most probable, but thrombus of any kind has .58."""
    probability = voxels((0.2, 0.15), (0.3, 0.28), (0.6, 0.1), (0.3, 0.6))
    assert decide(probability, threshold).ravel().tolist() == expected


def test_a_component_is_measured_in_mm3_on_an_anisotropic_grid() -> None:
    voxel = 5.0 * 2.25 * 1.75
    assert [smallest_voxels(k * voxel, CORONAL) for k in (0, 0.5, 1, 1.01, 3, 3.2)] == [1, 1, 1, 2, 3, 4]


def test_small_components_are_removed_and_corners_connect() -> None:
    mask = np.zeros((4, 6, 6), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 2  # one component of two voxels, by a corner
    mask[2, 3:5, 3:5] = 1
    mask[3, 0, 5] = 1
    for smallest, left in ((1, 7), (2, 6), (3, 4), (5, 0)):
        cleaned = without_small_components(mask, smallest)
        assert np.count_nonzero(cleaned) == left and not (cleaned[cleaned > 0] - mask[cleaned > 0]).any()
    assert np.count_nonzero(mask) == 7


def predicted(folder: Path, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Predict the picture with its findings; return the mask and the probabilities."""
    out = folder / "mask.nii.gz"
    options = PredictOptions(overwrite=True, save_probabilities=True)
    predict_path(write(folder / "scan.nii.gz"), out, model, options, FindingsOptions(record=True))
    return mask_of(out), mask_of(folder / f"mask_probability_{next(iter(model.classes))}.nii.gz")


def test_a_rule_changes_mask_and_findings_but_no_probability(tmp_path: Path, bright: Model) -> None:
    plain, probability = predicted(tmp_path, bright)
    before = read_findings(tmp_path / "mask_findings.json")
    small = replace(bright, rule=MaskRule(smallest_component_mm3=3 * DOT_MM3))
    cleaned, same = predicted(tmp_path, small)
    found = read_findings(tmp_path / "mask_findings.json")
    assert np.array_equal(probability, same) and plain[4, 26, 5] and not cleaned[4].any()
    assert np.array_equal(cleaned[1:4], plain[1:4]) and cleaned.any()
    assert (len(before.lesions), len(found.lesions)) == (2, 1) and found.volume_ml < before.volume_ml
    assert found.model.smallest_component_mm3 == pytest.approx(3 * DOT_MM3) and found.model.threshold is None
    lower, _ = predicted(tmp_path, replace(bright, rule=MaskRule(threshold=0.2)))
    assert lower.sum() > plain.sum() and np.array_equal(lower, (probability >= 0.2).astype(np.uint8))
    assert read_findings(tmp_path / "mask_findings.json").model.threshold == 0.2


def test_folds_vote_by_the_threshold_of_the_model(tmp_path: Path, plan: Plan) -> None:
    """Of probabilities .9 and .3 both segment from .25 on, and one from .5 on."""
    model = model_of(plan, Constant(0.9), Constant(0.3))
    for threshold, agreement in ((None, 0.5), (0.25, 1.0)):
        predicted(tmp_path, replace(model, rule=MaskRule(threshold=threshold)))
        (lesion,) = read_findings(tmp_path / "mask_findings.json").lesions
        assert lesion.agreement_mean == pytest.approx(agreement)


def test_values_of_classes_are_kept_when_components_are_removed(tmp_path: Path, plan: Plan) -> None:
    model = model_of(plan, Constant(0.3, 0.3, 0.4), classes={"a": 3, "b": 7})
    rule = MaskRule(threshold=0.6, smallest_component_mm3=10.0)
    assert set(np.unique(predicted(tmp_path, replace(model, rule=rule))[0])) == {7}
    assert not predicted(tmp_path, replace(model, rule=replace(rule, threshold=0.75)))[0].any()


def test_a_scan_smaller_than_the_smallest_component_has_an_empty_mask_and_says_why(
    tmp_path: Path, bright: Model
) -> None:
    plain, _ = predicted(tmp_path, bright)
    before = read_findings(tmp_path / "mask_findings.json")
    assert before.removed == ()
    rule = MaskRule(smallest_component_mm3=1000.0 * CORONAL.voxel_ml * picture().size * 2)
    assert not predicted(tmp_path, replace(bright, rule=rule))[0].any()
    found = read_findings(tmp_path / "mask_findings.json")
    assert found.volume_ml == 0 and found.sub_threshold_ml == before.sub_threshold_ml
    removed_ml = np.count_nonzero(plain) * CORONAL.voxel_ml  # nothing that was segmented is lost without a word
    assert sum(one.volume_ml for one in found.removed) == pytest.approx(removed_ml)
    assert sum(one.components for one in found.removed) == 2
    limb = found.removed[0].limb
    for text in (patient_text.in_numbers(found), patient_text.limb_empty(found, limb)):
        assert "Removed" in text and "mm³" in text
    assert "Removed" not in patient_text.in_numbers(replace(found, removed=()))


def test_the_rule_and_a_missing_choice_are_told(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted(tmp_path, bright)
    assert "Masks:" not in capsys.readouterr().err
    predicted(tmp_path, replace(bright, rule=MaskRule(threshold=0.3), unchosen=(2,)))
    told = capsys.readouterr().err
    assert "threshold 0.3" in told and "fold 2 held out patients" in told and "`predict_fold`" in told


def test_of_an_archive_without_a_choice_a_new_export_is_asked_for(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has neither patients nor a checkpoint, so the choice cannot be made with it."""
    (tmp_path / "a.zip").touch()
    predicted(tmp_path, replace(bright, unchosen=(2,), path=tmp_path / "a.zip"))
    told = capsys.readouterr().err
    assert "fold 2" in told and "new export" in told and "predict_fold" not in told
