"""What the volumes of a case hold: problems that are refused, and warnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import SHARED, TINY_SHAPE, TINY_SPACING, describe_dataset, tiny_dataset, tiny_image, tiny_label
from helpers.preparation import run, tiny_workspace
from helpers.raw_data import image_path, label_path, table
from helpers.volumes import nifti_bytes, write_volume

from dvtplan.core.errors import DatasetProblems
from dvtplan.data.dataset import Case, survey
from dvtplan.data.paths import Workspace
from dvtplan.planning.verification import Examination, examine


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw data set of two cases."""
    return tiny_dataset(tmp_path / "DVT", ("a", "b"))


def look(folder: Path, case: str = "a") -> Examination:
    dataset, _ = survey(folder)
    assert dataset is not None
    (found,) = (examine(c, dataset.labels) for c in dataset.cases if c.id == case)
    assert all("\n" not in line and line.endswith(".") for line in (*found.problems, *found.warnings))
    assert (found.fingerprint is None) == bool(found.problems)
    return found


def only_problem(folder: Path) -> str:
    (line,) = look(folder).problems
    return line.removeprefix(f"{folder}/")


def test_a_sound_case_is_measured(raw: Path) -> None:
    found = look(raw)
    assert (found.case_id, found.problems, found.warnings) == ("a", (), ())
    assert found.fingerprint is not None
    assert found.fingerprint.shape == {"LR": 18, "AP": 3, "SI": 20}
    assert found.fingerprint.regions["thrombus"].voxels == 8


def test_a_label_off_by_one_slice_is_refused(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1])[:-1], TINY_SPACING)
    assert only_problem(raw) == (
        "labelsTr/a.nii.gz: shape (18, 3, 19) differs from that of a_0000.nii.gz, (18, 3, 20). "
        "Export it on the image's grid."
    )


def test_a_label_two_micrometres_away_is_refused_and_half_a_micrometre_is_not(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1]), TINY_SPACING, (0.002, 0, 0))
    line = only_problem(raw)
    assert line.startswith("labelsTr/a.nii.gz: lies up to 0.002 mm away from a_0000.nii.gz (tolerance 0.001 mm)")
    assert line.endswith("Export it on the image's grid.")
    write_volume(label_path(raw), tiny_label([1]), TINY_SPACING, (0.0005, 0, 0))
    assert look(raw).problems == ()


def test_a_label_of_another_spacing_shows_both(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1]), (2, 5, 2.5))
    assert "spacing x, y, z (2, 5, 2.5) against (2, 5, 2) mm" in only_problem(raw)


def test_a_reversed_label_is_refused(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1]), TINY_SPACING, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    assert "lies up to" in only_problem(raw)


def test_channels_must_lie_on_one_grid(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ("a",), channels=2)
    write_volume(image_path(folder, "a", 1), tiny_image(0, 1), TINY_SPACING, (0, 0, 1))
    assert only_problem(folder).startswith("imagesTr/a_0001.nii.gz: lies up to 1 mm away from a_0000.nii.gz")


def test_a_mask_is_no_image_but_may_be_a_further_channel(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ("a",), channels=2)
    write_volume(image_path(folder, "a", 1), tiny_label([1]), TINY_SPACING)
    assert look(folder).problems == ()
    write_volume(image_path(folder, "a", 0), tiny_label([1]), TINY_SPACING)
    assert only_problem(folder).startswith("imagesTr/a_0000.nii.gz: contains only the values 0, 1, like a mask")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_voxels_that_are_not_finite_are_counted(tmp_path: Path, ending: str, kind: str, bad: float) -> None:
    # SimpleITK itself makes zeros of them where the file is NIfTI.
    folder = tiny_dataset(tmp_path / "DVT", ("a",), ending=ending)
    image = tiny_image(0).astype(kind)
    image[0, 0, :3] = bad
    write_volume(folder / "imagesTr" / f"a_0000{ending}", image, TINY_SPACING)
    assert only_problem(folder) == (
        f"imagesTr/a_0000{ending}: 3 of 1080 voxels are not finite. Replace them, for example by 0 outside the body."
    )


def test_a_label_with_nan_is_refused(raw: Path) -> None:
    label = tiny_label([1]).astype(np.float32)
    label[0, 0, 0] = np.nan
    write_volume(label_path(raw), label, TINY_SPACING)
    assert "labelsTr/a.nii.gz: 1 of 1080 voxels are not finite." in only_problem(raw)


def test_an_image_without_contrast_is_refused(raw: Path) -> None:
    write_volume(image_path(raw), np.full(TINY_SHAPE, 7, np.uint8), TINY_SPACING)
    assert only_problem(raw) == ("imagesTr/a_0000.nii.gz: every voxel is 7; expected an image. Export it again.")


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (2, "u1", "2"),
        (-1, "i2", "-1"),
        (257, "i2", "257"),
        (0.5, "f4", "0.5"),
        (0.99999994, "f4", "0.99999994"),
    ],
)
def test_label_values_beyond_dataset_json_are_shown(raw: Path, value: float, kind: str, shown: str) -> None:
    label = tiny_label([1]).astype(kind)
    label[0, 0, 0] = value
    write_volume(label_path(raw), label, TINY_SPACING)
    assert only_problem(raw) == (
        f"labelsTr/a.nii.gz: contains the values {shown}; dataset.json lists 0 background, 1 thrombus. "
        "Fix the mask or the list."
    )


def test_an_image_instead_of_a_label_lists_a_few_values(raw: Path) -> None:
    write_volume(label_path(raw), tiny_image(0), TINY_SPACING)
    assert only_problem(raw).count(",") < 10


def test_label_values_may_be_stored_as_floats(raw: Path) -> None:
    write_volume(label_path(raw), tiny_label([1]).astype(np.float64), TINY_SPACING)
    assert look(raw).problems == ()


def test_an_empty_label_is_a_warning(raw: Path) -> None:
    write_volume(label_path(raw), np.zeros(TINY_SHAPE, np.uint8), TINY_SPACING)
    found = look(raw)
    assert found.problems == ()
    assert found.warnings == (f"{label_path(raw)}: contains no foreground. Check that this patient has no thrombus.",)


@pytest.mark.parametrize(("level", "warned"), [(0.0, False), (38.0, False), (-1.0, True), (39.0, True)])
def test_a_level_outside_the_volume_is_a_warning(raw: Path, level: float, warned: bool) -> None:
    table(raw, f"case_id,level_right_mm\na,{level}\n")
    found = look(raw)
    assert found.problems == ()
    assert [w.split(" lies")[0] for w in found.warnings] == (
        [f"cases.csv: a: level_right_mm {level:g}"] if warned else []
    )


def test_all_problems_of_a_case_come_at_once_each_with_its_own_file(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ("a",), channels=3)
    image_path(folder, "a", 0).write_bytes(b"")
    write_volume(image_path(folder, "a", 1), np.zeros(TINY_SHAPE), TINY_SPACING)
    write_volume(image_path(folder, "a", 2), tiny_image(0, 2), TINY_SPACING, (0, 0, 1))
    write_volume(label_path(folder), tiny_label([9]), TINY_SPACING)
    lines = [line.removeprefix(f"{folder}/") for line in look(folder).problems]
    assert [line.split(".nii.gz: ")[0] for line in lines] == [
        "imagesTr/a_0000",
        "imagesTr/a_0001",
        "labelsTr/a",
        "imagesTr/a_0002",
    ]
    assert "is empty" in lines[0]
    assert "every voxel is 0" in lines[1]
    assert "contains the values 9" in lines[2]
    assert "away from a_0001.nii.gz" in lines[3]


def test_a_case_without_any_readable_file_does_not_crash() -> None:
    case = Case(id="a", patient="a", images=(Path("gone_0000.nii.gz"),), label=Path("gone.nii.gz"))
    assert len(examine(case, {"thrombus": 1}).problems) == 2
    assert len(examine(replace(case, label=None), {"thrombus": 1}).problems) == 1


# --- files as they come ---------------------------------------------------------------------------


ODD = SHARED / "odd"


@pytest.mark.skipif(not ODD.is_dir(), reason="the shared images are not next to this checkout")
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_each_odd_file_gets_its_one_clear_line_or_none(tmp_path: Path, ending: str) -> None:
    place = Workspace(tmp_path, "DVT")
    describe_dataset(place.raw, channels=1, labels={"cord": 1}, ending=ending)
    names = [p.name.removesuffix(ending) for p in sorted(ODD.iterdir()) if p.name.endswith(ending)]
    for kind, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        (place.raw / kind).mkdir()
        for name in names:
            if not name.endswith("_seg"):
                seg = ODD / f"{name}_seg{ending}"
                source = seg if kind == "labelsTr" and seg.exists() else ODD / f"{name}{ending}"
                (place.raw / kind / f"{name}{suffix}{ending}").symlink_to(source)
    with pytest.raises(DatasetProblems) as caught:
        run(tmp_path)
    said = {line.split(": ")[0]: line for line in caught.value.problems}
    assert len(said) == len(caught.value.problems)
    images = {Path(p).name.split("_0000")[0]: said[p] for p in said if "imagesTr" in p}
    expected = {
        ".nii": {"5D_small": "is 5-D (1x2x3x1x3)", "not-nifti": "is not a NIfTI file"},
        ".nii.gz": {"4d_float64": "is 4-D (", "avg152T1_LR_nifti2": "is NIfTI-2, which is not supported"},
    }[ending]
    assert set(images) == set(expected)
    for name, words in expected.items():
        assert words in images[name]
    # Sound images whose "label" is the image itself are refused for its values; true masks are not.
    assert not any("psr_t2" in line or "mt0" in line for line in said.values())


def test_a_large_volume_that_a_header_only_promises_is_refused_without_reserving_it(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path)
    (place.raw / "imagesTr" / "a_0000.nii.gz").unlink()
    describe_dataset(place.raw, channels=1, labels={"thrombus": 1}, ending=".nii")
    for path in [*place.raw.glob("*Tr/*")]:
        path.unlink()
    (place.raw / "imagesTr" / "a_0000.nii").write_bytes(nifti_bytes((30000, 30000, 30000), data=np.zeros(10)))
    write_volume(place.raw / "labelsTr" / "a.nii", tiny_label([1]), TINY_SPACING)
    with pytest.raises(DatasetProblems, match=r"a_0000.nii: is truncated: expected 108000000000352 bytes"):
        run(tmp_path)
