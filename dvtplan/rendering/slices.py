"""Draw slices and projections of patients: truth green and solid, prediction red and dashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from scipy import ndimage

from dvtplan.rendering.output import WIDTH_IN

TRUTH_COLOUR = "#00d000"
PREDICTION_COLOUR = "#ff3030"
"""The paper's Figures 2 and 4: truth green, prediction red."""
DASHES = (0, (5, 4))
"""Dashes of the prediction's line: lengths of dash and gap in line widths."""
LEVEL_COLOUR = "#ffd23f"
"""Colour of the line between proximal and distal."""
MAGNIFICATION = 6.0
"""Largest enlargement of a lesion."""
MARGIN_MM = 40.0
"""Surroundings that the panel of an enlarged lesion shows, in total."""
FRAGMENT_GAP_MM = 10.0
"""Components of thrombus closer than this are enlarged together."""
GAP_IN = 0.06
"""Gap between the panels of a figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A level in a slice as points in pixels; NaN outside the limb or the slice."""

    name: str
    """Text at its end, such as 'level L'."""
    columns: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A slice or projection with its masks, as all panels of a figure show it."""

    image_HW: np.ndarray
    """Any units."""
    truth_HW: np.ndarray
    """Every non-zero value is true."""
    prediction_HW: np.ndarray
    """Every non-zero value is predicted."""
    pixel_mm: tuple[float, float]
    """Height and width of a pixel."""
    sides: tuple[str, str] = ("R", "L")
    """Letters at the left and the right edge."""
    lines: Sequence[Line] = ()
    """Levels."""

    @property
    def height_mm(self) -> float:
        """Height of the image."""
        return float(self.image_HW.shape[0] * self.pixel_mm[0])

    @property
    def width_mm(self) -> float:
        """Width of the image."""
        return float(self.image_HW.shape[1] * self.pixel_mm[1])


def panels(view: View, title: str, focus: str = "lesion") -> Figure:
    """Draw the paper's Figures 2 and 4 for a narrow page.

    The first panel is the whole slice with contours. The two others enlarge the box in it, without and with contours.

    Args:
        view: the slice.
        title: printed above.
        focus: the box is around the largest 'lesion', or around the component with the most 'error'.
    """
    aspect = view.height_mm / view.width_mm
    if aspect >= 1.2:  # side by side: a tall slice, and two squares of half its height
        whole_in = (WIDTH_IN - GAP_IN / 2) / (1 + aspect / 2)
        tall_in = whole_in * aspect
        side_in = (tall_in - GAP_IN) / 2
        left_in = whole_in + GAP_IN
        places = [(0.0, 0.0, whole_in, tall_in), (left_in, side_in + GAP_IN, side_in, side_in)]
        places += [(left_in, 0.0, side_in, side_in)]
    else:
        side_in, whole_in = (WIDTH_IN - GAP_IN) / 2, WIDTH_IN * aspect
        tall_in = side_in + GAP_IN + whole_in
        places = [(0.0, side_in + GAP_IN, WIDTH_IN, whole_in), (0.0, 0.0, side_in, side_in)]
        places += [(side_in + GAP_IN, 0.0, side_in, side_in)]
    window = window_around(view, focus)
    figure, axes = _black(title, places, tall_in, view)
    paint(axes[0], view, contours=True, window=None)
    (left, right), (top, bottom) = window
    axes[0].add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=0.8))
    paint(axes[1], view, contours=False, window=window)
    paint(axes[2], view, contours=True, window=window)
    return figure


def projection(view: View, title: str) -> Figure:
    """Draw a projection of a volume twice: without and with the outlines of truth and prediction."""
    half_in = (WIDTH_IN - GAP_IN) / 2
    tall_in = half_in * view.height_mm / view.width_mm
    places = [(0.0, 0.0, half_in, tall_in), (half_in + GAP_IN, 0.0, half_in, tall_in)]
    figure, axes = _black(title, places, tall_in, view)
    paint(axes[0], view, contours=False, window=None)
    paint(axes[1], view, contours=True, window=None)
    return figure


def _black(
    title: str, places: Sequence[tuple[float, float, float, float]], tall_in: float, view: View
) -> tuple[Figure, list[Axes]]:
    """Make a black figure with a title above and a legend below; places are left, bottom, width, height in inches."""
    above_in, below_in = 0.12 + 0.17 * len(title.splitlines()), 0.26
    total_in = above_in + tall_in + below_in
    figure = Figure(figsize=(WIDTH_IN, total_in), facecolor="black")
    figure.text(0.01, 1 - 0.06 / total_in, title, color="white", fontsize=9, va="top")
    axes = [
        figure.add_axes((x / WIDTH_IN, (below_in + y) / total_in, width / WIDTH_IN, height / total_in))
        for x, y, width, height in places
    ]
    handles = [
        Line2D([], [], color=TRUTH_COLOUR, linestyle="-", label="truth (solid)"),
        Line2D([], [], color=PREDICTION_COLOUR, linestyle=DASHES, label="prediction (dashed)"),
    ]
    if view.lines:
        handles.append(Line2D([], [], color=LEVEL_COLOUR, linestyle=":", label="level (dotted)"))
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 0), ncols=3, frameon=False, fontsize=8,
        labelcolor="white", handlelength=2.4, borderpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    return figure, axes


def paint(axes: Axes, view: View, *, contours: bool, window: Window | None) -> None:
    """Draw one panel: image, outlines and levels, the patient's sides, and a scale bar."""
    rows, columns = view.image_HW.shape
    low, high = np.percentile(view.image_HW, (0.5, 99.5))
    axes.imshow(view.image_HW, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    if contours:
        for line in view.lines:
            axes.plot(line.columns, line.rows, ":", color=LEVEL_COLOUR, linewidth=1.3)
            inside = np.flatnonzero(np.isfinite(line.columns) & np.isfinite(line.rows))
            if window is None and len(inside):
                ends = inside[0], inside[-1]
                at = max(ends, key=lambda end: abs(line.columns[end] - columns / 2))
                side = "right" if line.columns[at] > columns / 2 else "left"
                axes.text(
                    line.columns[at], line.rows[at], line.name,
                    color=LEVEL_COLOUR, fontsize=7, ha=side, va="bottom", clip_on=True,
                )  # fmt: skip
        # The truth has the wider line, so that it is visible next to the dashes of a prediction on the same edge.
        wide = 1.2 if window is None else 1.9
        draw_edge(axes, view.truth_HW != 0, TRUTH_COLOUR, "-", wide)
        draw_edge(axes, view.prediction_HW != 0, PREDICTION_COLOUR, DASHES, 0.7 * wide)
    (left, right), (top, bottom) = window or ((-0.5, columns - 0.5), (-0.5, rows - 0.5))
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="black")
    for x, letter in zip((0.02, 0.98), view.sides, strict=True):
        axes.text(
            x, 0.985, letter, transform=axes.transAxes, color="white", fontsize=9, va="top",
            ha="left" if x < 0.5 else "right",
        )  # fmt: skip
    _scale_bar(axes, (right - left) * view.pixel_mm[1])


def draw_edge(axes: Axes, mask: np.ndarray, colour: str, style: Any, width: float) -> None:
    """Draw the edge of a boolean mask along the borders of its pixels, not through their centres."""
    if not mask.any():
        return
    spans = [(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask)]
    fine = 6 if max(last - first for first, last in spans) < 400 else 3
    cut = np.pad(mask[spans[0][0] : spans[0][1], spans[1][0] : spans[1][1]], 1).repeat(fine, 0).repeat(fine, 1)
    rows, columns = (
        first - 1.5 + (np.arange(length) + 0.5) / fine for (first, _), length in zip(spans, cut.shape, strict=True)
    )
    axes.contour(columns, rows, cut, levels=[0.5], colors=colour, linewidths=width, linestyles=[style])


def _scale_bar(axes: Axes, width_mm: float) -> None:
    """Draw a bar of the longest round length within a third of the panel's width."""
    lengths = [length for length in (1, 2, 5, 10, 20, 50, 100, 200) if length <= width_mm / 3]
    if not lengths:
        return
    share, name = lengths[-1] / width_mm, f"{lengths[-1]} mm" if lengths[-1] < 10 else f"{lengths[-1] // 10} cm"
    axes.plot([0.03, 0.03 + share], [0.03, 0.03], transform=axes.transAxes, color="white", linewidth=2)
    axes.text(0.03, 0.04, name, transform=axes.transAxes, color="white", fontsize=7, va="bottom")


Window = tuple[tuple[float, float], tuple[float, float]]
"""Left and right, top and bottom, in pixels."""


def window_around(view: View, focus: str) -> Window:
    """Return a window, square in mm, around the component to enlarge; without any, in the middle of the slice."""
    spans = _component(view.truth_HW != 0, view.prediction_HW != 0, view.pixel_mm, focus)
    smaller_mm = min(view.height_mm, view.width_mm)
    long_mm = max((last - first + 1) * mm for (first, last), mm in zip(spans, view.pixel_mm, strict=True))
    side_mm = max(1.3 * long_mm + min(MARGIN_MM, 0.15 * smaller_mm), smaller_mm / MAGNIFICATION)
    ends = []
    for (first, last), length, mm in zip(spans, view.image_HW.shape, view.pixel_mm, strict=True):
        side = side_mm / mm
        start = (first + last) / 2 - side / 2
        # Inside the slice if it fits, otherwise with the slice in its middle.
        start = min(max(start, -0.5), length - 0.5 - side) if side <= length else (length - 1 - side) / 2
        ends.append((float(start), float(start + side)))
    return ends[1], ends[0]


def _component(
    truth: np.ndarray, prediction: np.ndarray, pixel_mm: tuple[float, float], focus: str
) -> list[tuple[int, int]]:
    """Return first and last row, first and last column of the component to enlarge; close fragments count as one."""
    mask = truth | prediction
    if not mask.any():
        return [(length // 2, length // 2) for length in mask.shape]
    apart = ndimage.distance_transform_edt(~mask, sampling=pixel_mm)
    components, _ = ndimage.label(apart <= FRAGMENT_GAP_MM / 2, np.ones((3, 3)))
    wrong = truth ^ prediction
    counted = wrong if focus == "error" and wrong.any() else mask
    chosen = np.bincount(components[counted]).argmax()
    return [(int(at.min()), int(at.max())) for at in np.nonzero(mask & (components == chosen))]
