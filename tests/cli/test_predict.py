"""The command dvt_predict: options that reach the library, scans that fail, the burden table."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io


def test_predict_passes_its_options_on(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvtplan.findings.options import ReportOptions
    from dvtplan.inference.options import PredictOptions
    from dvtplan.inference.outcome import PredictionOutcome

    seen: dict[str, Any] = {}

    def predict_scans(*what: Any, **how: Any) -> PredictionOutcome:
        seen.update(what=what, **how)
        return PredictionOutcome(files=(Path("out/a.nii.gz"),))

    monkeypatch.setattr("dvtplan.inference.session.predict_scans", predict_scans)
    words = "-i in -o out --model results/DVT/gn_unet --folds 1 2 --save-probabilities --overwrite --device cpu"
    assert call("predict", *words.split()) == 0
    *paths, options, reports = seen["what"]
    assert paths == [Path("in"), Path("out"), Path("results/DVT/gn_unet")] and seen["folds"] == [1, 2]
    assert options == PredictOptions(overwrite=True, save_probabilities=True) and seen["setup"].device == "cpu"
    assert reports == ReportOptions()
    captured = capsys.readouterr()
    assert captured.out == "out/a.nii.gz\n"


def test_every_extra_format_can_be_requested(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from dvtplan.inference.options import EXTRA_FORMATS
    from dvtplan.inference.outcome import PredictionOutcome

    seen: list[Any] = []
    monkeypatch.setattr(
        "dvtplan.inference.session.predict_scans", lambda *what, **_: seen.extend(what) or PredictionOutcome()
    )
    words = ["-i", "in", "-o", "out", "--model", "m", "--device", "cpu", "--extra-formats"]
    assert call("predict", *words, *EXTRA_FORMATS) == 0
    assert seen[3].extra_formats == tuple(EXTRA_FORMATS)


SCANS = ("c0", "c1", "c2", "c3")


def test_predict_measures_the_burden(trained_once: Workspace, tmp_path: Path, call: Callable[..., Any]) -> None:
    """It is split at the level if one is given. The table of levels is read before prediction."""
    words = ["-i", trained_once.raw / "imagesTr", "-o", tmp_path / "out", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--burden", tmp_path / "burden.csv"]
    (tmp_path / "levels.csv").write_text("case_id,level_left_mm\nc1,20\n")
    assert "cases.csv" in str(call("predict", *words, "--levels-table", tmp_path / "cases.csv"))
    assert not (tmp_path / "out").exists()
    assert call("predict", *words, "--levels-table", tmp_path / "levels.csv") == 0
    table = pd.read_csv(tmp_path / "burden.csv")
    assert table.groupby("case_id").size().to_dict() == {"c0": 2, "c1": 6, "c2": 2, "c3": 2}
    assert table.groupby("case_id").level_source.first().to_dict() == {
        k: "table" if k == "c1" else "none" for k in SCANS
    }
    assert table[table.case_id == "c0"].level_note.str.contains("no knee in view").all()
    assert sorted(p.name for p in (tmp_path / "out").glob("*_levels.json")) == [f"c{k}_levels.json" for k in (0, 2, 3)]
    assert call("predict", *words, "--levels-table", tmp_path / "levels.csv", "--level=-5.5,30") == 0
    table = pd.read_csv(tmp_path / "burden.csv").query("region == 'all'").set_index(["case_id", "limb"])
    assert table.level_mm["c1"].tolist() == [20, 20] and table.level_mm["c2"].tolist() == [-5.5, 30]
    assert table.level_source["c2"].tolist() == ["given"] * 2
    assert call("predict", *words, "--no-levels") == 0
    table = pd.read_csv(tmp_path / "burden.csv")
    assert set(table.level_source) == {"none"} and table.level_note.isna().all() and set(table.region) == {"all"}
    assert "--no-levels" in str(call("predict", *words, "--no-levels", "--level", "-5"))
    assert call("predict", *words, "--level", "high") == 2
    assert "--burden" in str(call("predict", *words, "--part", "1/2"))
    assert "--levels-table needs --burden" in str(call("predict", *words[:-2], "--levels-table", "x.csv"))


def test_a_corrected_mask_is_measured_as_corrected(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A scan that fails later is no longer reported as analysed."""
    shutil.copytree(trained_once.raw / "imagesTr", tmp_path / "in")
    words = ["-i", tmp_path / "in", "-o", tmp_path / "out", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--findings", "--burden", tmp_path / "burden.csv", "--no-levels"]
    assert call("predict", *words) == 0
    mask = tmp_path / "out" / "c1.nii.gz"
    values, grid = volume_io.read(mask)
    volume_io.write_mask(mask, np.ones_like(values), grid)
    (tmp_path / "in" / "c2_0000.nii.gz").write_bytes(b"damaged")
    capsys.readouterr()
    assert "c2" in str(call("predict", *words))
    assert f"warning: {mask}: was edited or comes from elsewhere" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "burden.csv")
    status = table.groupby("case_id").status.first().to_dict()
    assert status == {"c0": "analysed", "c1": "mask changed", "c2": "not analysed", "c3": "analysed"}
    assert set(table[table.case_id == "c1"].scan_in_words.str.split(" ").str[1]) == {"edited"}
    whole = table[table.case_id == "c1"].volume_ml.sum()
    assert whole == pytest.approx(values.size * grid.voxel_ml, abs=2e-3)
    assert ".0" not in "".join(line.split(",")[5] for line in (tmp_path / "burden.csv").read_text().splitlines())


def test_an_edited_mask_that_does_not_fit_is_not_measured(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any]
) -> None:
    """The other scans are measured, and the table is new."""
    words = ["-i", trained_once.raw / "imagesTr", "-o", tmp_path / "out", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--burden", tmp_path / "burden.csv", "--no-levels"]
    assert call("predict", *words) == 0
    garbage, moved, good = (tmp_path / "out" / f"c{k}.nii.gz" for k in range(3))
    garbage.write_bytes(b"no volume")
    values, grid = volume_io.read(moved)
    volume_io.write_mask(moved, np.ones_like(values), replace(grid, origin_mm=(500.0, 0.0, 0.0)))
    volume_io.write_mask(good, np.ones_like(values), grid)
    head, *lines = str(call("predict", *words)).splitlines()
    assert "2 of 4 scans" in head
    assert lines[0].startswith(f"{garbage}: ") and lines[1].startswith(f"{moved}: lies up to") and len(lines) == 2
    table = pd.read_csv(tmp_path / "burden.csv")
    status = table.groupby("case_id").status.first().to_dict()
    assert status == {"c0": "not analysed", "c1": "not analysed", "c2": "mask changed", "c3": "analysed"}
    failed = table[table.status == "not analysed"]
    assert failed.volume_ml.isna().all() and failed.scan_in_words.str.contains("--overwrite").all()
    assert table[table.case_id == "c2"].volume_ml.sum() == pytest.approx(values.size * grid.voxel_ml, abs=2e-3)


@pytest.mark.parametrize(("more", "unknown"), [([], True), (["--part", "1/2"], False)])
def test_scans_and_rows_of_the_levels_table_without_each_other_are_named(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str],
    more: list[str], unknown: bool,
) -> None:  # fmt: skip
    levels = tmp_path / "levels.csv"
    levels.write_text("case_id,level_left_mm,midline_mm\nc0,20,900\nc1,20,\nc02,20,\n")
    words = ["-i", trained_once.raw / "imagesTr", "-o", tmp_path / "out", "--model", trained_once.results("gn_unet")]
    assert call("predict", *words, "--device", "cpu", "--findings", "--levels-table", levels, *more) == 0
    errors = capsys.readouterr().err
    assert f"{levels}: has no row for {'c2, c3' if unknown else 'c2'}. " in errors
    assert ("for the rows c02." in errors) == unknown
    assert "c0: check the level: midline x 900 mm lies outside the scan" in errors


def test_levels_are_looked_up_by_the_name_of_the_scan_not_of_the_mask(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    scan = shutil.copy(trained_once.raw / "imagesTr" / "c0_0000.nii.gz", tmp_path / "a.nii.gz")
    (tmp_path / "levels.csv").write_text("case_id,level_left_mm\na,20\nanother,20\n")
    words = ["-i", scan, "-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--burden", tmp_path / "burden.csv", "--levels-table", tmp_path / "levels.csv"]
    assert call("predict", *words) == 0
    assert set(pd.read_csv(tmp_path / "burden.csv").level_source) == {"table"}
    assert "no row" not in capsys.readouterr().err


def test_a_single_failed_scan_is_listed_as_not_analysed(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any]
) -> None:
    scan = tmp_path / "a.nii.gz"
    shutil.copy(trained_once.raw / "imagesTr" / "c0_0000.nii.gz", scan)
    words = ["-i", scan, "-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--burden", tmp_path / "burden.csv"]
    assert call("predict", *words) == 0
    scan.write_bytes(b"damaged")
    assert str(call("predict", *words)).startswith(f"dvt_predict: {scan}: ")
    assert pd.read_csv(tmp_path / "burden.csv").status.tolist() == ["not analysed"]
    assert not (tmp_path / "mask.nii.gz").exists()


def test_predict_continues_after_a_bad_scan_and_ends_with_its_reason(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The outputs of the good scan are written and printed; the bad one is never reported as empty."""
    (tmp_path / "in").mkdir()
    shutil.copy(trained_once.raw / "imagesTr" / "c0_0000.nii.gz", tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"")
    out = tmp_path / "out"
    words = ["-i", tmp_path / "in", "-o", out, "--model", trained_once.results("gn_unet"), "--device", "cpu"]
    ended = call("predict", *words, "--summary", "--burden", tmp_path / "burden.csv")
    first, line = str(ended).splitlines()
    assert first == "dvt_predict: 1 of 2 scans could not be analysed; nothing is known about them:"
    assert line.startswith(f"{tmp_path / 'in' / 'bad.nii.gz'}: is empty")
    names = ("findings.json", "levels.json", "summary.html", "summary.pdf", "summary.png")
    paths = {out / f"good_{name}" for name in names}
    assert set(map(Path, capsys.readouterr().out.split())) == {out / "good.nii.gz", tmp_path / "burden.csv", *paths}
    assert {p.name for p in out.iterdir() if p.name.startswith("bad")} == {"bad_findings.json"}
    table = pd.read_csv(tmp_path / "burden.csv").set_index("case_id")
    assert table.loc["bad", "status"] == "not analysed" and pd.isna(table.loc["bad", "volume_ml"])
    assert set(table.loc["good", "status"]) == {"analysed"}


def test_a_burden_table_replaces_no_other_file(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any]
) -> None:
    scan = shutil.copy(trained_once.raw / "imagesTr" / "c0_0000.nii.gz", tmp_path / "a.nii.gz")
    words = ["-i", scan, "-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet"), "--device", "cpu"]
    levels = tmp_path / "cases.csv"
    levels.write_text("case_id,level_left_mm\na,20\n")
    image = Path(shutil.copy(scan, tmp_path / "image.csv"))
    for path in (levels, image):
        before = path.read_bytes()
        assert "--burden" in call("predict", *words, "--burden", path) and path.read_bytes() == before
        assert not (tmp_path / "mask.nii.gz").exists()
    assert "ends in .csv" in call("predict", *words, "--burden", tmp_path / "mask.nii.gz")
    for _ in range(2):  # an earlier burden table may be replaced
        assert call("predict", *words, "--burden", tmp_path / "burden.csv", "--no-levels") == 0


def test_probabilities_are_listed_after_the_masks(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    image = trained_once.raw / "imagesTr" / "c0_0000.nii.gz"
    words = ["-i", image, "-o", tmp_path / "m.nii.gz", "--model", trained_once.results("gn_unet"), "--device", "cpu"]
    assert call("predict", *words, "--save-probabilities") == 0
    names = ["m.nii.gz", "m_probability_thrombus.nii.gz"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
