"""A page laid out in mm: text, lines, boxes, and pictures with numbered lesions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextToPath

from dvtplan.rendering.slices import PREDICTION_COLOUR, Line, View, draw_edge, paint, window_around

INK, QUIET, RULE = "#1b2026", "#4b555f", "#c3cad1"
WARN_PAPER, WARN_INK, WARN_RULE = "#fff1c9", "#4a3800", "#b98900"
"""Colours of ``html_page.STYLE``."""
MM_PER_IN = 25.4
POINT_MM = MM_PER_IN / 72
LEADING = 1.35
"""Line distance over font size."""
HINTED = 0.965
"""Hinted letters are some percent wider than their outlines."""
TAG_APART_MM = 3.6
"""Least distance of the numbers next to a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A number that points to a position in a picture."""

    text: str
    row: float
    column: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A picture with the segmented thrombus."""

    image_HW: np.ndarray
    segmented_HW: np.ndarray
    """Every non-zero value is segmented; its edge is drawn."""
    pixel_mm: tuple[float, float]
    """Height and width of a pixel."""
    sides: tuple[str, str]
    """Letters at the left and the right edge."""
    ends: tuple[str, str]
    """Letters at the upper and the lower edge."""
    lines: tuple[Line, ...] = ()
    tags: tuple[Tag, ...] = ()
    focus_HW: np.ndarray | None = None
    """Mask that the box contains; None for no box."""

    @property
    def aspect_ratio(self) -> float:
        """Height over width, in mm."""
        return float(self.image_HW.shape[0] * self.pixel_mm[0] / (self.image_HW.shape[1] * self.pixel_mm[1]))


class PageLayout:
    """A page laid out in mm from its upper left corner."""

    def __init__(self, width_mm: float, height_mm: float) -> None:
        self.width_mm, self.height_mm = width_mm, height_mm
        self.figure = Figure(figsize=(width_mm / MM_PER_IN, height_mm / MM_PER_IN), facecolor="white")

    def text(
        self, x_mm: float, y_mm: float, text: str, *, size: float = 8, bold: bool = False, colour: str = INK,
        align: str = "left",
    ) -> float:  # fmt: skip
        """Print one or several lines with the top at y; return the y below them."""
        step_mm = size * POINT_MM * LEADING
        lines = text.split("\n")
        for k, line in enumerate(lines):
            # Align to the base line, so that capitals and letters with descenders have the same height.
            base_mm = y_mm + k * step_mm + size * POINT_MM * 0.95
            self.figure.text(
                x_mm / self.width_mm, 1 - base_mm / self.height_mm, line, fontsize=size, color=colour, ha=align,
                va="baseline", fontweight="bold" if bold else "normal", parse_math=False,
            )  # fmt: skip
        return y_mm + height_mm(text, size)

    def horizontal_line(
        self, x_mm: float, y_mm: float, width_mm: float, *, colour: str = RULE, thick: float = 0.6
    ) -> None:
        """Draw a horizontal line."""
        x, y = [x_mm / self.width_mm, (x_mm + width_mm) / self.width_mm], 1 - y_mm / self.height_mm
        self.figure.add_artist(Line2D(x, [y, y], color=colour, linewidth=thick))

    def box(self, x_mm: float, y_mm: float, width_mm: float, height_mm: float, *, fill: str, edge: str) -> None:
        """Draw a filled box behind everything."""
        corner = x_mm / self.width_mm, 1 - (y_mm + height_mm) / self.height_mm
        size = width_mm / self.width_mm, height_mm / self.height_mm
        self.figure.add_artist(Rectangle(corner, *size, facecolor=fill, edgecolor=edge, linewidth=0.8, zorder=-1))

    def picture(
        self, panel: Panel, x_mm: float, y_mm: float, width_mm: float, height_mm: float, *, outline: bool = True,
        zoomed: bool = False,
    ) -> None:  # fmt: skip
        """Draw a panel into a box: the whole picture with levels, numbers and window, or (``zoomed``) its window."""
        place = (
            x_mm / self.width_mm, 1 - (y_mm + height_mm) / self.height_mm,
            width_mm / self.width_mm, height_mm / self.height_mm,
        )  # fmt: skip
        axes = self.figure.add_axes(place)
        foot_x = 0.5 if width_mm >= LETTERS_FIT_MM else 0.75
        segmented = panel.segmented_HW != 0
        empty = np.zeros_like(segmented)
        view = View(
            image_HW=panel.image_HW, truth_HW=empty, prediction_HW=empty, pixel_mm=panel.pixel_mm, sides=panel.sides,
            lines=panel.lines,
        )  # fmt: skip
        window = None
        if panel.focus_HW is not None:
            window = window_around(replace(view, truth_HW=panel.focus_HW), "lesion")
        paint(axes, view, contours=outline, window=window if zoomed else None)
        if outline:
            draw_edge(axes, segmented, PREDICTION_COLOUR, "-", 1.1 if zoomed else 0.7)
        # The scale bar of a narrow panel reaches its middle. A small window has the letters of its whole picture.
        for letter, x, y, va in ((panel.ends[0], 0.5, 0.985, "top"), (panel.ends[1], foot_x, 0.015, "bottom")):
            if not zoomed or height_mm >= LETTERS_FIT_MM:
                axes.text(x, y, letter, transform=axes.transAxes, color="white", fontsize=9, ha="center", va=va)
        if window is not None and not zoomed:
            (left, right), (top, bottom) = window
            edge = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=0.8)
            axes.add_patch(edge)
        if panel.tags and not zoomed:
            _tag(axes, panel, height_mm)


LETTERS_FIT_MM = 30.0
"""Panels of this size have space for all letters."""


def text_width_mm(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a line of text; ``size`` in points."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width * POINT_MM)


def height_mm(text: str, size: float) -> float:
    """Return the height of the lines of a text; ``size`` in points."""
    return len(text.split("\n")) * size * POINT_MM * LEADING


def wrap(text: str, size: float, width_mm: float, *, bold: bool = False) -> str:
    """Break a text into lines of at most this width; a longer word is split."""
    width_mm *= HINTED
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width_mm(longer, size, bold=bold) <= width_mm:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        rest = word
        while text_width_mm(rest, size, bold=bold) > width_mm and len(rest) > 1:
            fits = next(n for n in range(len(rest) - 1, 0, -1) if n == 1 or text_width_mm(rest[:n], size) <= width_mm)
            lines[-1], rest = rest[:fits], rest[fits:]
            lines.append("")
        lines[-1] = rest
    return "\n".join(lines)


def _tag(axes: Axes, panel: Panel, height_mm: float) -> None:
    """Draw the numbers in a column at the nearer edge, without overlap, each with a line to its position."""
    rows, columns = panel.image_HW.shape
    step = TAG_APART_MM / height_mm
    for on_right in (False, True):
        here = sorted((t for t in panel.tags if (t.column > columns / 2) == on_right), key=lambda t: t.row)
        heights: list[float] = []
        for tag in here:  # downwards from the top, as shares of the panel's height
            height = (tag.row + 0.5) / rows
            heights.append(max(height, heights[-1] + step) if heights else max(height, 2 * step))
        over = heights[-1] - (1 - 2 * step) if heights else 0.0
        for k in range(len(heights) - 1, -1, -1):  # upwards again if they left the panel
            limit = 1 - 2 * step if k == len(heights) - 1 else heights[k + 1] - step
            heights[k] = min(heights[k], limit) if over > 0 else heights[k]
        for tag, height in zip(here, heights, strict=True):
            axes.annotate(
                tag.text, (tag.column, tag.row), xytext=(0.965 if on_right else 0.035, 1 - height),
                textcoords="axes fraction", color="white", fontsize=7, ha="right" if on_right else "left", va="center",
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "white", "alpha": 0.7, "shrinkA": 1,
                            "shrinkB": 3},
            )  # fmt: skip
