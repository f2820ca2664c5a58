"""dataset.json: its fields, and each fault by its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.datasets import tiny_dataset
from helpers.raw_data import edit, problems_of

from dvtplan.data.dataset import discover


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
        ({"labels": None}, "map each name to one whole number from 0 to 254, found None."),
        ({"labels": {"0": "background", "1": "clot"}}, 'version 1. Write them as {"background": 0, "clot": 1}.'),
        ({"labels": {"background": 0, "clot": [1, 2]}}, "is a region that joins the values [1, 2]"),
        ({"labels": {"background": 0, "clot": 255}}, "from 0 to 254"),
        ({"labels": {"background": 0, "clot": 1.0}}, "one whole number"),
        ({"labels": {"background": 0, "clot": True}}, "one whole number"),
        ({"labels": {"background": 0}}, 'labels need "background": 0 and at least one other'),
        ({"labels": {"clot": 1}}, 'labels need "background": 0'),
        ({"labels": {"background": 1, "clot": 2}}, 'labels need "background": 0'),
        ({"labels": {"background": 0, "air": 0, "clot": 1}}, 'labels need "background": 0'),
        ({"labels": {"background": 0, "clot": 1, "lesion": 1}}, "two labels share a value"),
        ({"labels": {"background": 0, "all": 1}}, "is the name of the union"),
        ({"labels": {"background": 0, "All": 1}}, "is the name of the union"),
        ({"labels": {"background": 0, "clot": 1, "Background": 2}}, "is the name of the value 0"),
        ({"labels": {"background": 0, "Clot": 1, "clot": 2}}, "differ only in case"),
        ({"labels": {"background": 0, "\u00e9": 1, "e\u0301": 2}}, "two labels share a value or a name"),
        ({"labels": {"background": 0, "a/b": 1}}, "'a/b' contains /"),
        ({"labels": {"background": 0, "a\0b": 1}}, "cannot be seen"),
        ({"labels": {"background": 0, "a\tb": 1}}, "cannot be seen"),
        ({"labels": {"background": 0, "a\nb": 1}}, "cannot be seen"),
        ({"labels": {"background": 0, "a\u00a0b": 1}}, "cannot be seen"),
        ({"labels": {"background": 0, "a ": 1}}, "spaces at its ends"),
        ({"labels": {"background": 0, "": 1}}, "is empty"),
        ({"labels": {"background": 0, ".a": 1}}, "begins or ends with a point"),
        ({"labels": {"background": 0, "a" * 240: 1}}, "has 240 characters, more than 64"),
        ({"channel_names": {"0": "M\tR"}}, "a channel's name must be a text"),
        ({"channel_names": {"0": 3}}, "a channel's name must be a text"),
        ({"labels": {"background": 0, "clot": 1, "ignore": 2}}, "would be trained and scored like any other"),
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


def test_labels_of_any_language_and_a_byte_order_mark_are_read(raw: Path) -> None:
    edit(raw, labels={"background": 0, "V. saphena (magna), e\u0301": 1, "\u8840\u6813": 2})
    path = raw / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert discover(raw).labels == {"V. saphena (magna), \u00e9": 1, "\u8840\u6813": 2}


def test_a_label_that_is_named_twice_is_refused(raw: Path) -> None:
    path = raw / "dataset.json"
    path.write_text(path.read_text().replace('"thrombus": 1', '"thrombus": 1, "thrombus": 2'))
    (line,) = problems_of(raw)
    assert "'thrombus' occurs twice" in line


def test_a_list_of_cases_is_accepted_only_if_it_names_the_files_that_are_read(raw: Path) -> None:
    cases = {c: {"images": [f"imagesTr/{c}_0000.nii.gz"], "label": f"labelsTr/{c}.nii.gz"} for c in ("a", "b")}
    edit(raw, dataset=cases)
    assert len(discover(raw).cases) == 2
    edit(raw, dataset=cases | {"b": {"images": ["/elsewhere/b.nii.gz"], "label": "labelsTr/b.nii.gz"}})
    (line,) = problems_of(raw)
    assert "entry dataset gives b other files" in line
    edit(
        raw,
        dataset={"a": cases["a"] | {"label": "labelsTr/b.nii.gz"}, "b": cases["b"] | {"label": "labelsTr/a.nii.gz"}},
    )
    assert "gives a, b other files" in problems_of(raw)[0]
    edit(raw, dataset={"a": cases["a"]})
    assert "gives b other files" in problems_of(raw)[0]
    for wrong in (
        [1],
        {"a": {"images": "imagesTr/a_0000.nii.gz", "label": "x"}},
        {"a": {"images": [1], "label": None}},
    ):
        edit(raw, dataset=wrong)
        assert 'must give each case "images"' in problems_of(raw)[0]


def test_a_case_whose_results_would_have_too_long_names_is_refused(tmp_path: Path) -> None:
    folder = tiny_dataset(tmp_path / "DVT", ("a" * 230, "b"))
    (line,) = problems_of(folder)
    assert "230 bytes" in line and "Shorten it" in line
