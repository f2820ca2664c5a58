"""Options of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dvtplan.core.errors import DvtError, require_whole
from dvtplan.evaluation import surface_distance

REGION_RULES = ("auto", "by-label", "level")
"""Choices of ``region_rule``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """How masks are scored.

    Raises:
        DvtError: for an unknown rule or a tolerance below 0.
    """

    split: tuple[str, ...] | None = None
    """Regions to report; None: all regions that labels and levels allow."""
    region_rule: str = "auto"
    """One of ``REGION_RULES``. 'auto' is 'by-label' where the labels name the regions, else 'level'."""
    jobs: int | None = None
    """Processes; None: one, or one per core for large data."""
    tolerance_mm: float = surface_distance.TOLERANCE_MM
    """Of surface Dice."""
    level_sensitivity: bool = False
    """Also score with all levels moved up and down, and write level_sensitivity.csv."""
    estimate_levels: bool = False
    """Use the level estimated from the image where cases.csv has none. Always true where the rule needs levels, or
    levels are moved."""
    by: str | None = None
    """Column of cases.csv that groups the patients, such as centre: Table 1 per group, with a test of the
    difference."""
    trust: str | None = None
    """'sform' or 'qform': read NIfTI headers that contradict themselves by this form; None: refuse them, but those of a
    planned data set are read as in its plan."""

    def __post_init__(self) -> None:
        require_whole("jobs", self.jobs, 1, optional=True)
        require_choice("region_rule", self.region_rule, REGION_RULES)
        if not (math.isfinite(self.tolerance_mm) and self.tolerance_mm >= 0):
            raise DvtError(f"tolerance_mm {self.tolerance_mm}: expected 0 or more. Give a distance in mm.")


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse the value of a parameter that is not among its choices."""
    if value not in choices:
        raise DvtError(f"`{name}={value}`: not a valid choice. Choose from {', '.join(choices)}.")


DEFAULTS = EvaluationOptions()
