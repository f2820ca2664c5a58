"""The tables as text, Markdown and JSON."""

from __future__ import annotations

import json

import pytest
from compare import table
from compare.methods import Method
from compare.scores import Scores, compare
from compare.settings import Conditions
from helpers.comparisons import method, rows

CONDITIONS = Conditions(dataset="Toy", fold=2, budget_s=1200.0, threads=1, splits_digest="d")
METHODS = [method("nnU-Net 2D", precision="fp32", parameters=1_930_000), method("paper")]


@pytest.fixture
def found() -> Scores:
    return compare({"nnU-Net 2D": rows([1, 2, 3]), "paper": rows([3, 4, 6])}, ["nnU-Net 2D"], "labels", "by-label")


def test_the_text_shows_scores_costs_and_tests(found: Scores) -> None:
    lines = table.to_text(METHODS, found, CONDITIONS, "a machine").splitlines()
    assert "Toy, fold 2" in lines[0] and "1 core" in lines[0]
    ours = next(line for line in lines if line.startswith("paper"))
    for cell in ("0.433 ± 0.153", "40 in 10 steps", "7.85 million", "bf16", "2 GB", "1.50 s"):
        assert cell in ours
    test = [line for line in lines if line.startswith("paper")][1]
    assert "+0.2" in test and "  -  " in test  # three patients are too few for an interval
    assert any("a machine" in line for line in lines)


def test_the_note_says_where_labels_do_not_count(found: Scores) -> None:
    union = compare({"nnU-Net 2D": rows([1]), "paper": rows([3])}, ["nnU-Net 2D"], "lesion", "by-label")
    assert "predicts the union" in table.to_markdown(METHODS, union, CONDITIONS, "")
    assert "predicts the union" not in table.to_markdown(METHODS, found, CONDITIONS, "")


def test_markdown_has_both_tables(found: Scores) -> None:
    text = table.to_markdown(METHODS, found, CONDITIONS, "a machine")
    assert "| Method | all (n 3) |" in text and "**Against nnU-Net 2D**" in text and "in its favour" not in text


def test_the_note_says_how_the_batch_size_was_chosen() -> None:
    names = ["nnU-Net 2D, batch 12", "nnU-Net 2D, batch 32"]
    found = compare(
        {names[0]: rows([1, 2]), names[1]: rows([3, 4]), "paper": rows([5, 6])}, names, "labels", "by-label"
    )
    text = table.to_text([*map(method, names), method("paper")], found, CONDITIONS, "")
    assert "Against nnU-Net 2D, batch 32" in text and "in its favour" in text


def test_json_has_full_precision_and_null_for_what_is_undefined(found: Scores) -> None:
    text = table.to_json(METHODS, found, CONDITIONS, {"processor": "x"}, "python tools/compare_nnunet.py")
    content = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert content["methods"][1]["slices"] == 40 and content["methods"][1]["dsc"]["all"]["mean"] == pytest.approx(
        13 / 30
    )
    assert content["methods"][1]["dsc"]["all"]["ci_low"] is None
    assert content["tests"][0]["method"] == "paper" and content["tests"][0]["difference"]["ci_low"] is None
    assert content["conditions"]["budget_s"] == 1200 and content["command"].startswith("python tools/")


def test_costs_are_for_each_slice_and_case() -> None:
    one: Method = method("paper", steps=3, batch_size=5, prediction_s=9.0, cases=3)
    assert one.slices == 15 and one.prediction_s_per_case == 3.0
