"""Folds by patient: even, reproducible, and without leaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.folds import Fold, Splits, check, split, split_by_group
from dvtplan.data.patient_groups import PatientGroups

FOUR = {"a1": "A", "a2": "A", "b": "B", "c": "C"}
"""Case -> patient; patient A has two cases."""


def patients(count: int) -> dict[str, str]:
    return {f"case{i:02d}": f"patient{i:02d}" for i in range(count)}


def splits(*folds: tuple[str, str]) -> Splits:
    """Make splits from text: the training cases and the test cases of each fold."""
    made = (
        Fold(index=k, train=tuple(train.split()), test=tuple(test.split())) for k, (train, test) in enumerate(folds)
    )
    return Splits(source="by hand", folds=tuple(made))


GOOD = splits(("b c", "a1 a2"), ("a1 a2 c", "b"), ("a1 a2 b", "c"))


def faults(wrong: Splits) -> list[str]:
    with pytest.raises(DvtError) as caught:
        check(wrong, FOUR, "splits.json")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("splits.json: ") and line.endswith(".") for line in lines)
    return [line.removeprefix("splits.json: ") for line in lines]


# --- seeded ---------------------------------------------------------------------------------------


def test_the_papers_58_patients_give_8_8_and_six_times_7() -> None:
    made = split(patients(58), 8, seed=0)
    assert [len(fold.test) for fold in made.folds] == [8, 8, 7, 7, 7, 7, 7, 7]
    assert [len(fold.train) for fold in made.folds] == [50, 50, 51, 51, 51, 51, 51, 51]
    assert [fold.index for fold in made.folds] == list(range(8))
    assert made.source == "seed 0"


def test_only_the_seed_decides_not_the_order_of_the_cases() -> None:
    cases = patients(58)
    assert split(cases, 8, 0) == split(dict(reversed(cases.items())), 8, 0)
    assert split(cases, 8, 0).folds != split(cases, 8, 1).folds


def test_a_seed_keeps_its_folds_from_version_to_version() -> None:
    # NumPy does not promise that its permutations stay; should they change, so would all folds.
    assert [fold.test for fold in split(patients(5), 2, 0).folds] == [
        ("case02", "case03", "case04"),
        ("case00", "case01"),
    ]


CASES = st.dictionaries(st.text(min_size=1), st.sampled_from("ABCDEFGH"), min_size=2).filter(
    lambda cases: len(set(cases.values())) > 1
)


@given(CASES, st.integers(2, 8), st.integers(0, 2**32))
def test_every_case_is_tested_once_and_no_patient_leaks(cases: dict[str, str], folds: int, seed: int) -> None:
    people = set(cases.values())
    folds = min(folds, len(people))
    made = split(cases, folds, seed)
    assert sorted(case for fold in made.folds for case in fold.test) == sorted(cases)
    for fold in made.folds:
        assert sorted((*fold.train, *fold.test)) == sorted(cases)
        assert not {cases[c] for c in fold.train} & {cases[c] for c in fold.test}
    sizes = [len({cases[c] for c in fold.test}) for fold in made.folds]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    check(made, cases, "seeded")


@pytest.mark.parametrize("folds", [-1, 0, 1, 4])
def test_more_folds_than_patients_are_refused_with_the_allowed_numbers(folds: int) -> None:
    with pytest.raises(DvtError, match=rf"`folds={folds}`: expected 2 to 3"):
        split(FOUR, folds, 0)


def test_a_single_patient_cannot_be_split() -> None:
    with pytest.raises(DvtError, match="Folds need at least 2 patients; the data set has 1"):
        split({"a1": "A", "a2": "A"}, 2, 0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(DvtError, match="`seed=-1`: expected a whole number from 0"):
        split(FOUR, 2, -1)


# --- by hand --------------------------------------------------------------------------------------


def test_valid_splits_pass_also_a_single_fold_that_tests_some_cases() -> None:
    check(GOOD, FOUR, "splits.json")
    check(splits(("a1 a2 b", "c")), FOUR, "splits.json")


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (
            splits(("a1 b", "a2 c")),
            "fold 0 has patients in both training and test: A.",
        ),
        (splits(("a1 a2 b c", "c")), "fold 0 has patients in both training and test: C."),
        (splits(("a1 a2 x", "b c")), "fold 0 lists cases that are not in the data set: x. Remove them."),
        (splits(("a1 a2", "b c z y")), "fold 0 lists cases that are not in the data set: y, z. Remove them."),
        (splits(("a1 a2 b c", "")), "fold 0 has no test case. Add at least one."),
        (splits(("", "a1 a2 b c")), "fold 0 has no training case. Add at least one."),
        (splits(("a1 a2", "b c"), ("b a1 a2", "c")), "lists cases in more than one test list: c."),
        (splits(("a1 a2 b a1", "c")), "fold 0 lists cases twice in train: a1. Keep each once."),
        (splits(("a1 a2 b", "c c")), "fold 0 lists cases twice in test: c. Keep each once."),
        (splits(("a1 a2", "b")), "lacks cases of the data set: c."),
        (Splits(source="", folds=()), "contains no fold. Add at least one."),
        (Splits(source="", folds=GOOD.folds[::-1]), "fold 0 has the index 2. Number the folds from 0"),
    ],
)  # fmt: skip
def test_splits_that_leak_or_do_not_fit_are_refused(wrong: Splits, fault: str) -> None:
    assert faults(wrong)[0].startswith(fault)


def test_all_faults_come_at_once() -> None:
    assert len(faults(splits(("a1 x", "a2 c"), ("a2 b", "a1 c")))) == 4


def test_many_cases_are_counted_and_not_all_named() -> None:
    strangers = " ".join(f"x{k:02}" for k in range(30))
    with pytest.raises(DvtError) as error:
        check(splits((f"a1 a2 {strangers}", "b c")), FOUR, "splits.json")
    assert "x07 and 22 more" in str(error.value) and "x08" not in str(error.value)


# --- by group -------------------------------------------------------------------------------------


def by_group(**group_of: str) -> Splits:
    return split_by_group(FOUR, PatientGroups(column="centre", group_of=group_of))


def test_each_group_is_left_out_once_with_all_cases_of_its_patients() -> None:
    made = by_group(A="site 10", B="site 2", C="site 10")
    assert [(fold.group, fold.test, fold.train) for fold in made.folds] == [
        ("site 2", ("b",), ("a1", "a2", "c")),
        ("site 10", ("a1", "a2", "c"), ("b",)),
    ]
    assert made.by == "centre" and "centre left out" in made.source
    assert made.title(made.folds[1]) == "1 (leaves out centre site 10)" and GOOD.title(GOOD.folds[1]) == "1"
    check(made, FOUR, "splits.json")
    assert json_records.parse(Splits, json_records.dump(made)) == made


def test_folds_without_groups_keep_their_digest() -> None:
    """It is in the record of every training."""
    text = json_records.dump(GOOD)
    assert '"by": null' in text
    body = json_records.to_json(GOOD, for_digest=True)
    assert set(body) == {"source", "folds"} and set(body["folds"][0]) == {"index", "train", "test"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"A": "X", "B": "X", "C": "X"}, "at least two values in cases.csv; all patients have X"),
        ({"A": "X", "B": "Y", "C": "(none)"}, "gives no centre of the patients C"),
        ({"A": "X", "B": "x", "C": "Y"}, "X, x in cases.csv differ only in case"),
    ],
)
def test_groups_that_cannot_be_left_out_are_refused(groups: dict[str, str], message: str) -> None:
    with pytest.raises(DvtError) as caught:
        by_group(**groups)
    assert str(caught.value).startswith("`folds_by=centre`: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)
