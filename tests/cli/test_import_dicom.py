"""The command dvt_import: options that reach the library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("option", ["--label-names", "--labels"])
def test_import_passes_its_options_on(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    from dvtplan.dicom.dataset_import import ImportResult
    from dvtplan.dicom.import_options import ImportOptions

    seen: dict[str, Any] = {}

    def import_dicom(*what: Any) -> ImportResult:
        seen.update(what=what)
        names = {
            "added": ("case_002",),
            "kept": ("case_001",),
            "without_mask": ("case_001",),
            "faults": ("c: gap", "d: no"),
        }
        return ImportResult(folder=Path("raw/X"), key=Path("raw/key.csv"), **names)

    monkeypatch.setattr("dvtplan.dicom.dataset_import.import_dicom", import_dicom)
    words = f"-i a b -o raw/X --channels T1 T2 {option} p d --series 5 vein --segmentation 12 --masks m.csv"
    line = call("import", *words.split(), *["--key", "k.csv", "--patient-by", "folder", "--keep-names"])
    assert line == "dvt_import: 2 scans not imported.\nc: gap\nd: no"
    options = ImportOptions(
        channels=["T1", "T2"],
        label_names=["p", "d"],
        series=["5", "vein"],
        segmentation="12",
        masks=Path("m.csv"),
        key=Path("k.csv"),
        patient_by="folder",
        keep_names=True,
    )
    assert seen == {"what": ([Path("a"), Path("b")], Path("raw/X"), options)}
    out = capsys.readouterr().out
    assert "raw/X: 1 case imported, 1 already present" in out and "Without a mask" in out
