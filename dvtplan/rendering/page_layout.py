"""A sheet of paper that is laid out in mm: words, tables' rules, and pictures with numbered places."""

from __future__ import annotations

from dataclasses import dataclass

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
"""Of ``page.STYLE``."""
MM_PER_IN = 25.4
POINT_MM = MM_PER_IN / 72
LEADING = 1.35
"""Distance of lines over the size of their letters."""
HINTED = 0.965
"""Letters fitted to pixels are some percent wider than their outlines."""
TAG_APART_MM = 3.6
"""Numbers beside a picture stand at least so far apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A number that points at a place in a picture."""

    text: str
    row: float
    column: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A picture with what was marked in it."""

    image_HW: np.ndarray
    marked_HW: np.ndarray
    """Every value but 0; its edge is drawn."""
    pixel_mm: tuple[float, float]
    """Height and width of a pixel."""
    sides: tuple[str, str]
    """Letters at the left and the right edge."""
    ends: tuple[str, str]
    """Letters at the upper and the lower edge."""
    lines: tuple[Line, ...] = ()
    tags: tuple[Tag, ...] = ()
    focus_HW: np.ndarray | None = None
    """What the box holds; none for no box."""

    @property
    def aspect_ratio(self) -> float:
        """Height over width."""
        return float(self.image_HW.shape[0] * self.pixel_mm[0] / (self.image_HW.shape[1] * self.pixel_mm[1]))


class PageLayout:
    """A page that is laid out in mm from its upper left corner."""

    def __init__(self, width_mm: float, height_mm: float) -> None:
        self.width_mm, self.height_mm = width_mm, height_mm
        self.figure = Figure(figsize=(width_mm / MM_PER_IN, height_mm / MM_PER_IN), facecolor="white")

    def text(
        self, x_mm: float, y_mm: float, text: str, *, size: float = 8, bold: bool = False, colour: str = INK,
        align: str = "left",
    ) -> float:  # fmt: skip
        """A line, or several, with the top at y; gives the y below it."""
        step_mm = size * POINT_MM * LEADING
        lines = text.split("\n")
        for k, line in enumerate(lines):
            # On a common base line: capitals alone and letters with descenders must not stand at different heights.
            base_mm = y_mm + k * step_mm + size * POINT_MM * 0.95
            self.figure.text(
                x_mm / self.width_mm, 1 - base_mm / self.height_mm, line, fontsize=size, color=colour, ha=align,
                va="baseline", fontweight="bold" if bold else "normal", parse_math=False,
            )  # fmt: skip
        return y_mm + height_mm(text, size)

    def horizontal_line(
        self, x_mm: float, y_mm: float, width_mm: float, *, colour: str = RULE, thick: float = 0.6
    ) -> None:
        """A line across."""
        x, y = [x_mm / self.width_mm, (x_mm + width_mm) / self.width_mm], 1 - y_mm / self.height_mm
        self.figure.add_artist(Line2D(x, [y, y], color=colour, linewidth=thick))

    def box(self, x_mm: float, y_mm: float, width_mm: float, height_mm: float, *, fill: str, edge: str) -> None:
        """A filled box, behind everything."""
        corner = x_mm / self.width_mm, 1 - (y_mm + height_mm) / self.height_mm
        size = width_mm / self.width_mm, height_mm / self.height_mm
        self.figure.add_artist(Rectangle(corner, *size, facecolor=fill, edgecolor=edge, linewidth=0.8, zorder=-1))

    def picture(
        self, panel: Panel, x_mm: float, y_mm: float, width_mm: float, height_mm: float, *, outline: bool = True,
        zoomed: bool = False,
    ) -> None:  # fmt: skip
        """A panel that fills a box: whole, with its levels, numbers and the edge of its window, or only its window."""
        place = (
            x_mm / self.width_mm, 1 - (y_mm + height_mm) / self.height_mm,
            width_mm / self.width_mm, height_mm / self.height_mm,
        )  # fmt: skip
        axes = self.figure.add_axes(place)
        wide = 0.5 if width_mm >= ROOM_MM else 0.75
        marked = panel.marked_HW != 0
        nothing = np.zeros_like(marked)
        view = View(panel.image_HW, nothing, nothing, panel.pixel_mm, panel.sides, panel.lines)
        window = None
        if panel.focus_HW is not None:
            window = window_around(
                View(panel.image_HW, panel.focus_HW != 0, nothing, panel.pixel_mm, panel.sides, ()), "lesion"
            )
        paint(axes, view, contours=outline, window=window if zoomed else None)
        if outline:
            draw_edge(axes, marked, PREDICTION_COLOUR, "-", 1.1 if zoomed else 0.7)
        # A narrow panel's scale bar reaches its middle; a small window has the letters of the panel that it is from.
        for letter, x, y, va in ((panel.ends[0], 0.5, 0.985, "top"), (panel.ends[1], wide, 0.015, "bottom")):
            if not zoomed or height_mm >= ROOM_MM:
                axes.text(x, y, letter, transform=axes.transAxes, color="white", fontsize=9, ha="center", va=va)
        if window is not None and not zoomed:
            (left, right), (top, bottom) = window
            edge = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=0.8)
            axes.add_patch(edge)
        if panel.tags and not zoomed:
            _tag(axes, panel, height_mm)


ROOM_MM = 30.0
"""Panels of this size have room for all their letters."""


def text_width_mm(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a line of letters of so many points is."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width * POINT_MM)


def height_mm(text: str, size: float) -> float:
    """How high the lines of a text of so many points are."""
    return len(text.split("\n")) * size * POINT_MM * LEADING


def wrap(text: str, size: float, width_mm: float, *, bold: bool = False) -> str:
    """A text in lines that are at most so wide; a longer word is cut."""
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
    """Numbers in a column at the nearer edge, each tied to its place, none on another."""
    rows, columns = panel.image_HW.shape
    step = TAG_APART_MM / height_mm
    for on_right in (False, True):
        here = sorted((t for t in panel.tags if (t.column > columns / 2) == on_right), key=lambda t: t.row)
        heights: list[float] = []
        for tag in here:  # from above downwards, as shares of the panel's height
            wish = (tag.row + 0.5) / rows
            heights.append(max(wish, heights[-1] + step) if heights else max(wish, 2 * step))
        over = heights[-1] - (1 - 2 * step) if heights else 0.0
        for k in range(len(heights) - 1, -1, -1):  # back upwards where they ran out of the panel
            limit = 1 - 2 * step if k == len(heights) - 1 else heights[k + 1] - step
            heights[k] = min(heights[k], limit) if over > 0 else heights[k]
        for tag, height in zip(here, heights, strict=True):
            axes.annotate(
                tag.text, (tag.column, tag.row), xytext=(0.965 if on_right else 0.035, 1 - height),
                textcoords="axes fraction", color="white", fontsize=7, ha="right" if on_right else "left", va="center",
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "white", "alpha": 0.7, "shrinkA": 1,
                            "shrinkB": 3},
            )  # fmt: skip
