"""dataset.json: its fields, and each fault by its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.raw_data import edit, problems_of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": None}, 'channel_names must number the channels from "0", found None.'),
        ({"channel_names": {}}, "channel_names must number the channels"),
        ({"channel_names": ["MR"]}, "found ['MR']."),
        ({"channel_names": {"1": "MR"}}, "found {'1': 'MR'}."),
        ({"channel_names": {"0": "MR", "2": "T2"}}, "channel_names must number the channels"),
        ({"file_ending": None}, 'file_ending must be an ending such as ".nii.gz", found None.'),
        ({"file_ending": "nii.gz"}, "found 'nii.gz'."),
        ({"file_ending": 3}, "found 3."),
        ({"labels": None}, "labels must map each name to one whole number from 0 to 254, found None."),
        ({"labels": {"0": "background", "1": "clot"}}, "labels must map each name to one whole number"),
        ({"labels": {"background": 0, "clot": [1, 2]}}, "regions that join several values are not supported."),
        ({"labels": {"background": 0, "clot": 255}}, "from 0 to 254"),
        ({"labels": {"background": 0, "clot": 1.0}}, "one whole number"),
        ({"labels": {"background": 0, "clot": True}}, "one whole number"),
        ({"labels": {"background": 0}}, 'labels need "background": 0 and at least one other'),
        ({"labels": {"clot": 1}}, 'labels need "background": 0'),
        ({"labels": {"background": 1, "clot": 2}}, 'labels need "background": 0'),
        ({"labels": {"background": 0, "air": 0, "clot": 1}}, 'labels need "background": 0'),
        ({"labels": {"background": 0, "clot": 1, "lesion": 1}}, "two labels share a value"),
        ({"labels": {"background": 0, "all": 1}}, '"all" is the name of the union'),
        ({"labels": {"background": 0, "clot": 1, "ignore": 2}}, "the label ignore would be trained"),
    ],
)  # fmt: skip
def test_a_wrong_description_is_named_by_field(raw: Path, change: dict[str, Any], message: str) -> None:
    edit(raw, **change)
    (line,) = problems_of(raw)
    assert line.startswith("dataset.json: ")
    assert message in line


def test_all_faults_of_dataset_json_come_at_once(raw: Path) -> None:
    (raw / "dataset.json").write_text("{}")
    assert len(problems_of(raw)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not readable JSON ("),
        (b"\xff\xfe", "is not readable JSON ("),
        (b"[]", "expected an object with channel_names and labels."),
    ],
)
def test_a_dataset_json_that_is_not_an_object_is_refused(raw: Path, content: bytes, message: str) -> None:
    (raw / "dataset.json").write_bytes(content)
    (line,) = problems_of(raw)
    assert line.startswith(f"dataset.json: {message}")


def test_a_missing_dataset_json_names_an_example(raw: Path) -> None:
    (raw / "dataset.json").unlink()
    assert problems_of(raw) == ["dataset.json: not found. Add it; datasets_raw/README.md has an example."]
