"""Whether a data set, or a model trained on it, is of phantoms: computed images of no patient."""

from __future__ import annotations


def is_phantom(dataset: str, *, description: str | None = None, recorded: bool | None = None) -> bool | None:
    """Decide whether a data set holds phantoms.

    Args:
        dataset: its name.
        description: the description in its dataset.json; None: not available.
        recorded: what a record of the data set says; None: unknown.

    Returns:
        The description decides, then the record. Without both, a name with the word phantom means True, and any other
        name None (unknown).
    """
    if description is not None:
        return description.lower().startswith("synthetic")
    if recorded is not None:
        return recorded
    return True if "phantom" in dataset.lower() else None
