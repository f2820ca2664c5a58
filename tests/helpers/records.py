"""Records with plausible content."""

from __future__ import annotations

from dvtplan.imaging.normalize import Normalization
from dvtplan.planning.plan import Plan, Variant

STILL = Variant(angle_deg=0.0, scale=1.0, mirror=False)

PLAN = Plan(
    dataset="DVT",
    preset="auto",
    slice_axis="AP",
    target_shape=(960, 320),
    normalization=Normalization(scope="slice"),
    variants=(STILL,),
    channels=("MR",),
    labels={"proximal": 1, "distal": 2},
    because={},
    fingerprint_digest="0" * 64,
)
