"""Whether the slices of a plan may be mirrored, and which labels that exchanges."""

from __future__ import annotations

from dvtplan.planning import label_sides
from dvtplan.planning.plan import Plan


def mirrored_labels(plan: Plan) -> dict[str, str] | None:
    """Return the labels that a mirrored slice exchanges, left -> right and the reverse; None: it is no valid image.

    Slices may be mirrored if variants of the plan are. They may also be if labels name a side and each has a
    counterpart.
    """
    if any(variant.mirror for variant in plan.variants):
        return {}
    return (label_sides.counterparts(list(plan.labels)) if plan.slice_axis != "LR" else {}) or None
