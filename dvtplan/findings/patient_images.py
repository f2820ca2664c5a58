"""The pictures of a patient page."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dvtplan.anatomy import regions
from dvtplan.findings.lesion_confidence import Lesion
from dvtplan.findings.patient_text import READING_ORDER
from dvtplan.findings.record import Findings
from dvtplan.imaging.geometry import Grid, to_slice_order
from dvtplan.rendering.page_layout import PageLayout, Panel, Tag
from dvtplan.rendering.views import SIDES, VIEWS, level_lines

PICTURE_BYTES = 250_000
"""What one picture of the HTML page takes at most."""
MOST_TAGS = 12
"""Lesions that are numbered in the projection, the largest."""

ENDS = {"AP": ("H", "F"), "LR": ("H", "F"), "SI": ("A", "P")}
"""Axis that counts slices -> what lies at the upper and the lower edge (geometry.SLICE_ORDER)."""


# --- pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LimbPicture:
    """The slice of a limb that holds most of what was marked in it."""

    limb: str
    number: int
    """Counted from 1."""
    panel: Panel


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanPictures:
    """The pictures of a scan."""

    front: Panel
    limbs: tuple[LimbPicture, ...]
    """Of the limbs with anything marked, in reading order."""
    slices: int

    @classmethod
    def of(cls, found: Findings, image: np.ndarray, marked: np.ndarray, grid: Grid) -> ScanPictures:
        """Cut them out of a scan in slice order."""
        order = to_slice_order(grid, "AP")
        there, front_grid = np.argwhere(marked), order.grid(grid)
        front = Panel(
            image_HW=order.apply(image).max(axis=0),
            segmented_HW=np.any(order.apply(marked), axis=0),
            pixel_mm=(front_grid.spacing_mm[1], front_grid.spacing_mm[2]),
            sides=SIDES["AP"],
            ends=ENDS["AP"],
            lines=tuple(level_lines(front_grid, found.levels, front_grid.shape[0] // 2)),
            tags=tuple(_tag(lesion, front_grid) for lesion in found.lesions[:MOST_TAGS]),
        )
        in_left = regions.in_left_limb(grid.position_mm(there), grid, found.levels)
        limbs = []
        for limb in READING_ORDER:
            voxels = there[in_left == (limb == "left")]
            if not len(voxels):
                continue
            s = int(np.bincount(voxels[:, 0]).argmax())
            focus = np.zeros(marked.shape[1:], bool)
            focus[tuple(voxels[voxels[:, 0] == s, 1:].T)] = True
            axis = found.maker.slice_axis
            panel = Panel(
                image_HW=image[s],
                segmented_HW=marked[s],
                pixel_mm=(grid.spacing_mm[1], grid.spacing_mm[2]),
                sides=SIDES[axis],
                ends=ENDS[axis],
                lines=tuple(replace(line, name="") for line in level_lines(grid, found.levels, s)),
                focus_HW=focus,
            )
            limbs.append(LimbPicture(limb=limb, number=s + 1, panel=panel))
        return cls(front=front, limbs=tuple(limbs), slices=len(image))


def _tag(lesion: Lesion, grid: Grid) -> Tag:
    """The number of a lesion at its centre."""
    _, row, column = grid.index_of(np.asarray(lesion.centre_lps_mm))
    return Tag(text=str(lesion.number), row=float(row), column=float(column))


def draw_projection(panel: Panel, width_mm: float) -> PageLayout:
    """The projection alone."""
    sheet = PageLayout(width_mm, width_mm * panel.aspect_ratio)
    sheet.picture(panel, 0, 0, width_mm, sheet.height_mm)
    return sheet


def draw_limb(panel: Panel, width_mm: float) -> PageLayout:
    """The slice, and its window without and with what was marked."""
    places = _arranged(panel.aspect_ratio, width_mm, 1.2 * width_mm)
    sheet = PageLayout(width_mm, max(top + height for _, top, _, height in places))
    place_limb(sheet, panel, 0, 0, width_mm, 1.2 * width_mm)
    return sheet


GAP_MM = 1.5

Place = tuple[float, float, float, float]
"""Left, top, width, height in mm."""


def _arranged(slim: float, width_mm: float, most_mm: float) -> tuple[Place, Place, Place]:
    """Where a slice of some height over width and two square windows go in a box: all in a row, the windows below each
    other beside the slice, or both below it; whichever gives the largest windows."""
    row = min((width_mm - 2 * GAP_MM) / (1 / slim + 2), most_mm)
    beside = min((most_mm - GAP_MM) / 2, (width_mm - GAP_MM) / (2 / slim + 1) - GAP_MM / slim)
    whole_mm = min(width_mm, 0.5 * most_mm / slim)
    below = min((width_mm - GAP_MM) / 2, most_mm - GAP_MM - whole_mm * slim)
    if row >= max(beside, below):
        whole = row / slim
        return (0, 0, whole, row), (whole + GAP_MM, 0, row, row), (whole + row + 2 * GAP_MM, 0, row, row)
    if beside >= below:
        tall = 2 * beside + GAP_MM
        left = tall / slim + GAP_MM
        return (0, 0, tall / slim, tall), (left, 0, beside, beside), (left, beside + GAP_MM, beside, beside)
    top = whole_mm * slim + GAP_MM
    return (0, 0, whole_mm, top - GAP_MM), (0, top, below, below), (below + GAP_MM, top, below, below)


def place_limb(sheet: PageLayout, panel: Panel, x: float, y: float, width_mm: float, most_mm: float) -> None:
    """Draw a slice, and its window without and with what was marked."""
    whole, plain, outlined = _arranged(panel.aspect_ratio, width_mm, most_mm)
    for (left, top, width, height), zoomed, outline in (
        (whole, False, True),
        (plain, True, False),
        (outlined, True, True),
    ):
        sheet.picture(panel, x + left, y + top, width, height, outline=outline, zoomed=zoomed)


def slice_position(found: Findings, shown: ScanPictures, one: LimbPicture) -> str:
    view, start = VIEWS[found.maker.slice_axis]
    return f"{view} slice {one.number} of {shown.slices}, counted {start}"


def limb_caption(found: Findings, shown: ScanPictures, one: LimbPicture) -> str:
    position = slice_position(found, shown, one)
    return f"The slice with most of it: {position}; the white box magnified, without and with its edge."


def front_caption(shown: ScanPictures) -> str:
    red = " Red: edge of what was marked." if shown.limbs else ""
    told = f"Maximum intensity projection.{red} R, L: patient's right and left."
    if shown.front.lines:
        told += " Dotted: level of each limb."
    return f"{told} Numbers: lesions below." if shown.front.tags else told
