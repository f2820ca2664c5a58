"""Preprocessed cases: their content, and when they are up to date."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.processes import python, tree
from helpers.records import PLAN

from dvtplan.core.errors import DvtError
from dvtplan.imaging.normalize import Normalization
from dvtplan.imaging.resize import imresize
from dvtplan.planning import preprocessed_cases, slice_preprocessing
from dvtplan.planning.plan import Plan

SMALL = replace(PLAN, target_shape=(16, 32), labels={"proximal": 3, "distal": 200})


def image_and_label() -> tuple[np.ndarray, np.ndarray]:
    """Two slices of 16 x 32 pixels: one with both labels, one without any."""
    image = np.random.default_rng(0).integers(0, 1000, (2, 16, 32)).astype(np.int16)
    label = np.zeros(image.shape, np.uint8)
    label[0, 2:4, 5:9] = 3
    label[0, 8:10, 5:9] = 200
    return image, label


def put(folder: Path, plan: Plan = SMALL, source: str = "raw") -> Path:
    image, label = image_and_label()
    preprocessed_cases.save(folder, *slice_preprocessing.preprocess_slices([image], label, plan), "a", plan, source)
    return folder


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return put(tmp_path / "DVT" / "a")


# --- what is in them ------------------------------------------------------------------------------


def test_slices_of_the_target_shape_are_only_normalized() -> None:
    image, label = image_and_label()
    slices, classes = slice_preprocessing.preprocess_slices([image, 2 * image], label, SMALL)
    assert (slices.shape, slices.dtype) == ((2, 2, 16, 32), np.float16)
    lowest, highest = image.min(axis=(1, 2), keepdims=True), image.max(axis=(1, 2), keepdims=True)
    expected = ((image - lowest) / (highest - lowest)).astype(np.float16)
    np.testing.assert_allclose(slices[:, 0], expected, atol=2**-11)  # half a step of float16 below 1
    assert np.array_equal(slices[:, 0], slices[:, 1])
    assert (classes.shape, classes.dtype) == ((2, 16, 32), np.uint8)


def test_labels_become_class_numbers_in_the_order_of_the_plan() -> None:
    image, label = image_and_label()
    _, classes = slice_preprocessing.preprocess_slices([image], label.astype(np.float64), SMALL)
    assert np.array_equal(classes == 1, label == 3)
    assert np.array_equal(classes == 2, label == 200)


def test_resized_slices_stay_between_zero_and_one() -> None:
    image = np.zeros((1, 20, 40))
    image[0, 5:15, 10:30] = 1.0  # edges, next to which bicubic interpolation overshoots
    slices, classes = slice_preprocessing.preprocess_slices([image], 3 * image, SMALL)
    bicubic = imresize(image[0], (16, 32))
    assert bicubic.min() < 0 < 1 < bicubic.max()
    assert np.array_equal(slices[0, 0], np.clip(bicubic, 0, 1).astype(np.float16))
    assert set(classes.ravel().tolist()) == {0, 1}


def test_normalization_follows_the_plan() -> None:
    image, label = image_and_label()
    image[1] //= 10
    by_slice, _ = slice_preprocessing.preprocess_slices([image], label, SMALL)
    by_volume, _ = slice_preprocessing.preprocess_slices(
        [image], label, replace(SMALL, normalization=Normalization(scope="volume"))
    )
    assert by_slice[1].max() == 1
    assert by_volume[1].max() < 0.11


# --- on disk --------------------------------------------------------------------------------------


def test_a_case_comes_back_from_disk_memory_mapped(case: Path) -> None:
    image, label = image_and_label()
    slices, classes = slice_preprocessing.preprocess_slices([image], label, SMALL)
    found_slices, found_classes = preprocessed_cases.arrays(case)
    assert isinstance(found_slices, np.memmap)
    assert np.array_equal(found_slices, slices)
    assert np.array_equal(found_classes, classes)
    about = preprocessed_cases.describe(case)
    assert (about.id, about.slices, about.classes, about.source_digest) == ("a", 2, ((1, 2), ()), "raw")
    assert sorted(tree(case)) == ["case.json", "image.npy", "label.npy"]


def test_a_case_is_current_by_plan_and_raw_files(case: Path) -> None:
    assert preprocessed_cases.is_current(case, SMALL, "raw")
    assert preprocessed_cases.is_current(case, replace(SMALL, variants=(*SMALL.variants, *SMALL.variants)), "raw")
    assert not preprocessed_cases.is_current(case, SMALL, "other")
    assert not preprocessed_cases.is_current(case, replace(SMALL, target_shape=(32, 32)), "raw")
    assert not preprocessed_cases.is_current(case, replace(SMALL, slice_axis="SI"), "raw")
    assert not preprocessed_cases.is_current(case.with_name("b"), SMALL, "raw")


def cut(name: str, length: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "image cut off": cut("image.npy", 1000),
    "image cut within its header": cut("image.npy", 20),
    "image empty": cut("image.npy", 0),
    "image gone": lambda folder: (folder / "image.npy").unlink(),
    "label cut off": cut("label.npy", 1000),
    "label of another case": lambda folder: np.save(folder / "label.npy", np.zeros((3, 16, 32), np.uint8)),
    "image of one channel more": lambda folder: np.save(
        folder / "image.npy", np.zeros((2, 2, 16, 32), np.float16)
    ),
    "no array": lambda folder: (folder / "image.npy").write_text("hello"),
    "pickled objects": lambda folder: np.save(folder / "image.npy", np.array([{}]), allow_pickle=True),
    "description cut off": cut("case.json", 50),
    "description empty": cut("case.json", 0),
    "description gone": lambda folder: (folder / "case.json").unlink(),
    "description without a field": lambda folder: (folder / "case.json").write_text(
        json.dumps({k: v for k, v in json.loads((folder / "case.json").read_text()).items() if k != "classes"})
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_case_is_not_current_and_is_made_whole_by_saving_again(
    case: Path, damage: Callable[[Path], object]
) -> None:
    damage(case)
    assert not preprocessed_cases.is_current(case, SMALL, "raw")
    with pytest.raises(DvtError, match=r"`plan_and_preprocess`") as caught:
        preprocessed_cases.require_current(case, SMALL, Path("plan.json"), "raw")
    assert "\n" not in str(caught.value)
    assert preprocessed_cases.is_current(put(case), SMALL, "raw")


def test_a_stale_case_names_both_files_and_the_command(case: Path) -> None:
    preprocessed_cases.require_current(case, SMALL, Path("plan.json"), "raw")
    with pytest.raises(DvtError) as caught:
        preprocessed_cases.require_current(case, replace(SMALL, target_shape=(32, 32)), Path("plan.json"), "raw")
    message = str(caught.value)
    assert message.startswith(f"{case}: ") and "plan.json" in message and "`plan_and_preprocess`" in message


def test_saving_again_leaves_nothing_of_the_old_case(case: Path) -> None:
    (case / "leftover.npy").write_text("")
    put(case)
    assert sorted(tree(case.parent)) == ["a/case.json", "a/image.npy", "a/label.npy"]


@pytest.mark.parametrize("fails", [1, 2, 3], ids=["image", "label", "description"])
def test_a_write_that_fails_keeps_the_old_case_and_nothing_else(
    case: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    calls = iter(range(1, 4))

    def full(_: int) -> None:
        if next(calls) == fails:
            raise OSError(28, "No space left on device")

    before = tree(case.parent)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DvtError, match=r"cannot be written \(No space left on device\). Free space"):
        put(case, source="newer")
    assert tree(case.parent) == before
    assert [p.name for p in case.parent.iterdir()] == ["a"]


@pytest.mark.parametrize("limit", [1_500, 20_000, 51_000])
def test_a_full_disk_is_one_clear_line_and_keeps_the_old_case(case: Path, limit: int) -> None:
    # The image takes 51328 bytes: nothing of it fits, half of it, all but the end, which np.save would lose.
    before = tree(case.parent)
    code = (
        "import sys, numpy as np; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from test_preprocessed_cases import SMALL; from dvtplan.core import errors\n"
        "from dvtplan.planning import preprocessed_cases\n"
        "image = np.zeros((50, 1, 16, 32), np.float16)\n"
        "try: preprocessed_cases.save(Path(sys.argv[1]), image, image[:, 0].astype(np.uint8), 'a', SMALL, 'newer')\n"
        "except errors.DvtError as error: sys.exit(str(error))"
    )
    ran = python(["-c", code, case, Path(__file__).parent, Path(__file__).parents[1]], file_limit=limit)
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"{case}: cannot be written (")
    assert line.endswith("Free space or fix the permissions, then run again.")
    assert tree(case.parent) == before
    assert [p.name for p in case.parent.iterdir()] == ["a"]
