"""The first stage: from a raw folder to plan, folds and preprocessed slices, again and again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.datasets import TINY_SPACING, describe_dataset, tiny_image, tiny_label
from helpers.preparation import run, stamps, tiny_workspace
from helpers.processes import command, tree
from helpers.volumes import write_volume

from dvtplan.core import files, json_records, worker_pool
from dvtplan.core.errors import DatasetProblems, DvtError, InvalidValue
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace
from dvtplan.imaging import resize
from dvtplan.imaging.normalize import Normalization
from dvtplan.planning import preprocessed_cases
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocess import PreprocessOptions, plan_and_preprocess

# --- from end to end ------------------------------------------------------------------------------


def test_a_raw_folder_becomes_plan_folds_and_slices(place: Workspace) -> None:
    made = run(place.root)
    folder = place.preprocessed
    assert sorted(p.name for p in folder.iterdir()) == [
        "a", "b", "c", "d", "fingerprint.json", "plan.json", "splits.json",
    ]  # fmt: skip
    assert json_records.load(Fingerprint, place.fingerprint, "") == made.fingerprint
    assert json_records.load(Plan, place.plan, "") == made.plan
    assert json_records.load(Splits, place.splits, "") == made.splits
    assert made.plan.fingerprint_digest == json_records.digest(made.fingerprint)
    assert (made.plan.slice_axis, made.plan.target_shape) == ("AP", (32, 32))
    assert [sorted((*f.train, *f.test)) for f in made.splits.folds] == [list("abcd")] * 2
    for case in made.fingerprint.cases:
        image, label = preprocessed_cases.arrays(place.preprocessed_case(case.id))
        assert (image.shape, label.shape) == ((3, 1, 32, 32), (3, 32, 32))
        assert (image.min(), image.max()) == (0, 1)
        assert set(np.unique(label)) == {0, 1}
        assert preprocessed_cases.describe(place.preprocessed_case(case.id)).classes == ((1,), (1,), ())
        assert case.positive_slices["AP"] == 2
        preprocessed_cases.require_current(place.preprocessed_case(case.id), made.plan, place.plan, case.source_digest)


def test_slices_hold_what_lies_in_the_raw_volume(place: Workspace) -> None:
    run(place.root)
    image, label = preprocessed_cases.arrays(place.preprocessed_case("a"))
    # Array axes are z, y, x and z points to the head: a coronal slice shows it upside down.
    volume = tiny_image(0)[::-1].transpose(1, 0, 2)
    truth = tiny_label([1])[::-1].transpose(1, 0, 2)
    for s in range(3):
        one = (volume[s] - volume[s].min()) / (volume[s].max() - volume[s].min())
        expected = resize.imresize(one, (32, 32)).clip(0, 1)
        np.testing.assert_allclose(image[s, 0], expected, atol=1e-3)  # float16
        assert np.array_equal(label[s], resize.nearest(truth[s], (32, 32)))


def test_the_summary_tells_plan_reasons_folds_and_costs(place: Workspace) -> None:
    summary = run(place.root).summary
    assert "DVT: 4 cases of 4 patients, 12 slices, 8 with foreground (67%)" in summary
    assert "thrombus       in 4 cases, 0.16 mL on average" in summary  # 8 voxels of 2 x 5 x 2 mm
    assert "AP has the fewest voxels (median over 4 cases: AP 3, SI 20, LR 18)." in summary
    assert "Folds (seed 0): 2, with 2, 2 test cases" in summary
    # 12 slices of 32 x 32 pixels, 2 bytes for the image and 1 for the label.
    assert "36.9 kB on disk" in summary
    assert "250 epochs x 3 steps of 2" in summary


def test_channels_and_named_labels_all_arrive(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, channels=2, labels={"proximal": 1, "distal": 4})
    run(tmp_path)
    image, label = preprocessed_cases.arrays(place.preprocessed_case("b"))
    assert image.shape == (3, 2, 32, 32)
    assert not np.array_equal(image[:, 0], image[:, 1])
    assert set(np.unique(label)) == {0, 1, 2}


def test_cases_of_one_patient_share_a_fold(tmp_path: Path) -> None:
    tiny_workspace(tmp_path, table="case_id,patient_id\na,P\nb,P\nc,P\n")
    made = run(tmp_path)
    assert sorted(fold.test for fold in made.splits.folds) == [("a", "b", "c"), ("d",)]
    assert "4 cases of 2 patients" in made.summary


def test_a_patient_without_thrombus_is_a_warning_and_is_preprocessed(place: Workspace) -> None:
    path = write_volume(place.raw / "labelsTr" / "b.nii.gz", np.zeros((20, 3, 18), np.uint8), TINY_SPACING)
    made = run(place.root)
    assert [w.split(": ")[0] for w in made.warnings] == [str(path)]
    assert preprocessed_cases.describe(place.preprocessed_case("b")).classes == ((),) * 3


@pytest.mark.parametrize("code", ["RAI", "PSR", "SAL", "LPI", "IRA"])
def test_the_file_order_of_a_case_does_not_matter(tmp_path: Path, code: str) -> None:
    place = tiny_workspace(tmp_path, ("a", "b"))
    for kind, name in (("imagesTr", "{}_0000.nii.gz"), ("labelsTr", "{}.nii.gz")):
        image = sitk.ReadImage(str(place.raw / kind / name.format("a")))
        sitk.WriteImage(sitk.DICOMOrient(image, code), str(place.raw / kind / name.format("b")))
    made = run(tmp_path)
    assert [case.orientation for case in made.fingerprint.cases] == ["LPS", code]
    for a, b in zip(
        preprocessed_cases.arrays(place.preprocessed_case("a")),
        preprocessed_cases.arrays(place.preprocessed_case("b")),
        strict=True,
    ):
        assert np.array_equal(a, b)


def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    one, two = tiny_workspace(tmp_path / "one"), tiny_workspace(tmp_path / "two")
    run(one.root, jobs=1)
    run(two.root, jobs=2)
    assert tree(one.preprocessed) == tree(two.preprocessed)


def test_the_preset_paper_prepares_960_by_320(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, ("a", "b"))
    made = run(tmp_path, preset="paper")
    assert made.plan.normalization == Normalization(scope="slice")
    assert preprocessed_cases.arrays(place.preprocessed_case("a"))[0].shape == (3, 1, 960, 320)


# --- once more ------------------------------------------------------------------------------------


def test_a_second_run_prepares_nothing_anew(place: Workspace) -> None:
    run(place.root)
    before, content = stamps(place), tree(place.preprocessed)
    made = run(place.root)
    assert stamps(place) == before
    assert tree(place.preprocessed) == content
    assert made.warnings == ()


def test_a_changed_raw_file_prepares_only_its_case_anew(place: Workspace) -> None:
    run(place.root)
    before = stamps(place)
    write_volume(place.raw / "imagesTr" / "b_0000.nii.gz", tiny_image(9), TINY_SPACING)
    run(place.root)
    changed = {name.split("/")[0] for name, stamp in stamps(place).items() if before[name] != stamp}
    assert changed == {"b"}


def test_a_changed_label_is_noticed_like_a_changed_image(place: Workspace) -> None:
    run(place.root)
    write_volume(place.raw / "labelsTr" / "c.nii.gz", np.zeros((20, 3, 18), np.uint8), TINY_SPACING)
    run(place.root)
    assert preprocessed_cases.describe(place.preprocessed_case("c")).classes == ((),) * 3


def test_the_times_are_reported(place: Workspace) -> None:
    first = run(place.root).timing
    assert re.fullmatch(r"Verified 4 cases in \d+ s. Preprocessed 4 of them in \d+ s.", first), first
    shutil.rmtree(place.preprocessed_case("b"))
    assert re.search(r"Preprocessed 1 of them in \d+ s; the others", run(place.root).timing)
    alone = plan_and_preprocess(place.root, options=PreprocessOptions(folds=2, jobs=1, verify_only=True)).timing
    assert re.fullmatch(r"Verified 4 cases in \d+ s.", alone)


def test_an_interrupted_run_goes_on_and_clears_what_was_half_written(place: Workspace) -> None:
    run(place.root)
    content, before = tree(place.preprocessed), stamps(place)
    for name in ("image.npy", "label.npy", "case.json"):
        (place.preprocessed_case("d") / name).unlink()
    place.preprocessed_case("d").rmdir()
    draft = place.preprocessed / f"{files.TEMP_PREFIX}d-x1y2z3"
    draft.mkdir()
    (draft / "image.npy").write_bytes(b"half")
    (place.preprocessed / f"{files.TEMP_PREFIX}x1-plan.json").write_text("{")
    run(place.root)
    assert tree(place.preprocessed) == content
    assert {name for name, stamp in stamps(place).items() if stamp != before[name]} == {
        "d/image.npy",
        "d/label.npy",
        "d/case.json",
    }


def test_another_seed_changes_the_folds_and_no_slice(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, "abcdef")
    first = run(tmp_path, seed=0)
    before = stamps(place)
    other = run(tmp_path, seed=1)
    assert first.splits.folds != other.splits.folds
    assert stamps(place) == before


def test_the_order_of_labels_in_dataset_json_changes_nothing(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, labels={"proximal": 1, "distal": 2})
    run(tmp_path)
    before, content = stamps(place), tree(place.preprocessed)
    describe_dataset(place.raw, channels=1, labels={"distal": 2, "proximal": 1}, ending=".nii.gz")
    run(tmp_path)
    assert stamps(place) == before
    assert tree(place.preprocessed) == content


def test_a_fingerprint_from_before_intensities_were_compared_is_measured_anew_and_nothing_else_changes(
    toy: Workspace,
) -> None:
    before = {p: p.read_bytes() for p in toy.preprocessed.rglob("*") if p.is_file()}
    body = json.loads(toy.fingerprint.read_text())
    for case in body["cases"]:
        del case["channels"][0]["shares_below"]
    toy.fingerprint.write_text(json.dumps(body))
    plan_and_preprocess(toy.root, options=PreprocessOptions(jobs=1))
    assert {p: p.read_bytes() for p in toy.preprocessed.rglob("*") if p.is_file()} == before


# --- what writes nothing --------------------------------------------------------------------------


def test_verification_alone_writes_nothing_and_tells_the_plan(place: Workspace) -> None:
    before = tree(place.root)
    made = run(place.root, verify_only=True)
    assert made.plan.target_shape == (32, 32)
    assert tree(place.root) == before


def test_any_problem_means_that_nothing_is_written(place: Workspace) -> None:
    (place.raw / "imagesTr" / "a_0000.nii.gz").write_bytes(b"")
    (place.raw / "labelsTr" / "d.nii.gz").unlink()
    before = tree(place.root)
    with pytest.raises(DatasetProblems) as caught:
        run(place.root)
    assert str(caught.value).startswith("2 problems found; nothing was written.\n")
    assert tree(place.root) == before


def test_a_data_set_whose_description_cannot_be_read_is_one_problem(place: Workspace) -> None:
    (place.raw / "dataset.json").unlink()
    with pytest.raises(DatasetProblems, match=r"dataset.json: not found"):
        run(place.root)


def test_a_data_set_without_a_single_case_is_one_problem(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, ())
    for name in ("imagesTr", "labelsTr"):
        (place.raw / name).mkdir()
    with pytest.raises(DatasetProblems, match="contains no case"):
        run(tmp_path)


def test_a_worker_killed_while_preparing_keeps_what_was_finished(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(function: Any, items: Sequence[Any], names: Sequence[str], **how: Any) -> list[Any]:
        if how["title"] == "Verify":
            return [function(item) for item in items]
        function(items[0])
        raise DvtError("Preprocess: a worker process was killed.")

    with monkeypatch.context() as patch:
        patch.setattr(worker_pool, "over_cases", dies)
        with pytest.raises(DvtError, match="was killed"):
            run(place.root)
    before = stamps(place)
    assert {name.split("/")[0] for name in before} == {"a"}
    run(place.root)
    assert {name: stamps(place)[name] for name in before} == before


# --- as a command ---------------------------------------------------------------------------------


def test_the_command_prints_plan_and_place_and_nothing_else(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, table="case_id,level_left_mm,midline_mm\na,500,-900\n")
    ran = command("plan_and_preprocess", "--root", tmp_path, "--folds", "2", "--jobs", "1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("DVT: 4 cases of 4 patients")
    assert ran.stdout.endswith(f"{place.preprocessed}\n")
    assert "warning: cases.csv: a: level_left_mm 500 lies outside the volume (0 to 38 mm)." in ran.stderr
    again = command("plan_and_preprocess", "--root", tmp_path, "--folds", "2", "--jobs", "1", "--verify-only")
    assert again.stdout.endswith("Verified; nothing was written.\n")
    assert "warning: cases.csv: a: midline_mm -900 lies outside the volume" in again.stderr


@pytest.mark.parametrize(
    ("limit", "failing", "left"),
    [
        (500, {"fingerprint.json"}, []),
        # An image of 3 slices takes 6 kB; fingerprint and plan of two cases less than 5.
        (5_000, {"a", "b"}, ["fingerprint.json", "plan.json", "splits.json"]),
    ],
    ids=["full before the plan", "full before the slices"],
)
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half_written(
    tmp_path: Path, limit: int, failing: set[str], left: list[str], jobs: str
) -> None:
    place = tiny_workspace(tmp_path, ("a", "b"))
    ran = command("plan_and_preprocess", "--root", tmp_path, "--folds", "2", "--jobs", jobs, file_limit=limit)
    assert ran.returncode == 1
    name, _, said = ran.stderr.splitlines()[-1].rpartition(": cannot be written ")
    assert Path(name.split(": ")[-1]) in {place.preprocessed / f for f in failing}
    assert said == "(File too large). Free space or fix the permissions, then run again."
    assert ran.stderr.count("cannot be written") == 1
    assert "Traceback" not in ran.stderr
    assert sorted(p.name for p in place.preprocessed.iterdir()) == left
    run(tmp_path)  # with room again it goes on
    assert preprocessed_cases.arrays(place.preprocessed_case("b"))[0].shape == (3, 1, 32, 32)


@pytest.mark.parametrize("how", [{"folds": "x"}, {"folds": 0}, {"folds": 1}, {"seed": -1}, {"jobs": 0}, {"folds": 2.5}])
def test_options_that_cannot_be_are_refused_when_they_are_made(how: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=f"`{next(iter(how))}=.*whole number"):
        PreprocessOptions(**how)
