"""One case: mask, findings, summary and warnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.dicom_files import read as read_dicom
from helpers.dicom_files import write_series
from helpers.models import Bright, model_of
from helpers.predictions import CORONAL, Constant, names, picture, read_findings, write
from helpers.refusals import refused

from dvtplan.anatomy.knee import estimate
from dvtplan.anatomy.landmarks import Landmarks
from dvtplan.anatomy.levels import Levels
from dvtplan.core import digests as digests_module
from dvtplan.core import json_records
from dvtplan.data.dataset import Case
from dvtplan.data.mask_files import findings_path, levels_path, probability_path
from dvtplan.data.paths import Workspace
from dvtplan.findings import burden
from dvtplan.findings.options import FindingsOptions
from dvtplan.findings.writer import FindingsBuilder
from dvtplan.imaging import volume_io
from dvtplan.inference.model import Model, load_model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.predict import predict_path
from dvtplan.inference.predict_case import predict_case
from dvtplan.models import devices
from dvtplan.planning.plan import Plan


def test_knees_are_estimated_from_the_image_if_no_level_is_given(scan: Path, tmp_path: Path, bright: Model) -> None:
    """The image is the one that the mask is predicted from."""
    (mask,) = predict_path(scan, tmp_path / "out", bright, findings=FindingsOptions(record=False, estimate_levels=True))
    found = json_records.load(Landmarks, levels_path(mask), "dvt_predict")
    assert levels_path(mask) == tmp_path / "out" / "scan_levels.json" and found == estimate(*read_dicom(scan))
    known = FindingsOptions(record=False, estimate_levels=True, levels_table={"other": Levels(left_mm=1.0)})
    predict_path(scan, tmp_path / "other.nii.gz", bright, findings=known)
    assert [path.name for path in tmp_path.glob("*.json")] == ["other_run.json"]


def test_a_missing_input_is_refused(tmp_path: Path, bright: Model) -> None:
    missing = tmp_path / "missing.nii.gz"
    assert refused(lambda: predict_path(missing, tmp_path / "out", bright)).startswith(f"{missing}: not found")
    (tmp_path / "empty").mkdir()
    message = refused(lambda: predict_path(tmp_path / "empty", tmp_path / "out", bright))
    assert "contains no volume (.nii.gz, .nii" in message
    assert names(tmp_path) == {"empty"}
    case = Case(id="a", patient="a", images=(missing,))
    assert "not found" in refused(lambda: predict_case(case, tmp_path / "out" / "a.nii.gz", bright))


def test_findings_and_summary_are_written_next_to_the_mask(tmp_path: Path, bright: Model) -> None:
    image = write(tmp_path / "in" / "a.nii.gz")
    findings = FindingsOptions(summary=True, levels_table={"a": Levels(left_mm=30.0)})
    (mask,) = predict_path(tmp_path / "in", tmp_path / "out", bright, findings=findings)
    message = {f"a_{name}" for name in ("findings.json", "summary.html", "summary.pdf", "summary.png")}
    assert names(tmp_path / "out") == {"a.nii.gz", "dataset.json", "predictions.json", "run.json", *message}
    record, (array, grid) = read_findings(tmp_path / "out" / "a_findings.json"), volume_io.read(mask)
    assert record.status == "analysed" and record.mask_digest == digests_module.sha256(mask)
    assert record.volume_ml == pytest.approx((array != 0).sum() * grid.voxel_ml)
    assert sum(one.volume_ml for one in record.lesions) == pytest.approx(record.volume_ml)
    assert record.burden == tuple(burden.measure(array, grid, Levels(left_mm=30.0)))
    assert record.level_source == "table" and record.images == (image.name,)
    assert record.highest_probability == pytest.approx(1.0, abs=1e-3) and record.out_of_range is None
    assert record.lesions[0].agreement_mean is None


def test_the_mask_does_not_depend_on_the_findings(tmp_path: Path, plan: Plan) -> None:
    model = model_of(plan, Bright(), Constant(0.3), Constant(0.2))
    image = write(tmp_path / "a.nii.gz")
    (plain,) = predict_path(image, tmp_path / "plain", model)
    (message,) = predict_path(image, tmp_path / "message", model, findings=FindingsOptions())
    assert plain.read_bytes() == message.read_bytes()


def test_each_fold_votes_for_itself(tmp_path: Path, plan: Plan) -> None:
    """0.3, 0.35 and 0.94 average 0.53: one of three folds alone would segment."""
    model = model_of(plan, Constant(0.3), Constant(0.35), Constant(0.94))
    predict_path(write(tmp_path / "a.nii.gz"), tmp_path / "out", model, findings=FindingsOptions())
    record = read_findings(tmp_path / "out" / "a_findings.json")
    (lesion,) = record.lesions
    assert (lesion.agreement_mean, lesion.agreement_min) == (pytest.approx(1 / 3), 0.0)
    assert lesion.probability_mean == pytest.approx(0.53, abs=1e-3) and record.sub_threshold_ml == {
        "left": 0,
        "right": 0,
    }


def test_sub_threshold_voxels_are_not_a_lesion(tmp_path: Path, plan: Plan) -> None:
    predict_path(
        write(tmp_path / "a.nii.gz"), tmp_path / "out", model_of(plan, Constant(0.4)), findings=FindingsOptions()
    )
    record = read_findings(tmp_path / "out" / "a_findings.json")
    assert record.lesions == () and record.in_words.endswith("This does not rule out thrombus.")
    assert sum(record.sub_threshold_ml.values()) == pytest.approx(picture().size * CORONAL.voxel_ml)


def test_classes_of_a_softmax_are_one_lesion(tmp_path: Path, plan: Plan) -> None:
    """The means are 0.35 (background), 0.25 and 0.4; for the second fold the background is most probable."""
    model = model_of(plan, Constant(0.2, 0.2, 0.6), Constant(0.5, 0.3, 0.2), classes={"anterior": 3, "posterior": 7})
    predict_path(write(tmp_path / "a.nii.gz"), tmp_path / "out", model, findings=FindingsOptions())
    (lesion,) = read_findings(tmp_path / "out" / "a_findings.json").lesions
    assert lesion.label == "posterior" and (lesion.agreement_mean, lesion.agreement_min) == (0.5, 0.0)
    assert lesion.probability_mean == pytest.approx(0.65, abs=1e-3)


def test_another_file_with_the_name_of_a_summary_is_kept(tmp_path: Path, bright: Model) -> None:
    image = write(tmp_path / "a.nii.gz")
    (tmp_path / "mask_summary.pdf").write_text("mine")
    predict_path(image, tmp_path / "mask.nii.gz", bright)
    assert (tmp_path / "mask_summary.pdf").read_text() == "mine"


def test_a_dicom_scan_is_reported_by_its_display_name(scan: Path, tmp_path: Path, bright: Model) -> None:
    predict_path(scan, tmp_path / "out", bright, findings=FindingsOptions(summary=True))
    record = read_findings(tmp_path / "out" / "scan_findings.json")
    assert record.images == (f"{scan}: series 5",) and (tmp_path / "out" / "scan_summary.html").exists()
    write_series(tmp_path / "zero", np.zeros(CORONAL.shape, np.uint16))
    message = refused(lambda: predict_path(tmp_path / "zero", tmp_path / "out", bright, findings=FindingsOptions()))
    assert read_findings(tmp_path / "out" / "zero_findings.json").reason == message


def test_a_scan_out_of_the_training_range_is_predicted_with_a_warning(
    trained_once: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The toy has 2 mm pixels; 2.25 and 1.75 mm differ by 12 %. The toy itself is in range."""
    model = load_model(trained_once.results("gn_unet"), setup=devices.choose("cpu"))
    write(tmp_path / "scan.nii.gz")
    predict_path(tmp_path / "scan.nii.gz", tmp_path / "out", model, findings=FindingsOptions())
    message = capsys.readouterr().err
    assert "warning: scan: differs from the 4 training scans" in message
    assert "voxel spacing from head to foot 2.25 mm (training 2 mm, 12 % above)" in message
    out_of_range = read_findings(tmp_path / "out" / "scan_findings.json").out_of_range
    assert out_of_range is not None and {"voxel spacing from head to foot"} <= {one.quantity for one in out_of_range}
    predict_path(trained_once.raw / "imagesTr", tmp_path / "toy", model)
    assert "warning" not in capsys.readouterr().err


def test_a_model_without_a_fingerprint_compares_nothing_and_says_so(
    trained: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.results_fingerprint("gn_unet").unlink()
    model = load_model(trained.results("gn_unet"), setup=devices.choose("cpu"))
    predict_path(write(tmp_path / "scan.nii.gz"), tmp_path / "out", model, findings=FindingsOptions())
    message = capsys.readouterr().err
    assert message.count("no fingerprint of its training scans") == 1 and "warning" not in message
    record = read_findings(tmp_path / "out" / "scan_findings.json")
    assert record.out_of_range is None and any("not known whether" in line for line in record.warnings)


def test_a_failed_write_leaves_no_partial_file(tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """SimpleITK reports a full disk as an exception of its own."""
    write(tmp_path / "in" / "a.nii.gz")

    def full(image: object, name: str, **_: object) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("Exception thrown\nReason: No space left on device.")

    monkeypatch.setattr(sitk, "WriteImage", full)
    message = refused(lambda: predict_path(tmp_path / "in", tmp_path / "out", bright))
    assert "No space left on device" in message and names(tmp_path / "out") == set()


def test_a_mask_is_logged_before_its_findings_are_written(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a run that is interrupted by then would leave a mask that counts as edited."""
    write(tmp_path / "a.nii.gz")

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    for out in (tmp_path / "out", tmp_path / "single.nii.gz"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(FindingsBuilder, "write", stops)
            predict_path(tmp_path / "a.nii.gz", out, bright, findings=FindingsOptions())
        (mask,) = predict_path(tmp_path / "a.nii.gz", out, bright, findings=FindingsOptions())
        assert read_findings(findings_path(mask)).status == "analysed"


def test_probabilities_of_an_earlier_mask_are_removed(tmp_path: Path, bright: Model) -> None:
    one, out = write(tmp_path / "a.nii.gz"), tmp_path / "out"
    predict_path(one, out, bright, PredictOptions(save_probabilities=True))
    assert probability_path(out / "a.nii.gz", "thrombus").exists()
    predict_path(one, out, replace(bright, digest="another"))
    assert not probability_path(out / "a.nii.gz", "thrombus").exists()
