"""Labels that belong to one side of the body."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import TINY_SHAPE, TINY_SPACING
from helpers.preparation import edit_plan, run, tiny_workspace
from helpers.volumes import write_volume

from dvtplan.data.paths import Workspace
from dvtplan.imaging.geometry import AXES
from dvtplan.planning.fingerprint import CaseFingerprint, ChannelFingerprint, Fingerprint, RegionFingerprint
from dvtplan.planning.label_sides import located_sides, named_sides
from dvtplan.planning.plan_rules import derive

# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        ("LeftLeg", "RightLeg"),
        ("DVTleft", "DVTright"),
        ("dvtleft", "dvtright"),
        ("leg_L", "leg_R"),
        ("legL",),
        ("LVein",),
        ("Lleg", "Rleg"),
        ("LFV", "RFV"),
        ("LEFT", "RIGHT"),
        ("links", "rechts"),
        ("linkesBein", "rechtesBein"),
        ("Thrombus li", "Thrombus re"),
        ("DVTli", "DVTre"),
        ("V. femoralis re.",),
        ("gauche", "droite"),
        ("jambeGauche", "jambeDroite"),
        ("veine_g", "veine_d"),
        ("sinistra", "destra"),
        ("vena sx", "vena dx"),
        ("femoralis sin", "femoralis dex"),
        ("izquierda", "derecha"),
        ("pierna izq", "pierna der"),
        ("esquerda", "direita"),
        ("vänster", "höger"),
        ("va\u0308nster", "ho\u0308ger"),
        ("venstre", "højre"),
        ("левая нога", "правая нога"),
        ("左脚", "右脚"),
        ("trái", "phải"),
        ("الساق اليسرى", "الساق اليمنى"),
        ("linkerbeen", "rechterbeen"),
        ("noha vlevo", "noha vpravo"),
        ("dvt.LT", "dvt.RT"),
        ("leg1left",),
    ],
)
def test_names_of_sides(labels: tuple[str, ...]) -> None:
    assert named_sides(("thrombus", *labels)) == list(labels)


@pytest.mark.parametrize(
    "labels",
    [
        ("proximal", "distal"),
        ("superficial_vein", "deep_vein"),
        ("vein_s", "vein_d"),
        ("re-thrombosis", "recanalised", "residual"),
        ("thrombus", "rethrombosis"),
        ("leftover", "left_over", "LeftOver"),
        ("upright", "cleft", "bright"),
        ("calf", "thigh", "pelvis"),
        ("DVT", "PVT", "IVC"),
        ("DVT1", "DVT2"),
        ("order", "lesion"),
        ("sin_trombo",),
        ("soleal", "popliteal", "external", "internal"),
    ],
)
def test_names_without_a_side(labels: tuple[str, ...]) -> None:
    assert named_sides(labels) == []


# --- places ---------------------------------------------------------------------------------------


def fingerprint(*cases: dict[str, float]) -> Fingerprint:
    """Cases by label -> share of its voxels on the left; a label that a case lacks has no voxels."""
    labels = sorted({label for case in cases for label in case})
    channel = ChannelFingerprint(
        minimum=0.0, low=10.0, high=990.0, maximum=1000.0, slice_maximum_spread=dict.fromkeys(AXES, 1.0)
    )
    found = [
        CaseFingerprint(
            id=f"c{k}",
            patient=f"c{k}",
            shape={"LR": 345, "AP": 93, "SI": 961},
            spacing_mm=dict.fromkeys(AXES, 1.4),
            orientation="LPS",
            channels=(channel,),
            positive_slices=dict.fromkeys(AXES, 1),
            regions={
                label: RegionFingerprint(voxels=100 * (label in case), ml=1.0, components=1, left_share=case.get(label))
                for label in labels
            },
            source_digest="",
        )
        for k, case in enumerate(cases)
    ]
    names = {label: value for value, label in enumerate(labels, start=1)}
    return Fingerprint(dataset="DVT", channels=("MR",), labels=names, cases=tuple(found))


SIDED = ({"a": 1.0, "b": 0.0}, {"a": 0.95}, {"a": 1.0, "b": 0.1}, {"b": 0.02})


def test_labels_that_lie_on_one_side_each_forbid_the_mirror_and_the_plan_says_why() -> None:
    plan = derive(fingerprint(*SIDED))
    assert not any(variant.mirror for variant in plan.variants)
    assert "one side" in plan.because["variants"] and "left: a; right: b" in plan.because["variants"]


@pytest.mark.parametrize(
    "cases",
    [
        SIDED[:2],  # too few cases
        ({**{f"v{k}": 1.0 for k in range(4)}, **{f"w{k}": 0.0 for k in range(4)}},) * 2,
        (*SIDED, {"a": 0.4}),  # a lies in the middle of one
        ({"a": 1.0, "b": 1.0},) * 5,  # on one side only, as in a data set of left legs
        ({"a": 1.0, "b": 0.5},) * 5,
        ({"a": 1.0},) * 5,
        # Ten labels of three cases each: some pair is apart by chance in every other data set.
        tuple({"a": 1.0, "b": 0.0, **{f"v{k}": float(case % 2) for k in range(8)}} for case in range(3)),
    ],
)
def test_labels_that_may_be_apart_by_chance_keep_the_mirror(cases: tuple[dict[str, float], ...]) -> None:
    data = fingerprint(*cases)
    assert located_sides(tuple(data.labels), data.cases) == ([], [])
    assert any(variant.mirror for variant in derive(data).variants)


def test_many_labels_of_two_legs_are_found_in_three_cases() -> None:
    legs = {**{f"v{k}": 1.0 for k in range(4)}, **{f"w{k}": 0.0 for k in range(4)}}
    data = fingerprint(legs, legs, legs)
    assert located_sides(tuple(data.labels), data.cases) == (["v0", "v1", "v2", "v3"], ["w0", "w1", "w2", "w3"])


def test_a_plan_without_sides_is_the_same_as_before_places_were_measured() -> None:
    now = fingerprint({"a": 0.3, "b": 0.8}, {"a": 1.0}, {"a": 0.0, "b": 1.0})
    regions = [{name: replace(r, left_share=None) for name, r in case.regions.items()} for case in now.cases]
    before = replace(now, cases=tuple(replace(case, regions=r) for case, r in zip(now.cases, regions, strict=True)))
    assert derive(now) == derive(before)  # its digest of the fingerprint, too


# --- from files -----------------------------------------------------------------------------------


@pytest.fixture
def legs(tmp_path: Path) -> Workspace:
    """Four cases with the labels one (patient's right) and two (left), whose names show no side."""
    place = tiny_workspace(tmp_path, labels={"one": 1, "two": 2})
    for number, path in enumerate(sorted((place.raw / "labelsTr").iterdir())):
        label = np.zeros(TINY_SHAPE, np.uint8)
        label[4:6, :2, 2 + number % 2] = 1
        label[4:6, :2, 14 + number % 2] = 2
        write_volume(path, label, TINY_SPACING)
    return place


def test_places_are_measured_in_the_files(legs: Workspace) -> None:
    made = run(legs.root)
    assert not any(variant.mirror for variant in made.plan.variants)
    assert re.search(r"left: two; right: one", made.plan.because["variants"])
    assert made.warnings == ()


def test_a_plan_that_mirrors_sides_nevertheless_is_a_warning(legs: Workspace) -> None:
    paper = run(legs.root, preset="paper")
    assert any(variant.mirror for variant in paper.plan.variants)
    assert "left: two" in paper.plan.because["variants"]
    assert any("mirror left and right" in warning for warning in paper.warnings)
    run(legs.root, replan=True)
    edit_plan(legs, variants=[{"angle_deg": 0, "scale": 1, "mirror": True}])
    assert any("mirror left and right" in warning and "`replan=True`" in warning for warning in run(legs.root).warnings)
