"""Whether slices may be mirrored, and the labels that this exchanges."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.records import PLAN

from dvtplan.planning.mirroring import mirrored_labels
from dvtplan.planning.plan import Variant

MIRRORED = (Variant(angle_deg=0.0, scale=1.0, mirror=True),)


@pytest.mark.parametrize(
    ("labels", "exchanged"),
    [
        (["LeftLeg", "clot", "RightLeg"], {"LeftLeg": "RightLeg", "RightLeg": "LeftLeg"}),
        (["LFV", "RFV"], {"LFV": "RFV", "RFV": "LFV"}),
        (["jambe gauche", "jambe droite"], {"jambe gauche": "jambe droite", "jambe droite": "jambe gauche"}),
        (["left calf", "left thigh", "right calf", "right thigh"], {
            "left calf": "right calf", "right calf": "left calf", "left thigh": "right thigh",
            "right thigh": "left thigh"}),
        (["left calf", "right thigh"], None),
        (["left leg", "clot"], None),
        (["clot"], None),
    ],
)  # fmt: skip
def test_labels_with_a_side_are_exchanged_if_each_has_a_counterpart(
    labels: list[str], exchanged: dict[str, str] | None
) -> None:
    plan = replace(PLAN, labels={name: number for number, name in enumerate(labels, start=1)})
    assert mirrored_labels(plan) == exchanged
    assert mirrored_labels(replace(plan, slice_axis="LR")) is None  # columns do not run from left to right
    assert mirrored_labels(replace(plan, variants=MIRRORED)) == ({} if labels == ["clot"] else exchanged)
