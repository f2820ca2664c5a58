"""Centres of a phantom cohort: which cases they have, and how their scans differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.cohorts import metadata_of, table, volume
from helpers.processes import tree
from phantom.case import PATTERNS, Request, draw_patient, make_case, request_of
from phantom.centres import CENTRES, NO_CENTRE, scanned_at
from phantom.cohort import Design, make_cohort
from phantom.difficulty import DIFFICULTIES
from phantom.grid import HALF_FIELD_MM, MATRICES, SCALES, Frame

REQUEST = Request("tiny", 2, 4, "both")


# --- scanners -------------------------------------------------------------------------------------


def test_centre_1_is_the_scanner_of_a_cohort_without_centres() -> None:
    plain, first = (make_case(replace(REQUEST, centre=number), diagnostics=False) for number in (NO_CENTRE, 1))
    assert np.array_equal(plain.image, first.image) and np.array_equal(plain.label, first.label)
    assert first.metadata == {**plain.metadata, "centre": 1} and "centre" not in plain.metadata
    for name, difficulty in DIFFICULTIES.items():
        assert scanned_at(1, difficulty) == difficulty, name


@pytest.mark.parametrize("number", range(2, len(CENTRES) + 1))
def test_another_centre_scans_the_same_patient_otherwise(number: int) -> None:
    here, there = (draw_patient(replace(REQUEST, centre=n)) for n in (1, number))
    assert [(clot.limb, clot.region, clot.age) for clot in here.clots] == [
        (clot.limb, clot.region, clot.age) for clot in there.clots
    ]
    assert here.anatomy.knee_mm("left") == there.anatomy.knee_mm("left")
    assert here.frame.shape != there.frame.shape
    factors = np.divide(there.frame.spacing_mm, here.frame.spacing_mm)
    assert factors == pytest.approx(CENTRES[number - 1].voxel)
    gains = [[station.gain - 1 for station in patient.scan.stations] for patient in (here, there)]
    assert gains[1] == pytest.approx(np.multiply(gains[0], CENTRES[number - 1].gain))


def test_ranges_of_a_difficulty_follow_the_factors() -> None:
    made, factors = scanned_at(3, DIFFICULTIES["default"]), CENTRES[2]
    assert made.noise == pytest.approx(0.04 * factors.noise)
    assert made.calf_mM == pytest.approx((0.6 * factors.calf, 1.0 * factors.calf))
    assert made.station_gain == pytest.approx((1 - 0.15 * factors.gain, 1 + 0.15 * factors.gain))
    assert made.unfilled == DIFFICULTIES["default"].unfilled


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("matrix", MATRICES)
def test_the_field_of_view_stays(scale: str, matrix: str) -> None:
    plain = Frame.of(SCALES[scale], matrix)
    for here in CENTRES:
        frame = Frame.of(SCALES[scale], matrix, here.voxel)
        for axis, before, half_mm, mm in zip(
            (frame.y, frame.z, frame.x), (plain.y, plain.z, plain.x), HALF_FIELD_MM, frame.spacing_mm, strict=True
        ):
            assert np.abs(axis).max() <= half_mm
            assert abs(len(axis) * mm - len(before) * abs(before[1] - before[0])) < mm


def test_an_unknown_centre_is_refused() -> None:
    for wrong in (-1, len(CENTRES) + 1):
        with pytest.raises(ValueError, match="centre is 0"):
            replace(REQUEST, centre=wrong)
        with pytest.raises(ValueError, match="centres is 1"):
            Design(centres=wrong)


# --- a cohort -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cases", [8, 58, 61])
def test_every_centre_has_its_share_of_the_cases_and_of_each_pattern(cases: int) -> None:
    requests = Design(cases=cases, centres=3).requests()
    assert all(abs(n - cases / 3) < 1 for n in Counter(r.centre for r in requests).values())
    for pattern in PATTERNS:
        shares = Counter(r.centre for r in requests if r.pattern == pattern)
        assert max(shares.values()) - min(shares.get(c, 0) for c in (1, 2, 3)) <= 1
    without = Design(cases=cases).requests()
    assert [replace(r, centre=NO_CENTRE) for r in requests] == without


def test_the_centre_is_in_the_table_and_in_the_metadata_which_make_the_case_again(tmp_path: Path) -> None:
    folder = make_cohort(tmp_path, Design(cases=3, centres=3))
    rows = table(folder)
    assert sorted(row["centre"] for row in rows) == ["1", "2", "3"]
    for row in rows:
        metadata = metadata_of(folder, row["case_id"])
        assert str(metadata["centre"]) == row["centre"]
        image = volume(folder, row["case_id"], "imagesTr")
        assert image.GetSize()[::-1] == make_case(request_of(metadata), diagnostics=False).image.shape
    assert len({volume(folder, row["case_id"]).GetSize() for row in rows}) == 3
    assert "3 centres" in (folder / "dataset.json").read_text()


def test_one_centre_writes_the_files_of_a_cohort_without_centres(tmp_path: Path) -> None:
    one, plain = (make_cohort(tmp_path / name, design) for name, design in
                  (("one", Design(cases=1, centres=1)), ("plain", Design(cases=1))))  # fmt: skip
    assert tree(one) == tree(plain)
    assert "centre" not in (plain / "cases.csv").read_text() + (plain / "metadata" / "leg_001.json").read_text()


@pytest.mark.parametrize("wrong", ["2", 9, True])
def test_a_wrong_centre_in_the_metadata_is_refused(wrong: object) -> None:
    metadata = {**make_case(REQUEST, diagnostics=False).metadata, "centre": wrong}
    with pytest.raises(ValueError, match="centre"):
        request_of(metadata)
