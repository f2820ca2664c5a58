"""One run of the command, from the model to the last file."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.predictions import write

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.data.prediction_records import PredictionRecord
from dvtplan.findings.options import ReportOptions
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.session import predict_scans
from dvtplan.models import devices


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_how_the_network_runs_is_printed_and_recorded(
    trained_once: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    image, mask = write(tmp_path / "a.nii.gz"), tmp_path / "out" / "a.nii.gz"
    setup = devices.choose("cpu", precision=precision)
    predict_scans(image, mask, trained_once.results("gn_unet"), PredictOptions(), ReportOptions(), setup=setup)
    line = setup.description
    assert f"({precision}, channels last)" in line and line in capsys.readouterr().err
    (session,) = json_records.load(PredictionRecord, tmp_path / "out" / "a_run.json", "dvt_predict").starts
    assert (session.setup, session.precision) == (line, precision)
