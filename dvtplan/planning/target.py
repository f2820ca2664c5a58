"""Whether a network predicts the union of all labels, or each label."""

from __future__ import annotations

from collections.abc import Collection


def predicts_union(target: str, labels: Collection[str]) -> bool:
    """Return whether a recipe's ``target`` means the union of labels.

    'auto' means it for a single label, and for proximal and distal, which differ by place and not by appearance.
    """
    if target == "auto":
        return len(labels) == 1 or set(labels) == {"proximal", "distal"}
    return target == "lesion"
