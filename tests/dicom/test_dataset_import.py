"""Import of DICOM into a data set: not resampled, pseudonymous, no duplicates; a faulty scan stops no other."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.datasets import SHARED
from helpers.dicom_files import CORONAL, OBLIQUE, volume
from helpers.dicom_imports import drawn, imported, out_of, scan, with_mask
from helpers.processes import command, tree
from helpers.segmentations import assert_same_points, points_of_nifti

from dvtplan.core import files
from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import discover
from dvtplan.dicom import dataset_import, series
from dvtplan.dicom.dataset_import import import_dicom
from dvtplan.dicom.import_options import ImportOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import to_slice_order
from dvtplan.planning import preprocess


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Write four folders of three patients, with a mask next to each."""
    for k, patient in enumerate(("Meier 1.1.1950", "Huber", "Huber", "Wolf")):
        with_mask(scan(tmp_path / "export" / f"scan{k}", patient, k, plane=OBLIQUE if k == 1 else CORONAL))
    return tmp_path / "export"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- what is written ------------------------------------------------------------------------------


def test_a_folder_of_patients_becomes_a_data_set_that_verifies(export: Path, tmp_path: Path) -> None:
    done = imported(export, tmp_path)
    assert (done.added, done.kept, done.without_mask, done.faults) == (
        ("case_001", "case_002", "case_003", "case_004"),
        (),
        (),
        (),
    )
    there = discover(done.folder)
    assert [(c.id, c.patient) for c in there.cases] == [
        ("case_001", "patient_001"),
        ("case_002", "patient_002"),
        ("case_003", "patient_002"),
        ("case_004", "patient_003"),
    ]
    assert there.channels == ("CE-MR",) and there.labels == {"thrombus": 1}
    assert json.loads((done.folder / "dataset.json").read_text())["numTraining"] == 4
    made = preprocess.plan_and_preprocess(
        tmp_path, "DVT", options=preprocess.PreprocessOptions(folds=3, jobs=1, verify_only=True)
    )
    assert made.warnings == ()
    done_again = command("plan_and_preprocess", "--root", tmp_path, "--folds", "3", "--verify-only", "--jobs", "1")
    assert done_again.returncode == 0 and "Verified" in done_again.stdout


def test_voxels_and_positions_equal_those_of_the_dicom(export: Path, tmp_path: Path) -> None:
    done = imported(export, tmp_path)
    for k in range(4):
        image, grid = volume_io.read(done.folder / "imagesTr" / f"case_00{k + 1}_0000.nii.gz")
        mask, _ = volume_io.read(done.folder / "labelsTr" / f"case_00{k + 1}.nii.gz")
        assert np.array_equal(image, volume(seed=k)) and np.array_equal(mask, drawn())
        true = series.choose_volume(series.read_study(export / f"scan{k}"), None).grid
        assert np.abs(grid.corners_mm() - true.corners_mm()).max() < 1e-4
        points = points_of_nifti(done.folder / "labelsTr" / f"case_00{k + 1}.nii.gz")[1]
        assert_same_points(points, true.position_mm(np.argwhere(drawn())))


def test_the_data_set_contains_no_identity_of_a_patient(export: Path, tmp_path: Path) -> None:
    """No unpacked file contains a name, ID or UID. The key contains the ID, and only its owner can read it."""
    done = imported(export, tmp_path)
    secrets = [b"Meier", b"Huber", b"Wolf", b"Name^Of", b"1950", b"1.2.3", b"scan0", b"cor_fl3d"]
    secrets += [
        series.choose_volume(series.read_study(export / f"scan{k}"), None).series_uid.encode() for k in range(4)
    ]
    for name, body in tree(done.folder).items():
        whole = name.encode() + (gzip.decompress(body) if name.endswith(".gz") else body)
        assert not any(secret in whole for secret in secrets), name
    assert done.key == tmp_path / "datasets_raw" / "DVT_import_key.csv"
    assert done.key.stat().st_mode & 0o077 == 0
    assert [(r["case_id"], r["dicom_patient_id"]) for r in rows(done.key)] == [
        ("case_001", "Meier 1.1.1950"),
        ("case_002", "Huber"),
        ("case_003", "Huber"),
        ("case_004", "Wolf"),
    ]


def test_cases_can_be_named_after_folders_and_each_folder_can_be_a_patient(export: Path, tmp_path: Path) -> None:
    done = imported(export, tmp_path, keep_names=True, patient_by="folder")
    assert [(c.id, c.patient) for c in discover(done.folder).cases] == [
        (f"scan{k}", f"patient_00{k + 1}") for k in range(4)
    ]


def test_a_warning_is_printed_if_all_cases_have_one_patient_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(2):
        with_mask(scan(tmp_path / "export" / f"scan{k}", "ANONYMOUS", k))
    imported(tmp_path / "export", tmp_path)
    assert "all 2 cases have the same PatientID" in capsys.readouterr().err


def test_each_scan_without_a_patient_id_is_a_separate_patient(tmp_path: Path) -> None:
    for k in range(2):
        with_mask(scan(tmp_path / "export" / f"scan{k}", "", k))
    assert [c.patient for c in discover(imported(tmp_path / "export", tmp_path).folder).cases] == [
        "patient_001",
        "patient_002",
    ]


def test_scans_without_a_mask_are_in_imagests_until_they_have_one(tmp_path: Path) -> None:
    folder = scan(tmp_path / "export" / "scan0", "one")
    with_mask(scan(tmp_path / "export" / "scan1", "two", 1))
    done = imported(tmp_path / "export", tmp_path)
    assert done.without_mask == ("case_001",)
    assert [c.id for c in discover(done.folder).cases] == ["case_002"]
    assert (done.folder / "imagesTs" / "case_001_0000.nii.gz").exists()
    with_mask(folder)
    again = imported(tmp_path / "export", tmp_path)
    assert (again.added, again.kept, again.without_mask) == (("case_001",), ("case_002",), ())
    assert [c.id for c in discover(done.folder).cases] == ["case_001", "case_002"]
    assert not list((done.folder / "imagesTs").iterdir())


# --- repeated -------------------------------------------------------------------------------------


def test_a_repeated_import_adds_new_cases_and_changes_nothing_else(export: Path, tmp_path: Path) -> None:
    """Levels that a user added to cases.csv stay, and a moved folder is recognized by its series."""
    done = imported(export, tmp_path)
    table = done.folder / "cases.csv"
    table.write_text(table.read_text().replace("case_002,patient_002,,,", "case_002,patient_002,-180,-182.5,"))
    before = tree(done.folder)
    (export / "scan1").rename(export / "moved")
    (export / "scan1.nii.gz").rename(export / "moved.nii.gz")
    with_mask(scan(export / "new", "Wolf", 9))
    again = imported(export, tmp_path)
    assert again.added == ("case_005",) and set(again.kept) == {f"case_00{k}" for k in range(1, 5)}
    after = tree(done.folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"imagesTr/case_005_0000.nii.gz", "labelsTr/case_005.nii.gz", "cases.csv", "dataset.json"}
    cases = {c.id: c for c in discover(done.folder).cases}
    assert cases["case_002"].levels is not None and cases["case_002"].levels.left_mm == -180
    assert cases["case_005"].patient == cases["case_004"].patient


@pytest.mark.parametrize("fault", range(6))
def test_an_interrupted_import_is_completed(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    """Whichever file it was interrupted at, the next import gives the same result as an uninterrupted one."""
    imported(export, tmp_path / "straight")
    write, count = files.atomic_write, iter(range(100))

    def cut(path: Path) -> Any:
        if next(count) == fault:
            raise KeyboardInterrupt
        return write(path)

    with monkeypatch.context() as patched:
        for module in (files, volume_io):
            patched.setattr(module, "atomic_write", cut)
        with pytest.raises(KeyboardInterrupt):
            imported(export, tmp_path)
    imported(export, tmp_path)
    assert tree(out_of(tmp_path)) == tree(out_of(tmp_path / "straight"))


def test_a_data_set_without_its_key_is_refused(export: Path, tmp_path: Path) -> None:
    key = imported(export, tmp_path).key
    key.rename(tmp_path / "locked_away.csv")
    with pytest.raises(DvtError, match=r"key .*DVT_import_key.csv is not found"):
        imported(export, tmp_path)
    assert imported(export, tmp_path, key=tmp_path / "locked_away.csv").added == ()


def test_other_channels_or_labels_are_refused(export: Path, tmp_path: Path) -> None:
    imported(export, tmp_path)
    with pytest.raises(DvtError, match=r"dataset\.json: .*expected CE-MR; proximal, distal"):
        imported(export, tmp_path, label_names=["proximal", "distal"])
    with pytest.raises(DvtError, match="has the channels CE-MR"):
        imported([export], tmp_path, ["T1"])


# --- faults ---------------------------------------------------------------------------------------


def test_a_faulty_scan_is_reported_and_the_others_are_imported(export: Path, tmp_path: Path) -> None:
    """One has a missing slice, one a mask on another grid, one two volumes. Once fixed, they are imported too."""
    gone = next(p for p in sorted((export / "scan0").iterdir()) if b"-27.5" in p.read_bytes())
    kept_bytes = gone.read_bytes()
    gone.unlink()
    grid = series.choose_volume(series.read_study(export / "scan1"), None).grid
    good = (export / "scan1.nii.gz").read_bytes()
    volume_io.write_mask(export / "scan1.nii.gz", drawn()[:4], grid.window(np.zeros(3), (4, 12, 8)))
    scan(export / "scan2" / "more", "Huber", 2, number=8, words="other")
    done = imported(export, tmp_path)
    assert done.added == ("case_001",) and [r["dicom_patient_id"] for r in rows(done.key)] == ["Wolf"]
    assert len(done.faults) == 3 and not any("\n" in line for line in done.faults)
    assert f"{export / 'scan0'}: series 5 (cor_fl3d_vein): a gap of 2.5 mm" in done.faults[0]
    assert f"{export / 'scan1.nii.gz'}: has 4x12x8 voxels that are not those of series 5, 5x12x8." in done.faults[1]
    assert f"{export / 'scan2'}: contains several volumes. Choose with `series`: 5 (cor_fl3d_vein" in done.faults[2]
    gone.write_bytes(kept_bytes)
    (export / "scan1.nii.gz").write_bytes(good)
    again = imported(export, tmp_path, series=["vein"])
    assert again.faults == () and len(again.added) == 3 and again.kept == ("case_001",)


def test_an_error_that_no_check_has_foreseen_stops_no_other_scan(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line names the scan, and the place of the error for the one who mends it."""
    read = dataset_import.read_images

    def faulty(source: Any) -> Any:
        return int("removed") if source.path.name == "scan1" else read(source)

    monkeypatch.setattr(dataset_import, "read_images", faulty)
    done = import_dicom([export], out_of(tmp_path), ImportOptions(channels=["T1"]))
    assert len(done.added) == 3 and [row["dicom_patient_id"] for row in rows(done.key)] == [
        "Meier 1.1.1950",
        "Huber",
        "Wolf",
    ]
    (line,) = done.faults
    assert str(export / "scan1") in line and "\n" not in line
    assert re.search(r"ValueError at \w+\.py:\d+: invalid literal", line)


def test_a_folder_without_permission_stops_no_other_scan(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "scan1" and allowed(path, mode))
    done = imported(export, tmp_path)
    assert len(done.added) == 3 and "scan1: no permission" in done.faults[0]


def test_options_that_contradict_the_earlier_imports_are_refused(export: Path, tmp_path: Path) -> None:
    """They would be ignored for the cases that are there, and mix two ways of telling patients apart."""
    imported(export / "scan0", tmp_path)
    before = tree(out_of(tmp_path))
    for how, words in (({"keep_names": True}, "numbered"), ({"patient_by": "folder"}, "PatientID")):
        with pytest.raises(DvtError, match=words):
            imported(export, tmp_path, **how)
    assert tree(out_of(tmp_path)) == before
    imported(export / "scan0", tmp_path / "other", keep_names=True, patient_by="folder")
    with pytest.raises(DvtError, match=r"named after their folders \(scan0\)"):
        imported(export, tmp_path / "other")
    done = imported([export / "scan0", export / "scan1"], tmp_path / "other", keep_names=True)
    assert (done.added, done.kept) == ((), ()) and all("`patient_by='folder'`" in line for line in done.faults)
    again = imported(export, tmp_path / "other", keep_names=True, patient_by="folder")
    assert again.added == ("scan1", "scan2", "scan3") and again.faults == ()


def test_another_scan_with_the_same_series_uid_is_refused(tmp_path: Path) -> None:
    """An anonymizer may give all scans one UID. Such a scan is not one that was imported before."""
    same = {"uid": "1.2.826.0.1.7"}
    with_mask(scan(tmp_path / "export" / "a", "", 0, **same))
    scan(tmp_path / "export" / "b", "", 1, **same)
    scan(tmp_path / "export" / "c", "", 0, start=(-100.0, -30.0, 201.0), **same)
    shutil.copytree(tmp_path / "export" / "a", tmp_path / "copy")
    done = imported([tmp_path / "export" / name for name in "abc"], tmp_path)
    assert done.added == ("case_001",) and len(done.faults) == 2
    assert all("UID of case case_001" in line for line in done.faults)
    assert imported([tmp_path / "copy"], tmp_path).kept == ("case_001",)


def test_a_scan_whose_patient_id_was_changed_is_refused(export: Path, tmp_path: Path) -> None:
    """Otherwise one patient could be in the training and the test of a fold."""
    imported(export, tmp_path)
    for path in (export / "scan3").iterdir():
        ds = pydicom.dcmread(path)
        ds.PatientID = "Huber"
        ds.save_as(path)
    assert "case_004 with another PatientID" in imported(export, tmp_path).faults[0]


def test_invalid_options_are_refused_before_anything_is_imported(export: Path, tmp_path: Path) -> None:
    for how, words in (
        ({"series": ["5", "6"]}, "`series`: 2 given, expected 1"),
        ({"patient_by": "name"}, "patient_by"),
        ({"label_names": ["a", "a"]}, "label_names.*repeated"),
        ({"label_names": ["background"]}, "label_names.*background"),
        ({"key": out_of(tmp_path) / "private" / "key.csv"}, "key.csv: lies inside the data set"),
        ({"masks": tmp_path / "none.csv"}, "none.csv: cannot be read"),
    ):
        with pytest.raises(DvtError, match=words):
            imported(export, tmp_path, **how)
    with pytest.raises(DvtError, match=r"not found\. Give a folder"):
        imported([export / "none"], tmp_path, ["T1"])
    assert not out_of(tmp_path).exists()


def test_a_folder_with_nothing_but_a_file_of_the_system_is_empty(export: Path, tmp_path: Path) -> None:
    out_of(tmp_path).mkdir(parents=True)
    (out_of(tmp_path) / "Thumbs.db").write_bytes(b"x")
    assert len(imported(export / "scan0", tmp_path).added) == 1


def test_a_file_is_refused_as_data_set(export: Path, tmp_path: Path) -> None:
    out_of(tmp_path).parent.mkdir()
    out_of(tmp_path).write_text("mine")
    with pytest.raises(DvtError, match="DVT: is a file"):
        imported(export, tmp_path)
    assert out_of(tmp_path).read_text() == "mine"


def test_a_row_of_the_mask_table_without_an_input_is_a_warning(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "masks.csv"
    table.write_text(f"folder,mask\nscan0,{export / 'scan0.nii.gz'}\nscam1,{export / 'scan1.nii.gz'}\n")
    assert len(imported(export, tmp_path, masks=table).added) == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "masks.csv" in line]
    assert "scam1" in line and "scan0" not in line


def test_a_scan_of_another_modality_is_imported_with_a_warning(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (export / "scan2").iterdir():
        ds = pydicom.dcmread(path)
        ds.Modality = "CT"
        ds.save_as(path)
    assert len(imported(export, tmp_path, ["MR"]).added) == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "modality" in line]
    assert f"CT ({export / 'scan2'})" in line and "channel MR" in line


# --- inputs ---------------------------------------------------------------------------------------


def test_archives_are_imported_without_being_unpacked(export: Path, tmp_path: Path) -> None:
    for k in range(2):
        shutil.make_archive(str(tmp_path / "zips" / f"scan{k}"), "zip", export / f"scan{k}")
        shutil.copy(export / f"scan{k}.nii.gz", tmp_path / "zips")
    done = imported(tmp_path / "zips", tmp_path)
    assert done.added == ("case_001", "case_002") and done.without_mask == ()
    assert np.array_equal(volume_io.read(done.folder / "imagesTr" / "case_002_0000.nii.gz")[0], volume(seed=1))


def test_the_command_prints_its_result_and_has_status_1_if_a_scan_failed(export: Path, tmp_path: Path) -> None:
    words = ("import_dicom", "-i", *sorted(p for p in export.iterdir() if p.is_dir()), "-o", out_of(tmp_path))
    done = command(*words, "--channels", "CE-MR")
    assert done.returncode == 0 and f"{out_of(tmp_path)}: 4 cases imported, 0 already present" in done.stdout
    next(p for p in sorted((export / "scan0").iterdir()) if b"-27.5" in p.read_bytes()).unlink()
    shutil.rmtree(tmp_path / "datasets_raw")
    (tmp_path / "datasets_raw" / "DVT_import_key.csv").unlink(missing_ok=True)
    done = command(*words, "--channels", "CE-MR")
    assert done.returncode == 1 and "3 cases imported" in done.stdout
    assert "1 scan not imported.\n" in done.stderr and "scan0: series 5 (cor_fl3d_vein): a gap" in done.stderr


def test_paths_can_be_strings(export: Path, tmp_path: Path) -> None:
    options = ImportOptions(channels=["CE-MR"], key=str(tmp_path / "key.csv"))
    done = import_dicom([str(export)], str(out_of(tmp_path)), options)
    assert len(done.added) == 4 and done.key == tmp_path / "key.csv" and done.key.exists()
    assert series.read_study(str(export / "scan0")).source == export / "scan0"


@pytest.mark.skipif(not SHARED.exists(), reason="real images are not here")
def test_real_series_are_imported(tmp_path: Path) -> None:
    folders = [SHARED / "dicom" / name for name in ("ct_17_slices", "head_mr_35_slices")]
    done = imported(folders, tmp_path, ["any"])
    assert (done.added, done.faults) == (("case_001", "case_002"), ())
    for folder, case_id in zip(folders, done.added, strict=True):
        found = series.read_study(folder)
        true, grid = series.read_volume(found, series.choose_volume(found, None))
        image, where = volume_io.read(done.folder / "imagesTs" / f"{case_id}_0000.nii.gz")
        assert np.array_equal(image, true) and np.abs(where.corners_mm() - grid.corners_mm()).max() < 1e-4
        assert to_slice_order(where, "SI") == to_slice_order(grid, "SI")
