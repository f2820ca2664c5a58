"""A figure out of here: as a file, whole or not at all, or as bytes for a page."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from dvtplan.core.files import atomic_write

matplotlib.use("Agg")

WIDTH_IN = 4.8
"""Of every chart and panel: with letters of 9 points it can be read on a telephone 360 pixels wide."""
DPI = 200
"""Of what is saved, and of charts in a page; not of ``learning_curve``."""
JPEG_DPI = 160
"""Of a picture in a page: 768 pixels wide, two for each of a telephone's."""
JPEG_QUALITIES = (85, 75, 65, 55, 45, 35)
"""Tried in turn until an image is small enough."""


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure whole or not at all; PNG, PDF or SVG by its ending, without a date inside."""
    dated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with atomic_write(path) as draft:
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
