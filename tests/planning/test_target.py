"""Whether a network predicts the union of labels."""

from __future__ import annotations

import pytest

from dvtplan.planning.target import predicts_union


@pytest.mark.parametrize(
    ("target", "labels", "expected"),
    [
        ("auto", ["thrombus"], True),
        ("auto", ["distal", "proximal"], True),
        ("auto", ["anterior", "posterior"], False),
        ("lesion", ["anterior", "posterior"], True),
        ("labels", ["distal", "proximal"], False),
    ],
)
def test_auto_joins_labels_that_differ_by_place(target: str, labels: list[str], expected: bool) -> None:
    assert predicts_union(target, labels) is expected
