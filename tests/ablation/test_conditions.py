"""The test patients of another data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ablation_study.conditions import digest_of, require_comparable
from helpers.datasets import write_raw

from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import Dataset, discover


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four cases of one label."""
    return discover(write_raw(tmp_path).raw)


def test_other_labels_or_channels_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DvtError, match=r"--test Toy: its labels are leg"):
        require_comparable(dataset, replace(dataset, labels={"leg": 1}))
    with pytest.raises(DvtError, match="channels"):
        require_comparable(dataset, replace(dataset, channels=("MR0", "MR1")))


def test_a_scan_of_the_training_is_no_test(dataset: Dataset) -> None:
    first, *others = dataset.cases
    with pytest.raises(DvtError, match=r"c0_0000\.nii\.gz: is also a scan"):
        require_comparable(replace(dataset, cases=(*others, first)), replace(dataset, cases=(first,)))
    require_comparable(replace(dataset, cases=tuple(others)), replace(dataset, cases=(first,)))


def test_the_digest_follows_images_and_truth(dataset: Dataset) -> None:
    before = digest_of(dataset.cases)
    label = dataset.cases[0].label
    assert label is not None and digest_of(dataset.cases) == before != digest_of(dataset.cases[1:])
    label.write_bytes(b"")
    assert digest_of(dataset.cases) != before
