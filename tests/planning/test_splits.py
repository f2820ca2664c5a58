"""Folds of a preprocessed data set: one's own, those of an earlier run, or those asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.datasets import tiny_dataset
from helpers.preparation import run, tiny_workspace
from helpers.processes import tree

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.planning.preprocess import PreprocessOptions, plan_and_preprocess


def own_splits(place: Workspace, body: object) -> None:
    place.user_splits.write_text(json.dumps(body))


@pytest.mark.parametrize("key", ["test", "val"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_own_splits_are_used_also_in_nnu_nets_words(place: Workspace, key: str, wrapped: bool) -> None:
    body = [{"train": ["a", "b", "c"], key: ["d"]}, {"train": ["d"], key: ["a", "b", "c"]}]
    own_splits(place, {"folds": body} if wrapped else body)
    made = run(place.root, folds=8)
    assert [fold.test for fold in made.splits.folds] == [("d",), ("a", "b", "c")]
    assert made.splits.source == "splits.json"
    assert "Folds (splits.json): 2, with 1, 3 test cases" in made.summary
    assert [("val" in line and "test cases" in line) for line in made.warnings] == ([True] if key == "val" else [])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([{"train": ["a", "c"], "test": ["b", "d"]}], "has patients in both training and test: P."),
        ([{"train": ["a", "b", "c"], "test": ["x", "d"]}], "lists cases that are not in the data set: x."),
        ([{"train": ["a", "b"], "test": ["d"]}], "lacks cases of the data set: c."),
        ([], "contains no fold."),
        ({}, "expected a list of"),
        ("folds", "expected a list of"),
        ([["a"]], "expected a list of"),
        ([{"train": ["a"]}], "expected a list of"),
        ([{"train": "a", "test": ["b"]}], "not a list of case ids: 'a'"),
        ([{"train": [1], "test": ["b"]}], "not a list of case ids: [1]"),
        (None, "expected a list of"),
        ([{"train": ["a", "b"], "val": ["c"], "test": ["d"]}], "a fold with test and val"),
    ],
)
def test_own_splits_that_leak_or_do_not_fit_are_refused_and_nothing_is_written(
    tmp_path: Path, body: object, message: str
) -> None:
    place = tiny_workspace(tmp_path, table="case_id,patient_id\na,P\nb,P\n")
    own_splits(place, body)
    before = tree(tmp_path)
    with pytest.raises(DvtError) as caught:
        run(tmp_path)
    assert str(caught.value).startswith(f"{place.user_splits}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_folds_stay_as_they_were_until_others_are_asked_for(place: Workspace) -> None:
    run(place.root, folds=4, seed=3)
    before = place.splits.read_bytes()
    again = run(place.root, folds=None)
    assert place.splits.read_bytes() == before and again.warnings == ()
    tiny_dataset(place.raw, ("a", "b", "c", "d", "e"))
    more = run(place.root, folds=None)
    assert more.splits is not None and len(more.splits.folds) == 4 and more.splits.source == "seed 3"
    other = run(place.root, folds=2, seed=None)
    assert other.splits is not None and (len(other.splits.folds), other.splits.source) == (2, "seed 3")


def test_other_folds_than_those_of_a_training_are_warned_of(place: Workspace) -> None:
    run(place.root, folds=2)
    place.fold("gn_unet", 0).path.mkdir(parents=True)
    (warning,) = run(place.root, folds=4).warnings
    assert "from 2 folds, seed 0, to 4 folds, seed 0" in warning and "gn_unet" in warning
    assert run(place.root, folds=None).warnings == ()


def edit_folds(place: Workspace) -> bytes:
    """Swap the test cases of both folds with each other's training cases, as by hand."""
    body = json.loads(place.splits.read_text())
    fold = body["folds"][0]
    fold["train"], fold["test"] = fold["test"], fold["train"]
    place.splits.write_text(json.dumps(body))
    return place.splits.read_bytes()


def test_folds_that_were_edited_are_not_replaced_without_being_asked(place: Workspace) -> None:
    before = run(place.root, folds=2).splits
    edited = edit_folds(place)
    with pytest.raises(DvtError, match=r"splits\.json: was edited.*datasets_raw/DVT/splits\.json.*`folds`"):
        run(place.root, folds=None)
    assert place.splits.read_bytes() == edited
    made = run(place.root, folds=2)
    assert made.splits == before
    (warning,) = made.warnings
    assert "was edited, and is replaced by 2 folds, seed 0" in warning


def test_folds_that_were_edited_can_be_moved_to_the_raw_data(place: Workspace) -> None:
    run(place.root, folds=2)
    edit_folds(place)
    place.splits.rename(place.user_splits)
    with pytest.raises(DvtError, match="more than one test list"):
        run(place.root, folds=None)
    body = json.loads(place.user_splits.read_text())
    body["folds"] = body["folds"][:1]
    place.user_splits.write_bytes(b"\xef\xbb\xbf" + json.dumps(body).encode())
    made = run(place.root, folds=None)
    assert made.splits is not None and made.splits.source == "splits.json" and made.warnings == ()
    assert run(place.root, folds=None).warnings == ()


def test_folds_of_a_data_set_that_grew_are_not_taken_for_edited(place: Workspace) -> None:
    run(place.root, folds=2)
    tiny_dataset(place.raw, ("a", "b", "c", "d", "e"))
    assert run(place.root, folds=None).warnings == ()
    (place.raw / "cases.csv").write_text("case_id,patient_id\na,P\nb,P\nc,\nd,\ne,\n")
    assert run(place.root, folds=None).warnings == ()


def test_without_a_word_there_are_the_papers_eight_folds(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, [f"c{i}" for i in range(9)])
    made = run(place.root, folds=None)
    assert made.splits is not None and (len(made.splits.folds), made.splits.source) == (8, "seed 0")
    place.splits.write_text("{")  # what cannot be read is made again
    assert run(place.root, folds=None).splits == made.splits


def test_damaged_folds_of_a_training_are_not_made_again_without_a_word(place: Workspace) -> None:
    made = run(place.root, folds=2)
    place.splits.write_text("{")
    place.fold("gn_unet", 0).path.mkdir(parents=True)
    with pytest.raises(DvtError, match=r"splits.json: cannot be read, but gn_unet .*`folds`"):
        run(place.root, folds=None)
    assert place.splits.read_text() == "{"
    assert run(place.root, folds=2).splits == made.splits


def test_verifying_alone_refuses_faulty_folds_of_the_user(place: Workspace) -> None:
    place.user_splits.write_text('[{"train": ["a"], "test": ["a"]}]')
    with pytest.raises(DvtError, match=r"splits\.json"):
        run(place.root, folds=None, verify_only=True)
    assert not place.preprocessed.exists()


def test_too_many_folds_are_refused_and_nothing_is_written(place: Workspace) -> None:
    with pytest.raises(DvtError, match=r"8`? \(the default\): expected 2 to 4, the number of patients"):
        run(place.root, folds=8)
    assert not place.preprocessed.exists()


def test_verifying_alone_tells_of_folds_that_cannot_be_had_without_failing(tmp_path: Path) -> None:
    tiny_dataset(tmp_path / "datasets_raw" / "D", ("a", "b", "c"))
    made = plan_and_preprocess(tmp_path, options=PreprocessOptions(folds=8, jobs=1, verify_only=True))
    assert made.splits is None and "Plan (auto)" in made.summary
    assert any("expected 2 to 3" in warning for warning in made.warnings)
    assert not (tmp_path / "datasets_preprocessed").exists()


# --- by group -------------------------------------------------------------------------------------

CENTRES = "case_id,patient_id,centre\na,P,North\nb,P,\nc,c,South\nd,d,West\n"


def grouped(root: Path, table: str = CENTRES) -> Workspace:
    place = tiny_workspace(root, table=table)
    run(root, folds=None, folds_by="centre")
    return place


def groups_and_tests(place: Workspace) -> dict[str, list[str]]:
    return {fold["group"]: fold["test"] for fold in json.loads(place.splits.read_text())["folds"]}


def test_one_group_is_left_out_at_a_time_and_the_summary_names_it(tmp_path: Path) -> None:
    place = tiny_workspace(tmp_path, table=CENTRES)
    made = run(tmp_path, folds=None, folds_by="centre")
    assert "Folds (one centre left out at a time): 3, with 2, 1, 1 test cases" in made.summary
    assert "fold 0 (leaves out centre North): 2 cases to train on, 2 to test" in made.summary
    assert groups_and_tests(place) == {"North": ["a", "b"], "South": ["c"], "West": ["d"]}
    assert json.loads(place.splits.read_text())["by"] == "centre"


def test_groups_stay_as_they_were_until_others_are_asked_for(tmp_path: Path) -> None:
    place = grouped(tmp_path)
    before = place.splits.read_bytes()
    assert run(tmp_path, folds=None).warnings == () and place.splits.read_bytes() == before
    tiny_dataset(place.raw, ("a", "b", "c", "d", "e"), table=CENTRES + "e,e,West\n")
    run(tmp_path, folds=None)
    assert groups_and_tests(place)["West"] == ["d", "e"]
    seeded = run(tmp_path, folds=2).splits
    assert seeded is not None and (seeded.source, seeded.by) == ("seed 0", None)


def test_groups_that_have_changed_are_not_replaced_without_being_asked(tmp_path: Path) -> None:
    place = grouped(tmp_path)
    before = place.splits.read_bytes()
    (place.raw / "cases.csv").write_text(CENTRES.replace("West", "South"))
    with pytest.raises(
        DvtError, match=r"splits\.json: was edited, or centre in cases\.csv has changed.*`folds_by=centre`"
    ):
        run(tmp_path, folds=None)
    assert place.splits.read_bytes() == before
    made = run(tmp_path, folds=None, folds_by="centre")
    assert groups_and_tests(place) == {"North": ["a", "b"], "South": ["c", "d"]}
    assert any("is replaced by 2 folds, one centre left out" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("case_id,sex\na,F\nb,F\nc,M\nd,M\n", "no column centre"),
        (CENTRES.replace("b,P,", "b,P,South"), "different values of centre"),
        (CENTRES.replace("West", "NA"), "no centre of the patients d"),
        (None, "not found"),
    ],
)
def test_groups_that_are_not_known_are_refused_and_nothing_is_written(
    tmp_path: Path, table: str | None, message: str
) -> None:
    place = tiny_workspace(tmp_path, table=table)
    with pytest.raises(DvtError, match=message) as caught:
        run(tmp_path, folds=None, folds_by="centre")
    assert "\n" not in str(caught.value) and "cases.csv" in str(caught.value)
    assert not place.preprocessed.exists()


def test_groups_exclude_other_folds(place: Workspace) -> None:
    for other in ({"folds": 2}, {"seed": 0}):
        with pytest.raises(DvtError, match="`folds_by`"):
            PreprocessOptions(folds_by="centre", **other)
    (place.raw / "cases.csv").write_text(CENTRES)
    own_splits(place, [{"train": ["c", "d"], "test": ["a", "b"]}])
    with pytest.raises(DvtError, match=r"splits\.json: replaces all other folds"):
        run(place.root, folds=None, folds_by="centre")
