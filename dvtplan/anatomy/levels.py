"""Levels: the boundary between proximal and distal in each limb."""

from __future__ import annotations

from dataclasses import dataclass

from dvtplan.core.errors import require

ALL = "all"
"""Name of the region of all thrombus, which is always scored."""

PROXIMAL_DISTAL = ("proximal", "distal")
"""Regions above and below a level, with the numbers 1 and 2."""

LIMBS = ("left", "right")

UNASSIGNED = 255
"""Value of a mask voxel that counts in 'all' but in no region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """LPS z in mm at which proximal ends and distal begins in each limb (superior is larger).

    Patient coordinates stay valid after any resize. If only one limb's level is known, it holds for the whole volume.
    """

    left_mm: float | None = None
    right_mm: float | None = None
    midline_mm: float | None = None
    """LPS x between the legs; None for the middle of the volume."""

    def __post_init__(self) -> None:
        require(self.left_mm is not None or self.right_mm is not None, "levels without any limb")

    def outside(self, low_mm: float, high_mm: float) -> tuple[str, ...]:
        """Return the limbs whose own level lies outside a range of LPS z."""
        own = {"left": self.left_mm, "right": self.right_mm}
        return tuple(limb for limb, level in own.items() if level is not None and not low_mm <= level <= high_mm)

    @property
    def both_mm(self) -> tuple[float, float]:
        """Levels of the left and the right limb; one known level holds for both."""
        known = [level for level in (self.left_mm, self.right_mm) if level is not None]
        return known[0], known[-1]
