"""Threshold and smallest component are chosen on held-out patients, and belong to the weights they were chosen with."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.models import Bright, model_of
from helpers.predictions import CORONAL, picture, write
from helpers.refusals import refused
from helpers.trainings import CPU, TINY, link, load_run

from dvtplan.core import json_records
from dvtplan.data.dataset import Case
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.evaluate import evaluate
from dvtplan.imaging import volume_io
from dvtplan.inference import choose_postprocessing as module
from dvtplan.inference.choose_postprocessing import (
    MasksByThreshold,
    PatientCounts,
    best,
    choose,
    choose_postprocessing,
    count_by_size,
)
from dvtplan.inference.model import load_model
from dvtplan.inference.network_pass import OpenedCase
from dvtplan.inference.postprocessing import decide, without_small_components
from dvtplan.inference.predict import predict_fold
from dvtplan.models import checkpoint, devices, weight_files
from dvtplan.models.postprocessing import PLAIN, MaskRule, read_postprocessing
from dvtplan.planning.plan import Plan
from dvtplan.training.train import train_fold

HALF = replace(TINY, batch_size=1, held_out=0.5)
VOXEL_MM3 = 1000 * CORONAL.voxel_ml

# --- counts and scores ----------------------------------------------------------------------------


def test_counts_by_size_are_those_of_the_cleaned_masks() -> None:
    random = np.random.default_rng(0)
    truth, mask = (random.choice(3, (6, 9, 8), p=(0.8, 0.1, 0.1)).astype(np.uint8) for _ in range(2))
    smallest = (1, 2, 5, 1000)
    for size, table in zip(smallest, count_by_size(truth, mask, 2, smallest), strict=True):
        cleaned = without_small_components(mask, size)
        pairs = np.bincount((truth.astype(int) * 3 + cleaned).ravel(), minlength=9).reshape(3, 3)
        pairs[0, 0] = 0
        assert np.array_equal(table, pairs)
    empty = count_by_size(truth, np.zeros_like(mask), 2, (1, 5))
    assert all(np.array_equal(table[:, 0], [0, (truth == 1).sum(), (truth == 2).sum()]) for table in empty)


def of_one_class(**tables: tuple[int, int, int]) -> PatientCounts:
    """Return a patient with (true positives, false positives, false negatives) by rule: 'plain', 't30', 's12'."""
    rules = {"plain": PLAIN, "t30": MaskRule(threshold=0.3), "s12": MaskRule(smallest_component_mm3=12.0)}
    patient = PatientCounts()
    for name, (tp, fp, fn) in tables.items():
        patient.add(rules[name], np.array([[0, fp], [fn, tp]]))
    return patient


def test_the_rule_with_the_best_mean_over_patients_is_chosen() -> None:
    """DSC by the plain rule .5 and .8, by the threshold .9 and .6."""
    patients = [of_one_class(plain=(5, 5, 5), t30=(9, 1, 1)), of_one_class(plain=(8, 2, 2), t30=(6, 4, 4))]
    chosen = best(patients, "w")
    assert (chosen.threshold, chosen.smallest_component_mm3, chosen.patients, chosen.weights) == (0.3, 0.0, 2, "w")
    assert (chosen.plain_score, chosen.score) == (pytest.approx(0.65), pytest.approx(0.75))


def test_of_equal_rules_the_plain_one_is_chosen() -> None:
    chosen = best([of_one_class(plain=(5, 1, 1), t30=(5, 1, 1), s12=(5, 1, 1))], "")
    assert chosen.rule == PLAIN and chosen.score == chosen.plain_score


def test_a_patient_without_thrombus_has_no_score_as_in_table_1() -> None:
    with_truth, without = of_one_class(plain=(5, 5, 5), t30=(6, 4, 4)), of_one_class(plain=(0, 0, 0), t30=(0, 9, 0))
    chosen = best([without, with_truth], "")
    assert chosen.threshold == 0.3 and chosen.patients == 1
    nobody = best([without], "")
    assert nobody.rule == PLAIN and (nobody.patients, nobody.score, nobody.plain_score) == (0, None, None)


def test_cases_of_a_patient_are_pooled() -> None:
    patient = of_one_class(plain=(1, 0, 0))
    patient.add(PLAIN, np.array([[0, 4], [5, 0]]))
    assert patient.score(PLAIN) == pytest.approx(2 / 11)


def test_the_score_of_several_classes_is_the_mean_of_the_whole_and_of_the_classes_with_truth() -> None:
    patient = PatientCounts()
    patient.add(PLAIN, np.array([[0, 2, 1], [1, 4, 3], [0, 0, 0]]))  # no truth of the second class
    assert patient.score(PLAIN) == pytest.approx((2 * 7 / (8 + 10) + 2 * 4 / (8 + 6)) / 2)
    patient.add(PLAIN, np.array([[0, 0, 0], [0, 0, 0], [0, 0, 6]]))
    classes = (2 * 4 / (8 + 6) + 2 * 6 / (6 + 10)) / 2
    assert patient.score(PLAIN) == pytest.approx((2 * 13 / (14 + 16) + classes) / 2)


def opened_of(shape: tuple[int, int, int]) -> OpenedCase:
    """Return a case of this shape, of which nothing else is known."""
    return SimpleNamespace(slice_grid=replace(CORONAL, shape=shape))  # type: ignore[return-value]


def test_masks_by_threshold_take_three_bytes_a_voxel_while_they_are_made(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = np.full((1, 1, 32, 32), 0.9, np.float32)
    monkeypatch.setattr(module.network_pass, "probabilities", lambda *_: ((block, None) for _ in range(256)))
    opened, model = opened_of((256, 32, 32)), model_of(plan, Bright())
    tracemalloc.start()
    try:
        masks = MasksByThreshold.predict(opened, model)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert masks.plain_SHW.all() and most < 4 * masks.plain_SHW.size


@pytest.mark.parametrize("classes", [1, 3])
def test_masks_by_threshold_are_those_of_the_rule(plan: Plan, monkeypatch: pytest.MonkeyPatch, classes: int) -> None:
    """Also of probabilities that are a threshold, as float32 and summed."""
    random = np.random.default_rng(0)
    probability = random.dirichlet(np.ones(classes + 1), (5, 6, 7))[..., 1:].astype(np.float32).transpose(0, 3, 1, 2)
    probability[0, 0].flat[:13] = np.array(module.RISING, np.float32)
    probability[0, 1:] = 0
    blocks = ((probability[start : start + 2], None) for start in (0, 2, 4))
    monkeypatch.setattr(module.network_pass, "probabilities", lambda *_: blocks)
    model = model_of(plan, Bright(), classes={str(k): k for k in range(1, classes + 1)})
    masks = MasksByThreshold.predict(opened_of((5, 6, 7)), model)
    for threshold in module.THRESHOLDS:
        expected = decide(probability, threshold)
        assert expected.any() and np.array_equal(masks.at(threshold, (slice(None),) * 3), expected)


# --- the choice on made-up probabilities ----------------------------------------------------------


def made_up(*, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return truth (S, H, W) and probabilities (S, classes, H, W): a lesion of .36, and four false voxels of .9."""
    truth = np.zeros(CORONAL.shape, np.uint8)
    truth[1:4, 5:15, 20:29] = 1
    probability = np.zeros((CORONAL.shape[0], classes, *CORONAL.shape[1:]), np.float32)
    probability[:, 0][truth > 0] = 0.36 / classes
    if classes > 1:
        truth[1:4, 5:8] *= 2
        probability[:, 1][truth > 0] = 0.36 / classes
        probability[:, 1][truth == 2] += 0.01
        probability[:, 0][truth == 1] += 0.01
    probability[4, 0, 25:27, 4:6] = 0.9
    return truth, probability


@pytest.mark.parametrize("classes", [1, 2])
def test_a_low_threshold_and_a_smallest_component_are_found(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    truth, probability = made_up(classes=classes)
    write(tmp_path / "a.nii.gz", picture())
    volume_io.write_mask(tmp_path / "label.nii.gz", truth, CORONAL)

    def blocks(*_: object) -> Iterator[tuple[np.ndarray, None]]:
        yield from ((probability[start : start + 4], None) for start in (0, 4))

    monkeypatch.setattr(module.network_pass, "probabilities", blocks)
    case = Case(id="a", patient="a", images=(tmp_path / "a.nii.gz",), label=tmp_path / "label.nii.gz")
    names = {"a": 3, "b": 7} if classes > 1 else {"thrombus": 1}
    plan = replace(plan, labels={"a": 1, "b": 2}) if classes > 1 else plan
    chosen = choose(model_of(plan, Bright(), classes=names), [case], tmp_path, "w")
    # .35 is the nearest to .5 of the thresholds below .36, and six voxels the least that four are below.
    assert chosen.threshold == 0.35
    assert chosen.smallest_component_mm3 == pytest.approx(6 * VOXEL_MM3, rel=0.01)
    assert chosen.score == pytest.approx(1.0) and chosen.plain_score is not None and chosen.plain_score < 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz", "label.nii.gz"}


def test_smallest_components_are_some_voxels_and_never_larger_than_half_a_millilitre(tmp_path: Path) -> None:
    for factor, voxels in ((0.01, [0, 3, 6, 12, 25, 50]), (1.0, [0, 3, 6, 12, 25]), (8.0, [0, 3])):
        spacing = (CORONAL.spacing_mm[0] * factor, *CORONAL.spacing_mm[1:])
        path = write(tmp_path / "a.nii.gz", grid=replace(CORONAL, spacing_mm=spacing))
        sizes = module._sizes_mm3([Case(id="a", patient="a", images=(path,))])
        assert sizes == pytest.approx([n * factor * VOXEL_MM3 for n in voxels], rel=0.01)


# --- trained folds --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held_once(toy_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Fold 0 of the toy, trained on one patient with one held out, and predicted. Read it; never write to it."""
    workspace = link(toy_once, tmp_path_factory.mktemp("held"))
    train_fold(workspace, 0, recipe=HALF, options=CPU)
    predict_fold(workspace, "gn_unet", 0, setup=devices.choose("cpu"))
    return workspace


@pytest.fixture
def held(held_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of ``held_once`` whose results may be written to."""
    shutil.copytree(held_once.root / "results", tmp_path / "results")
    return link(held_once, tmp_path)


def test_a_prediction_of_a_fold_chooses_once_and_follows_the_choice(held: Workspace) -> None:
    folder = held.fold("gn_unet", 0)
    chosen = read_postprocessing(folder.postprocessing)
    assert chosen is not None and chosen.patients == 1
    model = load_model(held.results("gn_unet"), setup=devices.choose("cpu"))
    assert model.rule == chosen.rule and model.unchosen == ()
    before = {path: path.stat().st_mtime_ns for path in (folder.postprocessing, *folder.predictions.iterdir())}
    predict_fold(held, "gn_unet", 0, setup=devices.choose("cpu"))
    assert choose_postprocessing(held, "gn_unet", 0, setup=devices.choose("cpu")) == chosen
    assert before[folder.postprocessing] == folder.postprocessing.stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns == when for path, when in before.items() if path.name.endswith(".nii.gz"))
    assert {path.name for path in folder.predictions.glob("*.nii.gz")} == {
        f"{case}.nii.gz" for case in load_run(folder).test
    }


def test_the_evaluation_scores_the_test_patients_alone(held: Workspace) -> None:
    rows = evaluate(held, "gn_unet", folds=[0]).rows
    assert set(rows["case_id"]) == set(load_run(held.fold("gn_unet", 0)).test)


def test_without_the_choice_masks_are_plain_and_the_model_says_so(held: Workspace) -> None:
    held.fold("gn_unet", 0).postprocessing.unlink()
    model = load_model(held.results("gn_unet"), setup=devices.choose("cpu"))
    assert model.rule == PLAIN and model.unchosen == (0,)


def test_the_checkpoint_is_read_once_to_choose(held: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the digest in the record is of the weights that predicted."""
    held.fold("gn_unet", 0).postprocessing.unlink()
    read, load = [], checkpoint._load
    monkeypatch.setattr(checkpoint, "_load", lambda path, **how: (read.append(path), load(path, **how))[1])
    chosen = choose_postprocessing(held, "gn_unet", 0, setup=devices.choose("cpu"))
    assert chosen is not None and len(read) == 1
    assert chosen.weights == weight_files.weights_digest(checkpoint.weights(held.fold("gn_unet", 0).checkpoint))


def test_a_choice_for_other_weights_is_never_applied(held: Workspace) -> None:
    path = held.fold("gn_unet", 0).postprocessing
    chosen = read_postprocessing(path)
    assert chosen is not None
    json_records.save(replace(chosen, weights="of another training"), path)
    for use in (
        lambda: load_model(held.results("gn_unet"), setup=devices.choose("cpu")),
        lambda: predict_fold(held, "gn_unet", 0, setup=devices.choose("cpu")),
    ):
        assert str(path) in refused(use)


def test_more_epochs_and_a_new_training_remove_the_choice(held: Workspace) -> None:
    path = held.fold("gn_unet", 0).postprocessing
    train_fold(held, 0, epochs=5, options=replace(CPU, resume=True))
    assert not path.exists()
    assert choose_postprocessing(held, "gn_unet", 0, setup=devices.choose("cpu")) is not None and path.exists()
    train_fold(held, 0, recipe=replace(TINY, epochs=1), options=replace(CPU, overwrite=True))
    assert not path.exists() and choose_postprocessing(held, "gn_unet", 0) is None


def test_a_held_out_patient_that_was_trained_on_is_refused(held: Workspace) -> None:
    folder = held.fold("gn_unet", 0)
    folder.postprocessing.unlink()
    run = load_run(folder)
    json_records.save(replace(run, train=run.used), folder.run)
    message = refused(lambda: choose_postprocessing(held, "gn_unet", 0, setup=devices.choose("cpu")))
    assert str(folder.run) in message and run.held_out[0] in message and not folder.postprocessing.exists()


def test_a_held_out_case_that_is_tested_is_refused(held: Workspace) -> None:
    folder = held.fold("gn_unet", 0)
    run = load_run(folder)
    json_records.save(replace(run, held_out=run.test[:1]), folder.run)
    assert run.test[0] in refused(lambda: predict_fold(held, "gn_unet", 0, setup=devices.choose("cpu")))
    assert run.test[0] in refused(lambda: evaluate(held, "gn_unet", folds=[0]))
