"""Slices and projections of patients: the truth green and solid, the prediction red and dashed."""

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
"""Of the prediction's line: lengths drawn and left out, in widths of the line."""
LEVEL_COLOUR = "#ffd23f"
"""Of the line between proximal and distal."""
MAGNIFICATION = 6.0
"""The most that a lesion is enlarged."""
MARGIN_MM = 40.0
"""Of the surroundings, how much a magnified lesion shows."""
FRAGMENTS_MM = 10.0
"""Pieces of thrombus that are nearer than this are magnified together."""
GAP_IN = 0.06
"""Between the panels of a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A level in a slice, as points in pixels; not a number where it leaves the limb or the slice."""

    name: str
    """Printed at its end, as in 'level L'."""
    columns: np.ndarray
    rows: np.ndarray


def panels(
    image_HW: np.ndarray,
    truth_HW: np.ndarray,
    prediction_HW: np.ndarray,
    title: str,
    pixel_mm: tuple[float, float],
    sides: tuple[str, str] = ("R", "L"),
    lines: Sequence[Line] = (),
    focus: str = "lesion",
) -> Figure:
    """Figures 2 and 4 for a narrow page: the whole slice with contours, and its box magnified without and with them.

    Args:
        image_HW: one slice, any units.
        truth_HW: what is true there; any non-zero value.
        prediction_HW: what was predicted; any non-zero value.
        title: printed above.
        pixel_mm: height and width of a pixel.
        sides: letters at the left and the right edge.
        lines: levels, drawn in the whole slice and in the box.
        focus: the box holds the largest 'lesion', or the one with the most 'error'.
    """
    view = View(image_HW, truth_HW != 0, prediction_HW != 0, pixel_mm, sides, tuple(lines))
    slim = view.height_mm / view.width_mm
    if slim >= 1.2:  # beside each other: a tall slice, and two squares of half its height
        whole_in = (WIDTH_IN - GAP_IN / 2) / (1 + slim / 2)
        tall_in = whole_in * slim
        side_in = (tall_in - GAP_IN) / 2
        left_in = whole_in + GAP_IN
        places = [(0.0, 0.0, whole_in, tall_in), (left_in, side_in + GAP_IN, side_in, side_in)]
        places += [(left_in, 0.0, side_in, side_in)]
    else:
        side_in, whole_in = (WIDTH_IN - GAP_IN) / 2, WIDTH_IN * slim
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


def projection(
    image_HW: np.ndarray,
    truth_HW: np.ndarray,
    prediction_HW: np.ndarray,
    title: str,
    pixel_mm: tuple[float, float],
    sides: tuple[str, str] = ("R", "L"),
    lines: Sequence[Line] = (),
) -> Figure:
    """A projection of a volume, without and with the outlines of truth and prediction; arguments as ``panels``."""
    view = View(image_HW, truth_HW != 0, prediction_HW != 0, pixel_mm, sides, tuple(lines))
    half_in = (WIDTH_IN - GAP_IN) / 2
    tall_in = half_in * view.height_mm / view.width_mm
    places = [(0.0, 0.0, half_in, tall_in), (half_in + GAP_IN, 0.0, half_in, tall_in)]
    figure, axes = _black(title, places, tall_in, view)
    paint(axes[0], view, contours=False, window=None)
    paint(axes[1], view, contours=True, window=None)
    return figure


@dataclass(frozen=True, slots=True)
class View:
    """What the panels of one picture share."""

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    pixel_mm: tuple[float, float]
    sides: tuple[str, str]
    lines: tuple[Line, ...]

    @property
    def height_mm(self) -> float:
        return float(self.image.shape[0] * self.pixel_mm[0])

    @property
    def width_mm(self) -> float:
        return float(self.image.shape[1] * self.pixel_mm[1])


def _black(
    title: str, places: Sequence[tuple[float, float, float, float]], tall_in: float, view: View
) -> tuple[Figure, list[Axes]]:
    """A black figure with a title above and a legend below; places are left, bottom, width, height in inches."""
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
    """One panel: the image, and over it outlines and levels, the patient's sides and a bar of known length."""
    rows, columns = view.image.shape
    low, high = np.percentile(view.image, (0.5, 99.5))
    axes.imshow(view.image, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
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
        # The truth is the wider line, so that it is seen beside the dashes of a prediction on the same edge.
        wide = 1.2 if window is None else 1.9
        draw_edge(axes, view.truth, TRUTH_COLOUR, "-", wide)
        draw_edge(axes, view.prediction, PREDICTION_COLOUR, DASHES, 0.7 * wide)
    (left, right), (top, bottom) = window or ((-0.5, columns - 0.5), (-0.5, rows - 0.5))
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="black")
    for x, letter in zip((0.02, 0.98), view.sides, strict=True):
        axes.text(
            x, 0.985, letter, transform=axes.transAxes, color="white", fontsize=9, va="top",
            ha="left" if x < 0.5 else "right",
        )  # fmt: skip
    _scale_bar(axes, (right - left) * view.pixel_mm[1])


def draw_edge(axes: Axes, mask: np.ndarray, colour: str, style: Any, width: float) -> None:
    """The edge of a mask along its pixels' own borders, not through their corners."""
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
    """A bar of the longest round length that takes at most a third of the panel's width."""
    lengths = [length for length in (1, 2, 5, 10, 20, 50, 100, 200) if length <= width_mm / 3]
    if not lengths:
        return
    share, name = lengths[-1] / width_mm, f"{lengths[-1]} mm" if lengths[-1] < 10 else f"{lengths[-1] // 10} cm"
    axes.plot([0.03, 0.03 + share], [0.03, 0.03], transform=axes.transAxes, color="white", linewidth=2)
    axes.text(0.03, 0.04, name, transform=axes.transAxes, color="white", fontsize=7, va="bottom")


Window = tuple[tuple[float, float], tuple[float, float]]
"""Left and right, top and bottom, in pixels."""


def window_around(view: View, focus: str) -> Window:
    """A square, in mm, around the lesion to be magnified; in the middle of the slice where there is none."""
    spans = _piece(view.truth, view.prediction, view.pixel_mm, focus)
    smaller_mm = min(view.height_mm, view.width_mm)
    long_mm = max((last - first + 1) * mm for (first, last), mm in zip(spans, view.pixel_mm, strict=True))
    side_mm = max(1.3 * long_mm + min(MARGIN_MM, 0.15 * smaller_mm), smaller_mm / MAGNIFICATION)
    ends = []
    for (first, last), length, mm in zip(spans, view.image.shape, view.pixel_mm, strict=True):
        side = side_mm / mm
        start = (first + last) / 2 - side / 2
        # Within the slice where it fits, else the slice in its middle.
        start = min(max(start, -0.5), length - 0.5 - side) if side <= length else (length - 1 - side) / 2
        ends.append((float(start), float(start + side)))
    return ends[1], ends[0]


def _piece(
    truth: np.ndarray, prediction: np.ndarray, pixel_mm: tuple[float, float], focus: str
) -> list[tuple[int, int]]:
    """First and last row, first and last column of the piece of thrombus to be magnified; fragments that lie close
    are one piece."""
    mask = truth | prediction
    if not mask.any():
        return [(length // 2, length // 2) for length in mask.shape]
    apart = ndimage.distance_transform_edt(~mask, sampling=pixel_mm)
    pieces, _ = ndimage.label(apart <= FRAGMENTS_MM / 2, np.ones((3, 3)))
    wrong = truth ^ prediction
    counted = wrong if focus == "error" and wrong.any() else mask
    chosen = np.bincount(pieces[counted]).argmax()
    return [(int(at.min()), int(at.max())) for at in np.nonzero(mask & (pieces == chosen))]
