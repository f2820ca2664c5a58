"""Edited masks are checked before they are measured or converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import OBLIQUE, write_series
from helpers.predictions import CORONAL, EDITED, mask_of, picture, read_findings, write
from helpers.refusals import refused

from dvtplan.data.mask_files import findings_path
from dvtplan.findings.options import FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, Reorientation
from dvtplan.inference.kept_masks import UnusableMask, require_usable
from dvtplan.inference.model import Model
from dvtplan.inference.options import DICOM_SEG, PredictOptions
from dvtplan.inference.outcome import AnalysisFailed
from dvtplan.inference.predict import predict_path

MEASURED = FindingsOptions(record=False, measured=True)
ONE = np.zeros(CORONAL.shape, np.float32)
ONE[2, 8, 22] = 1


@pytest.mark.parametrize(
    ("values", "grid", "word"),
    [
        (picture(), CORONAL, "the model lists 0 background, 1 thrombus"),
        (7 * ONE, CORONAL, "values 7;"),
        (0.5 * ONE, CORONAL, "values 0.5;"),
        (-ONE, CORONAL, "values -1;"),
        (ONE[:, :-1], replace(CORONAL, shape=(6, 33, 33)), "shape (33, 33, 6)"),
        (ONE, replace(CORONAL, spacing_mm=(5.0, 2.25, 1.8)), "spacing"),
        (ONE, replace(CORONAL, origin_mm=(-1.5, -10.25, 66.125)), "30 mm away from scan.nii.gz"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path, values: np.ndarray, grid: Grid, word: str) -> None:
    mask = write(tmp_path / "a.nii.gz", values, grid)
    with pytest.raises(UnusableMask) as error:
        require_usable(mask, "scan.nii.gz", CORONAL, {"thrombus": 1})
    message = str(error.value)
    assert message.startswith(f"{mask}: ") and word in message and "\n" not in message


def test_a_mask_that_fits_is_accepted(tmp_path: Path) -> None:
    for values in (ONE, 0 * ONE, ONE + ONE[::-1]):
        require_usable(write(tmp_path / "a.nii.gz", values), "scan.nii.gz", CORONAL, {"thrombus": 1})
    rounded = replace(CORONAL, origin_mm=(-31.5, -10.25, 66.1))
    require_usable(write(tmp_path / "a.nii.gz", ONE, rounded), "scan.nii.gz", CORONAL, {"thrombus": 1})


def test_a_mask_in_another_order_of_the_axes_can_be_measured_but_not_converted(tmp_path: Path) -> None:
    turn = Reorientation((2, 0, 1), (False, True, False))
    mask = write(tmp_path / "a.nii.gz", turn.apply(ONE), turn.grid(CORONAL))
    require_usable(mask, "scan.nii.gz", CORONAL, {"thrombus": 1}, any_orientation=True)
    with pytest.raises(UnusableMask, match="shape"):
        require_usable(mask, "scan.nii.gz", CORONAL, {"thrombus": 1})


def test_an_unusable_mask_fails_alone_and_is_known_again_when_it_is_restored(corrected: Path, bright: Model) -> None:
    """It is neither replaced nor forgotten; without findings of its own it gets the record of a failure."""
    scans, mask = corrected.parent / "in", corrected / "a.nii.gz"
    with pytest.raises(AnalysisFailed, match=r"a\.nii\.gz") as error:
        predict_path(scans, corrected, bright, findings=MEASURED)
    assert set(error.value.failed) == {"a"} and error.value.masks == (corrected / "b.nii.gz",)
    assert mask.read_bytes() == EDITED and read_findings(findings_path(mask)).status == "not analysed"
    mask.write_bytes((corrected / "b.nii.gz").read_bytes())  # the same picture
    before = mask.stat().st_mtime_ns
    assert len(predict_path(scans, corrected, bright, findings=MEASURED)) == 2
    assert mask.stat().st_mtime_ns == before


def test_the_findings_from_before_an_unusable_edit_are_kept(half_done: Path, bright: Model) -> None:
    mask = half_done / "a.nii.gz"
    predict_path(half_done.parent / "in", half_done, bright, findings=FindingsOptions())
    before = findings_path(mask).read_bytes()
    mask.write_bytes(EDITED)
    with pytest.raises(AnalysisFailed):
        predict_path(half_done.parent / "in", half_done, bright, findings=FindingsOptions(measured=True))
    assert findings_path(mask).read_bytes() == before


def test_an_edited_mask_on_another_grid_becomes_no_dicom_object(scan: Path, tmp_path: Path, bright: Model) -> None:
    out = tmp_path / "out"
    (mask,) = predict_path(scan, out, bright)
    values, grid = volume_io.read(mask)
    write(mask, values, replace(grid, origin_mm=(0.0, 0.0, 0.0)))
    options = PredictOptions(extra_formats=(DICOM_SEG,))
    message = refused(lambda: predict_path(scan, out, bright, options))
    assert message.startswith(f"{mask}: lies up to") and not (out / "scan_seg.dcm").exists()


def test_an_edited_mask_of_a_station_on_another_grid_becomes_no_dicom_object(tmp_path: Path, bright: Model) -> None:
    study, out = tmp_path / "study", tmp_path / "out"
    image = picture().astype(np.uint16)
    write_series(study / "1", image, plane=OBLIQUE, number=1)
    write_series(study / "2", image, plane=OBLIQUE, number=2)
    options = PredictOptions(stations=("1", "2"))
    predict_path(study, out, bright, options)
    station = out / "study_station_2.nii.gz"
    values, grid = volume_io.read(station)
    write(station, values, replace(grid, origin_mm=(0.0, 0.0, 0.0)))
    message = refused(lambda: predict_path(study, out, bright, replace(options, extra_formats=(DICOM_SEG,))))
    assert message.startswith(f"{station}: lies up to") and not (out / "study_station_2_seg.dcm").exists()


def test_masks_with_one_stem_do_not_share_a_record(tmp_path: Path, bright: Model) -> None:
    """The first would lose its record, and count as edited later."""
    scan, first, other = write(tmp_path / "s.nii.gz"), tmp_path / "a.nrrd", tmp_path / "a.mha"
    predict_path(scan, first, bright)
    before = (tmp_path / "a_run.json").read_bytes()
    for options in (PredictOptions(), PredictOptions(overwrite=True)):
        message = refused(lambda o=options: predict_path(scan, other, bright, o))  # type: ignore[misc]
        assert message.startswith(f"{other}: a_run.json is the record of a.nrrd")
    assert not other.exists() and (tmp_path / "a_run.json").read_bytes() == before
    predict_path(scan, first, bright)
    first.unlink()
    predict_path(scan, other, bright)
    assert mask_of(other).any()
