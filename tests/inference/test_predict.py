"""Prediction of a file, a folder, a DICOM scan, stations, or a fold."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dicom_files import OBLIQUE, write_series
from helpers.dicom_files import read as read_dicom
from helpers.models import Bright, model_of
from helpers.predictions import CORONAL, age, is_old, mask_of, names, picture, read_findings, write
from helpers.refusals import refused

from dvtplan.core import files, json_records
from dvtplan.core.files import TEMP_PREFIX
from dvtplan.data.folds import Splits
from dvtplan.data.mask_files import findings_path
from dvtplan.data.paths import Workspace
from dvtplan.findings.options import FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.inference.model import Model, load_model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.predict import predict_fold, predict_path
from dvtplan.models import devices
from dvtplan.planning.plan import Plan


def assert_mask_of_scan(path: Path, scan: Path) -> None:
    """Check that the mask is bright where the picture is, except at edges, and has the grid of the scan."""
    mask, where = volume_io.read(path)
    assert mask[1:4, 6:14, 21:28].all() and mask.sum() < 400
    assert np.abs(where.corners_mm() - read_dicom(scan)[1].corners_mm()).max() < 1e-4


def test_a_series_that_is_not_mr_is_the_first_warning(
    tmp_path: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    def to_ct(ds: Any, _: int) -> None:
        ds.Modality = "CT"

    write_series(tmp_path / "scan", picture().astype(np.uint16), change=to_ct)
    (mask,) = predict_path(tmp_path / "scan", tmp_path / "out", model_of(plan, Bright()), findings=FindingsOptions())
    message = "Series 5 is CT, but the model is for MR: the result may have no meaning."
    assert (
        f"warning: {message}" in capsys.readouterr().err and read_findings(findings_path(mask)).warnings[0] == message
    )
    ct = replace(plan, channels=("CT",))
    predict_path(
        tmp_path / "scan", tmp_path / "out", model_of(ct, Bright()), PredictOptions(overwrite=True), FindingsOptions()
    )
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
    predict_path(scan, tmp_path / "out", bright, PredictOptions(overwrite=True))
    assert not is_old(mask)
    assert_mask_of_scan(mask, scan)


def test_one_of_several_series_must_be_chosen(scan: Path, tmp_path: Path, bright: Model) -> None:
    write_series(scan / "more", np.zeros((4, 8, 8), np.uint16), number=9, words="other")
    message = refused(lambda: predict_path(scan, tmp_path / "out", bright))
    assert "5 (cor_fl3d_vein" in message and "9 (other" in message and not (tmp_path / "out").exists()
    (mask,) = predict_path(scan, tmp_path / "out", bright, PredictOptions(series=("5",)))
    assert mask.name == "scan_series_5.nii.gz" and mask_of(mask).shape == CORONAL.shape


def test_two_channels_take_two_series(scan: Path, tmp_path: Path, plan: Plan) -> None:
    """They are in the order of the channels; the network uses the second."""
    write_series(scan / "more", np.arange(6 * 34 * 33, dtype=np.uint16).reshape(CORONAL.shape), number=9, plane=OBLIQUE)
    two = model_of(replace(plan, channels=("MR0", "MR1")), Bright(1))
    message = refused(lambda: predict_path(scan, tmp_path / "out", two))
    assert "the model takes 2 channels. Give as many `series`" in message
    (mask,) = predict_path(scan, tmp_path / "out", two, PredictOptions(series=("9", "5")))
    assert mask_of(mask)[1:4, 6:14, 21:28].all()


def test_a_faulty_image_is_named_by_its_series(tmp_path: Path, bright: Model) -> None:
    write_series(tmp_path / "scan", np.zeros(CORONAL.shape, np.uint16))
    message = refused(lambda: predict_path(tmp_path / "scan", tmp_path / "out", bright))
    assert message.startswith(f"{tmp_path / 'scan'}: series 5: every voxel is 0")


def test_stations_are_predicted_as_one_scan(tmp_path: Path, bright: Model) -> None:
    """Two halves of the picture share four rows; the result is a mask of the whole and one of each half."""
    whole = mask_of(predict_path(write(tmp_path / "whole.nii.gz"), tmp_path / "whole_mask.nii.gz", bright)[0])
    for name, top, bottom in (("upper", 0, 20), ("lower", 16, 34)):
        origin = CORONAL.position_mm(np.array([0, top, 0]))
        grid = replace(CORONAL, shape=(6, bottom - top, 33), origin_mm=tuple(origin))
        write(tmp_path / "parts" / f"{name}.nii.gz", picture()[:, top:bottom], grid)
    stations = ["lower.nii.gz", "upper.nii.gz"]
    masks = predict_path(tmp_path / "parts", tmp_path / "out", bright, PredictOptions(stations=tuple(stations)))
    names = ["parts", "parts_station_upper", "parts_station_lower", "parts_stations"]
    assert [p.name.partition(".")[0] for p in masks] == names
    assert np.array_equal(mask_of(masks[0]), whole)
    assert np.array_equal(mask_of(masks[1]), whole[:, :20]) and np.array_equal(mask_of(masks[2]), whole[:, 16:])


def test_an_output_that_cannot_be_a_mask_or_folder_is_refused(tmp_path: Path, bright: Model) -> None:
    scan = write(tmp_path / "in" / "a.nii.gz")
    assert "x.txt: is not the name of a mask" in refused(lambda: predict_path(scan, tmp_path / "x.txt", bright))
    assert names(tmp_path) == {"in"}
    (tmp_path / "out" / "a.nii.gz").mkdir(parents=True)
    assert "a.nii.gz: is a folder" in refused(lambda: predict_path(scan, tmp_path / "out", bright))
    assert "a.nii.gz: is a folder" in refused(lambda: predict_path(scan, tmp_path / "out" / "a.nii.gz", bright))


def test_stations_of_a_file_are_refused(tmp_path: Path, bright: Model) -> None:
    scan = write(tmp_path / "a.nii.gz")
    stations = PredictOptions(stations=("a", "b"))
    assert "a.nii.gz: is not a folder" in refused(lambda: predict_path(scan, tmp_path / "out", bright, stations))


def test_a_model_may_be_given_by_its_path(trained_once: Workspace, tmp_path: Path) -> None:
    scan, results = trained_once.raw / "imagesTr" / "c0_0000.nii.gz", trained_once.results("gn_unet")
    predict_path(scan, tmp_path / "a.nii.gz", str(results))
    predict_path(scan, tmp_path / "b.nii.gz", load_model(results))
    assert np.array_equal(mask_of(tmp_path / "a.nii.gz"), mask_of(tmp_path / "b.nii.gz"))
    checkpoint = trained_once.fold("gn_unet", 0).checkpoint
    assert "checkpoint.pt: is a checkpoint" in refused(lambda: predict_path(scan, tmp_path / "c.nii.gz", checkpoint))


def test_a_fold_that_does_not_exist_is_refused(trained_once: Workspace) -> None:
    assert "holds the folds 0 to 1" in refused(lambda: predict_fold(trained_once.root, "gn_unet", 7))


def test_series_need_dicom(tmp_path: Path, bright: Model) -> None:
    path = write(tmp_path / "a.nii.gz")
    assert "is not DICOM" in refused(
        lambda: predict_path(path, tmp_path / "out", bright, PredictOptions(series=("5",)))
    )


def test_the_thrombus_of_a_folds_test_patients_is_segmented(trained_once: Workspace) -> None:
    """After eight epochs on two cases of a bright disc, most of the disc is segmented in other cases."""
    splits = json_records.load(Splits, trained_once.splits, "test")
    for fold in splits.folds:
        out = trained_once.fold("gn_unet", fold.index).predictions
        assert names(out) == {"dataset.json", "predictions.json", "run.json", *(f"{c}.nii.gz" for c in fold.test)}
        for case in fold.test:
            truth, grid = volume_io.read(trained_once.raw / "labelsTr" / f"{case}.nii.gz")
            mask, own = volume_io.read(out / f"{case}.nii.gz")
            assert own == grid
            assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.7


def test_a_folder_gives_a_folder_and_a_file_gives_a_file_or_a_folder(tmp_path: Path, bright: Model) -> None:
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


def test_numbered_files_are_the_channels_of_a_case(tmp_path: Path, plan: Plan, bright: Model) -> None:
    """A model that uses the second channel, the negative of the first, gives the same mask."""
    two = replace(plan, channels=("MR0", "MR1"))
    write(tmp_path / "in" / "a_0000.nii.gz")
    write(tmp_path / "in" / "a_0001.nii.gz", 2000.0 - picture())
    (mask,) = predict_path(tmp_path / "in", tmp_path / "out", model_of(two, Bright(1, -1.0)))
    predict_path(tmp_path / "in" / "a_0000.nii.gz", tmp_path / "one.nii.gz", bright)
    assert mask.name == "a.nii.gz" and np.array_equal(mask_of(mask), mask_of(tmp_path / "one.nii.gz"))


@pytest.mark.parametrize("target", ["file", "below a file"])
def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path: Path, bright: Model, target: str) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "out").write_text("a file")
    out = tmp_path / "out" if target == "file" else tmp_path / "out" / "deeper"
    words = "is a file. Choose a folder" if target == "file" else "cannot be written"
    assert words in refused(lambda: predict_path(tmp_path / "in", out, bright))
    assert (tmp_path / "out").read_text() == "a file"


def test_a_folder_of_scans_needs_an_output_folder(tmp_path: Path, bright: Model) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    message = refused(lambda: predict_path(tmp_path / "in", tmp_path / "mask.nii.gz", bright))
    assert "is one mask, but" in message and names(tmp_path) == {"in"}


def test_a_mask_never_replaces_an_image(tmp_path: Path, bright: Model) -> None:
    folder = tmp_path / "in"
    image = write(folder / "a.nii.gz")
    before = image.read_bytes()
    for source, out in (
        (image, image),
        (image, folder),
        (folder, folder),
        (folder, tmp_path / "in" / ".." / "in"),
    ):
        assert "Choose another `output`" in refused(lambda s=source, o=out: predict_path(s, o, bright))  # type: ignore[misc]
    assert image.read_bytes() == before and names(folder) == {"a.nii.gz"}


def test_a_mask_of_two_files_is_not_written(tmp_path: Path, bright: Model) -> None:
    message = refused(lambda: predict_path(write(tmp_path / "a.nii.gz"), tmp_path / "m.mhd", bright))
    assert "two files" in message and names(tmp_path) == {"a.nii.gz"}


@pytest.mark.parametrize("name", ["m.NII.GZ", "m.Nii", "m.NRRD", "m.nhdr", "m.gipl"])
def test_a_mask_in_a_format_that_is_not_written_is_no_folder(tmp_path: Path, bright: Model, name: str) -> None:
    message = refused(lambda: predict_path(write(tmp_path / "a.nii.gz"), tmp_path / name, bright))
    assert "is not the name of a mask" in message and names(tmp_path) == {"a.nii.gz"}


def test_predicting_a_fold_again_keeps_its_masks_and_clears_drafts(trained: Workspace) -> None:
    out = trained.fold("gn_unet", 0).predictions
    before = {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")}
    (out / f"{TEMP_PREFIX}abc-c0.nii.gz").touch()
    assert predict_fold(trained, "gn_unet", 0) == out
    assert {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")} == before
    assert not list(out.glob(f"{TEMP_PREFIX}*"))


def test_a_prediction_removes_what_a_killed_one_left(tmp_path: Path, bright: Model) -> None:
    out = tmp_path / "out"
    out.mkdir()
    left = [out / f"{TEMP_PREFIX}{files._host()}-12345678-b.nii.gz", out / ".b.nii.gz.lock", out / ".predictions.lock"]
    for path in (*left, out / ".other.lock"):
        path.touch()
    predict_path(write(tmp_path / "a.nii.gz"), out, bright)
    assert [p.name for p in out.glob(".*")] == [".other.lock"]


@pytest.mark.parametrize("channels_last", [False, True])
def test_masks_in_bf16_are_those_in_float32(trained_once: Workspace, tmp_path: Path, channels_last: bool) -> None:
    """A trained network: Dice of each case at least .99 between the masks, and within .005 against the truth."""
    scores = {}
    for precision in ("fp32", "bf16"):
        setup = devices.choose("cpu", precision=precision, channels_last=channels_last)
        model = load_model(trained_once.results("gn_unet"), setup=setup)
        predict_path(trained_once.raw / "imagesTr", tmp_path / precision, model)
        assert model.setup.precision == precision
    for truth_path in sorted((trained_once.raw / "labelsTr").glob("*.nii.gz")):
        truth = volume_io.read(truth_path)[0] > 0
        exact, found = (volume_io.read(tmp_path / p / truth_path.name)[0] > 0 for p in ("fp32", "bf16"))
        assert exact.any() and dice(exact, found) >= 0.99
        scores[truth_path.name] = dice(exact, truth) - dice(found, truth)
    assert max(map(abs, scores.values())) <= 0.005


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())
