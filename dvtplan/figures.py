"""Pictures: the only door to matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.figure import Figure

from dvtplan.artifacts import whole_file

TRUTH_COLOUR = "#00d000"
PREDICTION_COLOUR = "#ff3030"
"""The paper's Figures 2 and 4: truth green, prediction red."""

MAGNIFICATION = 6.0
"""The most that a lesion is enlarged."""
MARGIN_MM = 40.0
"""Of the surroundings, how much a magnified lesion shows."""
LEAST_LOSS = 1e-12
"""What a loss of zero is drawn as: a logarithmic axis has no zero."""


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
    _save(figure, path)


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
    _save(figure, path)


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


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=150)
