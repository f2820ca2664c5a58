"""Masks in volume files on the voxels of a series: values by name, cropped and layered segmentations by position."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_imports import imported, scan
from helpers.refusals import refused
from helpers.slicer_files import segments, write_segmentation

from dvtplan.data.dataset import discover
from dvtplan.dicom.mask_volume import read_mask_volume
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, Reorientation
from dvtplan.planning.verification import examine

GRID = Grid(
    shape=(5, 12, 8),
    spacing_mm=(1.25, 1.45, 1.3),
    origin_mm=(-100.0, -30.0, 200.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
LABELS = {"proximal": 1, "distal": 2}
SWAPPED = segments(("distal", 1, 0), ("proximal", 2, 0))
"""The numbers contradict the order of the labels."""


def drawn() -> np.ndarray:
    """Return two blocks without any symmetry: 1 proximal, 2 distal."""
    mask = np.zeros(GRID.shape, np.uint8)
    mask[1:3, 2:7, 1:4] = 1
    mask[2:4, 7:9, 1:3] = 2
    return mask


def swapped(mask: np.ndarray) -> np.ndarray:
    return np.choose(mask, [0, 2, 1]).astype(np.uint8)


def read(path: Path, labels: dict[str, int] | None = None) -> np.ndarray:
    return read_mask_volume(path, GRID, labels or LABELS, "5")


def refusal(path: Path, labels: dict[str, int] | None = None) -> str:
    message = refused(lambda: read(path, labels))
    assert str(path) in message and "\n" not in message
    return message


# --- values ---------------------------------------------------------------------------------------


def test_segments_are_imported_by_name_and_not_by_number(tmp_path: Path) -> None:
    path = write_segmentation(tmp_path / "m.seg.nrrd", swapped(drawn()), GRID, SWAPPED)
    assert np.array_equal(read(path), drawn())


SNAP = """# ITK-SNAP Label Description File
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "{}"
    2     0  255    0        1  1  1    "{}"
"""


@pytest.mark.parametrize(
    ("texts", "is_refused"),
    [
        ({"labels.txt": ("distal", "proximal")}, True),
        ({"m_labels.txt": ("distal", "proximal"), "b.txt": ("proximal", "distal")}, True),
        ({"labels.txt": ("proximal", "distal")}, False),
        ({"labels.txt": ("Label 1", "Label 2")}, False),
        ({"m.label": ("proximal", "distal"), "b_labels.txt": ("distal", "proximal")}, False),
        ({}, False),
    ],
)
def test_a_description_of_itk_snap_must_not_name_the_values_otherwise(
    tmp_path: Path, texts: dict[str, tuple[str, str]], is_refused: bool
) -> None:
    volume_io.write_image(tmp_path / "m.nii.gz", drawn(), GRID)
    (tmp_path / "report.txt").write_text("No label at all")
    for name, words in texts.items():
        (tmp_path / name).write_text(SNAP.format(*words))
    if is_refused:
        assert "1 distal" in refusal(tmp_path / "m.nii.gz")
    else:
        assert np.array_equal(read(tmp_path / "m.nii.gz"), drawn())


def test_an_import_takes_the_names_of_a_segmentation_in_its_folder(tmp_path: Path) -> None:
    folder = scan(tmp_path / "p", "one")
    write_segmentation(folder / "Segmentation.seg.nrrd", swapped(drawn()), GRID, SWAPPED)
    done = imported([folder], tmp_path, label_names=["proximal", "distal"])
    (case,) = discover(done.folder).cases
    assert case.label is not None and np.array_equal(volume_io.read(case.label)[0], drawn())
    assert examine(case, LABELS).problems == ()
    assert "1 proximal" in examine(case, {"distal": 1, "proximal": 2}).problems[0]


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_names_in_our_own_masks_count_as_well(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    volume_io.write_mask(path, swapped(drawn()), GRID, names={"distal": 1, "proximal": 2})
    assert np.array_equal(read(path), drawn())
    assert np.array_equal(read(path, {"distal": 1, "proximal": 2}), swapped(drawn()))


def test_a_text_that_does_not_name_the_values_is_ignored(tmp_path: Path) -> None:
    for text in ("3 Tesla", "TE=30"):
        path = write_segmentation(tmp_path / "m.nrrd", drawn(), GRID, {"ITK_FileNotes": text})
        assert np.array_equal(read(path), drawn())


@pytest.mark.parametrize(
    ("mask", "fields"),
    [
        (drawn(), segments(("iliac", 1, 0), ("calf", 2, 0))),
        (drawn(), {"ITK_FileNotes": "1 iliac; 2 calf"}),
        (drawn(), {"ITK_FileNotes": "1 distal"}),
        (drawn() % 2, {"ITK_FileNotes": "1 iliac; 2 calf"}),
        (drawn(), segments(("proximal", 1, 0), ("distal", 3, 0))),
        (drawn(), segments(("proximal", 1, 0), ("distal", 2, 1))),
    ],
)
def test_other_names_than_the_labels_are_refused(tmp_path: Path, mask: np.ndarray, fields: dict[str, object]) -> None:
    refusal(write_segmentation(tmp_path / "m.nrrd", mask, GRID, fields))


def test_a_single_segment_is_the_single_label_and_an_empty_one_may_have_any_name(tmp_path: Path) -> None:
    path = write_segmentation(tmp_path / "m.nrrd", 3 * (drawn() == 1), GRID, segments(("Segment_1", 3, 0)))
    assert np.array_equal(read(path, {"thrombus": 7}), 7 * (drawn() == 1))
    described = segments(("proximal", 1, 0), ("distal", 2, 0), ("Segment_3", 3, 0))
    assert np.array_equal(read(write_segmentation(tmp_path / "n.nrrd", drawn(), GRID, described)), drawn())


def test_layers_are_joined_and_overlap_is_refused(tmp_path: Path) -> None:
    described = segments(("distal", 1, 0), ("proximal", 1, 1))
    layers = np.stack([drawn() == 2, drawn() == 1])
    assert np.array_equal(read(write_segmentation(tmp_path / "m.seg.nrrd", layers, GRID, described)), drawn())
    layers[0, 2, 2, 1:3] = True
    path = write_segmentation(tmp_path / "m.seg.nrrd", layers, GRID, described)
    assert "overlap in 2 voxels" in refusal(path)


# --- positions ------------------------------------------------------------------------------------

FIRST, PART = np.array([1, 2, 1]), (slice(1, 4), slice(2, 9), slice(1, 5))
OFFSET = {"Segmentation_ReferenceImageExtentOffset": "1 2 1"}
WINDOW = GRID.window(FIRST, (3, 7, 4))


@pytest.mark.parametrize("fields", [{}, OFFSET])
def test_a_cropped_segmentation_lies_at_its_positions(tmp_path: Path, fields: dict[str, object]) -> None:
    path = write_segmentation(tmp_path / "m.seg.nrrd", swapped(drawn())[PART], WINDOW, {**SWAPPED, **fields})
    assert np.array_equal(read(path), drawn())


def test_a_cropped_segmentation_may_have_other_axes(tmp_path: Path) -> None:
    turn = Reorientation((2, 0, 1), (False, True, True))
    grid, part = turn.grid(WINDOW), turn.apply(swapped(drawn())[PART])
    offset = {"Segmentation_ReferenceImageExtentOffset": "3 1 1"}  # voxels before it along x, y, z of the file
    path = write_segmentation(tmp_path / "m.seg.nrrd", part, grid, {**SWAPPED, **offset})
    assert np.array_equal(read(path), drawn())


def test_a_segmentation_may_extend_beyond_the_series_if_nothing_is_segmented_there(tmp_path: Path) -> None:
    large = np.zeros((7, 14, 8), np.uint8)
    large[1:6, 1:13] = swapped(drawn())
    grid = GRID.window(np.array([-1, -1, 0]), large.shape)
    assert np.array_equal(read(write_segmentation(tmp_path / "m.seg.nrrd", large, grid, SWAPPED)), drawn())
    large[0, 0, :3] = 1
    assert "3 segmented voxels outside" in refusal(write_segmentation(tmp_path / "m.seg.nrrd", large, grid, SWAPPED))


@pytest.mark.parametrize(
    "grid",
    [
        replace(WINDOW, origin_mm=(WINDOW.origin_mm[0] + 0.4, *WINDOW.origin_mm[1:])),
        replace(WINDOW, spacing_mm=(1.25, 1.45, 1.5)),
        replace(WINDOW, origin_mm=GRID.origin_mm),
    ],
    ids=["between voxels", "other spacing", "not at the offset that it states"],
)
def test_a_cropped_segmentation_elsewhere_is_refused(tmp_path: Path, grid: Grid) -> None:
    refusal(write_segmentation(tmp_path / "m.seg.nrrd", swapped(drawn())[PART], grid, {**SWAPPED, **OFFSET}))


def test_a_part_of_a_series_without_names_is_refused(tmp_path: Path) -> None:
    volume_io.write_mask(tmp_path / "m.nii.gz", drawn()[PART], WINDOW)
    assert "3x7x4 voxels that are not those of series 5" in refusal(tmp_path / "m.nii.gz")
