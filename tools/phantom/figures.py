"""Draw the figures of phantom patients for docs/phantom.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phantom import files
from phantom.artefacts import UNIT
from phantom.case import PhantomCase, Request, make_case
from phantom.difficulty import LEVELS
from phantom.grid import SCALES

LABEL_COLOURS = {1: "#00d000", 2: "#ffb000"}
"""Proximal and distal thrombus."""
WINDOW = (0.0, 1.25 * UNIT)
"""Stored values shown as black and as white."""
BOX_MM = (90.0, 60.0)
"""Height and width of an enlarged region."""


def draw_patient(case: PhantomCase, path: Path) -> None:
    """Draw four coronal slices and the maximum intensity projection, with the contours of the label."""
    slices = [round(share * (len(case.image) - 1)) for share in (0.27, 0.42, 0.6, 0.75)]
    figure = Figure(figsize=(11, 6.3), layout="constrained", facecolor="black")
    for axes, s in zip(figure.subplots(1, 5)[:4], slices, strict=True):
        _show(axes, case.image[s], case.label[s], case, f"slice {s + 1} of {len(case.image)}")
    _show(figure.axes[4], case.image.max(axis=0), case.label.max(axis=0), case, "projection", 1.4)
    _save(figure, path)


def draw_axial_sections(case: PhantomCase, path: Path) -> None:
    """Draw axial sections at thigh, knee and calf. No network sees this view; it is for anatomists."""
    knee, confluence = case.metadata["knee_row"]["left"], case.metadata["split_row"]["left"]
    per_mm = 1 / case.spacing_mm[1]
    rows = {
        "groin": knee - round(400 * per_mm),
        "thigh": knee - round(200 * per_mm),
        "knee": knee - round(15 * per_mm),
        "confluence": confluence,
        "calf": knee + round(160 * per_mm),
    }
    figure = Figure(figsize=(6, 8.6), layout="constrained", facecolor="black")
    flat = case.spacing_mm[0] / case.spacing_mm[2]
    for axes, (name, row) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        axes.imshow(case.image[:, row], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], aspect=flat)
        axes.set_title(name, color="white", fontsize=9)
        axes.axis("off")
    _save(figure, path)


def draw_clot_examples(requests: list[Request], path: Path) -> None:
    """Draw enlarged clots: the image, the image with its label, and the same patient without clot."""
    figure = Figure(figsize=(1.9 * len(requests), 8.2), layout="constrained", facecolor="black")
    panels = figure.subplots(3, len(requests))
    for column, request in enumerate(requests):
        case, without = make_case(request), make_case(replace(request, thrombus=False), diagnostics=False)
        region = 2 if np.any(case.label == 2) and request.pattern != "proximal" else 1
        s = int((case.label == region).sum(axis=(1, 2)).argmax())
        box = _box_around(case.label[s] == region, case)
        age = case.metadata["lesions"][0]["age"]
        _show(panels[0, column], case.image[s][box], None, case, f"{'distal' if region == 2 else 'proximal'}, {age}")
        _show(panels[1, column], case.image[s][box], case.label[s][box], case, "label")
        _show(panels[2, column], without.image[s][box], None, case, "without clot")
    _save(figure, path)


def draw_variants(request: Request, path: Path) -> None:
    """Draw the same patient at every scale and at every difficulty."""
    requests = [(scale, replace(request, scale=scale)) for scale in reversed(SCALES)]
    requests += [(name, replace(request, difficulty=name)) for name in LEVELS if name != request.difficulty]
    figure = Figure(figsize=(13, 6.3), layout="constrained", facecolor="black")
    for axes, (name, one) in zip(figure.subplots(1, len(requests)), requests, strict=True):
        case = make_case(one, diagnostics=False)
        s = round(0.6 * (len(case.image) - 1))
        _show(axes, case.image[s], case.label[s], case, name)
    _save(figure, path)


def _box_around(mask: np.ndarray, case: PhantomCase) -> tuple[slice, slice]:
    rows, columns = np.nonzero(mask)
    box = []
    for at, size_mm, mm, n in zip((rows, columns), BOX_MM, case.spacing_mm[1:], mask.shape, strict=True):
        half = round(size_mm / mm / 2)
        middle = int(np.clip(np.median(at), half, n - half))
        box.append(slice(middle - half, middle + half))
    return box[0], box[1]


def _show(
    axes: Axes, image: np.ndarray, label: np.ndarray | None, case: PhantomCase, title: str, wider: float = 1.0
) -> None:
    axes.imshow(
        image, cmap="gray", vmin=WINDOW[0], vmax=wider * WINDOW[1], aspect=case.spacing_mm[1] / case.spacing_mm[2]
    )
    for value, colour in LABEL_COLOURS.items():
        if label is not None and np.any(label == value):
            axes.contour(label == value, [0.5], colors=colour, linewidths=0.7)
    axes.set_title(title, color="white", fontsize=9)
    axes.axis("off")


def _save(figure: Figure, path: Path) -> None:
    def write(draft: Path) -> None:
        figure.savefig(draft, dpi=110, facecolor="black", pil_kwargs={"quality": 82, "optimize": True})

    files.replace(path, write, "--out")
