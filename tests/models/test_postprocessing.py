"""The mask rule of a model and the record of its choice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.refusals import refused

from dvtplan.core import json_records
from dvtplan.models.postprocessing import PLAIN, MaskRule, Postprocessing, read_postprocessing, rule_of_folds

CHOSEN = Postprocessing(
    threshold=0.35, smallest_component_mm3=12.0, patients=5, plain_score=0.61, score=0.64, weights="of these weights"
)


@pytest.mark.parametrize(
    ("field", "value"),
    [("threshold", 0.0), ("threshold", 1.0), ("threshold", -0.5), ("smallest_component_mm3", -1.0), ("patients", -1)],
)
def test_a_choice_that_cannot_be_meant_is_refused_by_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} must"):
        replace(CHOSEN, **{field: value})  # type: ignore[arg-type]


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "postprocessing.json"
    assert read_postprocessing(path) is None
    for record in (CHOSEN, replace(CHOSEN, threshold=None, patients=0, plain_score=None, score=None)):
        json_records.save(record, path)
        assert read_postprocessing(path) == record
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 7}))
    message = refused(lambda: read_postprocessing(path))
    assert str(path) in message and "threshold" in message and "`predict_fold`" in message


def test_a_choice_for_other_weights_is_refused(tmp_path: Path) -> None:
    CHOSEN.require_weights("of these weights", tmp_path)
    message = refused(lambda: CHOSEN.require_weights("of others", tmp_path))
    assert str(tmp_path) in message and "`predict_fold`" in message and "train_fold" not in message


def test_folds_together_have_the_mean_threshold_and_the_median_smallest_component() -> None:
    rules = [MaskRule(threshold=t, smallest_component_mm3=s) for t, s in ((0.3, 4.0), (None, 0.0), (0.25, 20.0))]
    together = rule_of_folds(rules)
    assert together.threshold == pytest.approx(0.35) and together.smallest_component_mm3 == 4.0
    assert rule_of_folds([PLAIN, PLAIN]) == PLAIN and rule_of_folds([PLAIN, PLAIN]).is_plain
    assert rule_of_folds([CHOSEN.rule]) == CHOSEN.rule and not CHOSEN.rule.is_plain


def test_the_choice_in_words() -> None:
    assert "threshold 0.35" in CHOSEN.in_words and "12 mm3" in CHOSEN.in_words and "plain rule 0.610" in CHOSEN.in_words
    plain = replace(CHOSEN, threshold=None, smallest_component_mm3=0.0)
    assert "most probable" in plain.in_words and "mm3" not in plain.in_words
    assert "no held-out patient" in replace(plain, patients=0, plain_score=None, score=None).in_words
