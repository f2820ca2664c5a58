"""Loading of trained folds as one model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.models import Bright, model_of
from helpers.predictions import mask_of, write
from helpers.refusals import refused

from dvtplan.core import json_records
from dvtplan.core.digests import files_digest
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace
from dvtplan.inference.model import load_model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.predict import predict_path
from dvtplan.models import checkpoint, devices, speed_trial, weight_files
from dvtplan.models.postprocessing import Postprocessing
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan


def test_trained_folds_predict_together_as_the_mean_of_each(trained_once: Workspace, tmp_path: Path) -> None:
    results = trained_once.results("gn_unet")
    image = write(tmp_path / "scan.nii.gz")
    probabilities = {}
    for folds in ((0,), (1,), None):
        model = load_model(results, folds=folds, setup=devices.choose("cpu"))
        assert model.folds == (folds or (0, 1)) and model.classes == {"thrombus": 1}
        predict_path(image, tmp_path / "mask.nii.gz", model, PredictOptions(overwrite=True, save_probabilities=True))
        probabilities[folds] = mask_of(tmp_path / "mask_probability_thrombus.nii.gz")
    assert np.abs(probabilities[(0,)] - probabilities[(1,)]).max() > 0.01
    np.testing.assert_allclose(probabilities[None], (probabilities[(0,)] + probabilities[(1,)]) / 2, atol=1e-6)


def test_every_change_of_a_model_changes_its_digest(trained: Workspace) -> None:
    results = trained.results("gn_unet")
    digests = {load_model(results, folds=folds).digest for folds in ((0,), (1,), (0, 1))}
    with (trained.fold("gn_unet", 0).checkpoint).open("ab") as file:
        file.write(b"\0")
    digests.add(files_digest((trained.fold("gn_unet", 0).checkpoint,)))
    assert len(digests) == 4


def test_a_folder_without_a_trained_fold_is_refused(tmp_path: Path) -> None:
    assert "no trained fold" in refused(lambda: load_model(tmp_path))
    (tmp_path / "fold_0").mkdir()
    assert "no trained fold" in refused(lambda: load_model(tmp_path))
    assert "missing: not found" in refused(lambda: load_model(tmp_path / "missing"))


def test_folds_that_are_not_trained_are_refused(trained_once: Workspace) -> None:
    message = refused(lambda: load_model(trained_once.results("gn_unet"), folds=[0, 5]))
    assert "the folds 0, 1, not 5" in message


def change_recipe(workspace: Workspace, fold: int, **changes: object) -> None:
    """Change the recipe in the record of a training."""
    path = workspace.fold("gn_unet", fold).run
    record = json.loads(path.read_text())
    record["recipe"] |= changes
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("changes", [{"patch": "16x32"}, {"mirror": True}])
def test_folds_that_see_slices_otherwise_are_refused(trained: Workspace, changes: dict[str, object]) -> None:
    change_recipe(trained, 1, **changes)
    message = refused(lambda: load_model(trained.results("gn_unet")))
    assert "fold_1" in message and "sees slices otherwise" in message
    assert load_model(trained.results("gn_unet"), folds=[1]).tile == (16, 32) or "mirror" in changes


def test_the_trial_is_as_large_as_a_slice_also_for_tiles(trained: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single tile is so small that there would be no trial, and all tiles in float32."""
    shapes = []
    monkeypatch.setattr(speed_trial, "fastest_for_prediction", lambda *what: [shapes.append(what[2]), what[3]][1])
    change_recipe(trained, 0, patch="16x32")
    assert load_model(trained.results("gn_unet"), folds=[0]).tile == (16, 32) and shapes == [(32, 32)]


def test_mirrored_slices_are_another_model_and_refused_where_they_are_no_images(trained: Workspace) -> None:
    """The toy data set has coronal slices, and its plan mirrors."""
    folder = trained.results("gn_unet")
    plain, mirrored = (load_model(folder, mirror=mirror) for mirror in (None, True))
    assert plain.mirror is None and mirrored.mirror == (0,) and plain.digest != mirrored.digest
    for fold in (0, 1):
        change_recipe(trained, fold, mirror=True)
    assert load_model(folder).digest == mirrored.digest and load_model(folder, mirror=False).digest == plain.digest
    plan = json.loads((folder / "plan.json").read_text())
    plan["variants"] = [variant for variant in plan["variants"] if not variant["mirror"]]
    (folder / "plan.json").write_text(json.dumps(plan))
    digest = json_records.digest(json_records.load(Plan, folder / "plan.json", "test"))
    for fold in (0, 1):
        path = trained.fold("gn_unet", fold).run
        path.write_text(json.dumps(json.loads(path.read_text()) | {"plan_digest": digest}))
    assert load_model(folder).mirror is None
    assert "`mirror=True`" in refused(lambda: load_model(folder, mirror=True))


@pytest.mark.parametrize("mirror", [True, False])
def test_a_loaded_model_that_mirrors_otherwise_is_refused(tmp_path: Path, plan: Plan, mirror: bool) -> None:
    """Its masks would be recorded as what they are not."""
    model = replace(model_of(plan, Bright()), mirror=None if mirror else (0,))
    image = write(tmp_path / "scan.nii.gz")
    for told in (None, not mirror):
        predict_path(image, tmp_path / f"{told}.nii.gz", model, PredictOptions(mirror=told))
    message = refused(lambda: predict_path(image, tmp_path / "no.nii.gz", model, PredictOptions(mirror=mirror)))
    assert f"`mirror={mirror}`" in message and not (tmp_path / "no.nii.gz").exists()


def test_a_rule_that_was_chosen_with_other_mirroring_is_told(
    trained: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained.results("gn_unet")
    load_model(folder, mirror=True)
    assert "mirrored slices" not in capsys.readouterr().err  # the rule is plain
    chosen = Postprocessing(
        threshold=0.3, smallest_component_mm3=0.0, patients=1, plain_score=0.5, score=0.6,
        weights=weight_files.weights_digest(checkpoint.weights(trained.fold("gn_unet", 0).checkpoint)),
    )  # fmt: skip
    json_records.save(chosen, trained.fold("gn_unet", 0).postprocessing)
    for mirror, told in ((None, False), (False, False), (True, True)):
        load_model(folder, mirror=mirror)
        assert ("without mirrored slices" in capsys.readouterr().err) is told


def test_folds_of_another_plan_or_of_other_classes_are_refused(trained: Workspace) -> None:
    results = trained.results("gn_unet")
    run = trained.fold("gn_unet", 1).run
    body = json.loads(run.read_text())
    run.write_text(json.dumps({**body, "classes": {"lesion": 1}}))
    assert "predicts other classes than fold 0" in refused(lambda: load_model(results))
    run.write_text(json.dumps({**body, "plan_digest": "other"}))
    assert "was trained by another plan" in refused(lambda: load_model(results))


def test_weights_that_do_not_fit_their_record_are_refused(trained: Workspace) -> None:
    run = trained.fold("gn_unet", 0).run
    body = json.loads(run.read_text())
    run.write_text(json.dumps({**body, "recipe": {**body["recipe"], "width": 8}}))
    assert "do not fit this network" in refused(lambda: load_model(trained.results("gn_unet")))


def test_only_cases_that_the_folds_were_trained_on_count(trained_once: Workspace) -> None:
    splits = json_records.load(Splits, trained_once.splits, "test")
    for folds in ((0,), (0, 1)):
        training = load_model(trained_once.results("gn_unet"), folds=folds, setup=devices.choose("cpu")).training
        assert training is not None
        assert training.cases == len({c for k in folds for c in splits.folds[k].train})


def test_a_fingerprint_of_other_data_is_not_used(trained: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained.results_fingerprint("gn_unet")
    whole = json_records.load(Fingerprint, path, "test")
    json_records.save(replace(whole, cases=whole.cases[:2]), path)
    assert load_model(trained.results("gn_unet"), setup=devices.choose("cpu")).training is None
    assert f"warning: {path}: describes other data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "dataset", "phantom"),
    [(True, "DVT", True), (False, "Phantomas", False), (None, "MyPhantom", True), (None, "DVT", False)],
)
def test_a_model_of_phantoms_is_known(
    trained_once: Workspace, plan: Plan, message: bool | None, dataset: str, phantom: bool
) -> None:
    known = load_model(trained_once.results("gn_unet"), setup=devices.choose("cpu")).training
    assert known is not None
    model = replace(model_of(replace(plan, dataset=dataset), Bright()), training=replace(known, phantom=message))
    assert model.is_phantom == phantom == model.identity.phantom


@pytest.mark.parametrize(("words", "phantom"), [("Synthetic: legs.", True), ("Legs of 2019.", False)])
def test_the_description_of_the_data_set_stays_with_the_model(trained: Workspace, words: str, phantom: bool) -> None:
    described = trained.results_description("gn_unet")
    described.write_text(json.dumps(json.loads(described.read_text()) | {"description": words}))
    training = load_model(trained.results("gn_unet"), setup=devices.choose("cpu")).training
    assert training is not None and training.phantom is phantom
