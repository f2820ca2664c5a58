"""Cut and draw the pictures of a patient page."""

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
"""Largest size of one picture in the HTML page."""
MAX_TAGS = 12
"""Largest number of lesions that are numbered in the projection."""

ENDS = {"AP": ("H", "F"), "LR": ("H", "F"), "SI": ("A", "P")}
"""Slice axis -> direction at the upper and the lower edge (geometry.SLICE_ORDER)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimbPicture:
    """The slice with most thrombus in a limb."""

    limb: str
    number: int
    """Slice, from 1."""
    panel: Panel


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanPictures:
    """The pictures of a scan."""

    front: Panel
    limbs: tuple[LimbPicture, ...]
    """Of the limbs with thrombus, in reading order."""
    slices: int

    @classmethod
    def of(cls, found: Findings, image_SHW: np.ndarray, mask_SHW: np.ndarray, grid: Grid) -> ScanPictures:
        """Cut the pictures out of a scan; ``mask_SHW`` is bool."""
        order = to_slice_order(grid, "AP")
        front_grid = order.grid(grid)
        front = Panel(
            image_HW=order.apply(image_SHW).max(axis=0),
            segmented_HW=np.any(order.apply(mask_SHW), axis=0),
            pixel_mm=(front_grid.spacing_mm[1], front_grid.spacing_mm[2]),
            sides=SIDES["AP"],
            ends=ENDS["AP"],
            lines=tuple(level_lines(front_grid, found.levels, front_grid.shape[0] // 2)),
            tags=tuple(_tag(lesion, front_grid) for lesion in found.lesions[:MAX_TAGS]),
        )
        indices = np.argwhere(mask_SHW)
        in_left = regions.in_left_limb(grid.position_mm(indices), grid, found.levels)
        limbs = []
        for limb in READING_ORDER:
            voxels = indices[in_left == (limb == "left")]
            if len(voxels):
                s = int(np.bincount(voxels[:, 0]).argmax())
                focus = np.zeros(mask_SHW.shape[1:], bool)
                focus[tuple(voxels[voxels[:, 0] == s, 1:].T)] = True
                panel = _slice_panel(found, image_SHW[s], mask_SHW[s], focus, grid, s)
                limbs.append(LimbPicture(limb=limb, number=s + 1, panel=panel))
        return cls(front=front, limbs=tuple(limbs), slices=len(image_SHW))


def _slice_panel(
    found: Findings, image_HW: np.ndarray, mask_HW: np.ndarray, focus_HW: np.ndarray, grid: Grid, s: int
) -> Panel:
    axis = found.model.slice_axis
    return Panel(
        image_HW=image_HW,
        segmented_HW=mask_HW,
        pixel_mm=(grid.spacing_mm[1], grid.spacing_mm[2]),
        sides=SIDES[axis],
        ends=ENDS[axis],
        lines=tuple(replace(line, name="") for line in level_lines(grid, found.levels, s)),
        focus_HW=focus_HW,
    )


def _tag(lesion: Lesion, grid: Grid) -> Tag:
    """Return the number of a lesion at its centre in the projection."""
    _, row, column = grid.index_of(np.asarray(lesion.centre_lps_mm))
    return Tag(text=str(lesion.number), row=float(row), column=float(column))


def draw_projection(panel: Panel, width_mm: float) -> PageLayout:
    """Draw the projection on its own."""
    sheet = PageLayout(width_mm, width_mm * panel.aspect_ratio)
    sheet.picture(panel, 0, 0, width_mm, sheet.height_mm)
    return sheet


def draw_limb(panel: Panel, width_mm: float) -> PageLayout:
    """Draw a slice on its own, with its enlarged window without and with the outline."""
    places = _arrange(panel.aspect_ratio, width_mm, 1.2 * width_mm)
    sheet = PageLayout(width_mm, max(top + height for _, top, _, height in places))
    place_limb(sheet, panel, 0, 0, width_mm, 1.2 * width_mm)
    return sheet


GAP_MM = 1.5

Place = tuple[float, float, float, float]
"""Left, top, width, height in mm."""


def _arrange(aspect_ratio: float, width_mm: float, max_height_mm: float) -> tuple[Place, Place, Place]:
    """Place a slice and two square windows in a box so that the windows are as large as possible.

    All three are in a row, or the windows are right of the slice, or below it.

    Args:
        aspect_ratio: height over width of the slice.
        width_mm: of the box.
        max_height_mm: of the box.
    """
    row = min((width_mm - 2 * GAP_MM) / (1 / aspect_ratio + 2), max_height_mm)
    right = min((max_height_mm - GAP_MM) / 2, (width_mm - GAP_MM) / (2 / aspect_ratio + 1) - GAP_MM / aspect_ratio)
    whole_mm = min(width_mm, 0.5 * max_height_mm / aspect_ratio)
    below = min((width_mm - GAP_MM) / 2, max_height_mm - GAP_MM - whole_mm * aspect_ratio)
    if row >= max(right, below):
        whole = row / aspect_ratio
        return (0, 0, whole, row), (whole + GAP_MM, 0, row, row), (whole + row + 2 * GAP_MM, 0, row, row)
    if right >= below:
        tall = 2 * right + GAP_MM
        left = tall / aspect_ratio + GAP_MM
        return (0, 0, tall / aspect_ratio, tall), (left, 0, right, right), (left, right + GAP_MM, right, right)
    top = whole_mm * aspect_ratio + GAP_MM
    return (0, 0, whole_mm, top - GAP_MM), (0, top, below, below), (below + GAP_MM, top, below, below)


def place_limb(sheet: PageLayout, panel: Panel, x: float, y: float, width_mm: float, max_height_mm: float) -> None:
    """Draw a slice, and its enlarged window without and with the outline."""
    whole, plain, outlined = _arrange(panel.aspect_ratio, width_mm, max_height_mm)
    for (left, top, width, height), zoomed, outline in (
        (whole, False, True),
        (plain, True, False),
        (outlined, True, True),
    ):
        sheet.picture(panel, x + left, y + top, width, height, outline=outline, zoomed=zoomed)


def slice_position(found: Findings, shown: ScanPictures, one: LimbPicture) -> str:
    view, start = VIEWS[found.model.slice_axis]
    return f"{view} slice {one.number} of {shown.slices} ({start})"


def limb_caption(found: Findings, shown: ScanPictures, one: LimbPicture) -> str:
    position = slice_position(found, shown, one).capitalize()
    return f"{position}, the slice with most thrombus. White box: enlarged, without and with the outline."


def front_caption(shown: ScanPictures) -> str:
    outline = " Red: outline of the segmentation." if shown.limbs else ""
    caption = f"Maximum intensity projection.{outline} R, L: patient's right and left."
    if shown.front.lines:
        caption += " Dotted: level of each limb."
    return f"{caption} Numbers: lesions below." if shown.front.tags else caption
