"""Inputs become cases; the mask of stitched stations is mapped back to each of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import write_series
from helpers.refusals import refused
from helpers.stations import NAMES, ROWS, WHOLE, legs, station

from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural
from dvtplan.dicom.series import choose_volume, read_study
from dvtplan.imaging import volume_io
from dvtplan.imaging.volume_names import stem
from dvtplan.inference import inputs, station_masks
from dvtplan.inference.inputs import find_cases

GAINS = (1.2, 1.0, 0.8)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Three stations of one pair of legs as volumes."""
    folder = tmp_path / "patient_7"
    folder.mkdir()
    for name, rows, gain in zip(NAMES, ROWS, GAINS, strict=True):
        volume_io.write_image(folder / f"{name}.nrrd", *station(legs(), rows, gain))
    return folder


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """The same as series of one DICOM folder; slices 1.25 mm apart, pixels of 1.45 x 1.3 mm."""
    folder = tmp_path / "patient_8"
    for number, rows, gain in zip((5, 6, 7), ROWS, GAINS, strict=True):
        array = (gain * legs()[:, rows[0] : rows[1]]).round().astype(np.uint16)
        write_series(folder / str(number), array, number=number, start=(-100.0, -20.0, 700.0 - 1.45 * rows[0]))
    return folder


def test_stations_in_files_are_one_case(files: Path) -> None:
    with inputs.open_input(files, 1, stations=[f"{n}.nrrd" for n in ("calf", "pelvis", "thigh")]) as opened:
        (case,) = opened.cases
        image, grid = volume_io.read(case.images[0])
        assert case.id == "patient_7" and opened.is_single
        assert [name for name, _ in opened.stations] == [f"{n}.nrrd" for n in NAMES]
        np.testing.assert_allclose(image, legs(), rtol=2e-3)
        assert np.abs(grid.corners_mm() - WHOLE.corners_mm()).max() < 1e-4
    assert not case.images[0].exists()


def test_duplicate_images_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "study" / "a", legs().round().astype(np.uint16))
    shutil.copytree(tmp_path / "study" / "a", tmp_path / "study" / "b")
    with inputs.open_input(tmp_path / "study", 1) as opened:
        image, _ = volume_io.read(opened.cases[0].images[0])
    assert len(image) == len(legs())
    assert f"; {len(legs())} duplicate images ignored" in capsys.readouterr().err


def test_a_mask_of_the_whole_goes_back_to_every_station(series: Path, tmp_path: Path) -> None:
    """On the grid of each series, to 1e-4 mm."""
    with inputs.open_input(series, 1, stations=["7", "5", "6"]) as opened:
        image, grid = volume_io.read(opened.cases[0].images[0])
        mask = np.zeros(image.shape, np.uint8)
        mask[2:5, 25:70, 10:13] = 1
        volume_io.write_mask(tmp_path / "mask.nii.gz", mask, grid)
        *parts, table = station_masks.write_stations(tmp_path / "mask.nii.gz", opened)
    assert [p.name for p in parts] == [f"mask_station_{n}.nii.gz" for n in (5, 6, 7)]
    found = read_study(series)
    for path, rows, name in zip(parts, ROWS, "567", strict=True):
        part, where = volume_io.read(path)
        assert np.array_equal(part, mask[:, rows[0] : rows[1]])
        assert np.abs(where.corners_mm() - choose_volume(found, name).grid.corners_mm()).max() < 1e-4
    about = json.loads(table.read_text())
    assert about["stations_from_head_to_foot"] == ["5", "6", "7"]
    assert about["gains"] == pytest.approx([1 / 1.2, 1, 1 / 0.8], rel=0.01)
    assert about["seams_lps_z_mm"] == pytest.approx([700 - 31.5 * 1.45, 700 - 59.5 * 1.45])


def test_an_edited_mask_of_a_station_is_kept(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with inputs.open_input(files, 1, stations=[f"{n}.nrrd" for n in NAMES]) as opened:
        image, grid = volume_io.read(opened.cases[0].images[0])
        mask = tmp_path / "mask.nii.gz"
        volume_io.write_mask(mask, np.zeros(image.shape, np.uint8), grid)
        first, second, third, _ = station_masks.write_stations(mask, opened)
        second.write_bytes(b"edited")
        volume_io.write_mask(mask, np.ones(image.shape, np.uint8), grid)
        for _ in range(2):
            station_masks.write_stations(mask, opened)
            assert second.read_bytes() == b"edited" and "was edited or comes from elsewhere" in capsys.readouterr().err
            assert volume_io.read(first)[0].all() and volume_io.read(third)[0].all()
        station_masks.write_stations(mask, opened, overwrite=True)
        assert volume_io.read(second)[0].all() and capsys.readouterr().err == ""


def test_a_damaged_station_is_a_damaged_scan_and_a_missing_one_is_not(files: Path) -> None:
    names = [f"{n}.nrrd" for n in NAMES]
    (files / names[1]).write_bytes(b"damaged")
    with pytest.raises(DamagedScan), inputs.open_input(files, 1, stations=names):
        pass
    (files / names[1]).unlink()
    with pytest.raises(DvtError) as caught, inputs.open_input(files, 1, stations=names):
        pass
    assert not isinstance(caught.value, DamagedScan)


def test_stations_can_be_chosen_by_their_descriptions(tmp_path: Path) -> None:
    """Files are named by the numbers of the series, however these were chosen."""
    for number, (name, rows) in enumerate(zip(NAMES, ROWS, strict=True), start=5):
        array = legs()[:, rows[0] : rows[1]].round().astype(np.uint16)
        start = (-100.0, -20.0, 700.0 - 1.45 * rows[0])
        write_series(tmp_path / "p" / name, array, number=number, words=f"cor_{name}", start=start)
    with inputs.open_input(tmp_path / "p", 1, stations=["c*calf", "PELVIS", "thigh"]) as opened:
        assert [name for name, _ in opened.stations] == ["5", "6", "7"]
        assert [volume.name for (volume,) in opened.source_volumes] == ["5", "6", "7"]
    with inputs.open_input(tmp_path / "p", 1, series=["thigh"]) as opened:
        assert opened.cases[0].id == "p_series_6"


@pytest.mark.parametrize(
    ("channels", "series", "words"),
    [(2, None, "a model of one channel"), (1, ["5"], "cannot be used together")],
)
def test_stations_need_one_channel_and_no_series(
    files: Path, channels: int, series: list[str] | None, words: str
) -> None:
    with (
        pytest.raises(DvtError, match=words),
        inputs.open_input(files, channels, series=series, stations=["calf.nrrd", "thigh.nrrd"]),
    ):
        pass


def test_a_station_that_is_named_twice_is_refused(files: Path) -> None:
    with (
        pytest.raises(DvtError, match="named twice"),
        inputs.open_input(files, 1, stations=["thigh.nrrd", "thigh.nrrd"]),
    ):
        pass


def test_a_missing_station_is_named(files: Path) -> None:
    with (
        pytest.raises(DvtError, match=r"foot.nrrd: not found"),
        inputs.open_input(files, 1, stations=["foot.nrrd", "a"]),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("a.nii.gz", "a"),
        ("scan.1.mha", "scan.1"),
        ("Packed.ZIP", "Packed"),
        ("im.dcm", "im"),
        ("patient.7", "patient.7"),
    ],
)
def test_a_name_loses_only_an_ending(name: str, bare: str) -> None:
    assert stem(Path(name)) == bare


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        (["a_0000", "a_0001"], 1),
        (["a_0000"], 2),
        (["a"], 2),
        (["a_0000", "a_0002"], 2),
        (["a_0000", "a"], 2),
        (["a_0000", "a_0001", "b_0000"], 2),
    ],
)
def test_a_wrong_number_of_channels_is_refused(tmp_path: Path, files: list[str], channels: int) -> None:
    for name in files:
        (tmp_path / f"{name}.nii.gz").touch()
    message = refused(lambda: find_cases(tmp_path, channels))
    assert f"the model takes {plural(channels, 'channel')}" in message and "ID_0000" in message


@pytest.mark.parametrize("names", [("a.nii", "a.nii.gz"), ("a.NII.GZ", "a.nii.gz"), ("a.mha", "a.nrrd")])
def test_one_case_in_two_formats_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert f"{names[0]}, {names[1]} have one name, so the scan a is ambiguous" in refused(
        lambda: find_cases(tmp_path, 1)
    )


def test_upper_case_endings_are_volumes(tmp_path: Path) -> None:
    for name in ("A.NII.GZ", "b.Nii", "C.NRRD", "d.MhA"):
        (tmp_path / name).touch()
    assert [case.id for case in find_cases(tmp_path, 1)] == ["A", "C", "b", "d"]
    assert [case.id for case in find_cases(tmp_path / "A.NII.GZ", 1)] == ["A"]


def test_a_scan_in_a_format_without_direction_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gipl").touch()
    assert "a.gipl: GIPL stores no direction" in refused(lambda: find_cases(tmp_path / "a.gipl", 1))


def test_digits_in_a_name_are_a_channel_only_with_a_channel_0(tmp_path: Path) -> None:
    for name in ("scan_2019", "scan_2020", "other_0000"):
        (tmp_path / f"{name}.nii.gz").touch()
    assert [case.id for case in find_cases(tmp_path, 1)] == ["other", "scan_2019", "scan_2020"]
