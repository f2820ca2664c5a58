"""Segmentation objects of other programs, read onto the grid of their series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import OBLIQUE, volume, write_series
from helpers.segmentations import ACROSS, START, block, foreign
from pydicom.dataset import Dataset

from dvtplan.core.errors import DvtError
from dvtplan.dicom.segmentation_reader import read_algorithm, read_segmentation
from dvtplan.dicom.series import choose_volume, read_study


def refusal(act: Any) -> str:
    with pytest.raises(DvtError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def mask_of(folder: Path, classes: dict[str, int] | None = None) -> np.ndarray:
    study = read_study(folder)
    volume_of_study = choose_volume(study, None)
    (segmentation,) = study.segmentations
    assert segmentation.series_uids == (volume_of_study.series_uid,)
    return read_segmentation(study, segmentation, volume_of_study.grid, classes or {"proximal": 1, "distal": 2})


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_series(tmp_path / "scan", volume())
    return tmp_path / "scan"


def test_an_object_is_not_a_volume_and_is_listed_with_its_segments(scan: Path) -> None:
    foreign(scan / "seg", scan, [(1, START, block(slice(2), slice(2)))], ["Proximal"])
    study = read_study(scan)
    assert [v.name for v in study.volumes] == ["5"]
    assert study.segmentations[0].title == "segmentation 12 (manual): Proximal"


def test_frames_in_any_order_are_placed_on_their_slices(scan: Path) -> None:
    """Some slices have no frame, one has two, and the order is reversed."""
    upper, lower = block(slice(0, 3), slice(1, 4)), block(slice(5, 9), slice(0, 2))
    frames = [(2, START + 3 * ACROSS, lower), (1, START + 3 * ACROSS, upper), (1, START + ACROSS, upper)]
    foreign(scan / "seg", scan, frames, ["Proximal", "DISTAL"])
    expected = np.zeros((5, 12, 8), np.uint8)
    expected[[1, 3], 0:3, 1:4] = 1
    expected[3, 5:9, 0:2] = 2
    assert np.array_equal(mask_of(scan), expected)


def test_a_cropped_and_rotated_frame_is_placed_on_its_voxels(scan: Path) -> None:
    """A frame of 3 x 4 pixels with rows upwards and columns to the right of the patient."""
    pixels = np.arange(12).reshape(3, 4) % 2 + np.eye(3, 4, dtype=int) > 1
    corner = START + 2 * ACROSS + [6 * 1.3, 0, -10 * 1.45]  # row 10, column 6
    foreign(scan / "seg", scan, [(1, corner, pixels)], ["proximal"], plane=((-1.0, 0, 0), (0, 0, 1.0)))
    expected = np.zeros((5, 12, 8), np.uint8)
    for r, c in np.argwhere(pixels):
        expected[2, 10 - r, 6 - c] = 1
    assert expected.any() and np.array_equal(mask_of(scan), expected)


def test_a_labelmap_and_probabilities_are_read(scan: Path) -> None:
    both = block(slice(0, 2), slice(0, 2)) + block(slice(4, 6), slice(3, 5), 2)
    path = foreign(scan / "seg", scan, [(None, START, both)], ["proximal", "distal"], kind="LABELMAP")
    assert np.array_equal(mask_of(scan)[0], both) and not mask_of(scan)[1:].any()
    path.unlink()
    half = block(slice(0, 2), slice(0, 2), 99) + block(slice(4, 6), slice(3, 5), 100)
    foreign(scan / "seg", scan, [(2, START, half)], ["proximal", "distal"], kind="FRACTIONAL")
    assert np.array_equal(mask_of(scan)[0], np.where(half == 100, 2, 0))


def test_a_single_segment_becomes_the_single_label_whatever_its_name(scan: Path) -> None:
    foreign(scan / "seg", scan, [(1, START, block(slice(2), slice(2)))], ["Segment_1"])
    assert mask_of(scan, {"thrombus": 1}).sum() == 4
    message = refusal(lambda: mask_of(scan))
    assert "segments Segment_1, expected proximal, distal" in message


def test_overlapping_segments_are_refused(scan: Path) -> None:
    frames = [(1, START, block(slice(0, 3), slice(2))), (2, START, block(slice(2, 5), slice(2)))]
    foreign(scan / "seg", scan, frames, ["proximal", "distal"])
    assert "segments overlap in 2 voxels" in refusal(lambda: mask_of(scan))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"position": START + 0.4 * np.array([1.25, 0, 0])},
            "frame 1 does not lie on the voxels of the series (up to 0.5 mm away",
        ),
        ({"position": START + 0.4 * ACROSS}, "(up to 0.5 mm away"),
        ({"spacing": (1.45, 1.35)}, "(up to 0.35 mm away"),
        ({"plane": OBLIQUE}, "does not lie on the voxels"),
        ({"position": START - ACROSS}, "frame 1 has segmented voxels outside the series"),
    ],
)
def test_a_frame_on_another_grid_is_refused(scan: Path, change: dict[str, Any], words: str) -> None:
    where = change.pop("position", START)
    foreign(scan / "seg", scan, [(1, where, block(slice(2), slice(2)))], ["proximal"], **change)
    assert words in refusal(lambda: mask_of(scan))


def test_pixels_of_a_segment_that_is_not_described_are_refused(scan: Path) -> None:
    """Otherwise they would be background without a word."""
    there = block(slice(2), slice(2))
    foreign(scan / "seg", scan, [(1, START, there), (3, START + ACROSS, there)], ["proximal", "distal"])
    assert "pixels of segment 3" in refusal(lambda: mask_of(scan))
    foreign(scan / "seg", scan, [(None, START, 3 * there)], ["proximal", "distal"], kind="LABELMAP")
    assert "pixels of segment 3" in refusal(lambda: mask_of(scan))


def test_the_background_of_a_label_map_is_not_a_segment(scan: Path) -> None:
    """highdicom describes it as segment 0."""
    there = block(slice(2), slice(2), 2)
    path = foreign(scan / "seg", scan, [(None, START, there)], ["proximal", "distal"], kind="LABELMAP")
    ds = pydicom.dcmread(path)
    background = Dataset()
    background.SegmentNumber, background.SegmentLabel = 0, "Background"
    ds.SegmentSequence = [background, *ds.SegmentSequence]
    ds.save_as(path)
    assert np.array_equal(mask_of(scan)[0], there)


@pytest.mark.parametrize("number", [1, 3, None])
def test_a_number_of_frames_that_is_not_that_of_the_positions_is_refused(scan: Path, number: int | None) -> None:
    frames = [(1, START + k * ACROSS, block(slice(2), slice(2))) for k in range(2)]
    path = foreign(scan / "seg", scan, frames, ["proximal", "distal"])
    ds = pydicom.dcmread(path)
    ds.NumberOfFrames = number
    ds.save_as(path)
    assert "seg: NumberOfFrames is" in refusal(lambda: mask_of(scan))


def test_two_frames_of_a_segment_at_one_place_must_be_equal(scan: Path) -> None:
    there, elsewhere = block(slice(2), slice(2)), block(slice(3), slice(2))
    foreign(scan / "seg", scan, [(1, START, there), (1, START, there)], ["proximal", "distal"])
    assert mask_of(scan).sum() == 4
    foreign(scan / "seg", scan, [(1, START, there), (1, START, elsewhere)], ["proximal", "distal"])
    assert "frame 2 lies where another frame" in refusal(lambda: mask_of(scan))


def test_the_algorithm_of_an_object_is_read_and_that_of_another_file_is_empty(scan: Path) -> None:
    path = foreign(scan / "seg", scan, [(1, START, block(slice(2), slice(2)))], ["proximal"])
    assert read_algorithm(str(path)) == ("", {""})
    assert read_algorithm(next(p for p in scan.iterdir() if p != path))[1] == set()
    (scan / "text").write_text("not DICOM")
    assert read_algorithm(scan / "text") == ("", set())


def test_a_damaged_group_of_a_frame_is_refused(scan: Path) -> None:
    path = foreign(scan / "seg", scan, [(1, START, block(slice(2), slice(2)))], ["thrombus"])
    body = path.read_bytes()
    at = body.rindex(b"\x62\x00\x0a\x00SQ\x00\x00") + 8  # the length of the sequence of the segment's number
    path.write_bytes(body[:at] + b"\x03\0\0\0" + body[at + 4 :])
    assert "seg" in refusal(lambda: mask_of(scan))


def test_names_of_segments_are_shown_without_control_characters(scan: Path) -> None:
    foreign(scan / "seg", scan, [(1, START, block(slice(2), slice(2)))], ["throm\x07\tbus"])
    assert read_study(scan).segmentations[0].labels == ("throm bus",)
