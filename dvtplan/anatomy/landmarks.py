"""Landmarks of the legs in one image: knee joint lines, the levels below them, and the midline."""

from __future__ import annotations

from dataclasses import dataclass

from dvtplan.anatomy.levels import Levels

LEVEL_BELOW_KNEE_MM = 65.0
"""From the joint line down to the level. The popliteal artery divides 69 mm (28 limbs, SD 12 to 20) below the lower
edge of the femoral condyles (Barut 2009). We place that edge 4 mm above the middle of the joint. We assume that the
veins join where the artery divides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limb:
    """The landmarks of one leg."""

    knee_mm: float | None = None
    """LPS z of the knee joint line; None if it was not found."""
    sharpness: float = 0.0
    """Plate response at the joint line over the median around it. Without a joint line: of the best candidate, or 0."""
    reason: str = ""
    """Why there is no joint line; empty if there is one."""

    @property
    def level_mm(self) -> float | None:
        """LPS z where distal begins, ``LEVEL_BELOW_KNEE_MM`` below the joint line."""
        return None if self.knee_mm is None else self.knee_mm - LEVEL_BELOW_KNEE_MM


@dataclass(frozen=True, slots=True, kw_only=True)
class Landmarks:
    """The landmarks of one image."""

    left: Limb
    right: Limb
    midline_mm: float | None = None
    """LPS x between the legs, or next to a single leg; None if no leg was found."""

    @property
    def levels(self) -> Levels | None:
        """The levels of both legs; None without any joint line."""
        left, right = self.left.level_mm, self.right.level_mm
        if left is None and right is None:
            return None
        return Levels(left_mm=left, right_mm=right, midline_mm=self.midline_mm)

    @property
    def text(self) -> str:
        """The joint lines, or why they were not found, in words."""
        if self.left.reason == self.right.reason != "":
            return self.left.reason
        parts = []
        for name, limb in (("left", self.left), ("right", self.right)):
            found = limb.reason if limb.knee_mm is None else f"knee joint line at z {limb.knee_mm:.0f} mm"
            parts.append(f"{name}: {found}")
        return "; ".join(parts)
