"""Edited masks and masks from elsewhere are never replaced or removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.models import model_of
from helpers.predictions import EDITED, Constant, age, bad, is_old, mask_of, picture, read_findings, write
from helpers.refusals import refused

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import MaskEdited
from dvtplan.data.mask_files import findings_path
from dvtplan.findings.options import FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.inference.model import Model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.outcome import AnalysisFailed
from dvtplan.inference.predict import predict_path


def kept(out: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Return whether the edit is still there, and check for the warning."""
    message = capsys.readouterr().err
    assert f"{out / 'a.nii.gz'}: was edited or comes from elsewhere and is kept" in message
    return (out / "a.nii.gz").read_bytes() == EDITED


def test_an_edited_mask_is_kept_whatever_else_changes(
    corrected: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = corrected.parent / "in"
    other = replace(bright, digest="another")
    for model, findings in ((bright, None), (other, None), (bright, FindingsOptions(level=Levels(left_mm=1.0)))):
        assert predict_path(scans, corrected, model, findings=findings) == [
            corrected / "a.nii.gz",
            corrected / "b.nii.gz",
        ]
        assert kept(corrected, capsys)
    write(scans / "a.nii.gz", picture() + 1)
    predict_path(scans, corrected, bright)
    assert kept(corrected, capsys)
    predict_path(scans, corrected, bright, PredictOptions(overwrite=True))
    assert mask_of(corrected / "a.nii.gz").any()


def test_a_mask_from_elsewhere_is_kept(half_done: Path, bright: Model, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (half_done / "predictions.json", half_done / "run.json"):
        path.unlink()
    (half_done / "a.nii.gz").write_bytes(EDITED)
    predict_path(half_done.parent / "in", half_done, bright)
    assert kept(half_done, capsys)


def test_an_edited_mask_is_kept_if_its_scan_fails(
    corrected: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        bad("NaN", corrected.parent / "in" / f"{name}.nii.gz")
    age(corrected / "b.nii.gz")
    with pytest.raises(AnalysisFailed):
        predict_path(corrected.parent / "in", corrected, replace(bright, digest="another"), findings=FindingsOptions())
    assert kept(corrected, capsys) and not (corrected / "b.nii.gz").exists()


def test_a_mask_of_another_model_is_not_current(half_done: Path, bright: Model) -> None:
    """It was written by a run for that scan only, whose record is next to it."""
    one = half_done.parent / "in" / "a.nii.gz"
    predict_path(one, half_done / "a.nii.gz", model_of(bright.plan, Constant(0.9)))
    assert mask_of(half_done / "a.nii.gz").all()
    predict_path(half_done.parent / "in", half_done, bright)
    assert not mask_of(half_done / "a.nii.gz").all()


def test_a_mask_that_is_edited_during_the_prediction_is_kept(
    half_done: Path, bright: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = volume_io.write_mask

    def meanwhile(path: Path, *rest: Any, **more: Any) -> None:
        if path.name == "a.nii.gz":
            path.write_bytes(EDITED)
        real(path, *rest, **more)

    monkeypatch.setattr(volume_io, "write_mask", meanwhile)
    predict_path(half_done.parent / "in", half_done, replace(bright, digest="another"), findings=FindingsOptions())
    assert kept(half_done, capsys) and not findings_path(half_done / "a.nii.gz").exists()


def test_a_single_mask_that_is_edited_during_the_prediction_keeps_its_findings(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, mask = write(tmp_path / "a.nii.gz"), tmp_path / "mask.nii.gz"
    predict_path(scan, mask, bright, findings=FindingsOptions())
    before = findings_path(mask).read_bytes()
    real = volume_io.write_mask

    def meanwhile(path: Path, *rest: Any, **more: Any) -> None:
        path.write_bytes(EDITED)
        real(path, *rest, **more)

    monkeypatch.setattr(volume_io, "write_mask", meanwhile)
    with pytest.raises(MaskEdited, match=r"mask\.nii\.gz: was edited"):
        predict_path(scan, mask, replace(bright, digest="another"), findings=FindingsOptions())
    assert mask.read_bytes() == EDITED and findings_path(mask).read_bytes() == before


def test_a_fixed_failure_is_removed_next_to_an_edited_mask(corrected: Path, bright: Model) -> None:
    scan = corrected.parent / "in" / "a.nii.gz"
    scan.write_bytes(b"damaged")
    with pytest.raises(AnalysisFailed):
        predict_path(corrected.parent / "in", corrected, bright, findings=FindingsOptions(estimate_levels=True))
    assert read_findings(findings_path(corrected / "a.nii.gz")).status == "not analysed"
    write(scan)
    predict_path(corrected.parent / "in", corrected, bright, findings=FindingsOptions(estimate_levels=True))
    assert not findings_path(corrected / "a.nii.gz").exists()


def test_an_edited_single_mask_is_not_replaced(tmp_path: Path, bright: Model) -> None:
    scan, mask = write(tmp_path / "a.nii.gz"), tmp_path / "mask.nii.gz"
    mask.write_bytes(EDITED)
    message = refused(lambda: predict_path(scan, mask, bright))
    assert message.startswith(f"{mask}: was edited or comes from elsewhere") and "`overwrite=True`" in message
    assert mask.read_bytes() == EDITED
    predict_path(scan, mask, bright, PredictOptions(overwrite=True))
    age(mask)
    predict_path(scan, mask, bright)
    assert not is_old(mask)
