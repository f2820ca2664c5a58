"""Ranges of the training data: right, and of no single patient."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dvtplan.core import json_records
from dvtplan.planning import training_ranges
from dvtplan.planning.fingerprint import CaseFingerprint, ChannelFingerprint, Fingerprint, RegionFingerprint
from dvtplan.planning.training_ranges import SMALLEST_GROUP, Range, TrainingData, summarize


def case(number: int, ml: float) -> CaseFingerprint:
    """Of two cases a patient; everything counts up with the number."""
    axes = ("LR", "AP", "SI")
    return CaseFingerprint(
        id=f"secret_{number}",
        patient=f"Ms {number // 2}",
        shape={axis: 10 * k + number for k, axis in enumerate(axes, start=1)},
        spacing_mm={axis: 1.0 + number / 4 for axis in axes},
        orientation="LPS" if number else "LIP",
        channels=(
            ChannelFingerprint(
                minimum=-number, low=1, high=100, maximum=1000 + number, slice_maximum_spread=dict.fromkeys(axes, 1.5)
            ),
        ),
        positive_slices=dict.fromkeys(axes, 1),
        regions={"clot": RegionFingerprint(voxels=int(ml * 100), ml=ml, components=1)},
        source_digest=f"{number:064d}",
    )


def fingerprint(mls: list[float]) -> Fingerprint:
    cases = tuple(case(number, ml) for number, ml in enumerate(mls))
    return Fingerprint(dataset="Legs", channels=("MR",), labels={"clot": 1}, cases=cases)


def of(mls: list[float], chosen: int | None = None) -> TrainingData:
    found = fingerprint(mls)
    return summarize(found, [one.id for one in found.cases[:chosen]], phantom=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing_mm": {}}, "spacing_mm"),
        ({"view_mm": {"LR": Range(minimum=1, median=1, maximum=1)}}, "view_mm"),
        ({"thickest": {"sideways": 4}}, "thickest"),
        ({"thickest": {}}, "thickest"),
        ({"channel_names": ("MR", "CT")}, "channel"),
    ],
)
def test_ranges_that_no_data_have_are_refused(change: dict[str, object], words: str) -> None:
    """As an archive from somebody else might hold them."""
    with pytest.raises(ValueError, match=words):
        replace(of([1.0] * 4), **change)  # type: ignore[arg-type]


def test_ranges_are_over_the_cases_that_were_trained_on() -> None:
    data = of([1.0, 2.0, 4.0, 9.0], chosen=3)
    assert (data.cases, data.patients, data.orientations) == (3, 2, {"LIP": 1, "LPS": 2})
    assert data.shape["AP"] == Range(minimum=20, median=21, maximum=22)
    assert data.spacing_mm["SI"] == Range(minimum=1.0, median=1.25, maximum=1.5)
    assert data.channels[0].minimum == Range(minimum=-2, median=-1, maximum=0)
    assert data.channels[0].maximum == Range(minimum=1000, median=1001, maximum=1002)


def test_lesions_are_described_where_many_have_them_and_empty_cases_are_not_counted() -> None:
    many = of([0.0, 5.0, 1.0, 2.0, 3.0, 4.0]).labels["clot"]
    assert many.cases == SMALLEST_GROUP and many.ml == Range(minimum=1, median=3, maximum=5)
    few = of([0.0, 5.0, 1.0, 2.0, 3.0, 0.0]).labels["clot"]
    assert (few.cases, few.ml, few.components) == (SMALLEST_GROUP - 1, None, None)


def test_no_name_and_no_digest_of_a_file_is_in_it() -> None:
    text = json_records.dump(of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert not any(word in text for word in ("secret", "Ms", "0000000"))
    assert json_records.parse(TrainingData, text) == of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def test_the_order_of_cases_leaves_no_trace() -> None:
    found = fingerprint([1.0, 2.0, 4.0])
    turned = replace(found, cases=found.cases[::-1])
    names = [one.id for one in found.cases]
    assert training_ranges.summarize(found, names, None) == training_ranges.summarize(turned, names[::-1], None)


def test_a_case_without_a_fingerprint_is_a_fault() -> None:
    with pytest.raises(ValueError, match="2 cases requested, 1 of them"):
        summarize(fingerprint([1.0]), ["secret_0", "other"], None)
    with pytest.raises(ValueError, match="0 cases requested"):
        summarize(fingerprint([1.0]), [], None)
