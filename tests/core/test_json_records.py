"""Records as JSON files, digests, atomic writes and locks."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.records import PLAN, STILL
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.anatomy.levels import Levels
from dvtplan.core import digests, json_records
from dvtplan.core.errors import DatasetProblems, DvtError
from dvtplan.data.dataset import Case, Dataset
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.names import label_faults
from dvtplan.imaging.geometry import AXES
from dvtplan.imaging.normalize import Normalization
from dvtplan.models.training_run import Run
from dvtplan.planning.fingerprint import CaseFingerprint, ChannelFingerprint, Fingerprint, RegionFingerprint
from dvtplan.planning.plan import Plan, Variant
from dvtplan.planning.preprocessed_cases import PreprocessedCase
from dvtplan.planning.recipe import Recipe

CHANNEL = ChannelFingerprint(
    minimum=0.0, low=1.5, high=900.0, maximum=1000.0, slice_maximum_spread={"LR": 1.0, "AP": 1.25, "SI": 2.0}
)
CASE = Case(id="a", patient="P", images=(Path("imagesTr/a_0000.nii.gz"),), levels=Levels(left_mm=-3.5, midline_mm=0.0))
MEASURED = CaseFingerprint(
    id="a",
    patient="Ω é",
    shape={"LR": 345, "AP": 93, "SI": 961},
    spacing_mm={"LR": 1.45, "AP": 1.25, "SI": 1.45},
    orientation="LPS",
    channels=(CHANNEL,),
    positive_slices={"LR": 1, "AP": 2, "SI": 3},
    regions={"thrombus": RegionFingerprint(voxels=10, ml=0.1, components=2)},
    source_digest="f" * 64,
)
RECORDS = [
    CASE,
    replace(CASE, label=Path("labelsTr/a.nii.gz"), levels=None),
    Dataset(name="DVT", folder=Path("raw"), channels=("MR", "T2"), labels={"thrombus": 1}, cases=(CASE, CASE)),
    MEASURED,
    Fingerprint(dataset="DVT", channels=("MR",), labels={"thrombus": 1}, cases=(MEASURED,)),
    Normalization(scope="volume", clip_percentiles=(0.5, 99.5)),
    PLAN,
    Splits(source="seed 0", folds=(Fold(index=0, train=("a", "b"), test=("c",)),)),
    Recipe(focal_alpha=0.25, lr_drops=()),
    Run(
        network="gn_unet",
        fold=0,
        recipe=Recipe(),
        classes={"lesion": 1},
        channels=1,
        parameters=7851969,
        train=("a",),
        test=("b",),
        plan_digest="0",
        splits_digest="1",
        setup="cpu fp32",
        processes=1,
        versions={"torch": "2"},
        started="2026-01-01",
        epochs_done=3,
        seconds=1.5,
        waiting_share=0.1,
    ),
    PreprocessedCase(id="a", slices=2, classes=((1, 2), ()), preprocessing_digest="0" * 64, source_digest="f" * 64),
]

VARIANTS = st.builds(Variant, angle_deg=st.floats(-180, 180), scale=st.floats(0.1, 10), mirror=st.booleans())
SIZES = st.integers(1, 512).map(lambda n: 16 * n)
NAMES = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20)
LABELS = st.lists(NAMES, unique=True, max_size=4).filter(lambda names: not label_faults(names))
PLANS = st.builds(
    Plan,
    dataset=st.text(),
    preset=st.sampled_from(["auto", "paper"]),
    slice_axis=st.sampled_from(AXES),
    target_shape=st.tuples(SIZES, SIZES),
    normalization=st.builds(
        Normalization,
        scope=st.sampled_from(["slice", "volume"]),
        clip_percentiles=st.none() | st.tuples(st.floats(0, 49), st.floats(50, 100)),
    ),
    variants=st.lists(VARIANTS, min_size=1, max_size=4).map(tuple),
    channels=st.lists(st.text(), max_size=3).map(tuple),
    labels=LABELS.map(lambda names: {n: i for i, n in enumerate(names, 1)}),
    because=st.dictionaries(st.text(), st.text(), max_size=3),
    fingerprint_digest=st.text(),
)  # fmt: skip
RECIPES = st.builds(
    Recipe,
    name=st.text(),
    epochs=st.integers(1),
    batch_size=st.integers(1),
    learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
    lr_drops=st.lists(st.floats(0.01, 0.99)).map(lambda drops: tuple(sorted(drops))),
    beta1=st.floats(0, 1, exclude_max=True),
    focal_gamma=st.floats(0, allow_infinity=False),
    focal_alpha=st.none() | st.floats(0.01, 0.99),
    oversampling=st.floats(0, 1),
    norm_groups=st.just(4),
    width=st.integers(1, 64).map(lambda n: 4 * n),
    target=st.sampled_from(["auto", "lesion", "labels"]),
    seed=st.integers(0),
)


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_every_record_comes_back_equal(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "folder" / "record.json"
    digest = json_records.save(record, path)
    back = json_records.load(type(record), path, "dvt_x")
    assert back == record
    assert json_records.digest(back) == digest


@given(PLANS)
def test_any_plan_comes_back_equal(plan: Plan) -> None:
    check_json_round_trip(plan)


@given(RECIPES)
def test_any_recipe_comes_back_equal(recipe: Recipe) -> None:
    check_json_round_trip(recipe)


def check_json_round_trip(record: Any) -> None:
    text = json.dumps(json_records.to_json(record), allow_nan=False)
    assert json_records.from_json(type(record), json.loads(text), "") == record


def test_an_integer_is_accepted_for_a_float() -> None:
    made = json_records.from_json(Variant, {"angle_deg": -2, "scale": 1, "mirror": False}, "")
    assert made == Variant(angle_deg=-2.0, scale=1.0, mirror=False)
    assert isinstance(made.scale, float)


def test_fields_with_a_default_may_be_omitted() -> None:
    assert json_records.from_json(Recipe, {"epochs": 3}, "") == Recipe(epochs=3)


def test_the_file_can_be_read_and_edited_by_people(tmp_path: Path) -> None:
    json_records.save(replace(PLAN, dataset="Ω é"), tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    assert '"record": "Plan"' in text
    assert "Ω é" in text
    assert len(text.splitlines()) > 20


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, r"unknown field extra \(known: because, channels, dataset"),
        ({"slice_axis": None}, "slice_axis must be str, not None"),
        ({"slice_axis": "x"}, "slice_axis must be one of LR, AP, SI, not 'x'"),
        ({"target_shape": 960}, "target_shape must be a list, not 960"),
        ({"target_shape": [960]}, r"target_shape must hold 2 values, not \[960\]"),
        ({"target_shape": [960, "320"]}, r"target_shape\[1\] must be int, not '320'"),
        ({"target_shape": [960, 320.0]}, r"target_shape\[1\] must be int, not 320.0"),
        ({"target_shape": [960, True]}, r"target_shape\[1\] must be int, not True"),
        ({"target_shape": [961, 345]}, "target_shape must be multiples of 16"),
        ({"normalization": "slice"}, "normalization must be an object, not 'slice'"),
        ({"normalization": {}}, "field normalization.scope is missing"),
        ({"normalization": {"scope": "slice", "clip": 1}}, "unknown field normalization.clip"),
        ({"normalization": {"scope": "slice", "clip_percentiles": [1, 2, 3]}}, "must hold 2 values"),
        ({"variants": [{"angle_deg": 0, "scale": "1", "mirror": False}]}, r"variants\[0\].scale must be float"),
        ({"variants": [{"angle_deg": 0, "scale": 1, "mirror": 0}]}, r"variants\[0\].mirror must be bool, not 0"),
        ({"variants": [{"angle_deg": 0, "scale": True, "mirror": False}]}, r"variants\[0\].scale must be float"),
        ({"variants": []}, "variants must hold at least one entry"),
        ({"labels": ["thrombus"]}, "labels must be an object"),
        ({"labels": {"thrombus": "1"}}, "labels.thrombus must be int, not '1'"),
        ({"because": {"slice_axis": 3}}, "because.slice_axis must be str, not 3"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "plan.json"
    json_records.save(PLAN, path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DvtError, match=message) as caught:
        json_records.load(Plan, path, "dvt_x")
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("Fix it, or run dvt_x.")
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    json_records.save(PLAN, path)
    body = json.loads(path.read_text())
    del body["target_shape"]
    path.write_text(json.dumps(body))
    with pytest.raises(DvtError, match=r"plan.json: field target_shape is missing"):
        json_records.load(Plan, path, "dvt_x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", r"is not readable JSON \(.*line 1 column 2"),
        (b"", "is not readable JSON"),
        (b"\xff\xfe", "is not readable JSON"),
        (b"[]", "expected Plan, schema 1; found a list or value"),
        (b"{}", "expected Plan, schema 1; found no record, schema missing"),
        (b'{"record": "Recipe", "schema": 1}', "found Recipe, schema 1"),
        (b'{"record": "Plan", "schema": 2}', "found Plan, schema 2"),
    ],
)
def test_a_file_that_is_not_this_record_is_refused_in_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text)
    with pytest.raises(DvtError, match=message) as caught:
        json_records.load(Plan, path, "dvt_x")
    assert str(path) in str(caught.value)
    assert "run dvt_x" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DvtError, match=r"plan.json: not found. Run dvt_x first."):
        json_records.load(Plan, tmp_path / "plan.json", "dvt_x")


def test_a_folder_instead_of_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(DvtError, match=r"plan.json: cannot be read"):
        json_records.load(Plan, tmp_path / "plan.json", "dvt_x")


def test_problems_can_leave_a_worker_process() -> None:
    problems = pickle.loads(pickle.dumps(DatasetProblems(["a: one.", "b: two."])))
    assert problems.problems == ("a: one.", "b: two.")
    assert str(problems) == "2 problems found; nothing was written.\na: one.\nb: two."
    assert str(DatasetProblems(["a: one."])).startswith("1 problem found")


# --- digests --------------------------------------------------------------------------------------


def test_a_digest_does_not_depend_on_the_layout_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    digest = json_records.save(replace(PLAN, because={"slice_axis": "x", "variants": "y"}), path)
    body = json.loads(path.read_text())
    body["because"] = dict(reversed(body["because"].items()))
    path.write_text(json.dumps(dict(reversed(body.items())), separators=(",", ":")))
    assert json_records.digest(json_records.load(Plan, path, "")) == digest


def test_a_digest_changes_with_any_field() -> None:
    changed = [
        replace(PLAN, dataset="other"),
        replace(PLAN, target_shape=(960, 336)),
        replace(PLAN, variants=(STILL, STILL)),
        replace(PLAN, because={"slice_axis": ""}),
    ]
    assert len({json_records.digest(record) for record in [PLAN, *changed]}) == 5


def test_digests_of_files_depend_on_content_order_and_division(tmp_path: Path) -> None:
    one, two, both, none = (tmp_path / name for name in ("one", "two", "both", "none"))
    for path, text in ((one, "1"), (two, "2"), (both, "12"), (none, "")):
        path.write_text(text)
    pairs = [(one, two), (two, one), (one, one), (both, none), (both,)]
    assert len({digests.files_digest(paths) for paths in pairs}) == len(pairs)
    copy = tmp_path / "copy"
    copy.write_text("1")
    assert digests.files_digest((copy, two)) == digests.files_digest((one, two))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NaN", "NaN is not a number"),
        ("[" * 100_000, "is not readable JSON"),
        ("[]", "found a list or value"),
        ('{"record": "Splits", "schema": 2}', "expected Splits, schema 1; found Splits, schema 2"),
    ],
)
def test_a_text_that_is_not_a_record_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        json_records.parse(Splits, text)


def test_a_number_larger_than_any_float_is_refused() -> None:
    text = json_records.dump(Levels(left_mm=1.0)).replace("1.0", "1" + "0" * 400)
    with pytest.raises(ValueError, match="left_mm is larger than any float"):
        json_records.parse(Levels, text)


def test_digests_of_files_follow_from_those_of_each(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    each = [digests.sha256(a), digests.sha256(b)]
    assert each[0] == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"  # sha256sum
    assert digests.combine_digests(each) == digests.files_digest((a, b)) != digests.files_digest((b, a))


def test_a_field_outside_the_digest_is_kept_in_the_file(tmp_path: Path) -> None:
    """An older fingerprint without the field has the same digest."""
    old = replace(MEASURED, channels=(CHANNEL,))
    new = replace(MEASURED, channels=(replace(CHANNEL, shares_below=(0.5, 0.75)),))
    assert json_records.digest(old) == json_records.digest(new) != json_records.digest(replace(new, id="b"))
    json_records.save(new, tmp_path / "new.json")
    assert json_records.load(type(new), tmp_path / "new.json", "test") == new
    text = json.dumps(json_records.to_json(old, for_digest=True))
    assert "shares_below" not in text and "slice_maximum_spread" in text


def test_a_field_added_later_changes_a_digest_only_if_it_is_set() -> None:
    @dataclass(frozen=True)
    class Before:
        angle: float = 2.0

    @dataclass(frozen=True)
    class After:
        angle: float = 2.0
        gamma: float = json_records.added_later(1.0)

    assert json_records.digest(After()) == json_records.digest(Before())
    assert json_records.digest(After(gamma=0.8)) != json_records.digest(Before())
    assert json_records.to_json(After()) == {"angle": 2.0, "gamma": 1.0}
    assert "gamma" not in json_records.dump(After(), omit_default=True)
    assert '"gamma": 0.8' in json_records.dump(After(gamma=0.8), omit_default=True)
