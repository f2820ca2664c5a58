"""The plan rules: each decision with the numbers that give it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.imaging.geometry import AXES
from dvtplan.imaging.normalize import Normalization
from dvtplan.planning.cost import training_bytes, training_flop
from dvtplan.planning.fingerprint import CaseFingerprint, ChannelFingerprint, Fingerprint
from dvtplan.planning.plan import Plan, Variant, differences, preprocessing_digest
from dvtplan.planning.plan_rules import (
    FLOOR_LOSS,
    PAPER_SHAPE,
    derive,
    normalization,
    slice_axis,
    target_shape,
    twelve_variants,
    variants,
)

TIGHT = ChannelFingerprint(
    minimum=0.0, low=10.0, high=990.0, maximum=1000.0, slice_maximum_spread=dict.fromkeys(AXES, 1.0)
)
"""The outer 1 % of voxels take 2 % of the range, and all slices are equally bright."""


def case(
    lr: int = 345,
    ap: int = 93,
    si: int = 961,
    *,
    name: str = "a",
    spacing: tuple[float, float, float] = (1.45, 1.25, 1.45),
    channel: ChannelFingerprint = TIGHT,
) -> CaseFingerprint:
    """A case by its axes left-right, front-back, head-foot; the paper's by default."""
    return CaseFingerprint(
        id=name,
        patient=name,
        shape={"LR": lr, "AP": ap, "SI": si},
        spacing_mm=dict(zip(AXES, spacing, strict=True)),
        orientation="LPS",
        channels=(channel,),
        positive_slices=dict.fromkeys(AXES, 1),
        regions={},
        source_digest="",
    )


def of(*cases: CaseFingerprint, labels: tuple[str, ...] = ("thrombus",)) -> Fingerprint:
    return Fingerprint(dataset="DVT", channels=("MR",), labels={n: i for i, n in enumerate(labels, 1)}, cases=cases)


PAPER = of(case())


# --- slice axis -----------------------------------------------------------------------------------


def test_the_papers_volumes_are_cut_into_coronal_slices() -> None:
    axis, why = slice_axis(PAPER)
    assert axis == "AP"
    assert why == "AP has the fewest voxels (median over 1 cases: AP 93, SI 961, LR 345)."


@pytest.mark.parametrize(("shape", "axis"), [((10, 93, 93), "LR"), ((93, 93, 10), "SI"), ((93, 10, 93), "AP")])
def test_the_axis_with_the_fewest_voxels_counts_slices(shape: tuple[int, int, int], axis: str) -> None:
    assert slice_axis(of(case(*shape)))[0] == axis


def test_the_median_case_decides_and_not_an_odd_one() -> None:
    cases = [case(40, 10, 40, name="a"), case(40, 12, 40, name="b"), case(5, 90, 40, name="c")]
    assert slice_axis(of(*cases))[0] == "AP"


def test_equal_counts_go_to_the_larger_spacing_then_to_coronal() -> None:
    assert slice_axis(of(case(20, 20, 20, spacing=(1.0, 1.0, 3.0))))[0] == "SI"
    assert slice_axis(of(case(20, 20, 20, spacing=(3.0, 1.0, 1.0))))[0] == "LR"
    assert slice_axis(of(case(20, 20, 20, spacing=(1.0, 1.0, 1.0))))[0] == "AP"


# --- target shape ---------------------------------------------------------------------------------


def test_961_by_345_gives_960_by_320() -> None:
    shape, why = target_shape(PAPER, "AP")
    assert shape == (960, 320) == PAPER_SHAPE
    assert "961x345" in why
    assert "960x320" in why


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (1, 32),
        (31, 32),
        (32, 32),
        (35, 32),  # 3/35 = 8.6 % lost
        (36, 64),  # 4/36 = 11.1 % would be lost
        (50, 64),
        (64, 64),
        (71, 64),  # 7/71 = 9.9 %
        (72, 96),  # 8/72 = 11.1 %
        (345, 320),  # 25/345 = 7.2 %
        (351, 320),  # 31/351 = 8.8 %: beyond 320 no floor loses a tenth
    ],
)
def test_an_axis_is_floored_unless_that_loses_over_a_tenth(length: int, expected: int) -> None:
    assert target_shape(of(case(length, 1, 961)), "AP")[0] == (960, expected)


@given(st.integers(1, 4000))
def test_a_target_is_a_multiple_of_32_that_loses_at_most_a_tenth(length: int) -> None:
    (_, columns), _ = target_shape(of(case(length, 1, 961)), "AP")
    assert columns % 32 == 0
    assert columns >= length * (1 - FLOOR_LOSS)
    assert columns < length + 32


@pytest.mark.parametrize(("axis", "expected"), [("AP", (64, 32)), ("SI", (96, 32)), ("LR", (64, 96))])
def test_rows_and_columns_are_those_of_the_film(axis: str, expected: tuple[int, int]) -> None:
    assert target_shape(of(case(lr=32, ap=96, si=64)), axis)[0] == expected


def test_the_median_of_an_even_number_of_cases_may_be_a_half() -> None:
    shape, why = target_shape(of(case(32, name="a"), case(33, name="b")), "AP")
    assert shape == (960, 32)
    assert "961x32.5" in why


# --- normalization --------------------------------------------------------------------------------


def spread(by: float) -> ChannelFingerprint:
    return replace(TIGHT, slice_maximum_spread={**TIGHT.slice_maximum_spread, "AP": by})


@pytest.mark.parametrize(("by", "scope"), [(1.0, "slice"), (1.25, "slice"), (1.26, "volume"), (90.0, "volume")])
def test_slices_of_different_brightness_are_scaled_by_volume(by: float, scope: str) -> None:
    how, why = normalization(of(case(channel=spread(by))), "AP")
    assert how.scope == scope
    assert f"{by:.2f}-fold" in why
    assert f"{'above' if scope == 'volume' else 'not above'} 1.25: scale by {scope}." in why


def test_only_the_slice_axis_counts() -> None:
    assert normalization(of(case(channel=spread(90.0))), "SI")[0].scope == "slice"


@pytest.mark.parametrize(("high", "clipped"), [(990.0, False), (760.0, False), (759.0, True), (100.0, True)])
def test_few_bright_voxels_that_take_a_quarter_of_the_range_are_clipped(high: float, clipped: bool) -> None:
    # Low is 10 of 1000, so 760 leaves 1 - 750/1000 = 25 % outside.
    how, why = normalization(of(case(channel=replace(TIGHT, high=high))), "AP")
    assert how.clip_percentiles == ((0.5, 99.5) if clipped else None)
    assert f"{1 - (high - 10) / 1000:.0%} of the range" in why
    assert why.endswith("clip at percentiles 0.5 and 99.5." if clipped else "no clipping.")


def test_the_median_over_cases_and_channels_decides() -> None:
    bright = replace(spread(5.0), high=100.0)
    two_of_three = of(case(name="a"), case(name="b", channel=bright), case(name="c", channel=bright))
    assert normalization(two_of_three, "AP")[0] == Normalization(scope="volume", clip_percentiles=(0.5, 99.5))
    one_of_three = of(case(name="a"), case(name="b"), case(name="c", channel=bright))
    assert normalization(one_of_three, "AP")[0] == Normalization(scope="slice")


# --- variants -------------------------------------------------------------------------------------


def test_the_twelve_variants_of_the_paper() -> None:
    chosen, why = variants("AP", ("proximal", "distal"))
    assert len(chosen) == len(set(chosen)) == 12
    assert {v.angle_deg for v in chosen} == {-2.0, 0.0}
    assert {v.scale for v in chosen} == {0.9, 1.0, 1.1}
    assert {v.mirror for v in chosen} == {False, True}
    assert Variant(angle_deg=0.0, scale=1.0, mirror=False) in chosen
    assert why.endswith("12 variants.")


def test_sagittal_slices_are_not_mirrored() -> None:
    chosen, why = variants("LR", ("thrombus",))
    assert len(chosen) == 6
    assert not any(v.mirror for v in chosen)
    assert "sagittal" in why


@pytest.mark.parametrize("name", ["left", "Right leg", "femoral_l", "R-popliteal", "vein (left)", "left2"])
def test_labels_that_name_a_side_forbid_the_mirror(name: str) -> None:
    chosen, why = variants("AP", ("thrombus", name))
    assert not any(v.mirror for v in chosen)
    assert f"the labels {name} name a side" in why


@pytest.mark.parametrize("name", ["proximal", "distal", "upright", "cleft", "clot", "anterior", "popliteal"])
def test_labels_that_name_no_side_keep_it(name: str) -> None:
    assert any(v.mirror for v in variants("AP", (name,))[0])


# --- the whole plan -------------------------------------------------------------------------------


def test_a_plan_explains_every_decision_with_its_numbers() -> None:
    plan = derive(PAPER)
    assert set(plan.because) == {"slice_axis", "target_shape", "normalization", "variants"}
    for sentence in plan.because.values():
        assert sentence.endswith(".")
        assert re.search(r"\d", sentence)
    assert (plan.dataset, plan.preset, plan.channels) == ("DVT", "auto", ("MR",))


def test_the_preset_paper_is_the_paper_to_the_letter_whatever_the_data() -> None:
    odd = of(case(100, 20, 100, channel=replace(spread(90.0), high=20.0)), labels=("left", "right"))
    plan = derive(odd, "paper")
    assert plan.target_shape == (960, 320)
    assert plan.normalization == Normalization(scope="slice", clip_percentiles=None)
    assert plan.variants == twelve_variants(mirror=True)
    assert plan.preset == "paper"
    assert all("paper" in plan.because[name] for name in ("target_shape", "normalization", "variants"))


def test_the_papers_own_data_give_the_papers_plan() -> None:
    auto, paper = derive(PAPER), derive(PAPER, "paper")
    assert differences(auto, paper) == []


def test_an_unknown_preset_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="preset must be 'auto' or 'paper', not 'mine'"):
        derive(PAPER, "mine")


def test_differences_are_named_by_decision() -> None:
    plan = derive(PAPER)
    assert differences(plan, replace(plan, because={}, preset="x")) == []
    assert differences(plan, replace(plan, target_shape=(32, 32), slice_axis="SI")) == [
        "slice_axis",
        "target_shape",
    ]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"variants": twelve_variants(mirror=False)}, False),
        ({"because": {}}, False),
        ({"preset": "paper"}, False),
        ({"fingerprint_digest": ""}, False),
        ({"slice_axis": "SI"}, True),
        ({"target_shape": (960, 336)}, True),
        ({"normalization": Normalization(scope="volume")}, True),
        ({"labels": {"other": 1}}, True),
        ({"labels": {"thrombus": 2}}, True),
        ({"channels": ("MR", "T2")}, True),
    ],
)
def test_slices_are_preprocessed_again_only_when_they_would_differ(change: dict[str, object], again: bool) -> None:
    plan = derive(PAPER)
    changed: Plan = replace(plan, **change)  # type: ignore[arg-type]
    assert (preprocessing_digest(changed) != preprocessing_digest(plan)) is again


def test_costs_are_the_papers() -> None:
    plan = derive(PAPER)
    # 131 GFLOP forward, three times that a slice and epoch; 4714 slices, 250 epochs.
    assert training_flop(plan, 4714, 250) == pytest.approx(3 * 131e9 * 4714 * 250)
    assert training_bytes(plan.target_shape, 4) == 2 * training_bytes(plan.target_shape, 2)
