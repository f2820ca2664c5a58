"""Prediction: on the input's own grid whatever its orientation, resumable, and in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers.dicom_files import OBLIQUE, write_series
from helpers.dicom_files import read as read_dicom
from helpers.models import Bright, model_of
from torch import nn

from dvtplan.anatomy.knee import estimate
from dvtplan.anatomy.landmarks import Landmarks
from dvtplan.anatomy.levels import Levels
from dvtplan.core import digests as digests_module
from dvtplan.core import json_records
from dvtplan.core.digests import files_digest
from dvtplan.core.errors import DvtError
from dvtplan.core.files import TEMP_PREFIX
from dvtplan.data.dataset import Case
from dvtplan.data.folds import Splits
from dvtplan.data.mask_files import findings_path, levels_path, probability_path
from dvtplan.data.paths import Workspace
from dvtplan.data.prediction_log import Predicted, Prediction
from dvtplan.findings import burden
from dvtplan.findings import record as record_module
from dvtplan.findings.record import Findings
from dvtplan.findings.writer import FindingsBuilder, FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid
from dvtplan.inference import predict
from dvtplan.inference.inputs import find_cases
from dvtplan.inference.model import Model, load_model
from dvtplan.inference.predict import AnalysisFailed, predict_fold, predict_path
from dvtplan.inference.predict_case import predict_case
from dvtplan.models import devices
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan

CORONAL = Grid(
    shape=(6, 34, 33),
    spacing_mm=(5.0, 2.25, 1.75),
    origin_mm=(-31.5, -10.25, 66.125),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)


class Constant(nn.Module):
    """The same logits everywhere, chosen by the probabilities that they are to give."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        p = torch.tensor(probabilities)
        self.logits = torch.logit(p) if len(p) == 1 else torch.log(p)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = image_BCHW.shape
        return self.logits[None, :, None, None].expand(batch, -1, height, width)


@pytest.fixture
def plan(toy_once: Workspace) -> Plan:
    """Coronal slices as 32x32."""
    return json_records.load(Plan, toy_once.plan, "test")


@pytest.fixture
def bright(plan: Plan) -> Model:
    return model_of(plan, Bright())


def picture() -> np.ndarray:
    """Nothing in it is symmetric: a bright box and a brighter dot on a ramp."""
    s, h, w = np.meshgrid(*(np.arange(n) for n in CORONAL.shape), indexing="ij")
    image = 3.0 * s + 2.0 * h + 1.0 * w
    image[1:4, 5:15, 20:29] += 500.0
    image[4, 25:29, 4:8] += 700.0
    return image.astype(np.float32)


def write(path: Path, array: np.ndarray | None = None, grid: Grid = CORONAL) -> Path:
    volume_io.write_probabilities(path, picture() if array is None else array, grid)
    return path


def mask_of(path: Path) -> np.ndarray:
    return volume_io.read(path)[0]


def refused(act: Callable[[], object]) -> str:
    """The message of the refusal, which is one line."""
    with pytest.raises(DvtError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


# --- DICOM ----------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """The picture as a series of shuffled slices of whole numbers, seen obliquely."""
    write_series(tmp_path / "scan", picture().astype(np.uint16), plane=OBLIQUE)
    return tmp_path / "scan"


def assert_mask_of_scan(path: Path, scan: Path) -> None:
    """Bright where the picture is, but at the edges, and in the scan's place."""
    mask, where = volume_io.read(path)
    assert mask[1:4, 6:14, 21:28].all() and mask.sum() < 400
    assert np.abs(where.corners_mm() - read_dicom(scan)[1].corners_mm()).max() < 1e-4


def test_knees_are_looked_for_while_the_scan_is_open(scan: Path, tmp_path: Path, bright: Model) -> None:
    """In the image that the mask is made from, where nobody says where they are."""
    (mask,) = predict_path(scan, tmp_path / "out", bright, asked=FindingsOptions(record=False, estimate=True))
    found = json_records.load(Landmarks, levels_path(mask), "dvt_predict")
    assert levels_path(mask) == tmp_path / "out" / "scan_levels.json" and found == estimate(*read_dicom(scan))
    known = FindingsOptions(record=False, estimate=True, table={"other": Levels(left_mm=1.0)})
    predict_path(scan, tmp_path / "other.nii.gz", bright, asked=known)
    assert [path.name for path in tmp_path.glob("*.json")] == ["other_run.json"]


def test_what_is_no_mr_is_told_first(tmp_path: Path, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    def to_ct(ds: Any, _: int) -> None:
        ds.Modality = "CT"

    write_series(tmp_path / "scan", picture().astype(np.uint16), change=to_ct)
    (mask,) = predict_path(tmp_path / "scan", tmp_path / "out", model_of(plan, Bright()), asked=FindingsOptions())
    told = "Series 5 is CT, not MR, for which the model is made: what is marked may mean nothing."
    assert f"warning: {told}" in capsys.readouterr().err and read_findings(findings_path(mask)).warnings[0] == told
    ct = replace(plan, channels=("CT",))
    predict_path(tmp_path / "scan", tmp_path / "out", model_of(ct, Bright()), asked=FindingsOptions(), overwrite=True)
    assert "not MR" not in capsys.readouterr().err + "".join(read_findings(findings_path(mask)).warnings)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_dicom_folder_gives_one_mask_on_its_grid(scan: Path, tmp_path: Path, bright: Model, ending: str) -> None:
    assert predict_path(scan, tmp_path / f"mask{ending}", bright) == [tmp_path / f"mask{ending}"]
    assert_mask_of_scan(tmp_path / f"mask{ending}", scan)


def test_a_dicom_archive_gives_the_same_mask(scan: Path, tmp_path: Path, bright: Model) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "zip", scan)
    assert predict_path(tmp_path / "packed.zip", tmp_path / "out", bright) == [tmp_path / "out" / "packed.nii.gz"]
    assert_mask_of_scan(tmp_path / "out" / "packed.nii.gz", scan)


def test_a_dicom_scan_that_was_predicted_is_kept(scan: Path, tmp_path: Path, bright: Model) -> None:
    (mask,) = predict_path(scan, tmp_path / "out", bright)
    age(mask)
    predict_path(scan, tmp_path / "out", bright)
    assert is_old(mask)
    predict_path(scan, tmp_path / "out", bright, overwrite=True)
    assert not is_old(mask)
    assert_mask_of_scan(mask, scan)


def test_of_several_series_one_is_named(scan: Path, tmp_path: Path, bright: Model) -> None:
    write_series(scan / "more", np.zeros((4, 8, 8), np.uint16), number=9, words="other")
    told = refused(lambda: predict_path(scan, tmp_path / "out", bright))
    assert "--series 5: cor_fl3d_vein" in told and "--series 9: other" in told and not (tmp_path / "out").exists()
    (mask,) = predict_path(scan, tmp_path / "out", bright, series=["5"])
    assert mask.name == "scan_series_5.nii.gz" and mask_of(mask).shape == CORONAL.shape


def test_two_channels_take_two_series(scan: Path, tmp_path: Path, plan: Plan) -> None:
    """Given in the order of the channels: the second is the one that the network looks at."""
    write_series(scan / "more", np.arange(6 * 34 * 33, dtype=np.uint16).reshape(CORONAL.shape), number=9, plane=OBLIQUE)
    two = model_of(replace(plan, channels=("MR0", "MR1")), Bright(1))
    told = refused(lambda: predict_path(scan, tmp_path / "out", two))
    assert "the model takes 2 channels. Give as many --series" in told
    (mask,) = predict_path(scan, tmp_path / "out", two, series=["9", "5"])
    assert mask_of(mask)[1:4, 6:14, 21:28].all()


def test_a_faulty_image_is_named_by_its_series(tmp_path: Path, bright: Model) -> None:
    write_series(tmp_path / "scan", np.zeros(CORONAL.shape, np.uint16))
    told = refused(lambda: predict_path(tmp_path / "scan", tmp_path / "out", bright))
    assert told.startswith(f"{tmp_path / 'scan'}: series 5: every voxel is 0")


def test_stations_are_predicted_as_one_scan(tmp_path: Path, bright: Model) -> None:
    """Two halves of the picture with four rows in common: the mask of the whole, and of each half."""
    whole = mask_of(predict_path(write(tmp_path / "whole.nii.gz"), tmp_path / "whole_mask.nii.gz", bright)[0])
    for name, top, bottom in (("upper", 0, 20), ("lower", 16, 34)):
        origin = CORONAL.position_mm(np.array([0, top, 0]))
        grid = replace(CORONAL, shape=(6, bottom - top, 33), origin_mm=tuple(origin))
        write(tmp_path / "parts" / f"{name}.nii.gz", picture()[:, top:bottom], grid)
    stations = ["lower.nii.gz", "upper.nii.gz"]
    masks = predict_path(tmp_path / "parts", tmp_path / "out", bright, stations=stations)
    names = ["parts", "parts_station_upper", "parts_station_lower", "parts_stations"]
    assert [p.name.partition(".")[0] for p in masks] == names
    assert np.array_equal(mask_of(masks[0]), whole)
    assert np.array_equal(mask_of(masks[1]), whole[:, :20]) and np.array_equal(mask_of(masks[2]), whole[:, 16:])


def test_series_are_for_dicom(tmp_path: Path, bright: Model) -> None:
    path = write(tmp_path / "a.nii.gz")
    assert "is no DICOM" in refused(lambda: predict_path(path, tmp_path / "out", bright, series=["5"]))


# --- the grid of the input ------------------------------------------------------------------------


def predict_image(image: sitk.Image, path: Path, model: Model) -> sitk.Image:
    """Write an image, predict it, check that the mask's geometry is the file's, and read the mask."""
    sitk.WriteImage(image, str(path))
    out = path.parent / "mask.nii.gz"
    predict_path(path, out, model)
    there, mask = sitk.ReadImage(str(path)), sitk.ReadImage(str(out))
    assert mask.GetSize() == there.GetSize() and mask.GetPixelID() == sitk.sitkUInt8
    # NIfTI holds its affine in float32: 1e-7 of some hundred mm.
    np.testing.assert_allclose(mask.GetOrigin(), there.GetOrigin(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(mask.GetSpacing(), there.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(mask.GetDirection(), there.GetDirection(), rtol=0, atol=1e-6)
    return mask


@pytest.fixture
def coronal(tmp_path: Path) -> sitk.Image:
    return sitk.ReadImage(str(write(tmp_path / "coronal.nii.gz")))


def test_the_mask_is_where_the_image_is_bright(coronal: sitk.Image, tmp_path: Path, bright: Model) -> None:
    mask = sitk.GetArrayFromImage(predict_image(coronal, tmp_path / "image.nii.gz", bright))
    truth = picture() > 350
    # Prepared and native pixels are of nearly one size, so edges may move by a pixel, not insides.
    assert np.array_equal(mask[2, 6:14, 21:28], np.ones((8, 7))) and not mask[truth.sum(axis=(1, 2)) == 0].any()
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


@pytest.mark.parametrize("code", ["RAS", "LPS", "SPL", "AIR", "PIR", "IRP"])
def test_the_same_scan_in_another_orientation_gives_the_same_mask(
    coronal: sitk.Image, tmp_path: Path, bright: Model, code: str
) -> None:
    """Axes permuted and flipped; voxel by voxel after turning the mask back."""
    expected = predict_image(coronal, tmp_path / "image.nii.gz", bright)
    turned = sitk.DICOMOrient(coronal, code)
    assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(turned.GetDirection()) == code
    mask = predict_image(turned, tmp_path / "turned.nii.gz", bright)
    own = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(coronal.GetDirection())
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(mask, own))
    assert back.any() and np.array_equal(back, sitk.GetArrayFromImage(expected))


def test_an_oblique_scan_keeps_its_oblique_grid(coronal: sitk.Image, tmp_path: Path, bright: Model) -> None:
    expected = predict_image(coronal, tmp_path / "image.nii.gz", bright)
    tilt = np.array(sitk.Euler3DTransform((0, 0, 0), 0.12, -0.2, 0.15).GetMatrix()).reshape(3, 3)
    coronal.SetDirection((tilt @ np.array(coronal.GetDirection()).reshape(3, 3)).ravel().tolist())
    mask = predict_image(coronal, tmp_path / "oblique.nii.gz", bright)
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(expected))


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii"])
@pytest.mark.parametrize("pixel", [sitk.sitkInt16, sitk.sitkUInt16, sitk.sitkFloat64])
def test_formats_and_number_types_make_no_difference(
    coronal: sitk.Image, tmp_path: Path, bright: Model, ending: str, pixel: int
) -> None:
    """The picture holds whole numbers only."""
    expected = predict_image(coronal, tmp_path / "image.nii.gz", bright)
    mask = predict_image(sitk.Cast(coronal, pixel), tmp_path / f"other{ending}", bright)
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(expected))


def test_a_single_slice_is_a_volume(tmp_path: Path, bright: Model) -> None:
    grid = replace(CORONAL, shape=(1, 34, 33))
    predict_path(write(tmp_path / "one.nii.gz", picture()[2:3], grid), tmp_path / "mask.nii.gz", bright)
    assert mask_of(tmp_path / "mask.nii.gz").shape == (1, 34, 33)


def test_blocks_of_slices_are_seams_that_nobody_sees(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write(tmp_path / "image.nii.gz")
    predict_path(image, tmp_path / "at_once.nii.gz", bright)
    monkeypatch.setattr("dvtplan.inference.model.BLOCK_PIXELS", 4 * 32 * 32)
    predict_path(image, tmp_path / "in_blocks.nii.gz", bright)
    assert np.array_equal(mask_of(tmp_path / "at_once.nii.gz"), mask_of(tmp_path / "in_blocks.nii.gz"))


# --- probabilities --------------------------------------------------------------------------------


def test_a_compiled_network_gets_whole_blocks(
    scan: Path, tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number of slices would compile it once more."""
    monkeypatch.setattr("dvtplan.inference.model.BLOCK_PIXELS", 4 * 32 * 32)
    sizes = []

    class Counting(Bright):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            sizes.append(len(image))
            return super().forward(image)

    model = model_of(plan, Counting())
    predict_path(scan, tmp_path / "plain.nii.gz", model)
    assert set(sizes) == {4, 2}
    sizes.clear()
    compiled = replace(model, setup=replace(model.setup, compiled=True))
    predict_path(scan, tmp_path / "compiled.nii.gz", compiled)
    assert set(sizes) == {4}
    assert np.array_equal(mask_of(tmp_path / "compiled.nii.gz"), mask_of(tmp_path / "plain.nii.gz"))


def test_an_ensemble_averages_probabilities_not_logits_nor_votes(tmp_path: Path, plan: Plan) -> None:
    """0.3, 0.35 and 0.94 average 0.53: thrombus, though two of three say no."""
    model = model_of(plan, Constant(0.3), Constant(0.35), Constant(0.94))
    write(tmp_path / "in" / "scan.nii.gz")
    (mask,) = predict_path(tmp_path / "in", tmp_path / "out", model, save_probabilities=True)
    chance = mask_of(tmp_path / "out" / "scan_probability_thrombus.nii.gz")
    np.testing.assert_allclose(chance, 0.53, atol=1e-6)
    assert mask_of(mask).all()


def test_a_softmax_gives_the_likeliest_class_by_its_value_in_the_files(tmp_path: Path, plan: Plan) -> None:
    """Background 0.3, then 0.2 and 0.5; the classes' values need not be 1 and 2."""
    model = model_of(plan, Constant(0.3, 0.2, 0.5), classes={"anterior": 3, "posterior": 7})
    write(tmp_path / "in" / "scan.nii.gz")
    (mask,) = predict_path(tmp_path / "in", tmp_path / "out", model, save_probabilities=True)
    assert set(np.unique(mask_of(mask))) == {7}
    for name, expected in (("anterior", 0.2), ("posterior", 0.5)):
        chance = mask_of(tmp_path / "out" / f"scan_probability_{name}.nii.gz")
        np.testing.assert_allclose(chance, expected, atol=1e-6)
    labels = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "anterior": 3, "posterior": 7}


def test_background_wins_where_it_is_likeliest(tmp_path: Path, plan: Plan) -> None:
    model = model_of(plan, Constant(0.4, 0.3, 0.3), classes={"anterior": 1, "posterior": 2})
    predict_path(write(tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz", model)
    assert not mask_of(tmp_path / "mask.nii.gz").any()


def test_probabilities_lie_on_the_inputs_grid_and_decide_the_mask(tmp_path: Path, bright: Model) -> None:
    image = write(tmp_path / "scan.nrrd")
    predict_path(image, tmp_path / "mask.nrrd", bright, save_probabilities=True)
    chance, grid = volume_io.read(tmp_path / "mask_probability_thrombus.nii.gz")
    np.testing.assert_allclose(grid.corners_mm(), volume_io.read(image)[1].corners_mm(), atol=1e-4)
    assert chance.dtype == np.float32 and chance.min() >= 0 and chance.max() <= 1
    assert np.array_equal(mask_of(tmp_path / "mask.nrrd"), chance >= 0.5)


# --- trained models -------------------------------------------------------------------------------


def test_trained_folds_predict_together_as_the_mean_of_each(trained_once: Workspace, tmp_path: Path) -> None:
    results = trained_once.results("gn_unet")
    image = write(tmp_path / "scan.nii.gz")
    chances = {}
    for folds in ((0,), (1,), None):
        model = load_model(results, folds=folds, setup=devices.choose("cpu"))
        assert model.folds == (folds or (0, 1)) and model.classes == {"thrombus": 1}
        predict_path(image, tmp_path / "mask.nii.gz", model, overwrite=True, save_probabilities=True)
        chances[folds] = mask_of(tmp_path / "mask_probability_thrombus.nii.gz")
    assert np.abs(chances[(0,)] - chances[(1,)]).max() > 0.01
    np.testing.assert_allclose(chances[None], (chances[(0,)] + chances[(1,)]) / 2, atol=1e-6)


def test_a_folds_test_patients_are_found(trained_once: Workspace) -> None:
    """Eight epochs on two cases of a bright disc: most of it, on cases that were not trained on."""
    splits = json_records.load(Splits, trained_once.splits, "test")
    for fold in splits.folds:
        out = trained_once.fold("gn_unet", fold.index).predictions
        assert names(out) == {"dataset.json", "predictions.json", "run.json", *(f"{c}.nii.gz" for c in fold.test)}
        for case in fold.test:
            truth, grid = volume_io.read(trained_once.raw / "labelsTr" / f"{case}.nii.gz")
            mask, own = volume_io.read(out / f"{case}.nii.gz")
            assert own == grid
            assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.7


def test_every_change_of_a_model_changes_its_digest(trained: Workspace) -> None:
    results = trained.results("gn_unet")
    digests = {load_model(results, folds=folds).digest for folds in ((0,), (1,), (0, 1))}
    with (trained.fold("gn_unet", 0).checkpoint).open("ab") as file:
        file.write(b"\0")
    digests.add(files_digest((trained.fold("gn_unet", 0).checkpoint,)))
    assert len(digests) == 4


def test_a_folder_without_a_trained_fold_is_refused(tmp_path: Path) -> None:
    assert "holds no trained fold" in refused(lambda: load_model(tmp_path))
    (tmp_path / "fold_0").mkdir()
    assert "holds no trained fold" in refused(lambda: load_model(tmp_path))
    assert "missing: not found" in refused(lambda: load_model(tmp_path / "missing"))


def test_folds_that_are_not_trained_are_refused(trained_once: Workspace) -> None:
    message = refused(lambda: load_model(trained_once.results("gn_unet"), folds=[0, 5]))
    assert "holds the folds [0, 1], not [5]" in message


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


# --- files in, files out --------------------------------------------------------------------------


def test_the_time_of_scans_and_slices_is_told_once_they_are_predicted(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.nii.gz")
    slices = len(mask_of(predict_path(tmp_path / "in" / "a.nii.gz", tmp_path / "a.nii.gz", bright)[0]))
    one = capsys.readouterr().err
    assert f"Predicted 1 scan, {slices} slices, in " in one and " s a slice." in one
    predict_path(tmp_path / "in", tmp_path / "out", bright)
    assert f"Predicted 2 scans, {2 * slices} slices, in " in capsys.readouterr().err
    predict_path(tmp_path / "in", tmp_path / "out", bright)  # both are kept
    assert "Predicted" not in capsys.readouterr().err


def test_a_folder_gives_a_folder_and_a_file_a_file_or_a_folder(tmp_path: Path, bright: Model) -> None:
    for name in ("a_0000.nii.gz", "b.nrrd", ".hidden.nii.gz", "notes.txt"):
        (tmp_path / "in").mkdir(exist_ok=True)
        if name.endswith(".txt"):
            (tmp_path / "in" / name).write_text("no volume")
        else:
            write(tmp_path / "in" / name)
    out = tmp_path / "out"
    assert predict_path(tmp_path / "in", out, bright) == [out / "a.nii.gz", out / "b.nii.gz"]
    assert names(out) == {"a.nii.gz", "b.nii.gz", "dataset.json", "predictions.json", "run.json"}
    one = tmp_path / "in" / "b.nrrd"
    assert predict_path(one, tmp_path / "mine.mha", bright) == [tmp_path / "mine.mha"]
    assert predict_path(one, tmp_path / "new", bright) == [tmp_path / "new" / "b.nii.gz"]
    masks = [mask_of(p) for p in (out / "b.nii.gz", tmp_path / "mine.mha", tmp_path / "new" / "b.nii.gz")]
    assert all(np.array_equal(masks[0], m) for m in masks)


def test_parts_share_the_cases_and_each_keeps_what_it_made(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcde":
        write(tmp_path / "in" / f"{name}.nii.gz")
    out = tmp_path / "out"
    made = [predict_path(tmp_path / "in", out, bright, part=(i, 2)) for i in (1, 2)]
    assert [[p.name[0] for p in masks] for masks in made] == [["a", "c", "e"], ["b", "d"]]
    assert {"predictions_1_of_2.json", "predictions_2_of_2.json"} <= names(out)
    before = {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")}
    capsys.readouterr()
    whole = predict_path(tmp_path / "in", out, bright)
    assert len(whole) == 5 and {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")} == before
    assert "Predicted" not in capsys.readouterr().err
    predict_path(tmp_path / "in", out, bright, part=(3, 3), overwrite=True)
    again = {p for p, stamp in before.items() if p.stat().st_mtime_ns != stamp}
    assert {p.name[0] for p in again} == {"c"}


def test_more_parts_than_cases_leave_some_without_work(tmp_path: Path, bright: Model) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    assert predict_path(tmp_path / "in", tmp_path / "out", bright, part=(2, 2)) == []


def test_numbered_files_are_the_channels_of_a_case(tmp_path: Path, plan: Plan, bright: Model) -> None:
    """A model that looks at the second channel, the negative of the first, sees what the other sees."""
    two = replace(plan, channels=("MR0", "MR1"))
    write(tmp_path / "in" / "a_0000.nii.gz")
    write(tmp_path / "in" / "a_0001.nii.gz", 2000.0 - picture())
    (mask,) = predict_path(tmp_path / "in", tmp_path / "out", model_of(two, Bright(1, -1.0)))
    predict_path(tmp_path / "in" / "a_0000.nii.gz", tmp_path / "one.nii.gz", bright)
    assert mask.name == "a.nii.gz" and np.array_equal(mask_of(mask), mask_of(tmp_path / "one.nii.gz"))


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        (["a_0000", "a_0001"], 1),
        (["a_0000"], 2),
        (["a"], 2),
        (["a_0000", "a_0002"], 2),
        (["a_0000", "a"], 2),
        (["a_0000", "a_0001", "b_0000"], 2),
    ],
)
def test_a_wrong_number_of_channels_is_refused(tmp_path: Path, files: list[str], channels: int) -> None:
    for name in files:
        (tmp_path / f"{name}.nii.gz").touch()
    message = refused(lambda: find_cases(tmp_path, channels))
    assert f"the model takes {channels} channels" in message and "ID_0000" in message


def test_one_case_in_two_formats_is_refused(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).touch()
    assert "case a has 2 files (a.nii, a.nii.gz)" in refused(lambda: find_cases(tmp_path, 1))


def test_channels_on_different_grids_are_refused(tmp_path: Path, plan: Plan) -> None:
    two = replace(plan, channels=("MR0", "MR1"))
    write(tmp_path / "in" / "a_0000.nii.gz")
    write(tmp_path / "in" / "a_0001.nii.gz", grid=replace(CORONAL, spacing_mm=(5.0, 2.25, 1.8)))
    model = model_of(two, Bright())
    message = refused(lambda: predict_path(tmp_path / "in", tmp_path / "out", model))
    assert "a_0001.nii.gz: lies up to" in message
    assert names(tmp_path / "out") == set()


def test_what_is_not_there_is_refused(tmp_path: Path, bright: Model) -> None:
    missing = tmp_path / "missing.nii.gz"
    assert refused(lambda: predict_path(missing, tmp_path / "out", bright)).startswith(f"{missing}: not found")
    (tmp_path / "empty").mkdir()
    message = refused(lambda: predict_path(tmp_path / "empty", tmp_path / "out", bright))
    assert "holds no volume (.nii.gz, .nii" in message
    assert names(tmp_path) == {"empty"}
    case = Case(id="a", patient="a", images=(missing,))
    assert "not found" in refused(lambda: predict_case(case, tmp_path / "out" / "a.nii.gz", bright))


def bad(kind: str, path: Path) -> None:
    image = picture()
    if kind == "NaN":
        image[0, 0, 0] = np.nan
    elif kind == "constant":
        image[:] = 7
    if kind == "4-D":
        sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(image)] * 2), str(path))
    elif kind == "text":
        path.write_text("no volume at all, but long enough to be read as a header\n" * 20)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(image), str(path), useCompression=True)
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("NaN", "1 of 6732 voxels are not finite"),
        ("constant", "every voxel is 7"),
        ("4-D", "expected 3-D"),
        ("cut off", "damaged or cut off"),
        ("text", "not gzip"),
    ],
)
def test_a_bad_image_is_one_line_and_leaves_what_was_done_before_it(
    tmp_path: Path, bright: Model, kind: str, words: str
) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    bad(kind, tmp_path / "in" / "b.nii.gz")
    write(tmp_path / "in" / "c.nii.gz")
    out = tmp_path / "out"
    with pytest.raises(AnalysisFailed) as caught:
        predict_path(tmp_path / "in", out, bright, save_probabilities=True)
    first, line = str(caught.value).splitlines()
    assert first == "1 of 3 scans could not be analysed; nothing is known about them:"
    assert line.startswith(f"{tmp_path / 'in' / 'b.nii.gz'}: ") and words in line
    assert caught.value.masks == (out / "a.nii.gz", out / "c.nii.gz") and caught.value.failed == {"b": line}
    masks = {f"{name}{end}.nii.gz" for name in "ac" for end in ("", "_probability_thrombus")}
    assert names(out) == {*masks, "b_findings.json", "dataset.json", "predictions.json", "run.json"}
    assert set(json_records.load(Predicted, out / "predictions.json", "test").cases) == {"a", "c"}
    record = record_module.read_findings(out / "b_findings.json")
    assert record is not None and (record.status, record.reason) == ("not analysed", line)
    assert record.burden == () and record.highest_probability is None and record.mask is None


def test_masks_of_the_good_scans_have_their_further_forms(tmp_path: Path, bright: Model) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    bad("NaN", tmp_path / "in" / "b.nii.gz")
    out = tmp_path / "out"
    with pytest.raises(AnalysisFailed) as caught:
        predict_path(tmp_path / "in", out, bright, also=("itksnap",))
    assert caught.value.written == (out / "a.nii.gz", out / "a_labels.txt")
    assert (out / "a_labels.txt").exists() and not (out / "b_labels.txt").exists()


def test_a_bad_image_alone_is_one_line_and_leaves_nothing(tmp_path: Path, bright: Model) -> None:
    (tmp_path / "in").mkdir()
    bad("NaN", tmp_path / "in" / "b.nii.gz")
    for source, out in ((tmp_path / "in", tmp_path / "out"), (tmp_path / "in" / "b.nii.gz", tmp_path / "b.nrrd")):
        assert "not finite" in refused(lambda s=source, o=out: predict_path(s, o, bright))  # type: ignore[misc]
    assert names(tmp_path / "out") == set() and names(tmp_path) == {"in"}
    assert "not finite" in refused(lambda: predict_path(source, out, bright, asked=FindingsOptions()))
    assert read_findings(tmp_path / "b_findings.json").status == "not analysed"


def test_a_scan_that_fails_keeps_no_mask_of_an_earlier_image(half_done: Path, bright: Model) -> None:
    bad("NaN", half_done.parent / "in" / "a.nii.gz")
    for _ in range(2):
        with pytest.raises(AnalysisFailed):
            predict_path(half_done.parent / "in", half_done, bright)
        assert names(half_done) == {"a_findings.json", "b.nii.gz", "dataset.json", "predictions.json", "run.json"}
    write(half_done.parent / "in" / "a.nii.gz")
    predict_path(half_done.parent / "in", half_done, bright)
    assert names(half_done) == {"a.nii.gz", "b.nii.gz", "dataset.json", "predictions.json", "run.json"}


def test_a_full_disk_ends_the_run(tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the reason can be kept, the next scans would fail alike."""
    for name in "abc":
        write(tmp_path / "in" / f"{name}.nii.gz")

    def full(*_: object, **__: object) -> None:
        raise DvtError("disk full")

    monkeypatch.setattr(volume_io, "write_mask", full)
    monkeypatch.setattr(json_records, "save", full)
    assert refused(lambda: predict_path(tmp_path / "in", tmp_path / "out", bright)) == "disk full"


# --- what is told of a scan -----------------------------------------------------------------------


def read_findings(path: Path) -> Findings:
    record = record_module.read_findings(path)
    assert record is not None
    return record


def test_findings_and_a_page_are_written_beside_the_mask(tmp_path: Path, bright: Model) -> None:
    image = write(tmp_path / "in" / "a.nii.gz")
    asked = FindingsOptions(page=True, table={"a": Levels(left_mm=30.0)})
    (mask,) = predict_path(tmp_path / "in", tmp_path / "out", bright, asked=asked)
    told = {f"a_{name}" for name in ("findings.json", "summary.html", "summary.pdf", "summary.png")}
    assert names(tmp_path / "out") == {"a.nii.gz", "dataset.json", "predictions.json", "run.json", *told}
    record, (array, grid) = read_findings(tmp_path / "out" / "a_findings.json"), volume_io.read(mask)
    assert record.status == "analysed" and record.mask_digest == digests_module.sha256(mask)
    assert record.volume_ml == pytest.approx((array != 0).sum() * grid.voxel_ml)
    assert sum(one.volume_ml for one in record.lesions) == pytest.approx(record.volume_ml)
    assert record.burden == tuple(burden.measure(array, grid, Levels(left_mm=30.0)))
    assert record.level_source == "table" and record.images == (image.name,)
    assert record.highest_probability == pytest.approx(1.0, abs=1e-3) and record.oddities is None
    assert record.lesions[0].agreement_mean is None


def test_masks_are_the_same_whether_more_is_told_or_not(tmp_path: Path, plan: Plan) -> None:
    model = model_of(plan, Bright(), Constant(0.3), Constant(0.2))
    image = write(tmp_path / "a.nii.gz")
    (plain,) = predict_path(image, tmp_path / "plain", model)
    (told,) = predict_path(image, tmp_path / "told", model, asked=FindingsOptions())
    assert plain.read_bytes() == told.read_bytes()


def test_each_fold_votes_for_itself(tmp_path: Path, plan: Plan) -> None:
    """0.3, 0.35 and 0.94 average 0.53: of three folds one alone would mark."""
    model = model_of(plan, Constant(0.3), Constant(0.35), Constant(0.94))
    predict_path(write(tmp_path / "a.nii.gz"), tmp_path / "out", model, asked=FindingsOptions())
    record = read_findings(tmp_path / "out" / "a_findings.json")
    (lesion,) = record.lesions
    assert (lesion.agreement_mean, lesion.agreement_min) == (pytest.approx(1 / 3), 0.0)
    assert lesion.probability_mean == pytest.approx(0.53, abs=1e-3) and record.nearly_marked_ml == {
        "left": 0,
        "right": 0,
    }


def test_what_is_nearly_marked_is_no_finding(tmp_path: Path, plan: Plan) -> None:
    predict_path(write(tmp_path / "a.nii.gz"), tmp_path / "out", model_of(plan, Constant(0.4)), asked=FindingsOptions())
    record = read_findings(tmp_path / "out" / "a_findings.json")
    assert record.lesions == () and record.in_words.endswith("This does not rule thrombus out.")
    assert sum(record.nearly_marked_ml.values()) == pytest.approx(picture().size * CORONAL.voxel_ml)


def test_classes_of_a_softmax_are_told_together(tmp_path: Path, plan: Plan) -> None:
    """On average 0.35 background, 0.25 and 0.4; the second fold alone finds the background likeliest."""
    model = model_of(plan, Constant(0.2, 0.2, 0.6), Constant(0.5, 0.3, 0.2), classes={"anterior": 3, "posterior": 7})
    predict_path(write(tmp_path / "a.nii.gz"), tmp_path / "out", model, asked=FindingsOptions())
    (lesion,) = read_findings(tmp_path / "out" / "a_findings.json").lesions
    assert lesion.label == "posterior" and (lesion.agreement_mean, lesion.agreement_min) == (0.5, 0.0)
    assert lesion.probability_mean == pytest.approx(0.65, abs=1e-3)


def test_what_was_told_is_kept_and_told_anew_where_anything_changed(tmp_path: Path, bright: Model) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    out = tmp_path / "out"
    stamp = lambda name: (out / name).stat().st_mtime_ns  # noqa: E731
    predict_path(tmp_path / "in", out, bright, asked=FindingsOptions())
    first = stamp("a.nii.gz"), stamp("a_findings.json")
    predict_path(tmp_path / "in", out, bright, asked=FindingsOptions())
    assert (stamp("a.nii.gz"), stamp("a_findings.json")) == first
    predict_path(tmp_path / "in", out, bright, asked=FindingsOptions(page=True))  # drawn from what is there
    assert (stamp("a.nii.gz"), stamp("a_findings.json")) == first and (out / "a_summary.pdf").exists()
    predict_path(tmp_path / "in", out, bright, asked=FindingsOptions(table={"a": Levels(left_mm=30.0)}))
    assert stamp("a_findings.json") > first[1] and read_findings(out / "a_findings.json").levels is not None
    assert not (out / "a_summary.pdf").exists()  # it told of no level


def test_a_file_of_that_name_that_is_not_ours_stays(tmp_path: Path, bright: Model) -> None:
    image = write(tmp_path / "a.nii.gz")
    (tmp_path / "mask_summary.pdf").write_text("mine")
    predict_path(image, tmp_path / "mask.nii.gz", bright)
    assert (tmp_path / "mask_summary.pdf").read_text() == "mine"


def test_a_dicom_scan_is_named_as_the_user_knows_it(scan: Path, tmp_path: Path, bright: Model) -> None:
    predict_path(scan, tmp_path / "out", bright, asked=FindingsOptions(page=True))
    record = read_findings(tmp_path / "out" / "scan_findings.json")
    assert record.images == (f"{scan}: series 5",) and (tmp_path / "out" / "scan_summary.html").exists()
    write_series(tmp_path / "zero", np.zeros(CORONAL.shape, np.uint16))
    told = refused(lambda: predict_path(tmp_path / "zero", tmp_path / "out", bright, asked=FindingsOptions()))
    assert read_findings(tmp_path / "out" / "zero_findings.json").reason == told


# --- scans unlike the training --------------------------------------------------------------------


def test_a_scan_unlike_the_training_is_predicted_with_a_warning(
    trained_once: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The toy has 2 mm pixels; 2.25 and 1.75 mm are 12 % off, and nothing of the toy itself is odd."""
    model = load_model(trained_once.results("gn_unet"), setup=devices.choose("cpu"))
    write(tmp_path / "scan.nii.gz")
    predict_path(tmp_path / "scan.nii.gz", tmp_path / "out", model, asked=FindingsOptions())
    told = capsys.readouterr().err
    assert "warning: scan: is unlike the 4 training scans, so its mask may be wrong. Outside their range: " in told
    assert "voxel spacing from head to foot 2.25 mm (training 2 mm, 12 % above)" in told
    odd = read_findings(tmp_path / "out" / "scan_findings.json").oddities
    assert odd is not None and {"voxel spacing from head to foot"} <= {one.what for one in odd}
    predict_path(trained_once.raw / "imagesTr", tmp_path / "toy", model)
    assert "warning" not in capsys.readouterr().err


def test_only_cases_that_the_folds_were_trained_on_count(trained_once: Workspace) -> None:
    splits = json_records.load(Splits, trained_once.splits, "test")
    for folds in ((0,), (0, 1)):
        training = load_model(trained_once.results("gn_unet"), folds=folds, setup=devices.choose("cpu")).training
        assert training is not None
        assert training.cases == len({c for k in folds for c in splits.folds[k].train})


def test_a_model_without_a_fingerprint_says_that_nothing_is_compared(
    trained: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.results_fingerprint("gn_unet").unlink()
    model = load_model(trained.results("gn_unet"), setup=devices.choose("cpu"))
    predict_path(write(tmp_path / "scan.nii.gz"), tmp_path / "out", model, asked=FindingsOptions())
    told = capsys.readouterr().err
    assert told.count("lacks the fingerprint of its training scans") == 1 and "warning" not in told
    record = read_findings(tmp_path / "out" / "scan_findings.json")
    assert record.oddities is None and any("is not known" in line for line in record.warnings)


def test_a_fingerprint_of_other_data_is_not_used(trained: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained.results_fingerprint("gn_unet")
    whole = json_records.load(Fingerprint, path, "test")
    json_records.save(replace(whole, cases=whole.cases[:2]), path)
    assert load_model(trained.results("gn_unet"), setup=devices.choose("cpu")).training is None
    assert f"warning: {path}: is not of the data that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "dataset", "phantom"),
    [(True, "DVT", True), (False, "Phantomas", False), (None, "MyPhantom", True), (None, "DVT", False)],
)
def test_a_model_of_phantoms_is_known(
    trained_once: Workspace, plan: Plan, told: bool | None, dataset: str, phantom: bool
) -> None:
    known = load_model(trained_once.results("gn_unet"), setup=devices.choose("cpu")).training
    assert known is not None
    model = replace(model_of(replace(plan, dataset=dataset), Bright()), training=replace(known, phantom=told))
    assert model.is_phantom == phantom == model.maker.phantom


@pytest.mark.parametrize(("words", "phantom"), [("Synthetic: legs.", True), ("Legs of 2019.", False)])
def test_what_the_data_set_said_of_itself_travels_with_the_model(trained: Workspace, words: str, phantom: bool) -> None:
    described = trained.results_description("gn_unet")
    described.write_text(json.dumps(json.loads(described.read_text()) | {"description": words}))
    training = load_model(trained.results("gn_unet"), setup=devices.choose("cpu")).training
    assert training is not None and training.phantom is phantom


def test_a_write_that_fails_leaves_nothing_half_written(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: SimpleITK reports it as an exception of its own."""
    write(tmp_path / "in" / "a.nii.gz")

    def full(image: object, name: str, **_: object) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("Exception thrown\nReason: No space left on device.")

    monkeypatch.setattr(sitk, "WriteImage", full)
    message = refused(lambda: predict_path(tmp_path / "in", tmp_path / "out", bright))
    assert "No space left on device" in message and names(tmp_path / "out") == set()


@pytest.mark.parametrize("target", ["file", "below a file"])
def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path: Path, bright: Model, target: str) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "out").write_text("a file")
    out = tmp_path / "out" if target == "file" else tmp_path / "out" / "deeper"
    words = "is a file. Name a folder" if target == "file" else "cannot be written"
    assert words in refused(lambda: predict_path(tmp_path / "in", out, bright))
    assert (tmp_path / "out").read_text() == "a file"


def test_a_folder_of_scans_does_not_go_into_one_mask(tmp_path: Path, bright: Model) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    told = refused(lambda: predict_path(tmp_path / "in", tmp_path / "mask.nii.gz", bright))
    assert "is one mask, and" in told and names(tmp_path) == {"in"}


def test_no_mask_ever_replaces_an_image(tmp_path: Path, bright: Model) -> None:
    folder = tmp_path / "in"
    image = write(folder / "a.nii.gz")
    before = image.read_bytes()
    for source, out in (
        (image, image),
        (image, folder),
        (folder, folder),
        (folder, tmp_path / "in" / ".." / "in"),
    ):
        assert "Name another -o" in refused(lambda s=source, o=out: predict_path(s, o, bright))  # type: ignore[misc]
    assert image.read_bytes() == before and names(folder) == {"a.nii.gz"}


# --- going on -------------------------------------------------------------------------------------


def age(mask: Path) -> None:
    """Make a file old, so that making it again shows."""
    os.utime(mask, (1, 1))


def is_old(mask: Path) -> bool:
    return mask.stat().st_mtime == 1


@pytest.fixture
def half_done(tmp_path: Path, bright: Model) -> Path:
    """A folder of two predicted cases; the first mask is old, so that making it again shows."""
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.nii.gz")
    predict_path(tmp_path / "in", tmp_path / "out", bright)
    age(tmp_path / "out" / "a.nii.gz")
    return tmp_path / "out"


def remade(out: Path, model: Model, **options: bool) -> bool:
    predict_path(out.parent / "in", out, model, **options)
    return not is_old(out / "a.nii.gz")


def test_masks_that_are_there_are_kept_and_missing_ones_made(half_done: Path, bright: Model) -> None:
    (half_done / "b.nii.gz").unlink()
    assert not remade(half_done, bright)
    assert mask_of(half_done / "b.nii.gz").any()


def test_masks_are_made_again_by_another_model(half_done: Path, bright: Model) -> None:
    assert remade(half_done, replace(bright, digest="another"))


def test_masks_are_made_again_from_another_image(half_done: Path, bright: Model) -> None:
    write(half_done.parent / "in" / "a.nii.gz", picture() + np.arange(33, dtype=np.float32))
    assert remade(half_done, bright)


def test_masks_are_made_again_on_demand(half_done: Path, bright: Model) -> None:
    assert remade(half_done, bright, overwrite=True)


def test_the_ledger_holds_the_digest_of_every_mask(half_done: Path, bright: Model) -> None:
    remade(half_done, bright, overwrite=True)
    held = json_records.load(Predicted, half_done / "predictions.json", "")
    assert held.masks == {case: files_digest((half_done / f"{case}.nii.gz",)) for case in held.cases}


# --- masks that were changed by hand, or come from elsewhere ------------------------------------------

HAND = b"hours of contouring"


@pytest.fixture
def corrected(half_done: Path) -> Path:
    """The folder with its first mask corrected by hand."""
    (half_done / "a.nii.gz").write_bytes(HAND)
    return half_done


def kept(out: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the correction is still there, and is told."""
    told = capsys.readouterr().err
    assert f"{out / 'a.nii.gz'}: was changed since it was made, or comes from elsewhere" in told
    return (out / "a.nii.gz").read_bytes() == HAND


def test_a_corrected_mask_is_kept_whatever_else_changes(
    corrected: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = corrected.parent / "in"
    other = replace(bright, digest="another")
    for model, asked in ((bright, None), (other, None), (bright, FindingsOptions(given=Levels(left_mm=1.0)))):
        assert predict_path(scans, corrected, model, asked=asked) == [corrected / "a.nii.gz", corrected / "b.nii.gz"]
        assert kept(corrected, capsys)
    write(scans / "a.nii.gz", picture() + 1)
    predict_path(scans, corrected, bright)
    assert kept(corrected, capsys)
    predict_path(scans, corrected, bright, overwrite=True)
    assert mask_of(corrected / "a.nii.gz").any()


def test_a_mask_from_elsewhere_is_kept(half_done: Path, bright: Model, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (half_done / "predictions.json", half_done / "run.json"):
        path.unlink()
    (half_done / "a.nii.gz").write_bytes(HAND)
    predict_path(half_done.parent / "in", half_done, bright)
    assert kept(half_done, capsys)


def test_a_corrected_mask_outlives_a_scan_that_fails(
    corrected: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        bad("NaN", corrected.parent / "in" / f"{name}.nii.gz")
    age(corrected / "b.nii.gz")
    with pytest.raises(AnalysisFailed):
        predict_path(corrected.parent / "in", corrected, replace(bright, digest="another"), asked=FindingsOptions())
    assert kept(corrected, capsys) and not (corrected / "b.nii.gz").exists()


def test_masks_of_an_earlier_model_are_known_after_a_run_that_did_not_reach_them(
    half_done: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real = replace(bright, digest="another"), predict.predict_case

    def stops(case: Case, *rest: Any, **more: Any) -> Any:
        if case.id == "b":
            raise KeyboardInterrupt
        return real(case, *rest, **more)

    monkeypatch.setattr(predict, "predict_case", stops)
    with pytest.raises(KeyboardInterrupt):
        predict_path(half_done.parent / "in", half_done, other)
    monkeypatch.setattr(predict, "predict_case", real)
    age(half_done / "b.nii.gz")
    predict_path(half_done.parent / "in", half_done, other)
    assert not is_old(half_done / "b.nii.gz")


def test_a_mask_is_noted_before_anything_is_told_of_it(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that is stopped while it draws the page would leave a mask that passes for someone else's."""
    write(tmp_path / "a.nii.gz")

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    for out in (tmp_path / "out", tmp_path / "single.nii.gz"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(FindingsBuilder, "tell", stops)
            predict_path(tmp_path / "a.nii.gz", out, bright, asked=FindingsOptions())
        (mask,) = predict_path(tmp_path / "a.nii.gz", out, bright, asked=FindingsOptions())
        assert read_findings(findings_path(mask)).status == "analysed"


def test_a_mask_that_another_model_put_there_does_not_pass_for_this_ones(half_done: Path, bright: Model) -> None:
    """By a run for that scan alone, whose record lies beside it."""
    one = half_done.parent / "in" / "a.nii.gz"
    predict_path(one, half_done / "a.nii.gz", model_of(bright.plan, Constant(0.9)))
    assert mask_of(half_done / "a.nii.gz").all()
    predict_path(half_done.parent / "in", half_done, bright)
    assert not mask_of(half_done / "a.nii.gz").all()


def test_a_mask_that_is_changed_while_it_is_predicted_is_kept(
    half_done: Path, bright: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = volume_io.write_mask

    def meanwhile(path: Path, *rest: Any, **more: Any) -> None:
        if path.name == "a.nii.gz":
            path.write_bytes(HAND)
        real(path, *rest, **more)

    monkeypatch.setattr(volume_io, "write_mask", meanwhile)
    with pytest.raises(AnalysisFailed) as caught:
        predict_path(half_done.parent / "in", half_done, replace(bright, digest="another"))
    assert "was changed while it was predicted" in caught.value.failed["a"] and kept(half_done, capsys)


def test_a_user_s_mistake_does_not_undo_what_stands(scan: Path, tmp_path: Path, bright: Model, plan: Plan) -> None:
    (mask,) = predict_path(scan, tmp_path / "out", bright, asked=FindingsOptions())
    before = mask.read_bytes(), findings_path(mask).read_bytes()
    for series in (["99"], ["5", "5"]):
        refused(lambda s=series: predict_path(scan, tmp_path / "out", bright, asked=FindingsOptions(), series=s))  # type: ignore[misc]
    two = model_of(replace(plan, channels=("MR0", "MR1")), Bright())
    refused(lambda: predict_path(scan, tmp_path / "out", two, asked=FindingsOptions()))
    write_series(scan / "more", np.zeros((4, 8, 8), np.uint16), number=9, words="other")
    refused(lambda: predict_path(scan, tmp_path / "out", bright, asked=FindingsOptions()))
    assert (mask.read_bytes(), findings_path(mask).read_bytes()) == before


def test_what_speaks_of_an_earlier_mask_goes_with_it(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where nothing is asked for this time."""
    one, out = write(tmp_path / "in" / "a.nii.gz"), tmp_path / "out"
    predict_path(one, out, bright, asked=FindingsOptions(page=True), save_probabilities=True)
    (out / "a_seg.dcm").write_bytes(b"an object")
    bad("NaN", one)
    refused(lambda: predict_path(one, out, bright))
    assert names(out) == {"a_seg.dcm", "dataset.json", "predictions.json", "run.json"}
    assert "a_seg.dcm: is of an earlier mask of this scan, and stays" in capsys.readouterr().err


def test_a_disk_that_is_full_is_no_fault_of_the_scan(
    half_done: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands stays."""
    before = {path: path.read_bytes() for path in half_done.iterdir()}

    def full(image: object, name: str, **_: object) -> None:
        raise RuntimeError("Exception thrown\nReason: No space left on device.")

    monkeypatch.setattr(sitk, "WriteImage", full)
    told = refused(lambda: predict_path(half_done.parent / "in", half_done, replace(bright, digest="another")))
    assert "No space left" in told and {path: path.read_bytes() for path in half_done.iterdir()} == before


def test_one_scan_made_anew_leaves_the_records_of_the_others(half_done: Path, bright: Model) -> None:
    predict_path(half_done.parent / "in" / "a.nii.gz", half_done, bright, overwrite=True)
    held = json_records.load(Prediction, half_done / "run.json", "")
    assert set(held.cases) == {"a", "b"} and len(held.starts) == 2
    age(half_done / "b.nii.gz")
    predict_path(half_done.parent / "in", half_done, bright)
    assert is_old(half_done / "b.nii.gz")


def test_two_runs_in_one_folder_lose_nothing_of_each_other(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job for each scan, all begun at once: each reads the ledger before any has written."""
    for name in "ab":
        write(tmp_path / "in" / f"{name}.nii.gz")
    out, real, begun = tmp_path / "out", predict.predict_case, []

    def beside(case: Case, *rest: Any, **more: Any) -> Any:
        if not begun:
            begun.append(case)
            predict_path(tmp_path / "in" / "b.nii.gz", out, bright)
        return real(case, *rest, **more)

    monkeypatch.setattr(predict, "predict_case", beside)
    predict_path(tmp_path / "in" / "a.nii.gz", out, bright)
    assert set(json_records.load(Predicted, out / "predictions.json", "").masks) == {"a", "b"}
    assert set(json_records.load(Prediction, out / "run.json", "").cases) == {"a", "b"}


def test_a_mask_of_two_files_is_not_written(tmp_path: Path, bright: Model) -> None:
    told = refused(lambda: predict_path(write(tmp_path / "a.nii.gz"), tmp_path / "m.mhd", bright))
    assert "would be two files" in told and names(tmp_path) == {"a.nii.gz"}


def test_the_second_file_of_a_scan_counts_too(tmp_path: Path, bright: Model) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(picture()), str(tmp_path / "a.mhd"))
    (mask,) = predict_path(tmp_path / "a.mhd", tmp_path / "out", bright)
    age(mask)
    predict_path(tmp_path / "a.mhd", tmp_path / "out", bright)
    assert is_old(mask)
    header = (tmp_path / "a.mhd").read_bytes()
    sitk.WriteImage(sitk.GetImageFromArray(picture()[::-1].copy()), str(tmp_path / "a.mhd"))
    assert (tmp_path / "a.mhd").read_bytes() == header
    predict_path(tmp_path / "a.mhd", tmp_path / "out", bright)
    assert not is_old(mask)


def test_a_failure_that_is_mended_is_not_told_beside_a_corrected_mask(corrected: Path, bright: Model) -> None:
    scan = corrected.parent / "in" / "a.nii.gz"
    scan.write_bytes(b"damaged")
    with pytest.raises(AnalysisFailed):
        predict_path(corrected.parent / "in", corrected, bright, asked=FindingsOptions(estimate=True))
    assert read_findings(findings_path(corrected / "a.nii.gz")).status == "not analysed"
    write(scan)
    predict_path(corrected.parent / "in", corrected, bright, asked=FindingsOptions(estimate=True))
    assert not findings_path(corrected / "a.nii.gz").exists()


def test_probabilities_of_an_earlier_mask_do_not_stay(tmp_path: Path, bright: Model) -> None:
    one, out = write(tmp_path / "a.nii.gz"), tmp_path / "out"
    predict_path(one, out, bright, save_probabilities=True)
    assert probability_path(out / "a.nii.gz", "thrombus").exists()
    predict_path(one, out, replace(bright, digest="another"))
    assert not probability_path(out / "a.nii.gz", "thrombus").exists()


def test_a_single_mask_that_was_changed_is_not_replaced(tmp_path: Path, bright: Model) -> None:
    scan, mask = write(tmp_path / "a.nii.gz"), tmp_path / "mask.nii.gz"
    mask.write_bytes(HAND)
    told = refused(lambda: predict_path(scan, mask, bright))
    assert told.startswith(f"{mask}: is there and is not what dvt_predict wrote") and "--overwrite" in told
    assert mask.read_bytes() == HAND
    predict_path(scan, mask, bright, overwrite=True)
    age(mask)
    predict_path(scan, mask, bright)
    assert not is_old(mask)


def test_a_single_scan_that_fails_leaves_nothing_that_speaks_of_it(tmp_path: Path, bright: Model) -> None:
    scan = write(tmp_path / "in" / "a.nii.gz")
    for out in (tmp_path / "mask.nii.gz", tmp_path / "out"):
        (mask,) = predict_path(scan, out, bright, asked=FindingsOptions(estimate=True))
        bad("NaN", scan)
        with pytest.raises(AnalysisFailed) as caught:
            predict_path(scan, out, bright, asked=FindingsOptions(estimate=True))
        ((name, why),) = caught.value.failed.items()
        assert mask.name == f"{name}.nii.gz" and "not finite" in why and str(caught.value) == why
        assert not mask.exists() and not mask.with_name(f"{mask.name.removesuffix('.nii.gz')}_levels.json").exists()
        assert read_findings(findings_path(mask)).status == "not analysed"
        write(scan)


def test_a_study_that_cannot_be_opened_any_more_has_no_findings(scan: Path, tmp_path: Path, bright: Model) -> None:
    (mask,) = predict_path(scan, tmp_path / "out", bright, asked=FindingsOptions())
    next(scan.iterdir()).unlink()
    middle = sorted(scan.iterdir())[len(list(scan.iterdir())) // 2]
    middle.unlink()
    with pytest.raises(AnalysisFailed):
        predict_path(scan, tmp_path / "out", bright, asked=FindingsOptions())
    assert not mask.exists() and read_findings(findings_path(mask)).status == "not analysed"


def test_probabilities_that_are_not_there_yet_are_made(half_done: Path, bright: Model) -> None:
    assert remade(half_done, bright, save_probabilities=True)
    age(half_done / "a.nii.gz")
    assert not remade(half_done, bright, save_probabilities=True) and not remade(half_done, bright)
    (half_done / "a_probability_thrombus.nii.gz").unlink()
    assert remade(half_done, bright, save_probabilities=True)


def test_probabilities_of_another_model_do_not_pass_for_this_ones(half_done: Path, bright: Model) -> None:
    remade(half_done, bright, save_probabilities=True)
    remade(half_done, replace(bright, digest="another"))
    age(half_done / "a.nii.gz")
    assert remade(half_done, replace(bright, digest="another"), save_probabilities=True)


def test_a_damaged_ledger_is_one_line(half_done: Path, bright: Model) -> None:
    (half_done / "predictions.json").write_text("{")
    message = refused(lambda: remade(half_done, bright))
    assert "predictions.json: is not readable JSON" in message and "dvt_predict --overwrite" in message


def test_a_damaged_ledger_does_not_stop_an_overwrite(half_done: Path, bright: Model) -> None:
    (half_done / "predictions.json").write_text("{")
    assert remade(half_done, bright, overwrite=True)


def test_predicting_a_fold_again_keeps_its_masks_and_clears_drafts(trained: Workspace) -> None:
    out = trained.fold("gn_unet", 0).predictions
    before = {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")}
    (out / f"{TEMP_PREFIX}abc-c0.nii.gz").touch()
    assert predict_fold(trained, "gn_unet", 0) == out
    assert {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")} == before
    assert not list(out.glob(f"{TEMP_PREFIX}*"))


# --- the record of a prediction -------------------------------------------------------------------


def record(path: Path) -> Prediction:
    return json_records.load(Prediction, path, "test")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_record_tells_how_each_mask_came_to_be(half_done: Path, bright: Model) -> None:
    remade(half_done, replace(bright, path=Path("m.zip"), network="gn_unet"), overwrite=True, save_probabilities=True)
    found = record(half_done / "run.json")
    assert (found.model, found.network) == (str(Path("m.zip").absolute()), "gn_unet")
    assert (found.model_digest, found.folds, found.classes) == (bright.digest, (0,), {"thrombus": 1})
    (start,) = found.starts
    assert (start.device, start.precision, start.setup) == ("cpu", "fp32", bright.setup.description)
    folder = half_done.parent / "in"
    assert start.options == {
        "input": str(folder), "output": str(half_done), "overwrite": "True", "save_probabilities": "True"
    }  # fmt: skip
    assert set(found.cases) == {"a", "b"}
    for name, case in found.cases.items():
        assert case.images == {f"{name}.nii.gz": sha256(folder / f"{name}.nii.gz")}
        assert (case.mask, case.mask_digest) == (f"{name}.nii.gz", sha256(half_done / f"{name}.nii.gz"))
        assert case.slices == 6 and start.started <= case.finished
        assert min(case.reading_s, case.network_s, case.writing_s) >= 0


def test_a_record_lists_what_was_kept_and_what_was_made(half_done: Path, bright: Model) -> None:
    before = record(half_done / "run.json")
    (half_done / "b.nii.gz").unlink()
    write(half_done.parent / "in" / "c.nii.gz")
    remade(half_done, replace(bright, setup=replace(bright.setup, description="Elsewhere.")))
    after = record(half_done / "run.json")
    assert [after.starts[after.cases[k].start].setup for k in "abc"] == [bright.setup.description, *["Elsewhere."] * 2]
    assert after.cases["a"] == before.cases["a"]


def test_each_share_has_a_record_of_its_own(half_done: Path, bright: Model) -> None:
    for k in (1, 2):
        predict_path(half_done.parent / "in", half_done.parent / "shared", bright, part=(k, 2))
    records = [record(half_done.parent / "shared" / f"run_{k}_of_2.json") for k in (1, 2)]
    assert [set(one.cases) for one in records] == [{"a"}, {"b"}]
    assert records[0].starts[0].options["part"] == "1/2"
    write(half_done.parent / "in" / "c.nii.gz")
    predict_path(half_done.parent / "in", half_done.parent / "shared", bright)
    assert set(record(half_done.parent / "shared" / "run.json").cases) == {"a", "b", "c"}


def test_a_single_mask_has_its_record_beside_it(half_done: Path, bright: Model) -> None:
    image = half_done.parent / "in" / "a.nii.gz"
    for _ in range(2):
        predict_path(image, half_done.parent / "one" / "mask.nii.gz", bright)
    folder = half_done.parent / "one"
    assert names(folder) == {"mask.nii.gz", "mask_run.json"}
    (case,) = record(folder / "mask_run.json").cases.values()
    assert case.mask_digest == sha256(folder / "mask.nii.gz") and case.images == {"a.nii.gz": sha256(image)}


def test_masks_among_a_trainings_files_do_not_replace_its_record(trained: Workspace, bright: Model) -> None:
    folder = trained.fold("gn_unet", 0)
    before = folder.run.read_bytes()
    for overwrite in (False, True):
        message = refused(
            lambda o=overwrite: predict_path(trained.raw / "imagesTr", folder.path, bright, overwrite=o)  # type: ignore[misc]
        )
        assert "expected Prediction, schema 1; found Run" in message and "another -o" in message
    assert folder.run.read_bytes() == before and not list(folder.path.glob("*.nii.gz"))


def test_a_dicom_series_is_named_in_the_record(scan: Path, tmp_path: Path, bright: Model) -> None:
    predict_path(scan, tmp_path / "out", bright, series=["5"])
    found = record(tmp_path / "out" / "run.json")
    assert list(found.cases["scan"].images) == [f"{scan}: series 5"]
    assert (
        found.starts[0].options["series"] == "5" and "dvt_predict_" not in (tmp_path / "out" / "run.json").read_text()
    )


# --- memory ---------------------------------------------------------------------------------------

PEAKS = """
import resource, sys
from pathlib import Path
from dvtplan.core import json_records
from dvtplan.inference import predict
from dvtplan.inference.model import Model
from dvtplan.models import devices
from dvtplan.models.networks.registry import build
from dvtplan.planning.plan import Plan
from dataclasses import replace
plan = replace(json_records.load(Plan, Path(sys.argv[1]), "test"), target_shape=(192, 192))
network = build("gn_unet", 1, 1, width=4, norm_groups=2).eval()
model = Model(networks=(network,), folds=(0,), plan=plan, classes={"thrombus": 1},
              setup=devices.choose("cpu"), digest="x")
for path in sys.argv[2:]:
    predict.predict_path(Path(path), Path(path + "_out"), model)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_does_not_grow_with_the_slices(tmp_path: Path, toy_once: Workspace) -> None:
    """Three times the slices may cost what the file itself takes, a few times over, and no more.

    80 more slices of 192x192 are 12 MB as float32. Through the network at once they would be 16
    maps of 47 MB at its first level alone.
    """
    paths = []
    for slices in (40, 120):
        grid = replace(CORONAL, shape=(slices, 192, 192))
        noise = np.random.default_rng(0).random(grid.shape, np.float32)
        paths.append(str(write(tmp_path / f"s{slices}.nrrd", noise, grid)))
    # The slices must run along the axis that the plan names, though it is not the shortest here.
    words = [sys.executable, "-c", PEAKS, str(toy_once.plan), *paths]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    once, thrice = (int(line) for line in done.stdout.split())
    assert thrice - once < 5 * 12e6


def test_digits_in_the_name_of_a_scan_are_no_channel_without_a_channel_0(tmp_path: Path) -> None:
    for name in ("scan_2019", "scan_2020", "other_0000"):
        (tmp_path / f"{name}.nii.gz").touch()
    assert [case.id for case in find_cases(tmp_path, 1)] == ["other", "scan_2019", "scan_2020"]
