"""Prediction of a folder: current masks are kept, shares are divided, and runs do not lose entries."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.predictions import age, is_old, mask_of, names, picture, read_findings, remade, write
from helpers.processes import tree
from helpers.refusals import refused
from helpers.trainings import load_run
from helpers.volumes import move_qform

from dvtplan.anatomy.levels import Levels
from dvtplan.core import files, json_records
from dvtplan.core.digests import files_digest
from dvtplan.core.errors import DvtError, FolderInUse, MaskEdited
from dvtplan.data.dataset import Case
from dvtplan.data.paths import Workspace
from dvtplan.data.prediction_log import mask_lock
from dvtplan.data.prediction_records import PredictionIndex, PredictionRecord
from dvtplan.evaluation.evaluate import evaluate
from dvtplan.findings.options import FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.inference import predict_cases
from dvtplan.inference.model import Model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.predict import predict_fold, predict_path
from dvtplan.training.job import TrainingOptions
from dvtplan.training.train import train_fold


def test_the_time_per_scan_and_slice_is_logged(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.nii.gz")
    slices = len(mask_of(predict_path(tmp_path / "in" / "a.nii.gz", tmp_path / "a.nii.gz", bright)[0]))
    one = capsys.readouterr().err
    assert f"Predicted 1 scan, {slices} slices, in " in one and " s per slice." in one
    predict_path(tmp_path / "in", tmp_path / "out", bright)
    assert f"Predicted 2 scans, {2 * slices} slices, in " in capsys.readouterr().err
    predict_path(tmp_path / "in", tmp_path / "out", bright)  # both are kept
    second = capsys.readouterr().err
    assert "Predicted 2" not in second and "Kept 2 existing masks" in second


@pytest.mark.parametrize("output", ["out", "out/a.nii.gz"])
def test_a_mask_that_another_process_predicts_is_left_to_it(
    output: str, tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write(tmp_path / "in" / "a.nii.gz")
    source, mask = (scan.parent if output == "out" else scan), tmp_path / "out" / "a.nii.gz"
    predict_path(source, tmp_path / output, bright, findings=FindingsOptions())
    before = {path: path.read_bytes() for path in mask.parent.iterdir()}
    monkeypatch.setattr(files, "LOCK_TRIES", 1)
    with mask_lock(mask), pytest.raises(FolderInUse, match="another process"):
        predict_path(source, tmp_path / output, replace(bright, digest="another"), findings=FindingsOptions())
    assert {path: path.read_bytes() for path in mask.parent.iterdir()} == before


def test_a_run_knows_the_masks_that_another_run_wrote_meanwhile(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        write(tmp_path / "in" / f"{name}.nii.gz")
    source, out, real = tmp_path / "in", tmp_path / "out", predict_cases.predict_case

    def overtaken(case: Case, *rest: Any, **more: Any) -> Any:
        monkeypatch.setattr(predict_cases, "predict_case", real)
        if case.id == "a":
            predict_path(source / "b.nii.gz", out, bright)
        return real(case, *rest, **more)

    monkeypatch.setattr(predict_cases, "predict_case", overtaken)
    assert len(predict_path(source, out, bright)) == 2
    log = capsys.readouterr().err
    assert "edited" not in log and log.count("Predicted 1 scan") == 2


def test_parts_divide_the_cases_and_each_keeps_its_masks(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcde":
        write(tmp_path / "in" / f"{name}.nii.gz")
    out = tmp_path / "out"
    made = [predict_path(tmp_path / "in", out, bright, PredictOptions(part=(i, 2))) for i in (1, 2)]
    assert [[p.name[0] for p in masks] for masks in made] == [["a", "c", "e"], ["b", "d"]]
    assert {"predictions_1_of_2.json", "predictions_2_of_2.json"} <= names(out)
    before = {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")}
    capsys.readouterr()
    whole = predict_path(tmp_path / "in", out, bright)
    assert len(whole) == 5 and {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")} == before
    assert "Predicted" not in capsys.readouterr().err
    predict_path(tmp_path / "in", out, bright, PredictOptions(part=(3, 3), overwrite=True))
    again = {p for p, stamp in before.items() if p.stat().st_mtime_ns != stamp}
    assert {p.name[0] for p in again} == {"c"}


def test_some_of_more_parts_than_cases_are_empty(tmp_path: Path, bright: Model) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    assert predict_path(tmp_path / "in", tmp_path / "out", bright, PredictOptions(part=(2, 2))) == []


def test_findings_are_kept_and_written_again_if_anything_changed(tmp_path: Path, bright: Model) -> None:
    write(tmp_path / "in" / "a.nii.gz")
    out = tmp_path / "out"
    stamp = lambda name: (out / name).stat().st_mtime_ns  # noqa: E731
    predict_path(tmp_path / "in", out, bright, findings=FindingsOptions())
    first = stamp("a.nii.gz"), stamp("a_findings.json")
    predict_path(tmp_path / "in", out, bright, findings=FindingsOptions())
    assert (stamp("a.nii.gz"), stamp("a_findings.json")) == first
    predict_path(
        tmp_path / "in", out, bright, findings=FindingsOptions(summary=True)
    )  # drawn from the existing findings
    assert (stamp("a.nii.gz"), stamp("a_findings.json")) == first and (out / "a_summary.pdf").exists()
    predict_path(tmp_path / "in", out, bright, findings=FindingsOptions(levels_table={"a": Levels(left_mm=30.0)}))
    assert stamp("a_findings.json") > first[1] and read_findings(out / "a_findings.json").levels is not None
    assert not (out / "a_summary.pdf").exists()  # it was drawn without a level


def test_existing_masks_are_kept_and_missing_ones_are_predicted(half_done: Path, bright: Model) -> None:
    (half_done / "b.nii.gz").unlink()
    assert not remade(half_done, bright)
    assert mask_of(half_done / "b.nii.gz").any()


def test_another_model_predicts_masks_again(half_done: Path, bright: Model) -> None:
    assert remade(half_done, replace(bright, digest="another"))


def test_a_changed_image_is_predicted_again(half_done: Path, bright: Model) -> None:
    write(half_done.parent / "in" / "a.nii.gz", picture() + np.arange(33, dtype=np.float32))
    assert remade(half_done, bright)


def test_overwrite_predicts_masks_again(half_done: Path, bright: Model) -> None:
    assert remade(half_done, bright, overwrite=True)


def test_the_index_has_the_digest_of_every_mask(half_done: Path, bright: Model) -> None:
    remade(half_done, bright, overwrite=True)
    index = json_records.load(PredictionIndex, half_done / "predictions.json", "")
    assert index.masks == {case: files_digest((half_done / f"{case}.nii.gz",)) for case in index.cases}


def test_masks_of_an_earlier_model_stay_known_after_an_interrupted_run(
    half_done: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real = replace(bright, digest="another"), predict_cases.predict_case

    def stops(case: Case, *rest: Any, **more: Any) -> Any:
        if case.id == "b":
            raise KeyboardInterrupt
        return real(case, *rest, **more)

    monkeypatch.setattr(predict_cases, "predict_case", stops)
    with pytest.raises(KeyboardInterrupt):
        predict_path(half_done.parent / "in", half_done, other)
    monkeypatch.setattr(predict_cases, "predict_case", real)
    age(half_done / "b.nii.gz")
    predict_path(half_done.parent / "in", half_done, other)
    assert not is_old(half_done / "b.nii.gz")


def test_one_scan_predicted_again_keeps_the_records_of_the_others(half_done: Path, bright: Model) -> None:
    predict_path(half_done.parent / "in" / "a.nii.gz", half_done, bright, PredictOptions(overwrite=True))
    index = json_records.load(PredictionRecord, half_done / "run.json", "")
    assert set(index.cases) == {"a", "b"} and len(index.starts) == 2
    age(half_done / "b.nii.gz")
    predict_path(half_done.parent / "in", half_done, bright)
    assert is_old(half_done / "b.nii.gz")


def test_two_runs_in_one_folder_lose_nothing_of_each_other(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job per scan, started together: each reads the index before any has written it."""
    for name in "ab":
        write(tmp_path / "in" / f"{name}.nii.gz")
    out, real, begun = tmp_path / "out", predict_cases.predict_case, []

    def meanwhile(case: Case, *rest: Any, **more: Any) -> Any:
        if not begun:
            begun.append(case)
            predict_path(tmp_path / "in" / "b.nii.gz", out, bright)
        return real(case, *rest, **more)

    monkeypatch.setattr(predict_cases, "predict_case", meanwhile)
    predict_path(tmp_path / "in" / "a.nii.gz", out, bright)
    assert set(json_records.load(PredictionIndex, out / "predictions.json", "").masks) == {"a", "b"}
    assert set(json_records.load(PredictionRecord, out / "run.json", "").cases) == {"a", "b"}


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


def test_missing_probabilities_are_predicted(half_done: Path, bright: Model) -> None:
    assert remade(half_done, bright, save_probabilities=True)
    age(half_done / "a.nii.gz")
    assert not remade(half_done, bright, save_probabilities=True) and not remade(half_done, bright)
    (half_done / "a_probability_thrombus.nii.gz").unlink()
    assert remade(half_done, bright, save_probabilities=True)


def test_probabilities_of_another_model_are_not_current(half_done: Path, bright: Model) -> None:
    remade(half_done, bright, save_probabilities=True)
    remade(half_done, replace(bright, digest="another"))
    age(half_done / "a.nii.gz")
    assert remade(half_done, replace(bright, digest="another"), save_probabilities=True)


def test_a_damaged_index_is_reported_in_one_line(half_done: Path, bright: Model) -> None:
    (half_done / "predictions.json").write_text("{")
    message = refused(lambda: remade(half_done, bright))
    assert "predictions.json: is not readable JSON" in message and "`overwrite=True`" in message


def test_a_damaged_index_does_not_stop_an_overwrite(half_done: Path, bright: Model) -> None:
    (half_done / "predictions.json").write_text("{")
    assert remade(half_done, bright, overwrite=True)


def record(path: Path) -> PredictionRecord:
    return json_records.load(PredictionRecord, path, "test")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_record_has_the_origin_of_each_mask(half_done: Path, bright: Model) -> None:
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


def test_the_record_lists_kept_and_new_masks(half_done: Path, bright: Model) -> None:
    before = record(half_done / "run.json")
    (half_done / "b.nii.gz").unlink()
    write(half_done.parent / "in" / "c.nii.gz")
    remade(half_done, replace(bright, setup=replace(bright.setup, hardware="Elsewhere")))
    after = record(half_done / "run.json")
    assert [after.starts[after.cases[k].start].setup for k in "abc"] == [
        bright.setup.description,
        *["Elsewhere (fp32, channels last)."] * 2,
    ]
    assert after.cases["a"] == before.cases["a"]


def test_each_part_has_its_own_record(half_done: Path, bright: Model) -> None:
    for k in (1, 2):
        predict_path(half_done.parent / "in", half_done.parent / "shared", bright, PredictOptions(part=(k, 2)))
    records = [record(half_done.parent / "shared" / f"run_{k}_of_2.json") for k in (1, 2)]
    assert [set(one.cases) for one in records] == [{"a"}, {"b"}]
    assert records[0].starts[0].options["part"] == "1/2"
    write(half_done.parent / "in" / "c.nii.gz")
    predict_path(half_done.parent / "in", half_done.parent / "shared", bright)
    assert set(record(half_done.parent / "shared" / "run.json").cases) == {"a", "b", "c"}


def test_a_single_mask_has_its_record_next_to_it(half_done: Path, bright: Model) -> None:
    image = half_done.parent / "in" / "a.nii.gz"
    for _ in range(2):
        predict_path(image, half_done.parent / "one" / "mask.nii.gz", bright)
    folder = half_done.parent / "one"
    assert names(folder) == {"mask.nii.gz", "mask_run.json"}
    (case,) = record(folder / "mask_run.json").cases.values()
    assert case.mask_digest == sha256(folder / "mask.nii.gz") and case.images == {"a.nii.gz": sha256(image)}


def test_masks_in_the_folder_of_a_training_do_not_replace_its_record(trained: Workspace, bright: Model) -> None:
    folder = trained.fold("gn_unet", 0)
    before = folder.run.read_bytes()
    for overwrite in (False, True):
        message = refused(
            lambda o=overwrite: predict_path(trained.raw / "imagesTr", folder.path, bright, PredictOptions(overwrite=o))  # type: ignore[misc]
        )
        assert "belongs to a trained network" in message and "another `output`" in message
    assert folder.run.read_bytes() == before and not list(folder.path.glob("*.nii.gz"))


@pytest.mark.parametrize("output", ["results/Toy/gn_unet", "results/Toy/gn_unet/fold_0/predictions", "datasets_raw/Toy",
                                    "datasets_raw/Toy/labelsTr", "datasets_raw/Toy/labelsTr/c0.nii.gz",
                                    "datasets_raw/Toy/labelsTr/new", "results/Toy/gn_unet/new/a.nii.gz",
                                    "datasets_preprocessed/Toy"])  # fmt: skip
def test_masks_do_not_mix_with_a_data_set_or_the_results_of_a_training(
    output: str, trained: Workspace, bright: Model
) -> None:
    before = tree(trained.root)
    scan = trained.raw / "imagesTr" / "c0_0000.nii.gz"
    options = PredictOptions(overwrite=True)
    assert "Choose another `output`" in refused(lambda: predict_path(scan, trained.root / output, bright, options))
    assert tree(trained.root) == before


def test_an_edited_mask_of_a_fold_is_not_replaced(trained: Workspace) -> None:
    folder = trained.fold("gn_unet", 0)
    mask = sorted(folder.predictions.glob("*.nii.gz"))[0]
    values, grid = volume_io.read(mask)
    volume_io.write_mask(mask, 1 - values, grid)
    edited = mask.read_bytes()
    with pytest.raises(MaskEdited, match=mask.name):
        predict_fold(trained, "gn_unet", 0)
    recipe, options = load_run(folder).recipe, TrainingOptions(device="cpu", workers=0, overwrite=True)
    with pytest.raises(MaskEdited, match=mask.name):
        train_fold(trained, 0, recipe=recipe, options=options)
    assert mask.read_bytes() == edited and folder.checkpoint.exists()
    mask.unlink()
    train_fold(trained, 0, recipe=recipe, options=options)
    with pytest.raises(DvtError, match="no prediction by the present training"):
        evaluate(trained, "gn_unet")
    predict_fold(trained, "gn_unet", 0)
    assert evaluate(trained, "gn_unet").written


def test_a_part_needs_several_scans_and_may_be_empty(
    tmp_path: Path, bright: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write(tmp_path / "in" / "a.nii.gz")
    part = PredictOptions(part=(2, 2))
    assert "is one scan" in refused(lambda: predict_path(scan, tmp_path / "out", bright, part))
    assert predict_path(scan.parent, tmp_path / "out", bright, part) == []
    assert "no scan" in capsys.readouterr().err


def test_a_dicom_series_is_named_in_the_record(scan: Path, tmp_path: Path, bright: Model) -> None:
    predict_path(scan, tmp_path / "out", bright, PredictOptions(series=("5",)))
    found = record(tmp_path / "out" / "run.json")
    assert list(found.cases["scan"].images) == [f"{scan}: series 5"]
    assert (
        found.starts[0].options["series"] == "5" and "dvt_predict_" not in (tmp_path / "out" / "run.json").read_text()
    )


def test_a_mask_lies_where_the_trusted_form_of_the_header_does(tmp_path: Path, bright: Model) -> None:
    scan = move_qform(write(tmp_path / "in" / "a.nii.gz"))
    assert "`trust=sform`" in refused(lambda: predict_path(scan.parent, tmp_path / "out", bright))
    found = {}
    for form in ("sform", "qform", "qform", "sform"):
        (mask,) = predict_path(scan.parent, tmp_path / "out", bright, PredictOptions(trust=form))
        left = volume_io.read_grid(mask).origin_mm[0]
        assert found.setdefault(form, left) == left
    assert found["sform"] - found["qform"] == pytest.approx(100)
    record = json_records.load(PredictionRecord, tmp_path / "out" / "run.json", "")
    assert record.starts[-1].options["trust"] == "sform"
