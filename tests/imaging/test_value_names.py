"""Names of values in the headers of masks, and masks whose names contradict the labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.slicer_files import segments, write_segmentation

from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.value_names import NamedValue, labels_by_name, name_faults, read_value_names

GRID = Grid(
    shape=(3, 4, 5),
    spacing_mm=(2.0, 1.5, 1.25),
    origin_mm=(-10.0, 5.0, 100.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
MASK = (np.arange(60).reshape(GRID.shape) % 3).astype(np.uint8)
LABELS = {"proximal": 1, "distal": 2}


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_names_that_were_written_with_a_mask_are_read_from_every_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    volume_io.write_mask(path, MASK, GRID, names=LABELS)
    names = read_value_names(path)
    assert [(one.value, one.name) for one in names.values] == [(1, "proximal"), (2, "distal")]
    assert not names.is_segmentation and not names.is_cut


@pytest.mark.parametrize("text", ["", "FSL 6.0.5", "TE=30; TR=7", "3T scan", "2 b; 1 a", "0 background; 1 a", "1 a; b"])
def test_other_texts_are_not_names(tmp_path: Path, text: str) -> None:
    path = write_segmentation(tmp_path / "m.nrrd", MASK, GRID, {"ITK_FileNotes": text} if text else {})
    assert read_value_names(path).values == ()


def test_names_that_a_header_has_no_room_for_are_missing(tmp_path: Path) -> None:
    many = {f"vein number {k} of the leg": k for k in range(1, 9)}
    volume_io.write_mask(tmp_path / "m.nii.gz", MASK, GRID, names=many)
    names = read_value_names(tmp_path / "m.nii.gz")
    assert names.is_cut and [one.value for one in names.values] == [1, 2]
    assert [*name_faults(tmp_path / "m.nii.gz", MASK, many)] == []


def test_segments_of_slicer_are_read_with_their_layers(tmp_path: Path) -> None:
    fields = {**segments(("Füße", 4, 0), ("distal", 1, 1)), "Segmentation_ReferenceImageExtentOffset": "1 2 3"}
    names = read_value_names(write_segmentation(tmp_path / "a.seg.nrrd", np.stack([MASK, MASK]), GRID, fields))
    assert names.values == (NamedValue(name="Füße", value=4), NamedValue(name="distal", value=1, layer=1))
    assert names.is_segmentation and names.offset == (3, 2, 1)


def test_segments_of_older_slicer_are_layers_in_their_order(tmp_path: Path) -> None:
    fields = {"Segment0_ID": "a", "Segment0_Name": "distal", "Segment1_ID": "b"}
    names = read_value_names(write_segmentation(tmp_path / "a.seg.nrrd", np.stack([MASK, MASK]), GRID, fields))
    assert names.values == (NamedValue(name="distal", value=1), NamedValue(name="b", value=1, layer=1))


def test_labels_of_mitk_are_read(tmp_path: Path) -> None:
    groups = [{"labels": [{"name": "distal", "value": 1}]}, {"labels": [{"name": "proximal", "value": 2}]}]
    fields = {"org.mitk.multilabel.segmentation.labelgroups": json.dumps(groups)}
    names = read_value_names(write_segmentation(tmp_path / "a.nrrd", np.stack([MASK, MASK]), GRID, fields))
    assert [(one.name, one.value, one.layer) for one in names.values] == [("distal", 1, 0), ("proximal", 2, 1)]


@pytest.mark.parametrize(
    "fields",
    [
        segments(("a", 1, 0), ("b", 1, 0)),
        {"Segment0_LabelValue": "one"},
        {**segments(("a", 1, 0)), "Segmentation_ReferenceImageExtentOffset": "1 2"},
        {"org.mitk.multilabel.segmentation.labelgroups": "[3]"},
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(DvtError, match=r"a.nrrd: its header"):
        read_value_names(write_segmentation(tmp_path / "a.nrrd", MASK, GRID, fields))


def test_names_are_compared_as_a_reader_does() -> None:
    """NFD is NFC, and '?' stands for a letter that our notes cannot hold, if only one label may be meant."""
    named = [NamedValue(name=name, value=1) for name in (" Proximal", "fu\u0308sse", "F?SSE", "other")]
    assert list(labels_by_name(named, {"proximal": 5, "füsse": 6}).values()) == [5, 6, 6]
    assert labels_by_name(named[2:], {"füsse": 6, "fässe": 7}) == {}


def test_values_that_the_header_names_like_another_label_are_a_fault(tmp_path: Path) -> None:
    path = write_segmentation(tmp_path / "c.nrrd", MASK, GRID, segments(("distal", 1, 0), ("proximal", 2, 0)))
    (line,) = name_faults(path, MASK, LABELS)
    assert "c.nrrd" in line and "1 distal" in line and "dataset.json" in line
    assert [*name_faults(path, MASK, {"distal": 1, "proximal": 2})] == []
    assert [*name_faults(path, MASK, {"iliac": 1, "popliteal": 2})] == []
    assert [*name_faults(path, np.zeros_like(MASK), LABELS)] == []
