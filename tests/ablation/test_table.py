"""The table as text, Markdown and JSON."""

from __future__ import annotations

import json

import pytest
from ablation_study import table
from ablation_study.results import Lever, compare
from helpers.ablations import conditions, finished


@pytest.fixture
def levers() -> list[Lever]:
    return compare(
        [
            finished("modern", 0, {"distal": [1, 1], "all": [1, 2, 3]}, steps=10),
            finished("modern", 1, {"distal": [1, 1], "all": [3, 4, 5]}, steps=20),
            finished("context_0", 0, {"distal": [1, 1], "all": [2, 3, 5]}, training_s=20.0, precision="fp32"),
        ]
    )


def test_the_text_shows_scores_differences_and_costs(levers: list[Lever]) -> None:
    lines = table.to_text(levers, conditions(), "by-label. Text").splitlines()
    assert "Toy, fold 0" in lines[0] and "1 min 00 s" in lines[0]
    header, reference, changed = lines[2:5]
    for cell in ("distal (n 2)", "all (n 3)", "minus modern", "by seed", "Steps by seed"):
        assert cell in header
    for cell in ("0.300", "0.20 0.40", "10 20", " 60 ", "2 GB", "1.50 s"):
        assert cell in reference
    for cell in ("--context 0", "0.333", "+0.033", " n/a "):
        assert cell in changed
    assert "--recipe" not in reference + changed


def test_the_notes_name_trainings_that_were_not_alike(levers: list[Lever]) -> None:
    notes = table.to_markdown(levers, conditions(), "by-label. Text")
    assert "Trained for less than 90%" in notes and "not in bf16: context_0" in notes
    alike = table.to_markdown(levers[:1], conditions(), "by-label. Text")
    assert "Trained" not in alike and "Phantom" not in alike


def test_a_training_on_a_busy_core_is_named() -> None:
    runs = [
        finished("modern", 0, {"all": [1]}, processor_share=0.99),
        finished("context_0", 0, {"all": [1]}, processor_share=0.7),
        finished("no_dice", 0, {"all": [1]}),  # not measured
    ]
    notes = table.to_markdown(compare(runs), conditions(), "by-label. Text")
    assert "less than 95% of its core, and took fewer steps: context_0." in notes


def test_levers_whose_seeds_took_other_numbers_of_steps_are_named() -> None:
    runs = [
        finished("modern", 0, {"all": [1]}, steps=719),
        finished("modern", 1, {"all": [1]}, steps=530),
        finished("context_0", 0, {"all": [1]}, steps=300),  # one seed: nothing to compare
        finished("no_dice", 0, {"all": [1]}, steps=91),
        finished("no_dice", 1, {"all": [1]}, steps=100),
    ]
    notes = table.to_markdown(compare(runs), conditions(), "by-label. Text")
    assert "steps differ by more than 10%: modern." in notes


def test_a_table_of_phantoms_says_so_and_names_the_test_patients(levers: list[Lever]) -> None:
    text = table.to_text(levers, conditions(phantom=True, test="Other"), "by-label. Text")
    assert "Phantom data" in text and "tested on Other (phantom)" in text


def test_json_holds_everything_and_no_path(levers: list[Lever]) -> None:
    text = table.to_json(levers, conditions(), "by-label. Text", {"processor": "x"})
    content = json.loads(text)
    changed = content["levers"][1]
    assert changed["regions"]["all"]["difference"]["n"] == 3 and changed["regions"]["distal"]["p_holm"] is None
    assert changed["methods"][0]["steps"] == 10 and content["conditions"]["budget_s"] == 60
    assert '"/' not in text
