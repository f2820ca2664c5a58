"""One case of the phantom: its request, its random streams, its voxels, and the request read from its metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from helpers.cohorts import metadata_of
from hypothesis import given
from hypothesis import strategies as st
from phantom import VERSION, probes
from phantom.case import PATTERNS, STREAMS, PhantomCase, Request, draw_patient, make_case, request_of
from phantom.grid import MATRICES, SCALES, Frame
from phantom.thrombus import REGIONS
from scipy.ndimage import binary_dilation


@pytest.fixture(scope="module")
def both() -> PhantomCase:
    """A tiny patient with clot in both regions."""
    return make_case(Request("tiny", 2, 4, "both"))


# ---- requests and streams --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": "huge"}, "scale is one of tiny, small, half, paper, not 'huge'"),
        ({"pattern": "none"}, "pattern is one of proximal, both, distal, not 'none'"),
        ({"difficulty": "fair"}, "difficulty is one of easy, default, hard, noiseless, not 'fair'"),
        ({"matrix": "wide"}, "matrix is one of standard, short, narrow, fine, not 'wide'"),
        ({"seed": -1}, "seed is 0 or more and index 1 or more, not -1 and 1"),
        ({"index": 0}, "seed is 0 or more and index 1 or more, not 0 and 0"),
    ],
)
def test_an_invalid_request_names_its_error(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        Request(**{"scale": "tiny", "seed": 0, "index": 1, "pattern": "both", **wrong})
    assert str(refusal.value) == message


def test_streams_are_independent_of_one_another() -> None:
    request = Request("tiny", 0, 1, "both")
    first = {stream: request.rng(stream).random() for stream in STREAMS}
    assert len(set(first.values())) == len(STREAMS)
    assert first == {stream: request.rng(stream).random() for stream in reversed(STREAMS)}
    for other in (replace(request, seed=1), replace(request, index=2)):
        assert all(other.rng(stream).random() != first[stream] for stream in STREAMS)


@pytest.mark.parametrize(
    "change",
    [{"pattern": "distal"}, {"difficulty": "hard"}, {"thrombus": False}, {"oedema": False}, {"bilateral": True}],
)
def test_options_do_not_change_the_patient(change: dict) -> None:
    request = Request("tiny", 5, 1, "proximal")
    one, other = (draw_patient(r) for r in (request, replace(request, **change)))
    assert one.anatomy.limbs == other.anatomy.limbs and one.anatomy.fat_mm == other.anatomy.fat_mm
    for limb, veins in one.anatomy.veins.items():
        for name, tube in veins.items():
            assert np.array_equal(tube.points, other.anatomy.veins[limb][name].points)
    assert one.scan.flares == other.scan.flares and one.scan.blend_rows == other.scan.blend_rows


def test_a_seed_gives_the_same_patient_at_every_scale() -> None:
    for index in range(1, 13):
        tiny, small = (draw_patient(Request(scale, 0, index, "both")) for scale in ("tiny", "small"))
        assert tiny.anatomy.limbs == small.anatomy.limbs and tiny.anatomy.fat_mm == small.anatomy.fat_mm
        # A gap may need a little more length than the coarser sampling of a vein leaves.
        assert {str(v) for c in tiny.clots for v in c.vein} == {str(v) for c in small.clots for v in c.vein}


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_patient_may_be_scanned_with_another_matrix(matrix: str) -> None:
    patient = draw_patient(Request("tiny", 5, 1, "both", matrix=matrix))
    assert patient.frame.shape == Frame.of(SCALES["tiny"], matrix).shape
    assert patient.scan.stations[-1].rows[1] == patient.frame.shape[1]
    assert {clot.region for clot in patient.clots} == {"proximal", "distal"}


# ---- one case --------------------------------------------------------------------------------------


def test_equal_requests_give_equal_cases_and_others_differ(both: PhantomCase) -> None:
    request = Request("tiny", 2, 4, "both")
    again = make_case(request)
    for kind in ("image", "label", "truth", "veins"):
        assert np.array_equal(getattr(both, kind), getattr(again, kind))
    assert both.metadata == again.metadata
    for other in (replace(request, seed=3), replace(request, index=5)):
        case = make_case(other, diagnostics=False)
        assert not np.array_equal(case.image, both.image) and not np.array_equal(case.label, both.label)


def test_a_case_without_diagnostics_has_the_same_image_and_label(both: PhantomCase) -> None:
    plain = make_case(Request("tiny", 2, 4, "both"), diagnostics=False)
    assert plain.truth is None and plain.veins is None
    assert np.array_equal(plain.image, both.image) and np.array_equal(plain.label, both.label)
    assert plain.metadata == both.metadata


def test_truth_lies_in_clotted_veins_and_near_the_label(both: PhantomCase) -> None:
    assert both.truth is not None and both.veins is not None
    regions = {entry["id"]: entry["region"] for entry in both.metadata["vein_ids"]}
    names = {entry["id"]: (entry["limb"], entry["vein"]) for entry in both.metadata["vein_ids"]}
    clotted = {(lesion["limb"], vein) for lesion in both.metadata["lesions"] for vein in lesion["veins"]}
    for region, value in REGIONS.items():
        found = both.veins[both.truth == value]
        # Where two veins touch, the one that is painted last has the voxel.
        assert np.mean([regions.get(int(number)) == region for number in found]) > 0.95
        assert np.mean([names.get(int(number)) in clotted for number in found]) > 0.95
    assert np.all(binary_dilation(both.truth > 0, iterations=2)[both.label > 0])


def test_lesions_have_the_volume_of_the_truth(both: PhantomCase) -> None:
    assert both.truth is not None
    voxel_ml = float(np.prod(both.spacing_mm)) / 1000
    for region, value in REGIONS.items():
        volumes = [lesion["volume_ml"] for lesion in both.metadata["lesions"] if lesion["region"] == region]
        assert sum(volumes) == pytest.approx(np.count_nonzero(both.truth == value) * voxel_ml, rel=0.02)


def test_a_bilateral_patient_has_a_lesion_in_each_limb() -> None:
    case = make_case(Request("tiny", 0, 3, "proximal", bilateral=True))
    assert [(lesion["region"], lesion["limb"]) for lesion in case.metadata["lesions"]] == [
        ("proximal", "right"),
        ("proximal", "left"),
    ]
    middle = case.metadata["midline_column"]
    assert case.label[:, :, :middle].any() and case.label[:, :, middle + 1 :].any()
    assert set(np.unique(case.label)) == {0, 1}


def test_small_scale_has_its_shape_and_both_regions() -> None:
    case = make_case(Request("small", 0, 1, "both"))
    assert case.truth is not None and case.veins is not None
    assert case.image.shape == case.label.shape == case.truth.shape == case.veins.shape == (32, 321, 121)
    assert (case.image.dtype, case.label.dtype, case.truth.dtype) == (np.int16, np.uint8, np.uint8)
    assert set(np.unique(case.label)) == set(np.unique(case.truth)) == {0, 1, 2}
    # Two raters of .25 pixels, here coarser: nearer to the truth than a pixel (see docs/phantom.md, row 5).
    assert probes.dice(case.truth > 0, case.label > 0) > 0.8
    # Venous blood at 1 mM is about 400 and muscle a third of it; the coils' gains do not change that much.
    other = {"left": "right", "right": "left"}[case.metadata["lesions"][0]["limb"]]
    groin = next(e["id"] for e in case.metadata["vein_ids"] if (e["limb"], e["vein"]) == (other, "EIV"))
    assert 250 < np.median(case.image[case.veins == groin]) < 600


def test_harder_cases_are_noisier_in_air() -> None:
    spread = []
    for difficulty in ("easy", "default", "hard"):
        case = make_case(Request("tiny", 0, 1, "both", difficulty), diagnostics=False)
        stations = case.metadata["stations"]
        spread.append(case.image[:, -6:].std() / stations[-1]["gain"])
    # Below the soles there is nothing but noise: sqrt(2 - pi / 2) * 400 * (.025, .04, .05).
    assert spread == pytest.approx(0.655 * 400 * np.array([0.025, 0.04, 0.05]), rel=0.1)


# ---- requests from metadata ------------------------------------------------------------------------


@given(
    st.builds(
        Request,
        st.sampled_from(sorted(SCALES)),
        st.integers(0, 2**40),
        st.integers(1, 1000),
        st.sampled_from(sorted(PATTERNS)),
        st.sampled_from(("easy", "default", "hard")),
        st.booleans(),
        st.sampled_from(sorted(MATRICES)),
        st.booleans(),
        st.booleans(),
    )
)
def test_a_request_comes_back_from_the_metadata(request_: Request) -> None:
    metadata = {"case": request_.name, "version": VERSION, **asdict(request_), "sex": "F"}
    assert request_of(json.loads(json.dumps(metadata))) == request_


def test_metadata_of_another_version_or_without_a_field_is_refused(cohort: Path) -> None:
    metadata = metadata_of(cohort, "leg_001")
    with pytest.raises(ValueError, match=r"version 0\.9 of the generator, not .*; make it again"):
        request_of({**metadata, "version": "0.9"})
    with pytest.raises(ValueError, match="version None"):
        request_of({})
    del metadata["oedema"]
    with pytest.raises(ValueError, match="'oedema' is missing; make it again"):
        request_of(metadata)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"index": 2.0}, "index is 2.0, expected a whole number"),
        ({"seed": "x"}, "seed is 'x', expected a whole number"),
        ({"seed": True}, "seed is True, expected a whole number"),
        ({"scale": ["tiny"]}, r"scale is \['tiny'\], expected text"),
        ({"oedema": None}, "oedema is None, expected true or false"),
        ({"seed": -1}, "seed is 0 or more"),
        ({"scale": "huge"}, "scale is one of tiny, "),
    ],
)
def test_invalid_metadata_are_refused_with_a_reason(cohort: Path, changes: dict, found: str) -> None:
    with pytest.raises(ValueError, match=f"^{found}.*; make it again$"):
        request_of(metadata_of(cohort, "leg_001") | changes)
