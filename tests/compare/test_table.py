"""The tables as text, Markdown and JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from compare import table
from compare.methods import Method
from compare.scores import Scores, compare
from compare.settings import Conditions
from helpers.comparisons import method, rows

CONDITIONS = Conditions(
    dataset="Toy", fold=2, budget_s=1200.0, threads=1, splits_digest="d", processor="a processor", precision="bf16"
)
METHODS = {
    "nnU-Net 2D": [method("nnunet/run_0", precision="fp32", parameters=1_930_000)],
    "paper": [method("paper/seed_0", commit="abc")],
}


@pytest.fixture
def found() -> Scores:
    return compare({"nnU-Net 2D": [rows([1, 2, 3])], "paper": [rows([3, 4, 6])]}, ["nnU-Net 2D"], "labels", "by-label")


def test_the_text_shows_scores_costs_and_tests(found: Scores) -> None:
    lines = table.to_text(METHODS, found, CONDITIONS, "a machine").splitlines()
    assert "Toy, fold 2" in lines[0] and "1 core" in lines[0]
    ours = next(line for line in lines if line.startswith("paper"))
    for cell in ("0.433 ± 0.153", "40 in 10 steps", "7.85 million", "bf16", "2 GB", "1.50 s"):
        assert cell in ours
    test = [line for line in lines if line.startswith("paper")][1]
    assert "+0.2" in test and "  -  " in test  # three patients are too few for an interval
    assert any("a machine" in line for line in lines)


def test_the_precision_of_the_recipes_is_shown(found: Scores) -> None:
    assert "recipes: bf16." in table.to_text(METHODS, found, CONDITIONS, "")
    assert "trial" in table.to_markdown(METHODS, found, replace(CONDITIONS, precision="auto"), "")


def test_several_runs_have_their_means_and_each_dsc() -> None:
    methods = {
        **METHODS,
        "paper": [method("paper/seed_0"), method("paper/seed_1", steps=20, training_s=50.0, precision="fp32")],
    }
    several = [rows([2, 4, 6]), rows([4, 4, 4])]
    found = compare({"nnU-Net 2D": [rows([1, 2, 3])], "paper": several}, ["nnU-Net 2D"], "labels", "by-label")
    text = table.to_text(methods, found, CONDITIONS, "")
    ours = next(line for line in text.splitlines() if line.startswith("paper"))
    for cell in ("0.400 ± 0.100 (0.400 0.400)", "60 in 15 steps", "1 min 00 s", "bf16, fp32"):
        assert cell in ours
    assert "differ by the seed" in text
    assert "differ by the seed" not in table.to_text(METHODS, found, CONDITIONS, "")
    content = json.loads(table.to_json(methods, found, CONDITIONS, {}, ""))
    assert [run["name"] for run in content["methods"][1]["runs"]] == ["paper/seed_0", "paper/seed_1"]
    assert content["methods"][1]["dsc_by_run"]["all"] == pytest.approx([0.4, 0.4])


def test_runs_of_different_commits_are_named(found: Scores) -> None:
    assert "different commits" not in table.to_text(METHODS, found, CONDITIONS, "")
    other = {**METHODS, "modern": [method("modern/seed_0", commit="def+")]}
    dsc, by_run = ({**known, "modern": known["paper"]} for known in (found.dsc, found.by_run))
    scores = replace(found, dsc=dsc, by_run=by_run)
    assert "paper/seed_0 abc, modern/seed_0 def+" in table.to_markdown(other, scores, CONDITIONS, "")


def test_without_nnunet_there_is_no_test(found: Scores) -> None:
    alone = compare({"paper": [rows([3, 4, 6])]}, ["nnU-Net 2D"], "labels", "by-label")
    text = table.to_text({"paper": METHODS["paper"]}, alone, CONDITIONS, "")
    assert "there is no test" in text and "Against" not in text
    assert "there is no test" not in table.to_text(METHODS, found, CONDITIONS, "")


def test_the_note_says_where_labels_do_not_count(found: Scores) -> None:
    union = compare({"nnU-Net 2D": [rows([1])], "paper": [rows([3])]}, ["nnU-Net 2D"], "lesion", "by-label")
    assert "predicts the union" in table.to_markdown(METHODS, union, CONDITIONS, "")
    assert "predicts the union" not in table.to_markdown(METHODS, found, CONDITIONS, "")


def test_markdown_has_both_tables(found: Scores) -> None:
    text = table.to_markdown(METHODS, found, CONDITIONS, "a machine")
    assert "| Method | all (n 3) |" in text and "**Against nnU-Net 2D**" in text and "in its favour" not in text


def test_the_note_says_how_the_batch_size_was_chosen() -> None:
    names = ["nnU-Net 2D, batch 12", "nnU-Net 2D, batch 32"]
    found = compare(
        {names[0]: [rows([1, 2])], names[1]: [rows([3, 4])], "paper": [rows([5, 6])]}, names, "labels", "by-label"
    )
    text = table.to_text({name: [method(name)] for name in (*names, "paper")}, found, CONDITIONS, "")
    assert "Against nnU-Net 2D, batch 32" in text and "in its favour" in text


def test_json_has_full_precision_and_null_for_what_is_undefined(found: Scores) -> None:
    text = table.to_json(METHODS, found, CONDITIONS, {"processor": "x"}, "python tools/compare_nnunet.py")
    content = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    ours = content["methods"][1]
    assert ours["runs"][0]["slices"] == 40 and ours["dsc"]["all"]["mean"] == pytest.approx(13 / 30)
    assert ours["name"] == "paper" and ours["dsc"]["all"]["ci_low"] is None
    assert content["tests"][0]["method"] == "paper" and content["tests"][0]["difference"]["ci_low"] is None
    assert content["conditions"]["budget_s"] == 1200 and content["conditions"]["precision"] == "bf16"
    assert content["command"].startswith("python tools/")


def test_costs_are_for_each_slice_and_case() -> None:
    one: Method = method("paper", steps=3, batch_size=5, prediction_s=9.0, cases=3)
    assert one.slices == 15 and one.prediction_s_per_case == 3.0
