"""Pictures and charts: the only door to matplotlib. ``encode`` and ``save`` bring a figure out of here.

No colour says anything alone: the truth is green and solid, the prediction red and dashed, and the
curves and boxes of a chart differ in line, mark or hatch too.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import imsave
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy import ndimage

from dvtplan.artifacts import whole_file

TRUTH_COLOUR = "#00d000"
PREDICTION_COLOUR = "#ff3030"
"""The paper's Figures 2 and 4: truth green, prediction red."""
DASHES = (0, (5, 4))
"""Of the prediction's line: lengths drawn and left out, in widths of the line."""
LEVEL_COLOUR = "#ffd23f"
"""Of the line between proximal and distal."""

COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#9a4f7f", "#5a5a5a", "#8a6d00", "#1f78c8", "#b03a2e")
"""Of Okabe and Ito's, darkened to 4.5:1 on white where they were lighter."""
LINES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----")
"""Each is taken in turn, so that neighbours differ in more than their colour."""

MAGNIFICATION = 6.0
"""The most that a lesion is enlarged."""
MARGIN_MM = 40.0
"""Of the surroundings, how much a magnified lesion shows."""
FRAGMENTS_MM = 10.0
"""Pieces of thrombus that are nearer than this are magnified together."""
LEAST_LOSS = 1e-12
"""What a loss of zero is drawn as: a logarithmic axis has no zero."""

WIDTH_IN = 4.8
"""Of every chart and panel: with letters of 9 points it can be read on a telephone 360 pixels wide."""
GAP_IN = 0.06
"""Between the panels of a picture."""
DPI = 200
"""Of what is saved, and of charts in a page; not of ``learning_curve`` and ``overlay``."""
JPEG_DPI = 160
"""Of a picture in a page: 768 pixels wide, two for each of a telephone's."""
JPEG_QUALITIES = (85, 75, 65, 55, 45, 35)
"""Tried in turn until an image is small enough."""

_CHART: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
    "hatch.color": "#777777",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A level in a slice, as points in pixels; not a number where it leaves the limb or the slice."""

    name: str
    """Printed at its end, as in 'level L'."""
    columns: np.ndarray
    rows: np.ndarray


# --- out of here --------------------------------------------------------------------------------------


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure whole or not at all; PNG, PDF or SVG by its ending, without a date inside."""
    dated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=dpi, metadata=dated.get(path.suffix))


def save_both(figure: Figure, folder: Path, name: str) -> tuple[Path, ...]:
    """Write a figure as PNG and as PDF; gives both files."""
    paths = (folder / f"{name}.png", folder / f"{name}.pdf")
    for path in paths:
        save(figure, path)
    return paths


def encode(figure: Figure, kind: str, most_bytes: int | None = None) -> bytes:
    """A figure as the bytes of a 'png' or 'jpeg'.

    Args:
        figure: any.
        kind: 'png' for charts, 'jpeg' for pictures of patients.
        most_bytes: a JPEG is made coarser until it fits, as far as ``JPEG_QUALITIES`` goes.
    """
    buffer = io.BytesIO()
    if kind == "png":
        figure.savefig(buffer, dpi=DPI)
        return buffer.getvalue()
    canvas, dpi = FigureCanvasAgg(figure), figure.dpi
    figure.set_dpi(JPEG_DPI)
    canvas.draw()
    pixels = np.array(canvas.buffer_rgba())
    figure.set_dpi(dpi)
    for quality in JPEG_QUALITIES:
        buffer = io.BytesIO()
        # Full colour resolution: at half of it thin red and green lines turn to mud.
        imsave(buffer, pixels, format="jpeg", pil_kwargs={"quality": quality, "subsampling": 0, "optimize": True})
        if most_bytes is None or buffer.tell() <= most_bytes:
            break
    return buffer.getvalue()


# --- charts -------------------------------------------------------------------------------------------


def learning_curve(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the mean loss of each epoch, with the learning rate beside it."""
    epochs = [int(row["epoch"]) + 1 for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    losses = [max(float(row["loss"]), LEAST_LOSS) for row in rows]
    axes.semilogy(epochs, losses, color="#1f5fa8", label="training loss (focal)")
    axes.set(xlabel="epoch", ylabel="mean focal loss", title=title)
    rate = axes.twinx()
    rate.step(epochs, [float(row["learning_rate"]) for row in rows], where="mid", color="#999999", linewidth=1)
    rate.set(ylabel="learning rate", yscale="log")
    axes.grid(alpha=0.3)
    save(figure, path, dpi=150)


def learning_curves(folds: Mapping[int, Sequence[dict[str, Any]]], title: str) -> Figure:
    """The mean loss of each epoch of several folds, over their learning rates.

    Args:
        folds: fold -> rows of its ``epochs.csv``.
        title: printed above.
    """
    with matplotlib.rc_context(_CHART):
        figure = Figure(figsize=(WIDTH_IN, 3.9), layout="constrained")
        loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for k, (fold, rows) in enumerate(folds.items()):
            epochs = [int(row["epoch"]) + 1 for row in rows]
            style = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k % len(LINES)], "linewidth": 1.3}
            mark = MARKS[k % len(MARKS)] if len(rows) == 1 else None
            losses = [max(float(row["loss"]), LEAST_LOSS) for row in rows]
            loss.plot(epochs, losses, label=f"fold {fold}", marker=mark, **style)
            rates = [float(row["learning_rate"]) for row in rows]
            rate.step(epochs, rates, where="mid", marker=mark, **style)
        loss.set(yscale="log", ylabel="mean focal loss", title=title)
        rate.set(yscale="log", ylabel="learning\nrate", xlabel="epoch")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (loss, rate):
            axes.grid(alpha=0.3)
        loss.legend(ncols=2, handlelength=2.6)
    return figure


def volume_against_dsc(
    volume_ml: Sequence[float], dsc: Sequence[float], labels: Mapping[int, str], title: str
) -> Figure:
    """Figure 3 of the paper: the volume of a patient's thrombus against the DSC, a point per patient.

    Args:
        volume_ml: of the truth, above 0.
        dsc: of the same patients.
        labels: position in these lists -> what is written beside the point.
        title: printed above.
    """
    with matplotlib.rc_context(_CHART):
        figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
        axes = figure.add_subplot()
        named = [i in labels for i in range(len(dsc))]
        for wanted, mark, colour in ((False, "o", COLOURS[0]), (True, "D", COLOURS[1])):
            at = [i for i, is_named in enumerate(named) if is_named == wanted]
            x, y = [volume_ml[i] for i in at], [dsc[i] for i in at]
            axes.plot(x, y, mark, color=colour, markersize=5, markerfacecolor="none", clip_on=False, zorder=3)
        _logarithmic(axes, volume_ml)
        axes.set(xlabel="true thrombus volume (mL, logarithmic)", ylabel="DSC", ylim=(-0.02, 1.02), title=title)
        axes.grid(alpha=0.3)
        _label_points(axes, volume_ml, dsc, labels)
    return figure


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with round numbers as ticks, wide enough for all values."""
    low, high = (min(values) / 1.3, max(values) * 1.3) if values else (1.0, 10.0)
    multiples = (1, 1.5, 2, 3, 4, 5, 6, 8) if high / low < 10 else (1, 2, 5) if high / low < 300 else (1,)
    steps = [m * 10.0**e for e in range(-6, 7) for m in multiples]
    axes.set(xscale="log", xlim=(low, high))
    axes.set_xticks([step for step in steps if low <= step <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def _label_points(axes: Axes, x: Sequence[float], y: Sequence[float], labels: Mapping[int, str]) -> None:
    """Names beside points where they cover neither a point nor another name, each tied to its point.

    Places are tried at growing distances around the point, in shares of the axes; letters are
    counted, not measured, which is enough to keep names apart.
    """
    (left, right), (bottom, top) = np.log(axes.get_xlim()), axes.get_ylim()
    points = [
        (float((np.log(a) - left) / (right - left)), (b - bottom) / (top - bottom)) for a, b in zip(x, y, strict=True)
    ]
    taken = [(px - 0.012, py - 0.018, px + 0.012, py + 0.018) for px, py in points]
    for i in sorted(labels, key=lambda i: y[i]):
        width, height = 0.019 * len(labels[i]), 0.055
        place, aligned = (points[i][0] + 0.02, points[i][1]), "left"
        for step in range(40):
            turn = 0.05 * ((step // 2 + 1) // 2) * (1 if step // 2 % 2 else -1)
            on_right = step % 2 == 0
            px, py = points[i][0] + (0.02 if on_right else -0.02), points[i][1] + turn
            box = (px if on_right else px - width, py - height / 2, px + width if on_right else px, py + height / 2)
            inside = box[0] >= 0 and box[2] <= 1 and box[1] >= 0 and box[3] <= 1
            if inside and not any(_overlap(box, other) for other in taken):
                place, aligned = (px, py), "left" if on_right else "right"
                taken.append(box)
                break
        name = axes.annotate(
            labels[i],
            (x[i], y[i]),
            xytext=place,
            textcoords="axes fraction",
            ha=aligned,
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#777777", "shrinkA": 0, "shrinkB": 2},
        )
        name.set_in_layout(False)  # else the axes give way to it


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two boxes (left, bottom, right, top) share any place."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def bland_altman(
    truth_ml: Sequence[float], predicted_ml: Sequence[float], bias_ml: float, limits_ml: tuple[float, float], title: str
) -> Figure:
    """Bland and Altman's plot of volume: predicted less true, against the mean of both, a point per patient.

    Args:
        truth_ml: per patient.
        predicted_ml: of the same patients.
        bias_ml: mean difference.
        limits_ml: of agreement, lower and upper; not a number where there are too few patients.
        title: printed above.
    """
    truth, predicted = np.asarray(truth_ml, float), np.asarray(predicted_ml, float)
    with matplotlib.rc_context(_CHART):
        figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color="#777777", linewidth=0.8)
        axes.plot((truth + predicted) / 2, predicted - truth, "o", color=COLOURS[0], markerfacecolor="none", zorder=3)
        # Bias at one end, limits above and below the other, so that narrow limits do not print over each other.
        labels = (
            ("bias", bias_ml, "-", 0, 2),
            ("limit", limits_ml[0], "--", 1, -2),
            ("limit", limits_ml[1], "--", 1, 2),
        )
        for name, height, style, end, points in labels:
            if not np.isfinite(height):
                continue
            axes.axhline(height, color=COLOURS[1], linestyle=style, linewidth=1.2)
            axes.annotate(
                f"{name} {height:+.1f}",
                (end, height),
                xycoords=("axes fraction", "data"),
                xytext=(0, points),
                textcoords="offset points",
                ha="right" if end else "left",
                va="bottom" if points > 0 else "top",
                fontsize=8,
            )
        axes.set(xlabel="mean of true and predicted volume (mL)", ylabel="predicted − true volume (mL)", title=title)
        axes.margins(x=0.08, y=0.15)
        axes.grid(alpha=0.3)
    return figure


def boxes(groups: Sequence[tuple[str, Mapping[str, Sequence[float]]]], title: str) -> Figure:
    """DSC per region and network: a box and every patient's point, one line per network, so that names fit.

    Args:
        groups: region -> network -> a score per patient, from above downwards.
        title: printed above.
    """
    lines = [(region, network, list(scores)) for region, by in groups for network, scores in by.items()]
    networks = list(dict.fromkeys(network for _, network, _ in lines))
    starts = np.cumsum([0, *(len(by) + 0.6 for _, by in groups)])
    at = [float(start) + k for start, (_, by) in zip(starts, groups, strict=False) for k in range(len(by))]
    with matplotlib.rc_context(_CHART):
        figure = Figure(figsize=(WIDTH_IN, 1.2 + 0.42 * max(float(starts[-1]), 1.0)), layout="constrained")
        axes = figure.add_subplot()
        for place, (_, network, scores) in zip(at, lines, strict=True):
            k = networks.index(network)
            colour = COLOURS[k % len(COLOURS)]
            if scores:
                drawn = axes.boxplot(
                    [scores], positions=[place], orientation="horizontal", widths=0.62, showfliers=False,
                    patch_artist=True, medianprops={"color": "black", "linewidth": 1.6},
                )  # fmt: skip
                for box in drawn["boxes"]:
                    box.set(facecolor="#eeeeee", edgecolor=colour, hatch=HATCHES[k % len(HATCHES)])
            aside = 0.2 * np.sin(2.4 * np.arange(len(scores)))  # the same at each run, unlike random jitter
            axes.plot(
                scores, place + aside, MARKS[k % len(MARKS)],
                color=colour, markersize=4, markerfacecolor="white", zorder=3, clip_on=False,
            )  # fmt: skip
        axes.set_yticks(at, [f"{region}, {network} (n {len(scores)})" for region, network, scores in lines])
        axes.set(xlim=(-0.02, 1.02), ylim=(max(at, default=0) + 0.6, -0.6), xlabel="DSC of a patient", title=title)
        axes.grid(axis="x", alpha=0.3)
    return figure


# --- pictures of patients -----------------------------------------------------------------------------


def overlay(
    image_HW: np.ndarray,
    truth_HW: np.ndarray,
    prediction_HW: np.ndarray,
    path: Path,
    title: str,
    pixel_mm: tuple[float, float],
) -> None:
    """The panels of Figure 2: a slice, the same with contours (truth green, prediction red), and a
    magnified box around the lesion of both.

    Args:
        image_HW: one slice, any units.
        truth_HW: what is true there; any non-zero value.
        prediction_HW: what was predicted; any non-zero value.
        path: PNG, PDF or SVG by its ending.
        title: printed above.
        pixel_mm: height and width of a pixel.
    """
    truth, prediction = truth_HW != 0, prediction_HW != 0
    box = _box(truth | prediction, pixel_mm)
    aspect = pixel_mm[0] / pixel_mm[1]
    height, width = image_HW.shape
    slim = height * aspect / width
    figure = Figure(figsize=(10, 0.5 + 2.5 * min(max(slim, 0.8), 3.0)), layout="constrained")
    low, high = np.percentile(image_HW, (0.5, 99.5))
    for column, (contours, zoom) in enumerate(((False, False), (True, False), (False, True), (True, True))):
        axes = figure.add_subplot(1, 4, column + 1)
        axes.imshow(image_HW, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
        if contours:
            for mask, colour in ((truth, TRUTH_COLOUR), (prediction, PREDICTION_COLOUR)):
                if mask.any():
                    axes.contour(mask, levels=[0.5], colors=colour, linewidths=1.2)
        if zoom:
            axes.set(xlim=(box[1].start, box[1].stop), ylim=(box[0].stop, box[0].start))
        axes.set_axis_off()
    figure.suptitle(f"{title}\ntruth green, prediction red; right: magnified", fontsize=9)
    save(figure, path, dpi=150)


def _box(mask: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[slice, slice]:
    """A window of the slice's own proportions around a mask, with a margin; in the middle where it is empty."""
    if mask.any():
        spans = [(int(at.min()), int(at.max())) for at in np.nonzero(mask)]
    else:
        spans = [(length // 2, length // 2) for length in mask.shape]
    magnification = min(
        length * mm / ((last - first) * mm * 1.3 + MARGIN_MM)
        for (first, last), length, mm in zip(spans, mask.shape, pixel_mm, strict=True)
    )
    magnification = min(max(magnification, 1.0), MAGNIFICATION)
    window = []
    for (first, last), length in zip(spans, mask.shape, strict=True):
        half = length / magnification / 2
        start = min(max((first + last) / 2 - half, 0), length - 2 * half)
        window.append(slice(int(start), int(start + 2 * half)))
    return window[0], window[1]


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
    view = _View(image_HW, truth_HW != 0, prediction_HW != 0, pixel_mm, sides, tuple(lines))
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
    window = _window(view, focus)
    figure, axes = _black(title, places, tall_in, view)
    _paint(axes[0], view, contours=True, window=None)
    (left, right), (top, bottom) = window
    axes[0].add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=0.8))
    _paint(axes[1], view, contours=False, window=window)
    _paint(axes[2], view, contours=True, window=window)
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
    view = _View(image_HW, truth_HW != 0, prediction_HW != 0, pixel_mm, sides, tuple(lines))
    half_in = (WIDTH_IN - GAP_IN) / 2
    tall_in = half_in * view.height_mm / view.width_mm
    places = [(0.0, 0.0, half_in, tall_in), (half_in + GAP_IN, 0.0, half_in, tall_in)]
    figure, axes = _black(title, places, tall_in, view)
    _paint(axes[0], view, contours=False, window=None)
    _paint(axes[1], view, contours=True, window=None)
    return figure


@dataclass(frozen=True, slots=True)
class _View:
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
    title: str, places: Sequence[tuple[float, float, float, float]], tall_in: float, view: _View
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


def _paint(axes: Axes, view: _View, *, contours: bool, window: _Window | None) -> None:
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
        _outline(axes, view.truth, TRUTH_COLOUR, "-", wide)
        _outline(axes, view.prediction, PREDICTION_COLOUR, DASHES, 0.7 * wide)
    (left, right), (top, bottom) = window or ((-0.5, columns - 0.5), (-0.5, rows - 0.5))
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="black")
    for x, letter in zip((0.02, 0.98), view.sides, strict=True):
        axes.text(
            x, 0.985, letter, transform=axes.transAxes, color="white", fontsize=9, va="top",
            ha="left" if x < 0.5 else "right",
        )  # fmt: skip
    _scale_bar(axes, (right - left) * view.pixel_mm[1])


def _outline(axes: Axes, mask: np.ndarray, colour: str, style: Any, width: float) -> None:
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


_Window = tuple[tuple[float, float], tuple[float, float]]
"""Left and right, top and bottom, in pixels."""


def _window(view: _View, focus: str) -> _Window:
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


# --- a sheet of paper ---------------------------------------------------------------------------------

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
    def slim(self) -> float:
        """Height over width."""
        return float(self.image_HW.shape[0] * self.pixel_mm[0] / (self.image_HW.shape[1] * self.pixel_mm[1]))


class Sheet:
    """A page that is laid out in mm from its upper left corner."""

    def __init__(self, width_mm: float, height_mm: float) -> None:
        self.width_mm, self.height_mm = width_mm, height_mm
        self.figure = Figure(figsize=(width_mm / MM_PER_IN, height_mm / MM_PER_IN), facecolor="white")

    def words(
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

    def rule(self, x_mm: float, y_mm: float, width_mm: float, *, colour: str = RULE, thick: float = 0.6) -> None:
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
        view = _View(panel.image_HW, nothing, nothing, panel.pixel_mm, panel.sides, panel.lines)
        window = None
        if panel.focus_HW is not None:
            window = _window(
                _View(panel.image_HW, panel.focus_HW != 0, nothing, panel.pixel_mm, panel.sides, ()), "lesion"
            )
        _paint(axes, view, contours=outline, window=window if zoomed else None)
        if outline:
            _outline(axes, marked, PREDICTION_COLOUR, "-", 1.1 if zoomed else 0.7)
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
