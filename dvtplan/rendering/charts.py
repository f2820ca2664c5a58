"""Charts of scores and of training; curves and boxes differ in line, mark or hatch, not only in colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dvtplan.rendering.output import WIDTH_IN, save

COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#9a4f7f", "#5a5a5a", "#8a6d00", "#1f78c8", "#b03a2e")
"""Colours of Okabe and Ito, darkened to a contrast of 4.5:1 on white."""
LINES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----")
"""Used in turn, so that neighbours differ in more than colour."""
LEAST_LOSS = 1e-12
"""Value at which a loss of zero is drawn, because a logarithmic axis has no zero."""

_CHART: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
    "hatch.color": "#777777",
}


def learning_curve(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the mean loss and the learning rate of each epoch, and save the chart."""
    epochs = [int(row["epoch"]) + 1 for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    losses = [max(float(row["loss"]), LEAST_LOSS) for row in rows]
    axes.semilogy(epochs, losses, color="#1f5fa8", label="training loss")
    axes.set(xlabel="epoch", ylabel="mean training loss", title=title)
    rate = axes.twinx()
    rate.step(epochs, [float(row["learning_rate"]) for row in rows], where="mid", color="#999999", linewidth=1)
    rate.set(ylabel="learning rate", yscale="log")
    axes.grid(alpha=0.3)
    save(figure, path, dpi=150)


def learning_curves(folds: Mapping[int, Sequence[dict[str, Any]]], title: str) -> Figure:
    """Draw the mean loss of each epoch of several folds, above their learning rates.

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
        loss.set(yscale="log", ylabel="mean training loss", title=title)
        rate.set(yscale="log", ylabel="learning\nrate", xlabel="epoch")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (loss, rate):
            axes.grid(alpha=0.3)
        loss.legend(ncols=2, handlelength=2.6)
    return figure


def volume_against_dsc(
    volume_ml: Sequence[float], dsc: Sequence[float], labels: Mapping[int, str], title: str
) -> Figure:
    """Draw Figure 3 of the paper: thrombus volume against DSC, one point per patient.

    Args:
        volume_ml: of the truth, above 0.
        dsc: of the same patients.
        labels: index in these lists -> text next to the point.
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
    """Make the x axis logarithmic, with round ticks, and wide enough for all values."""
    low, high = (min(values) / 1.3, max(values) * 1.3) if values else (1.0, 10.0)
    multiples = (1, 1.5, 2, 3, 4, 5, 6, 8) if high / low < 10 else (1, 2, 5) if high / low < 300 else (1,)
    steps = [m * 10.0**e for e in range(-6, 7) for m in multiples]
    axes.set(xscale="log", xlim=(low, high))
    axes.set_xticks([step for step in steps if low <= step <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def _label_points(axes: Axes, x: Sequence[float], y: Sequence[float], labels: Mapping[int, str]) -> None:
    """Print names next to points without covering a point or another name, each with a line to its point.

    Positions at growing distances are tried, in shares of the axes. The width of a name is estimated from its number of
    letters.
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
        name.set_in_layout(False)  # otherwise the axes would shrink


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Return whether two boxes (left, bottom, right, top) overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def bland_altman(
    truth_ml: Sequence[float], predicted_ml: Sequence[float], bias_ml: float, limits_ml: tuple[float, float], title: str
) -> Figure:
    """Draw the Bland-Altman plot of volume: predicted minus true against the mean of both, one point per patient.

    Args:
        truth_ml: per patient.
        predicted_ml: of the same patients.
        bias_ml: mean difference.
        limits_ml: lower and upper limit of agreement; NaN if there are too few patients.
        title: printed above.
    """
    truth, predicted = np.asarray(truth_ml, float), np.asarray(predicted_ml, float)
    with matplotlib.rc_context(_CHART):
        figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color="#777777", linewidth=0.8)
        axes.plot((truth + predicted) / 2, predicted - truth, "o", color=COLOURS[0], markerfacecolor="none", zorder=3)
        # Bias at one end, limits above and below the line at the other, so that close limits do not overlap.
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
    """Draw DSC per region and network: a box and a point per patient, one row per network.

    Args:
        groups: region -> network -> one score per patient, from top to bottom.
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
            offset = 0.2 * np.sin(2.4 * np.arange(len(scores)))  # the same in every run, unlike random jitter
            axes.plot(
                scores, place + offset, MARKS[k % len(MARKS)],
                color=colour, markersize=4, markerfacecolor="white", zorder=3, clip_on=False,
            )  # fmt: skip
        axes.set_yticks(at, [f"{region}, {network} (n {len(scores)})" for region, network, scores in lines])
        axes.set(xlim=(-0.02, 1.02), ylim=(max(at, default=0) + 0.6, -0.6), xlabel="DSC of a patient", title=title)
        axes.grid(axis="x", alpha=0.3)
    return figure
