"""Whether data are of phantoms."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvtplan.data.dataset_json import read_description
from dvtplan.data.phantom import is_phantom


@pytest.mark.parametrize(
    ("dataset", "description", "recorded", "expected"),
    [
        ("DVT", "Synthetic legs.", False, True),
        ("Phantom", "Legs of 2019.", True, False),
        ("Phantom", "", None, False),
        ("Phantom", None, False, False),
        ("DVT", None, True, True),
        ("MyPhantom", None, None, True),
        ("DVT", None, None, None),
    ],
)
def test_the_description_decides_then_the_record_then_the_name(
    dataset: str, description: str | None, recorded: bool | None, expected: bool | None
) -> None:
    assert is_phantom(dataset, description=description, recorded=recorded) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"description": "Synthetic."}', "Synthetic."),
        ("{}", ""),
        ("[]", ""),
        ('{"description": 3}', None),
        ("{", None),
        ("\udcff", None),
    ],
)
def test_a_description_is_read_or_unknown(tmp_path: Path, text: str, expected: str | None) -> None:
    path = tmp_path / "dataset.json"
    assert read_description(path) is None
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert read_description(path) == expected
