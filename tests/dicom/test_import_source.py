"""Channels and masks of an imported study: found, and on one grid."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import OBLIQUE, volume, write_series
from helpers.dicom_imports import drawn, imported, scan, with_mask
from helpers.segmentations import ACROSS, START, assert_same_points, block, foreign, points_of_nifti, points_of_object
from helpers.volumes import move_qform

from dvtplan.data.dataset import discover
from dvtplan.dicom import segmentation_writer, series
from dvtplan.dicom.import_source import modality_warnings
from dvtplan.imaging import geometry, volume_io
from dvtplan.planning.verification import examine

# --- channels -------------------------------------------------------------------------------------


def test_two_channels_are_two_series_on_one_grid(tmp_path: Path) -> None:
    """The second has the opposite slice order, and is reordered."""
    folder = scan(tmp_path / "p", "one")
    other = volume(seed=7)
    start = np.array([-100.0, -30.0, 200.0]) + 4 * ACROSS + [7 * 1.3, 0, 0]
    write_series(folder / "b", other, number=6, words="second", plane=((-1, 0, 0), (0, 0, -1)), start=start)
    for path in (folder / "b").iterdir():
        ds = pydicom.dcmread(path)
        ds.PatientID = "one"
        ds.save_as(path)
    with_mask(folder)
    done = imported([folder], tmp_path, ["T1", "second"], series=["5", "SECOND"])
    assert done.faults == ()
    (case,) = discover(done.folder).cases
    assert np.array_equal(volume_io.read(case.images[0])[0], volume())
    assert np.array_equal(volume_io.read(case.images[1])[0], other[::-1, :, ::-1])
    assert examine(case, {"thrombus": 1}).problems == ()


def test_channels_on_two_grids_are_refused(tmp_path: Path) -> None:
    folder = with_mask(scan(tmp_path / "p", "one"))
    scan(folder / "b", "one", number=6, words="second", step=1.5)
    done = imported([folder], tmp_path, ["T1", "T2"], series=["5", "6"])
    assert "series 6: has 5x12x8 voxels that are not those of series 5" in done.faults[0]


def test_scans_whose_uids_were_emptied_are_different_cases(tmp_path: Path) -> None:
    """Neither is taken for the other, which is already present."""
    folders = [scan(tmp_path / name, name, seed=seed) for seed, name in enumerate(("one", "two"))]
    for path in (path for folder in folders for path in folder.iterdir()):
        ds = pydicom.dcmread(path)
        ds.SeriesInstanceUID = ds.SOPInstanceUID = ""
        ds.save_as(path)
    for _ in range(2):
        done = imported(folders, tmp_path, ["T1"])
    assert done.faults == () and len(done.kept) == 2


# --- masks ----------------------------------------------------------------------------------------


def test_a_segmentation_object_may_omit_empty_frames(tmp_path: Path) -> None:
    folder = scan(tmp_path / "p", "one")
    upper, lower = block(slice(0, 3), slice(1, 4)), block(slice(5, 9), slice(0, 2))
    frames = [(2, START + 3 * ACROSS, lower), (1, START + ACROSS, upper)]
    foreign(folder / "seg", folder, frames, ["Proximal", "Distal"])
    done = imported([folder], tmp_path, ["T1"], label_names=["proximal", "distal"])
    (case,) = discover(done.folder).cases
    assert case.label is not None
    mask = volume_io.read(case.label)[0]
    assert np.array_equal(mask[1], upper) and np.array_equal(mask[3], 2 * lower) and mask.sum() == 9 + 16
    points, objects = points_of_nifti(case.label), points_of_object(folder / "seg")
    assert_same_points(points[1], objects["Proximal"])
    assert_same_points(points[2], objects["Distal"])


def test_a_segmentation_object_of_another_series_is_ignored(tmp_path: Path) -> None:
    folder, other = scan(tmp_path / "p", "one"), scan(tmp_path / "other", "one", 1)
    foreign(folder / "seg", other, [(1, START, block(slice(2), slice(2)))], ["thrombus"])
    assert imported([folder], tmp_path, ["T1"]).without_mask == ("case_001",)


def test_a_predicted_segmentation_object_is_imported_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An object that was corrected in a viewer gives no warning."""
    folder = scan(tmp_path / "p", "one", plane=OBLIQUE)
    found = series.read_study(folder)
    segmentation_writer.write_segmentation(
        folder / "seg.dcm", drawn(), found, [series.choose_volume(found, None)], {"thrombus": 1}
    )
    (case,) = discover(imported([folder], tmp_path, ["T1"]).folder).cases
    assert case.label is not None and np.array_equal(volume_io.read(case.label)[0], drawn())
    assert f"{folder}: seg.dcm: was drawn automatically by dvtplan" in capsys.readouterr().err
    ds = pydicom.dcmread(folder / "seg.dcm")
    ds.SegmentSequence[0].SegmentAlgorithmType = "SEMIAUTOMATIC"
    ds.save_as(folder / "seg.dcm")
    imported(folder, tmp_path / "other", ["T1"])
    assert "was drawn" not in capsys.readouterr().err


@pytest.mark.parametrize("flips", [(True, False, False), (False, True, True)])
def test_a_mask_with_other_axis_directions_is_reoriented(tmp_path: Path, flips: tuple[bool, bool, bool]) -> None:
    """As converters write it: rows from the bottom, slices last. Each voxel keeps its position."""
    folder = scan(tmp_path / "p", "one", plane=OBLIQUE)
    grid = series.choose_volume(series.read_study(folder), None).grid
    turn = geometry.reorientation_between(grid, grid)
    assert turn is not None
    turn = type(turn)((2, 0, 1), flips)
    volume_io.write_mask(tmp_path / "p.nii.gz", np.ascontiguousarray(turn.apply(drawn())), turn.grid(grid))
    (case,) = discover(imported([folder], tmp_path, ["T1"]).folder).cases
    assert case.label is not None and np.array_equal(volume_io.read(case.label)[0], drawn())


def test_a_table_names_masks_by_file_or_by_object(tmp_path: Path) -> None:
    one, two = (with_mask(scan(tmp_path / "export" / name, name, k)) for k, name in enumerate("ab"))
    foreign(two / "seg", two, [(1, START, block(slice(2), slice(2)))], ["thrombus"])
    (tmp_path / "masks").mkdir()
    (tmp_path / "export" / "a.nii.gz").rename(tmp_path / "masks" / "first.nii.gz")
    (tmp_path / "masks" / "table.csv").write_text("folder,mask\na,first.nii.gz\nb,12\n")
    done = imported([one, two], tmp_path, ["T1"], masks=tmp_path / "masks" / "table.csv")
    sums = [int(volume_io.read(c.label)[0].sum()) for c in discover(done.folder).cases if c.label is not None]
    assert sums == [int(drawn().sum()), 4]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda p: with_mask(p, drawn(3)),
            "contains the values 3; the labels of this import are 0 background, 1 thrombus. Name every value",
        ),
        (lambda p: shutil.copy(p.parent / "p.nii.gz", p / "mask.nii.gz"), "has several masks for series 5"),
        (lambda p: (p.parent / "p.nii.gz").write_bytes(b"no"), "p.nii.gz: is not gzip"),
    ],
)
def test_an_invalid_mask_is_reported(tmp_path: Path, spoil: Any, words: str) -> None:
    spoil(with_mask(scan(tmp_path / "p", "one")))
    done = imported([tmp_path / "p"], tmp_path, ["T1"])
    assert words in done.faults[0] and done.added == () and not done.folder.exists() and not done.key.exists()


def test_a_shifted_mask_of_the_same_size_is_refused(tmp_path: Path) -> None:
    folder = scan(tmp_path / "p", "one")
    grid = series.choose_volume(series.read_study(folder), None).grid
    volume_io.write_mask(tmp_path / "p.nii.gz", drawn(), grid.window(np.array([0, 0, 0.5]), grid.shape))
    done = imported([folder], tmp_path, ["T1"])
    assert "up to 0.65 mm away (tolerance 0.02 mm)" in done.faults[0]


def test_a_mask_with_a_contradictory_header_is_imported_by_its_trusted_form(tmp_path: Path) -> None:
    folder = with_mask(scan(tmp_path / "p", "one"))
    move_qform(folder.with_name("p.nii.gz"))
    refused = imported([folder], tmp_path, ["T1"])
    assert "p.nii.gz" in refused.faults[0] and "`trust=sform`" in refused.faults[0]
    done = imported([folder], tmp_path, ["T1"], trust="sform")
    (case,) = discover(done.folder).cases
    assert case.label is not None and np.array_equal(volume_io.read(case.label)[0], drawn())


@pytest.mark.parametrize(
    ("channel", "modalities", "named"),
    [
        ("MR", ["MR", "MR", ""], []),
        ("MR", ["CT", "CT"], ["CT (scan0, scan1)"]),
        ("MR", ["MR", "CT", "MR"], ["modality, MR, found CT (scan1); MR (scan0, scan2)"]),
        ("CT_venous", ["CT", "CT"], []),
        ("CT", ["CT", "MR", "CT"], ["modality, CT, found MR (scan1); CT (scan0, scan2)"]),
    ],
)
def test_scans_of_other_or_of_several_modalities_are_named(
    channel: str, modalities: list[str], named: list[str]
) -> None:
    found = modality_warnings([channel, "T1"], [(Path(f"scan{k}"), (one, "MR")) for k, one in enumerate(modalities)])
    assert len(found) == len(named)
    assert all(words in line and f"channel {channel}" in line for words, line in zip(named, found, strict=True))
