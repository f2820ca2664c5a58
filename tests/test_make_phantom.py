"""The phantom cohort: its files, its geometry, and that it is neither random nor trivial."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import binary_dilation

TOOL = Path(__file__).parents[1] / "tools" / "make_phantom.py"


def load_tool() -> ModuleType:
    """Import the tool from its path; tools/ is not a package."""
    spec = importlib.util.spec_from_file_location("make_phantom", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


phantom = load_tool()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cohort of the default 8 cases, made in this process."""
    return phantom.make_cohort(tmp_path_factory.mktemp("phantom"), seed=3)


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_metadata(folder: Path, case: str) -> dict:
    return json.loads((folder / "metadata" / f"{case}.json").read_text())


def read_voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(path))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: voxels of volumes, because gzip may keep a time; bytes of others."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {n: read_voxels(p).tobytes() if n.endswith(".gz") else p.read_bytes() for n, p in files.items()}


def positions_mm(volume: sitk.Image, mask: np.ndarray) -> np.ndarray:
    """LPS positions (n, 3) of the voxels of a mask in array order."""
    indices = np.argwhere(mask)[:, ::-1].tolist()
    return np.array([volume.TransformIndexToPhysicalPoint(index) for index in indices])


def best_interval_dice(image: np.ndarray, mask: np.ndarray) -> float:
    """The Dice of the best rule 'low <= intensity < high', chosen on the truth itself."""
    edges = np.arange(0, image.max() + 20, 20)
    everything, inside = (np.append(0, np.histogram(v, edges)[0].cumsum()) for v in (image, image[mask]))
    hits = inside[None, :] - inside[:, None]
    chosen = everything[None, :] - everything[:, None]
    return float((2 * hits / np.maximum(chosen + mask.sum(), 1)).max())


def test_cohort_has_the_files_of_an_nnunet_dataset(cohort: Path) -> None:
    names = [f"leg_{i:03d}" for i in range(1, 9)]
    expected = {"dataset.json", "cases.csv"}
    expected |= {f"imagesTr/{n}_0000.nii.gz" for n in names} | {f"labelsTr/{n}.nii.gz" for n in names}
    expected |= {f"metadata/{n}.json" for n in names}
    assert {p.relative_to(cohort).as_posix() for p in cohort.rglob("*") if p.is_file()} == expected
    assert json.loads((cohort / "dataset.json").read_text()) == {
        "name": "Phantom",
        "channel_names": {"0": "CE-MR"},
        "labels": {"background": 0, "proximal": 1, "distal": 2},
        "numTraining": 8,
        "file_ending": ".nii.gz",
    }


def test_case_table_agrees_with_the_metadata(cohort: Path) -> None:
    rows = read_rows(cohort)
    assert list(rows[0]) == ["case_id", "patient_id", "level_left_mm", "level_right_mm", "midline_mm"]
    assert [row["case_id"] for row in rows] == [f"leg_{i:03d}" for i in range(1, 9)]
    assert len({row["patient_id"] for row in rows}) == 8
    for row in rows:
        metadata = read_metadata(cohort, row["case_id"])
        for column in ("level_left_mm", "level_right_mm", "midline_mm"):
            assert float(row[column]) == metadata[column]


def test_metadata_lesions_are_those_of_the_label(cohort: Path) -> None:
    for row in read_rows(cohort):
        label = read_voxels(cohort / "labelsTr" / f"{row['case_id']}.nii.gz")
        lesions = read_metadata(cohort, row["case_id"])["lesions"]
        regions = {phantom.REGIONS[lesion["region"]] for lesion in lesions}
        assert set(np.unique(label)) == {0} | regions
        for value in regions:
            assert (label == value).sum() >= phantom.MIN_VOXELS
        for lesion in lesions:
            assert set(lesion) == {"limb", "region", "vein", "age", "length_mm", "volume_ml"}
            assert lesion["length_mm"] > 0


def test_cohort_has_every_pattern_in_the_proportions_of_the_paper(cohort: Path) -> None:
    made = [read_metadata(cohort, row["case_id"])["pattern"] for row in read_rows(cohort)]
    assert set(made) == {"proximal", "both", "distal"}
    of_58 = phantom.draw_patterns(58, seed=0)
    assert [of_58.count(p) for p in ("proximal", "both", "distal")] == [15, 39, 4]
    assert phantom.draw_patterns(58, seed=1) != of_58


@pytest.mark.parametrize("cases", [1, 2, 7, 8, 9, 16])
def test_pattern_counts_add_up(cases: int) -> None:
    assert len(phantom.draw_patterns(cases, seed=0)) == cases


def test_a_cohort_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one case"):
        phantom.make_cohort(tmp_path, cases=0)
    assert list(tmp_path.iterdir()) == []


def test_volumes_are_coronal_and_share_one_grid(cohort: Path) -> None:
    image = sitk.ReadImage(cohort / "imagesTr" / "leg_001_0000.nii.gz")
    label = sitk.ReadImage(cohort / "labelsTr" / "leg_001.nii.gz")
    assert image.GetSize() == label.GetSize() == (69, 161, 12)
    assert image.GetSpacing() == pytest.approx((7.3, 8.7, 9.7), abs=1e-4)  # NIfTI stores 32-bit floats
    assert (image.GetPixelID(), label.GetPixelID()) == (sitk.sitkInt16, sitk.sitkUInt8)
    assert image.GetOrigin() == label.GetOrigin()
    first = np.array(image.TransformIndexToPhysicalPoint((0, 0, 0)))
    for step, towards in (((1, 0, 0), (7.3, 0, 0)), ((0, 1, 0), (0, 0, -8.7)), ((0, 0, 1), (0, 9.7, 0))):
        moved = np.array(image.TransformIndexToPhysicalPoint(step)) - first
        assert moved == pytest.approx(towards, abs=1e-3)  # left, inferior, posterior


def test_clots_lie_in_their_limb_and_on_their_side_of_the_level(cohort: Path) -> None:
    for row in read_rows(cohort):
        volume = sitk.ReadImage(cohort / "labelsTr" / f"{row['case_id']}.nii.gz")
        label = sitk.GetArrayFromImage(volume)
        (limb,) = {lesion["limb"] for lesion in read_metadata(cohort, row["case_id"])["lesions"]}
        x_mm = positions_mm(volume, label > 0)[:, 0] - float(row["midline_mm"])
        assert np.all(x_mm > 0 if limb == "left" else x_mm < 0)
        level_mm = float(row[f"level_{limb}_mm"])
        for value, above in ((1, True), (2, False)):
            if np.any(label == value):
                z_mm = positions_mm(volume, label == value)[:, 2]
                assert np.mean((z_mm > level_mm) == above) > 0.5


def test_levels_and_midline_lie_inside_the_volume(cohort: Path) -> None:
    volume = sitk.ReadImage(cohort / "imagesTr" / "leg_001_0000.nii.gz")
    first = volume.TransformIndexToPhysicalPoint((0, 0, 0))
    last = volume.TransformIndexToPhysicalPoint([n - 1 for n in volume.GetSize()])
    for row in read_rows(cohort):
        assert first[0] < float(row["midline_mm"]) < last[0]
        for limb in ("left", "right"):
            assert last[2] < float(row[f"level_{limb}_mm"]) < first[2]


def test_number_of_jobs_does_not_change_a_cohort(tmp_path: Path) -> None:
    arguments = ["--root", tmp_path / "b", "--cases", "2", "--seed", "5", "--jobs", "2"]
    subprocess.run([sys.executable, TOOL, *map(str, arguments)], check=True, capture_output=True)
    alone = phantom.make_cohort(tmp_path / "a", cases=2, seed=5, jobs=1)
    assert contents(alone) == contents(tmp_path / "b" / "datasets_raw" / "Phantom")


def test_cases_differ_and_seeds_differ() -> None:
    images = [phantom.make_case("tiny", s, i, "both").image for s, i in ((0, 1), (0, 2), (1, 1))]
    assert len({image.tobytes() for image in images}) == 3


@pytest.mark.parametrize("pattern", phantom.PATTERNS)
def test_thrombus_off_is_the_same_scan_without_the_clot(pattern: str) -> None:
    ill = phantom.make_case("tiny", seed=2, index=4, pattern=pattern)
    well = phantom.make_case("tiny", seed=2, index=4, pattern=pattern, thrombus=False)
    assert not well.label.any() and well.lesions == ()
    # A voxel is painted up to half a voxel beyond the surface, and the rim adds less than that.
    away = ~binary_dilation(ill.label > 0, np.ones((3, 3, 3)), iterations=2)
    assert np.array_equal(ill.image[away], well.image[away])
    assert not np.array_equal(ill.image, well.image)
    assert (ill.level_left_mm, ill.level_right_mm) == (well.level_left_mm, well.level_right_mm)


def test_no_intensity_interval_finds_the_clot(cohort: Path) -> None:
    for row in read_rows(cohort):
        image = read_voxels(cohort / "imagesTr" / f"{row['case_id']}_0000.nii.gz")
        label = read_voxels(cohort / "labelsTr" / f"{row['case_id']}.nii.gz")
        assert best_interval_dice(image, label > 0) < 0.15


def test_clot_is_darker_than_the_blood_that_it_replaces() -> None:
    ill = phantom.make_case("tiny", seed=0, index=1, pattern="proximal", difficulty="easy")
    well = phantom.make_case("tiny", seed=0, index=1, pattern="proximal", difficulty="easy", thrombus=False)
    assert np.median(ill.image[ill.label > 0]) < 0.6 * np.median(well.image[ill.label > 0])


def test_harder_cases_are_noisier() -> None:
    air = [phantom.make_case("tiny", 0, 1, "both", d).image[:, -6:].std() for d in ("easy", "default", "hard")]
    assert air[0] < air[1] < air[2]


def test_small_scale_has_its_shape_and_both_regions() -> None:
    case = phantom.make_case("small", seed=0, index=1, pattern="both")
    assert case.image.shape == case.label.shape == (32, 321, 121)
    assert (case.image.dtype, case.label.dtype) == (np.int16, np.uint8)
    assert set(np.unique(case.label)) == {0, 1, 2}


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folder_is_refused_and_left_untouched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overwrite: bool
) -> None:
    folder = tmp_path / "datasets_raw" / "Phantom"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "imagesTr" / "leg_001_0000.nii.gz").write_bytes(b"a patient")
    flags = ["--overwrite"] if overwrite else []
    assert phantom.main(["--root", str(tmp_path), "--cases", "1", *flags]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and str(folder) in message
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [folder / "imagesTr" / "leg_001_0000.nii.gz"]
    assert (folder / "imagesTr" / "leg_001_0000.nii.gz").read_bytes() == b"a patient"


def test_overwrite_replaces_an_earlier_cohort_of_the_same_name(tmp_path: Path) -> None:
    phantom.make_cohort(tmp_path, cases=2, seed=0)
    with pytest.raises(FileExistsError, match="overwrite"):
        phantom.make_cohort(tmp_path, cases=1, seed=1)
    folder = phantom.make_cohort(tmp_path, cases=1, seed=1, overwrite=True)
    fresh = phantom.make_cohort(tmp_path / "fresh", cases=1, seed=1)
    assert contents(folder) == contents(fresh)


def test_overwrite_spares_a_dataset_of_another_name(tmp_path: Path) -> None:
    folder = phantom.make_cohort(tmp_path, cases=1)
    renamed = folder.rename(folder.with_name("Other"))
    before = contents(renamed)
    with pytest.raises(FileExistsError, match="names another dataset"):
        phantom.make_cohort(tmp_path, dataset="Other", cases=1, seed=9, overwrite=True)
    assert contents(renamed) == before


@pytest.mark.parametrize(
    "flags",
    [["--cases", "0"], ["--jobs", "x"], ["--scale", "huge"], ["--dataset", "../up"], ["--seed", "-1"]],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        phantom.main(["--root", str(tmp_path), *flags])
    assert stop.value.code == 2
    assert list(tmp_path.iterdir()) == []
