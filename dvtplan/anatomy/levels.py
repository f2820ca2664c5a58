"""Levels: the proximal-distal boundary of each limb."""

from __future__ import annotations

from dataclasses import dataclass

from dvtplan.core.errors import require

# --- the raw data set ---------------------------------------------------------------------------


ALL = "all"
"""All thrombus, whatever its region; always scored."""

PROXIMAL_DISTAL = ("proximal", "distal")
"""The regions that a level divides, in the order of their numbers 1 and 2."""

LIMBS = ("left", "right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Where proximal ends and distal begins in each limb, as LPS z in mm (superior is larger).

    In patient coordinates, so that it survives any resize. Where only one limb's level is known
    it holds for the whole volume.
    """

    left_mm: float | None = None
    right_mm: float | None = None
    midline_mm: float | None = None
    """LPS x between the legs; none: the middle of the volume."""

    def __post_init__(self) -> None:
        require(self.left_mm is not None or self.right_mm is not None, "levels without any limb")

    @property
    def both_mm(self) -> tuple[float, float]:
        """Left and right; one known level serves both limbs."""
        known = [level for level in (self.left_mm, self.right_mm) if level is not None]
        return known[0], known[-1]
