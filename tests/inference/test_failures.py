"""Scans that cannot be analysed: the others continue, and no output of an earlier mask remains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.dicom_files import write_series
from helpers.models import Bright, model_of
from helpers.predictions import bad, names, read_findings, write
from helpers.refusals import refused

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.mask_files import findings_path
from dvtplan.data.prediction_records import PredictionIndex
from dvtplan.findings import record as record_module
from dvtplan.findings.options import FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.inference.model import Model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.outcome import AnalysisFailed
from dvtplan.inference.predict import predict_path
from dvtplan.planning.plan import Plan


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("NaN", "1 of 6732 voxels are not finite"),
        ("constant", "every voxel is 7"),
        ("4-D", "expected 3-D"),
        ("cut off", "damaged or truncated"),
        ("text", "not gzip"),
    ],
)
def test_a_bad_image_is_reported_in_one_line_and_the_others_are_predicted(
    tmp_path: Path, bright: Model, kind: str, words: str
) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    bad(kind, tmp_path / "in" / "b.nii.gz")
    write(tmp_path / "in" / "c.nii.gz")
    out = tmp_path / "out"
    with pytest.raises(AnalysisFailed) as caught:
        predict_path(tmp_path / "in", out, bright, PredictOptions(save_probabilities=True))
    first, line = str(caught.value).splitlines()
    assert first == "1 of 3 scans could not be analysed; nothing is known about them:"
    assert line.startswith(f"{tmp_path / 'in' / 'b.nii.gz'}: ") and words in line
    assert caught.value.masks == (out / "a.nii.gz", out / "c.nii.gz") and caught.value.failed == {"b": line}
    masks = {f"{name}{end}.nii.gz" for name in "ac" for end in ("", "_probability_thrombus")}
    assert names(out) == {*masks, "b_findings.json", "dataset.json", "predictions.json", "run.json"}
    assert set(json_records.load(PredictionIndex, out / "predictions.json", "test").cases) == {"a", "c"}
    record = record_module.read_findings(out / "b_findings.json")
    assert record is not None and (record.status, record.reason) == ("not analysed", line)
    assert record.burden == () and record.highest_probability is None and record.mask is None


def test_masks_of_the_good_scans_have_their_extra_formats(tmp_path: Path, bright: Model) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    bad("NaN", tmp_path / "in" / "b.nii.gz")
    out = tmp_path / "out"
    with pytest.raises(AnalysisFailed) as caught:
        predict_path(tmp_path / "in", out, bright, PredictOptions(extra_formats=("itksnap",)))
    assert caught.value.written == (out / "a.nii.gz", out / "a_labels.txt")
    assert (out / "a_labels.txt").exists() and not (out / "b_labels.txt").exists()


def test_a_single_bad_image_is_reported_in_one_line_and_leaves_no_file(tmp_path: Path, bright: Model) -> None:
    (tmp_path / "in").mkdir()
    bad("NaN", tmp_path / "in" / "b.nii.gz")
    for source, out in ((tmp_path / "in", tmp_path / "out"), (tmp_path / "in" / "b.nii.gz", tmp_path / "b.nrrd")):
        assert "not finite" in refused(lambda s=source, o=out: predict_path(s, o, bright))  # type: ignore[misc]
    assert names(tmp_path / "out") == set() and names(tmp_path) == {"in"}
    assert "not finite" in refused(lambda: predict_path(source, out, bright, findings=FindingsOptions()))
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
    """If not even the reason can be written, the next scans would fail too."""
    for name in "abc":
        write(tmp_path / "in" / f"{name}.nii.gz")

    def full(*_: object, **__: object) -> None:
        raise DvtError("disk full")

    monkeypatch.setattr(volume_io, "write_mask", full)
    monkeypatch.setattr(json_records, "save", full)
    assert refused(lambda: predict_path(tmp_path / "in", tmp_path / "out", bright)) == "disk full"


def test_a_wrong_option_does_not_remove_existing_outputs(scan: Path, tmp_path: Path, bright: Model, plan: Plan) -> None:
    (mask,) = predict_path(scan, tmp_path / "out", bright, findings=FindingsOptions())
    before = mask.read_bytes(), findings_path(mask).read_bytes()
    for series in (("99",), ("5", "5")):
        refused(
            lambda s=series: predict_path(scan, tmp_path / "out", bright, PredictOptions(series=s), FindingsOptions())
        )  # type: ignore[misc]
    two = model_of(replace(plan, channels=("MR0", "MR1")), Bright())
    refused(lambda: predict_path(scan, tmp_path / "out", two, findings=FindingsOptions()))
    write_series(scan / "more", np.zeros((4, 8, 8), np.uint16), number=9, words="other")
    refused(lambda: predict_path(scan, tmp_path / "out", bright, findings=FindingsOptions()))
    assert (mask.read_bytes(), findings_path(mask).read_bytes()) == before


def test_all_outputs_of_an_earlier_mask_are_removed_with_it(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if this run requests no findings."""
    one, out = write(tmp_path / "in" / "a.nii.gz"), tmp_path / "out"
    predict_path(one, out, bright, PredictOptions(save_probabilities=True), FindingsOptions(summary=True))
    (out / "a_seg.dcm").write_bytes(b"an object")
    bad("NaN", one)
    refused(lambda: predict_path(one, out, bright))
    assert names(out) == {"a_seg.dcm", "dataset.json", "predictions.json", "run.json"}
    assert "a_seg.dcm: belongs to an earlier mask of this scan and is kept" in capsys.readouterr().err


def test_a_full_disk_is_not_a_failure_of_the_scan(
    half_done: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Existing files stay."""
    before = {path: path.read_bytes() for path in half_done.iterdir()}

    def full(image: object, name: str, **_: object) -> None:
        raise RuntimeError("Exception thrown\nReason: No space left on device.")

    monkeypatch.setattr(sitk, "WriteImage", full)
    message = refused(lambda: predict_path(half_done.parent / "in", half_done, replace(bright, digest="another")))
    assert "No space left" in message and {path: path.read_bytes() for path in half_done.iterdir()} == before


def test_a_failed_single_scan_leaves_no_earlier_outputs(tmp_path: Path, bright: Model) -> None:
    scan = write(tmp_path / "in" / "a.nii.gz")
    for out in (tmp_path / "mask.nii.gz", tmp_path / "out"):
        (mask,) = predict_path(scan, out, bright, findings=FindingsOptions(estimate_levels=True))
        bad("NaN", scan)
        with pytest.raises(AnalysisFailed) as caught:
            predict_path(scan, out, bright, findings=FindingsOptions(estimate_levels=True))
        ((name, why),) = caught.value.failed.items()
        assert mask.name == f"{name}.nii.gz" and "not finite" in why and str(caught.value) == why
        assert not mask.exists() and not mask.with_name(f"{mask.name.removesuffix('.nii.gz')}_levels.json").exists()
        assert read_findings(findings_path(mask)).status == "not analysed"
        write(scan)


def test_an_unreadable_study_has_no_mask_and_no_findings(scan: Path, tmp_path: Path, bright: Model) -> None:
    (mask,) = predict_path(scan, tmp_path / "out", bright, findings=FindingsOptions())
    next(scan.iterdir()).unlink()
    middle = sorted(scan.iterdir())[len(list(scan.iterdir())) // 2]
    middle.unlink()
    with pytest.raises(AnalysisFailed):
        predict_path(scan, tmp_path / "out", bright, findings=FindingsOptions())
    assert not mask.exists() and read_findings(findings_path(mask)).status == "not analysed"
