"""Whether the slices of a plan may be mirrored, and which labels that exchanges."""

from __future__ import annotations

from dvtplan.planning import label_sides
from dvtplan.planning.plan import Plan


def mirrored_labels(plan: Plan) -> dict[str, str] | None:
    """Return the labels that a mirrored slice exchanges, left -> right and the reverse; None: it is no valid image.

    Slices may be mirrored if labels name a side and each has a counterpart, or if none names a side and variants of
    the plan are mirrored.
    """
    labels = list(plan.labels)
    if label_sides.named_sides(labels):
        return (label_sides.counterparts(labels) if plan.slice_axis != "LR" else {}) or None
    return {} if any(variant.mirror for variant in plan.variants) else None
