"""Pictures and charts: the only door to matplotlib. ``encode`` and ``save`` bring a figure out of here.

No colour says anything alone: lines differ in their dashes, and the curves and boxes of a chart in line, mark or hatch.
"""

from matplotlib.figure import Figure

from dvtplan.figures.charts import bland_altman, boxes, learning_curve, learning_curves, volume_against_dsc
from dvtplan.figures.output import WIDTH_IN, encode, save, save_both
from dvtplan.figures.sheet import (
    INK,
    MM_PER_IN,
    QUIET,
    TAG_APART_MM,
    WARN_INK,
    WARN_PAPER,
    WARN_RULE,
    Panel,
    Sheet,
    Tag,
    height_mm,
    text_width_mm,
    wrap,
)
from dvtplan.figures.slices import PREDICTION_COLOUR, TRUTH_COLOUR, Line, panels, projection

__all__ = [
    "INK",
    "MM_PER_IN",
    "PREDICTION_COLOUR",
    "QUIET",
    "TAG_APART_MM",
    "TRUTH_COLOUR",
    "WARN_INK",
    "WARN_PAPER",
    "WARN_RULE",
    "WIDTH_IN",
    "Figure",
    "Line",
    "Panel",
    "Sheet",
    "Tag",
    "bland_altman",
    "boxes",
    "encode",
    "height_mm",
    "learning_curve",
    "learning_curves",
    "panels",
    "projection",
    "save",
    "save_both",
    "text_width_mm",
    "volume_against_dsc",
    "wrap",
]
