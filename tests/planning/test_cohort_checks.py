"""A data set as a whole: one scan under two names, and labels that no case has."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from helpers.datasets import TINY_SPACING, tiny_dataset, tiny_image, tiny_label
from helpers.preparation import run
from helpers.raw_data import edit, image_path, label_path, table
from helpers.volumes import write_volume

from dvtplan.core.errors import DatasetProblems
from dvtplan.data.paths import Workspace


@pytest.mark.parametrize("packed", [False, True])
def test_one_scan_of_two_patients_is_refused(place: Workspace, packed: bool) -> None:
    """Also if it was compressed once more, so that the files differ."""
    copy = image_path(place.raw, "c")
    shutil.copy(image_path(place.raw, "a"), copy)
    if packed:
        copy.write_bytes(gzip.compress(gzip.decompress(copy.read_bytes()), compresslevel=1))
        assert copy.read_bytes() != image_path(place.raw, "a").read_bytes()
    with pytest.raises(DatasetProblems) as caught:
        run(place.root)
    (line,) = caught.value.problems
    assert line.startswith(f"{copy}: has the same voxels as a_0000.nii.gz") and "patient_id" in line
    assert not place.preprocessed.exists()
    table(place.raw, "case_id,patient_id\na,P\nb,b\nc,P\nd,d\n")
    made = run(place.root)
    assert made.splits is not None
    assert any({"a", "c"} <= set(fold.test) for fold in made.splits.folds)


def test_another_scan_of_equal_measurements_is_not_taken_for_the_same(place: Workspace) -> None:
    mirrored = tiny_image(0)[::-1, ::-1, ::-1].copy()
    write_volume(image_path(place.raw, "c"), mirrored, TINY_SPACING)
    assert run(place.root).warnings == ()


def test_one_channel_of_two_patients_is_refused(tmp_path: Path) -> None:
    place = Workspace(tmp_path, "DVT")
    tiny_dataset(place.raw, channels=2)
    shutil.copy(image_path(place.raw, "a", 1), image_path(place.raw, "d", 1))
    with pytest.raises(DatasetProblems, match="d_0001"):
        run(tmp_path)


def test_a_label_that_no_case_has_is_a_warning(place: Workspace) -> None:
    edit(place.raw, labels={"background": 0, "thrombus": 1, "other": 2})
    (warning,) = run(place.root).warnings
    assert "dataset.json: no case contains other" in warning
    write_volume(label_path(place.raw), tiny_label([1, 2]), TINY_SPACING)
    assert run(place.root).warnings == ()


def test_equal_masks_as_a_further_channel_are_not_one_scan(tmp_path: Path) -> None:
    place = Workspace(tmp_path, "DVT")
    tiny_dataset(place.raw, channels=2)
    for case in "abcd":
        write_volume(image_path(place.raw, case, 1), tiny_label([1]), TINY_SPACING)
    assert run(tmp_path).warnings == ()
