"""Prediction of phantom legs in DICOM: every output has the positions that the tags specify."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.datasets import SHARED
from helpers.dicom_files import CORONAL, FEET_FIRST, OBLIQUE, write_enhanced, write_series
from helpers.models import Bright, model_of
from helpers.processes import command
from helpers.segmentations import assert_same_points, points_of_nifti, points_of_object
from phantom.case import PhantomCase, Request, make_case
from scipy.spatial import cKDTree

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io
from dvtplan.inference.model import Model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.predict import predict_path
from dvtplan.planning.plan import Plan

ROWS = ((0, 66), (52, 114), (100, 161))
"""Rows of the phantom in each of three table stations."""


@pytest.fixture(scope="module")
def legs() -> PhantomCase:
    """Return a tiny patient with thrombus in both regions; coronal, head first."""
    return make_case(Request("tiny", 2, 4, "both"), diagnostics=False)


@pytest.fixture
def bright(toy_once: Workspace) -> Model:
    """Return a model that segments bright voxels, mostly vessels."""
    return model_of(json_records.load(Plan, toy_once.plan, "test"), Bright(), classes={"thrombus": 1})


def pixels(legs: PhantomCase) -> np.ndarray:
    return legs.image.clip(0).astype(np.uint16)


def places(legs: PhantomCase) -> dict[str, Any]:
    """Return the slice and pixel distances of the phantom, as arguments of a writer."""
    step, *spacing = legs.spacing_mm
    return {"step": step, "spacing": spacing}


# --- independent readers --------------------------------------------------------------------------


def corners_of_dicom(folder: Path, number: int | None = None) -> np.ndarray:
    """Return the LPS positions of the four corner pixels of every image, from its tags (C.7.6.2.1.1)."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        if number is not None and ds.SeriesNumber != number:
            continue
        for own in ds.get("PerFrameFunctionalGroupsSequence") or [None]:
            if own is None:
                corner, turned, spacing = ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing
            else:
                shared = ds.SharedFunctionalGroupsSequence[0]
                corner = own.PlanePositionSequence[0].ImagePositionPatient
                turned = shared.PlaneOrientationSequence[0].ImageOrientationPatient
                spacing = shared.PixelMeasuresSequence[0].PixelSpacing
            axes = np.array(turned, float).reshape(2, 3) * [[float(spacing[1])], [float(spacing[0])]]
            ends = [[c, r] for c in (0, ds.Columns - 1) for r in (0, ds.Rows - 1)]
            found.append(np.array(corner, float) + np.array(ends) @ axes)
    return np.concatenate(found)


def corners_of_nifti(path: Path) -> np.ndarray:
    """Return the same for a mask whose third axis is the slice (nifti1.h, method 3)."""
    body = gzip.decompress(path.read_bytes())[:348]
    nx, ny, nz = struct.unpack("<3h", body[42:48])
    rows = np.array([struct.unpack("<4f", body[280 + 16 * k : 296 + 16 * k]) for k in range(3)])
    ends = np.array([[x, y, z] for z in range(nz) for x in (0, nx - 1) for y in (0, ny - 1)])
    return (ends @ rows[:, :3].T + rows[:, 3]) * (-1, -1, 1)


def assert_on_scan(mask: Path, folder: Path, number: int | None = None) -> None:
    """Check that mask and scan have equally many images, with corners within 1e-4 mm."""
    ours, true = corners_of_nifti(mask), corners_of_dicom(folder, number)
    assert len(ours) == len(true)
    assert cKDTree(ours).query(true)[0].max() < 1e-4 and cKDTree(true).query(ours)[0].max() < 1e-4


# --- one scan -------------------------------------------------------------------------------------

WAYS: dict[str, tuple[Callable[..., object], Any]] = {
    "oblique": (write_series, OBLIQUE),
    "feet first": (write_series, FEET_FIRST),
    "enhanced": (write_enhanced, CORONAL),
    "enhanced oblique": (write_enhanced, OBLIQUE),
}


@pytest.mark.parametrize("way", WAYS)
def test_mask_and_object_have_the_positions_of_the_scan(
    legs: PhantomCase, bright: Model, tmp_path: Path, way: str
) -> None:
    writer, plane = WAYS[way]
    target = tmp_path / "scan" if writer is write_series else tmp_path / "scan" / "IM1"
    writer(target, pixels(legs), plane=plane, **places(legs))
    mask, obj = predict_path(tmp_path / "scan", tmp_path / "out", bright, PredictOptions(extra_formats=("dicom-seg",)))
    assert (mask.name, obj.name) == ("scan.nii.gz", "scan_seg.dcm")
    assert_on_scan(mask, tmp_path / "scan")
    assert_same_points(points_of_object(obj)["thrombus"], points_of_nifti(mask)[1])


def test_each_of_three_stations_has_its_mask_and_object(legs: PhantomCase, bright: Model, tmp_path: Path) -> None:
    """File names and the order of the stations do not matter."""
    step, down, _ = legs.spacing_mm
    folder, names = tmp_path / "patient", iter(np.random.default_rng(0).permutation(100))
    for number, (top, bottom) in zip((6, 5, 7), ROWS, strict=True):
        start = np.array(legs.origin_mm) - [0, 0, top * down]
        array = (pixels(legs)[:, top:bottom] * (1 + 0.1 * number)).astype(np.uint16)
        write_series(
            folder,
            array,
            number=number,
            start=start,
            step=step,
            spacing=legs.spacing_mm[1:],
            name=lambda _: f"{next(names):04d}",
        )
    assert len(list(folder.iterdir())) == 3 * len(legs.image)
    whole, *others = predict_path(
        folder,
        tmp_path / "out",
        bright,
        PredictOptions(stations=("7", "6", "5"), extra_formats=("dicom-seg", "itksnap")),
    )
    assert {p.name for p in others} == {
        "patient_stations.json",
        "patient_labels.txt",
        *(f"patient_station_{n}{e}" for n in (5, 6, 7) for e in (".nii.gz", "_seg.dcm", "_labels.txt")),
    }
    segmented = points_of_nifti(whole)[1]
    for number in (5, 6, 7):
        mask = tmp_path / "out" / f"patient_station_{number}.nii.gz"
        assert_on_scan(mask, folder, number)
        points = points_of_nifti(mask)[1]
        assert_same_points(points_of_object(mask.with_name(f"patient_station_{number}_seg.dcm"))["thrombus"], points)
        assert cKDTree(segmented).query(points)[0].max() < 1e-3  # a station is a part of the whole
        made = pydicom.dcmread(mask.with_name(f"patient_station_{number}_seg.dcm"))
        (series,) = made.ReferencedSeriesSequence
        own = next(d for d in map(pydicom.dcmread, folder.iterdir()) if d.SeriesNumber == number)
        assert series.SeriesInstanceUID == own.SeriesInstanceUID


def test_an_object_is_kept_with_its_mask_and_replaced_with_it(legs: PhantomCase, bright: Model, tmp_path: Path) -> None:
    """A kept object keeps its UID, so that an archive stores it only once."""
    write_series(tmp_path / "scan", pixels(legs), **places(legs))
    kinds: dict[str, Any] = {"extra_formats": ("dicom-seg",)}
    _, obj = predict_path(tmp_path / "scan", tmp_path / "out", bright, PredictOptions(**kinds))
    first = obj.read_bytes()
    predict_path(tmp_path / "scan", tmp_path / "out", bright, PredictOptions(**kinds))
    assert obj.read_bytes() == first
    predict_path(tmp_path / "scan", tmp_path / "out", bright, PredictOptions(overwrite=True, **kinds))
    assert pydicom.dcmread(obj).SOPInstanceUID not in first.decode("latin-1")


def test_the_object_of_a_corrected_mask_is_semiautomatic(legs: PhantomCase, bright: Model, tmp_path: Path) -> None:
    write_series(tmp_path / "scan", pixels(legs), **places(legs))
    kinds: dict[str, Any] = {"extra_formats": ("dicom-seg",)}
    mask, obj = predict_path(tmp_path / "scan", tmp_path / "out", bright, PredictOptions(**kinds))
    values, grid = volume_io.read(mask)
    values[:, : values.shape[1] // 2] = 0
    volume_io.write_mask(mask, values, grid)
    predict_path(tmp_path / "scan", tmp_path / "out", bright, PredictOptions(**kinds))
    assert [one.SegmentAlgorithmType for one in pydicom.dcmread(obj).SegmentSequence] == ["SEMIAUTOMATIC"]
    assert_same_points(points_of_object(obj)["thrombus"], points_of_nifti(mask)[1])


def test_an_object_of_another_program_is_kept(
    legs: PhantomCase, bright: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as one that was corrected there and saved under the same name."""
    write_series(tmp_path / "scan", pixels(legs), **places(legs))
    kinds: dict[str, Any] = {"extra_formats": ("dicom-seg",)}
    _, obj = predict_path(tmp_path / "scan", tmp_path / "out", bright, PredictOptions(**kinds))
    ds = pydicom.dcmread(obj)
    ds.Manufacturer = "Another"
    ds.save_as(obj)
    before = obj.read_bytes()
    predict_path(tmp_path / "scan", tmp_path / "out", replace(bright, digest="another"), PredictOptions(**kinds))
    assert obj.read_bytes() == before and f"{obj}: " in capsys.readouterr().err
    predict_path(tmp_path / "scan", tmp_path / "out", bright, PredictOptions(overwrite=True, **kinds))
    assert pydicom.dcmread(obj).Manufacturer == "dvtplan"


def test_objects_of_stations_are_semiautomatic_if_the_stitched_mask_was_corrected(
    legs: PhantomCase, bright: Model, tmp_path: Path
) -> None:
    folder, (step, down, _) = tmp_path / "patient", legs.spacing_mm
    for number, (top, bottom) in enumerate(ROWS[:2], start=5):
        start = np.array(legs.origin_mm) - [0, 0, top * down]
        write_series(
            folder / str(number), pixels(legs)[:, top:bottom], number=number, start=start, step=step,
            spacing=legs.spacing_mm[1:],
        )  # fmt: skip
    kinds: dict[str, Any] = {"stations": ("5", "6"), "extra_formats": ("dicom-seg",)}
    mask, *_ = predict_path(folder, tmp_path / "out", bright, PredictOptions(**kinds))
    values, grid = volume_io.read(mask)
    volume_io.write_mask(mask, np.maximum(values, np.roll(values, 3, 1)), grid)
    written = predict_path(folder, tmp_path / "out", bright, PredictOptions(**kinds))
    objects = [pydicom.dcmread(path) for path in written if path.suffix == ".dcm"]
    assert [one.SegmentSequence[0].SegmentAlgorithmType for one in objects] == 2 * ["SEMIAUTOMATIC"]


def test_an_object_without_a_dicom_input_is_refused_before_prediction(
    toy_once: Workspace, bright: Model, tmp_path: Path
) -> None:
    image = toy_once.raw / "imagesTr" / "c0_0000.nii.gz"
    with pytest.raises(DvtError) as caught:
        predict_path(image, tmp_path / "out", bright, PredictOptions(extra_formats=("dicom-seg",)))
    assert str(caught.value).startswith(f"{image}: ") and "dicom-seg" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_writes_mask_labels_object_and_burden(
    legs: PhantomCase, trained_once: Workspace, tmp_path: Path
) -> None:
    """With the names of the classes. Object and mask agree, also if they are empty."""
    write_series(tmp_path / "scan", pixels(legs), plane=OBLIQUE, **places(legs))
    words = ("-i", tmp_path / "scan", "-o", tmp_path / "out", "--model", trained_once.results("gn_unet"))
    done = command(
        "predict", *words, "--device", "cpu", "--extra-formats", "dicom-seg", "itksnap", "--burden", tmp_path / "b.csv"
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    mask, labels, obj = out / "scan.nii.gz", out / "scan_labels.txt", out / "scan_seg.dcm"
    knees = out / "scan_levels.json"
    assert done.stdout.split() == [str(p) for p in (mask, labels, obj, knees, tmp_path / "b.csv")]
    assert_on_scan(mask, tmp_path / "scan")
    points = points_of_nifti(mask).get(1, np.empty((0, 3)))
    objects = points_of_object(obj)
    assert list(objects) == ["thrombus"] and len(objects["thrombus"]) == len(points)
    if len(points):
        assert_same_points(objects["thrombus"], points)
    assert '"thrombus"' in labels.read_text()
    assert b"1 thrombus\0" in gzip.decompress(mask.read_bytes())[148:228]  # descrip of nifti1.h


@pytest.mark.skipif(not SHARED.exists(), reason="real images are not here")
@pytest.mark.parametrize("name", ["ct_17_slices", "head_mr_35_slices"])
def test_masks_and_objects_of_real_series_have_their_positions(bright: Model, tmp_path: Path, name: str) -> None:
    folder = SHARED / "dicom" / name
    mask, obj = predict_path(folder, tmp_path / "out", bright, PredictOptions(extra_formats=("dicom-seg",)))
    assert_on_scan(mask, folder)
    assert_same_points(points_of_object(obj)["thrombus"], points_of_nifti(mask)[1])
