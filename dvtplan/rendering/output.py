"""Save figures atomically, or encode them as PNG or JPEG bytes.

Only ``Figure`` and canvas objects are used, never pyplot: a user's matplotlib backend stays as it is.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from dvtplan.core.files import atomic_write

WIDTH_IN = 4.8
"""Width of every chart and panel: with 9-point letters it is readable on a phone 360 pixels wide."""
DPI = 200
"""Resolution of saved figures and of charts in a page, except ``learning_curve``."""
JPEG_DPI = 160
"""Resolution of a picture in a page: 768 pixels wide, twice the width of a phone."""
JPEG_QUALITIES = (85, 75, 65, 55, 45, 35)
"""JPEG qualities, tried in order until an image is small enough."""


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Save a figure atomically as PNG, PDF or SVG, by its ending, without a date inside."""
    dated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with atomic_write(path) as draft:
        figure.savefig(draft, dpi=dpi, metadata=dated.get(path.suffix))


def save_both(figure: Figure, folder: Path, name: str) -> tuple[Path, ...]:
    """Save a figure as PNG and as PDF; return both paths."""
    paths = (folder / f"{name}.png", folder / f"{name}.pdf")
    for path in paths:
        save(figure, path)
    return paths


def encode(figure: Figure, kind: str, most_bytes: int | None = None) -> bytes:
    """Encode a figure as PNG or JPEG.

    Args:
        figure: the figure.
        kind: 'png' for charts, 'jpeg' for pictures of patients.
        most_bytes: the quality of a JPEG is reduced until it fits, down to the last of ``JPEG_QUALITIES``.
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
        # Full colour resolution: with less, thin red and green lines blur.
        imsave(buffer, pixels, format="jpeg", pil_kwargs={"quality": quality, "subsampling": 0, "optimize": True})
        if most_bytes is None or buffer.tell() <= most_bytes:
            break
    return buffer.getvalue()
