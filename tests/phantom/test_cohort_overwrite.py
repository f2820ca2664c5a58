"""A phantom cohort over earlier files, and a failed write: what is replaced, refused and left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk
from helpers.processes import tree
from phantom.cohort import EXTRAS, Design, make_cohort

# ---- earlier files ---------------------------------------------------------------------------------


@pytest.fixture
def earlier(cohort: Path, tmp_path: Path) -> Path:
    """A copy of the cohort to write to."""
    return Path(shutil.copytree(cohort, tmp_path / "datasets_raw" / "Phantom"))


def test_overwrite_replaces_an_earlier_cohort_of_the_same_name(earlier: Path, tmp_path: Path) -> None:
    before = tree(earlier)
    with pytest.raises(FileExistsError, match="--overwrite"):
        make_cohort(tmp_path, Design(cases=1, seed=1))
    assert tree(earlier) == before
    make_cohort(tmp_path, Design(cases=1, seed=1), overwrite=True)
    assert tree(earlier) == tree(make_cohort(tmp_path / "fresh", Design(cases=1, seed=1)))


def test_overwrite_removes_folders_of_masks_that_are_no_longer_requested(tmp_path: Path) -> None:
    folder = make_cohort(tmp_path, Design(cases=1, seed=1), extras=EXTRAS)
    make_cohort(tmp_path, Design(cases=1, seed=1), extras=("veins",), overwrite=True)
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"imagesTr", "labelsTr", "metadata", "veins"}
    (folder / "truth" / "empty").mkdir(parents=True)
    make_cohort(tmp_path, Design(cases=1, seed=1), overwrite=True)
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"imagesTr", "labelsTr", "metadata", "truth"}


@pytest.mark.parametrize("content", [b'{"name": "Else"}', b"\xff\xfe"])
def test_overwrite_keeps_a_dataset_with_another_description(tmp_path: Path, content: bytes) -> None:
    folder = make_cohort(tmp_path, Design(cases=1, seed=1))
    (folder / "dataset.json").write_bytes(content)
    before = tree(folder)
    with pytest.raises(FileExistsError, match=r"dataset\.json names another dataset"):
        make_cohort(tmp_path, Design(cases=1, seed=9), overwrite=True)
    assert tree(folder) == before


def test_overwrite_keeps_a_dataset_of_another_name(earlier: Path, tmp_path: Path) -> None:
    before = tree(earlier)
    earlier.rename(renamed := earlier.with_name("Other"))
    with pytest.raises(FileExistsError, match=r"dataset\.json names another dataset"):
        make_cohort(tmp_path, Design(cases=1, seed=9), dataset="Other", overwrite=True)
    assert tree(renamed) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "imagesTr/leg_001_0000.nii.gz",
        "labelsTr/leg_001.nii.gz",
        "notes.txt",
        "imagesTr/patient.nii.gz",
        "labelsTr/leg_001.nii",
    ],
)
def test_foreign_files_are_refused_and_left_untouched(tmp_path: Path, name: str, overwrite: bool) -> None:
    path = tmp_path / "datasets_raw" / "Phantom" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a patient")
    with pytest.raises(FileExistsError) as refusal:
        make_cohort(tmp_path, Design(cases=1), overwrite=overwrite)
    assert str(tmp_path / "datasets_raw" / "Phantom") in str(refusal.value)
    assert ("does not replace it" in str(refusal.value)) is overwrite
    assert tree(tmp_path) == {f"datasets_raw/Phantom/{name}": b"a patient"}


def test_overwrite_replaces_files_of_an_interrupted_run(tmp_path: Path) -> None:
    folder = tmp_path / "datasets_raw" / "Phantom"
    names = ["cases.csv", ".cases.csv", ".dataset.json", "metadata/leg_002.json", "metadata/.leg_003.json"]
    names += [f"imagesTr/{name}" for name in ("leg_002_0000.nii.gz", ".leg_002_0000.nii.gz", ".leg_002_0000.nii")]
    for kind in ("labelsTr", *EXTRAS):
        names += [f"{kind}/{name}" for name in ("leg_002.nii.gz", ".leg_002.nii.gz", ".leg_002.nii")]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half a file")
    make_cohort(tmp_path, Design(cases=1, seed=1), overwrite=True)
    case = {"imagesTr/leg_001_0000.nii.gz", "labelsTr/leg_001.nii.gz", "metadata/leg_001.json"}
    assert set(tree(folder)) == {"dataset.json", "cases.csv"} | case


# ---- failed writes ---------------------------------------------------------------------------------


def test_an_interrupted_cohort_has_no_description_and_may_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = sitk.WriteImage

    def fail_at_the_second_image(image: sitk.Image, path: str, **options: object) -> None:
        write(image, path, **options)
        if "leg_002_0000" in path:
            raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(sitk, "WriteImage", fail_at_the_second_image)
        with pytest.raises(OSError, match="disk full"):
            make_cohort(tmp_path, Design(cases=2, seed=1))
    folder = tmp_path / "datasets_raw" / "Phantom"
    assert "imagesTr/leg_001_0000.nii.gz" in tree(folder) and "imagesTr/leg_002_0000.nii.gz" not in tree(folder)
    assert "dataset.json" not in tree(folder)
    assert not any(path.name.startswith(".") for path in folder.rglob("*"))
    assert make_cohort(tmp_path, Design(cases=1, seed=1), overwrite=True) == folder
    assert "dataset.json" in tree(folder) and not any("leg_002" in name for name in tree(folder))


@pytest.mark.parametrize("file", ["imagesTr/leg_001_0000.nii.gz", "labelsTr/leg_001.nii.gz"])
def test_a_volume_that_is_cut_off_on_its_way_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """As on a full disk, which NIfTI's writer does not report."""
    write = sitk.WriteImage

    def cut_off(image: sitk.Image, path: str, **options: object) -> None:
        write(image, path, **options)
        if file.split("/")[1].removesuffix(".gz") in path:
            os.truncate(path, 1000)

    monkeypatch.setattr(sitk, "WriteImage", cut_off)
    with pytest.raises(OSError, match=rf"{file}: cannot be written \(cut off after 1000 of \d+ bytes.*Free space"):
        make_cohort(tmp_path, Design(cases=1, seed=1))
    names = set(tree(tmp_path / "datasets_raw" / "Phantom"))
    assert file not in names and not any("/." in name for name in names)


def test_an_error_of_simpleitk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a page of text")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(OSError, match=r"leg_001_0000\.nii\.gz: cannot be written \(SimpleITK failed\)\. Free space"):
        make_cohort(tmp_path, Design(cases=1, seed=1))
    assert set(tree(tmp_path)) == {"datasets_raw/Phantom/metadata/leg_001.json"}
