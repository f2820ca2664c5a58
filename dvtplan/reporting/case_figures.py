"""Pictures of one case: its worst and best slice, and a projection, with contours of truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dvtplan.anatomy import knee
from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import Dataset
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, same_grid, to_slice_order
from dvtplan.rendering import output
from dvtplan.rendering.slices import Line, View, panels, projection
from dvtplan.rendering.views import SIDES, VIEWS, level_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of one case with its caption."""

    case_id: str
    image: bytes
    """JPEG."""
    alt: str
    """Alternative text."""
    caption: str
    files: tuple[Path, ...]
    """The same picture on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One case to draw."""

    case_id: str
    image: Path
    truth: Path
    prediction: Path
    levels: Levels | None
    """None: estimate them from the image."""
    slice_axis: str
    channel: str
    """Text on the drawn channel if there are several, else empty."""
    subject: str
    """Follows the case's name in titles, as in ' (phantom), gn_unet'."""
    folder: Path
    """Folder for the files."""
    most_bytes: int
    """Limit for the picture as JPEG."""
    levels_estimated: bool = False
    """Whether the levels were estimated from the image; the picture then says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One case in slice order (S, H, W)."""

    image: np.ndarray
    truth: np.ndarray
    """Boolean, like the prediction."""
    prediction: np.ndarray
    grid: Grid

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Height and width of a pixel, in mm."""
        return self.grid.spacing_mm[1], self.grid.spacing_mm[2]


def read(image: Path, truth: Path, prediction: Path, slice_axis: str) -> Scan:
    """Read an image with both masks; every value but 0 is thrombus.

    Raises:
        DvtError: if a file cannot be read, or a mask is not on the image's grid.
    """
    voxels, grid = volume_io.read(image)
    order = to_slice_order(grid, slice_axis)
    masks = []
    for path in (truth, prediction):
        mask, own = volume_io.read(path)
        if not same_grid(grid, own):
            raise DvtError(f"{path}: is not on the grid of {image}. Run `plan_and_preprocess` to see the difference.")
        masks.append(order.apply(mask != 0))
    return Scan(image=order.apply(voxels), truth=masks[0], prediction=masks[1], grid=order.grid(grid))


def first_channels(dataset: Dataset) -> dict[str, Path]:
    """Return each case's image of the first channel, on which everything is drawn."""
    return {case.id: case.images[0] for case in dataset.cases}


def draw(request: Request) -> list[Picture]:
    """Draw the worst slice, the best slice, and a projection from the front."""
    files = request.image, request.truth, request.prediction
    scan = read(*files, request.slice_axis)
    levels, estimated = levels_of(scan, request.levels)
    request = replace(request, levels=levels, levels_estimated=estimated)
    slices = [_of_slice(request, scan, kind, s) for kind, s in best_and_worst(scan.truth, scan.prediction)]
    return [*slices, _of_volume(request, scan if request.slice_axis == "AP" else read(*files, "AP"))]


def levels_of(scan: Scan, known: Levels | None) -> tuple[Levels | None, bool]:
    """Return the levels to draw (None: unknown), and whether they were estimated from the image."""
    if known is not None:
        return known, False
    found = knee.estimate(scan.image, scan.grid).levels
    return found, found is not None


def slice_dsc(truth_SHW: np.ndarray, prediction_SHW: np.ndarray) -> np.ndarray:
    """Compute the DSC of each slice, shape (S,); NaN for a slice without truth and prediction."""
    both = (truth_SHW & prediction_SHW).sum(axis=(1, 2))
    sizes = truth_SHW.sum(axis=(1, 2)) + prediction_SHW.sum(axis=(1, 2))
    return np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), np.nan)


def best_and_worst(truth_SHW: np.ndarray, prediction_SHW: np.ndarray) -> list[tuple[str, int]]:
    """Choose the slices to draw among those with truth or prediction: 'worst' and 'best' by slice DSC.

    Among slices of equal DSC, choose the one with the most truth and prediction. A single slice is 'only'. If all
    slices have DSC 0, there is no 'best'. A volume without truth and prediction gives an empty list.
    """
    dsc = slice_dsc(truth_SHW, prediction_SHW)
    sizes = truth_SHW.sum(axis=(1, 2)) + prediction_SHW.sum(axis=(1, 2))
    there = np.flatnonzero(sizes)
    if not len(there):
        return []
    worst = int(there[np.lexsort((-sizes[there], dsc[there]))[0]])
    best = int(there[np.lexsort((-sizes[there], -dsc[there]))[0]])
    if len(there) == 1:
        return [("only", worst)]
    return [("worst", worst)] if dsc[best] == 0 or best == worst else [("worst", worst), ("best", best)]


def _of_slice(request: Request, scan: Scan, kind: str, s: int) -> Picture:
    case_id = request.case_id
    view, start = VIEWS[request.slice_axis]
    dsc = slice_dsc(scan.truth[s : s + 1], scan.prediction[s : s + 1])[0]
    where = f"{view} slice {s + 1} of {len(scan.image)}"
    what = "only slice with truth or prediction" if kind == "only" else f"{kind} slice"
    lines = level_lines(scan.grid, request.levels, s)
    shown = View(
        image_HW=scan.image[s],
        truth_HW=scan.truth[s],
        prediction_HW=scan.prediction[s],
        pixel_mm=scan.pixel_mm,
        sides=SIDES[request.slice_axis],
        lines=lines,
    )
    figure = panels(
        shown,
        f"{case_id}{request.subject}: {where}\n{what}, slice DSC {dsc:.2f} (not a patient's DSC)",
        focus="lesion" if kind == "best" else "error",
    )
    truth, predicted = int(scan.truth[s].sum()), int(scan.prediction[s].sum())
    shared = int((scan.truth[s] & scan.prediction[s]).sum())
    return Picture(
        case_id=case_id,
        image=output.encode(figure, "jpeg", request.most_bytes),
        alt=f"{where[:1].upper()}{where[1:]} of {case_id} with the contours of truth ({truth} pixels) and prediction "
        f"({predicted} pixels, {shared} of them true), and one component enlarged.",
        caption=f"{case_id}, {what}: {where}, counted {start}{request.channel}. Slice DSC {dsc:.2f}, not comparable "
        f"with a patient's DSC.{_levels_note(lines, request)}",
        files=output.save_both(figure, request.folder, f"case_{case_id}_{'worst' if kind == 'only' else kind}"),
    )


def _of_volume(request: Request, scan: Scan) -> Picture:
    case_id = request.case_id
    lines = level_lines(scan.grid, request.levels, len(scan.image) // 2)
    shown = View(
        image_HW=scan.image.max(axis=0),
        truth_HW=np.any(scan.truth, axis=0),
        prediction_HW=np.any(scan.prediction, axis=0),
        pixel_mm=scan.pixel_mm,
        sides=SIDES["AP"],
        lines=lines,
    )
    figure = projection(shown, f"{case_id}{request.subject}:\nmaximum intensity projection from the front")
    return Picture(
        case_id=case_id,
        image=output.encode(figure, "jpeg", request.most_bytes),
        alt=f"Maximum intensity projection of {case_id} from the front, without and with the outlines of all truth and "
        "all prediction.",
        caption=f"{case_id}, the whole volume{request.channel}: maximum intensity projection from the front (the "
        "brightest voxel along each line of sight), without and with the projected outlines of all truth and all "
        f"prediction. Outlines that overlap here may be at different depths.{_levels_note(lines, request)}",
        files=output.save_both(figure, request.folder, f"case_{case_id}_projection"),
    )


def _levels_note(lines: Sequence[Line], request: Request) -> str:
    """Return the last sentence of a caption if levels are drawn."""
    estimated = ", estimated from the image" if request.levels_estimated else ""
    return f" Dotted: the level of each limb{estimated}." if lines else ""
