"""What all runs of an ablation share, and the test patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compare.settings import Conditions

from dvtplan.core import digests
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data.dataset import Case, Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationConditions(Conditions):
    """The conditions that all runs share: ``settings.json``."""

    jobs: int
    """Runs at the same time, each on a core of its own."""
    test: str
    """Data set whose patients are the test patients; that of the training: those of the fold."""
    test_digest: str
    """SHA-256 over images and true masks of the test patients."""
    values: str
    """How predicted values are read: 'lesion' (every value above 0) or 'labels'."""
    phantom: bool
    """Whether the test patients are phantoms."""


def digest_of(cases: Sequence[Case]) -> str:
    """Return the digest of images and true masks."""
    return digests.files_digest([path for case in cases for path in _files(case)])


def require_comparable(dataset: Dataset, test: Dataset) -> None:
    """Refuse a data set for testing that has other channels or labels, or files of the training.

    Raises:
        DvtError: names what is wrong.
    """
    for name in ("channels", "labels"):
        wanted, found = getattr(dataset, name), getattr(test, name)
        if wanted != found:
            raise DvtError(
                f"--test {test.name}: its {name} are {shorten_list(list(found))}, those of {dataset.name} are "
                f"{shorten_list(list(wanted))}. Choose a data set with the same {name}."
            )
    sizes: dict[int, list[Path]] = {}
    for case in dataset.cases:
        sizes.setdefault(case.images[0].stat().st_size, []).append(case.images[0])
    for case in test.cases:
        image = case.images[0]
        alike = sizes.get(image.stat().st_size, [])
        if alike and digests.sha256(image) in {digests.sha256(other) for other in alike}:
            raise DvtError(
                f"{image}: is also a scan of {dataset.name}, so it cannot test. Choose other patients, such as a "
                "phantom cohort with another --seed."
            )


def _files(case: Case) -> list[Path]:
    return [*case.images, *([] if case.label is None else [case.label])]
