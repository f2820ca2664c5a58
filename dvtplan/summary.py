"""The page of one patient: what was marked on a scan, where, how sure, and by what; as HTML, PDF and PNG.

The sheet is one page of A4. The HTML page holds the same, and every lesion, and can be read without seeing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dvtplan import artifacts, figures, page, regions
from dvtplan.agreement import NEARLY, Lesion
from dvtplan.burden import SLICE_MM, Burden
from dvtplan.errors import how_many
from dvtplan.figures import INK, QUIET, WARN_INK, WARN_PAPER, WARN_RULE, Panel, Sheet, Tag
from dvtplan.findings import NOT_RULED_OUT, SAID_BY, Findings
from dvtplan.geometry import Grid, to_slice_order
from dvtplan.page import Html
from dvtplan.pictures import SIDES, VIEWS, level_lines
from dvtplan.records import called

A4_MM = (210.0, 297.0)
MARGIN_MM = 13.0
PICTURE_BYTES = 250_000
"""What one picture of the HTML page takes at most."""
MOST_TAGS = 12
"""Lesions that are numbered in the projection, the largest."""
LONGEST_ID = 46
"""Letters of a scan's name that the heading of the sheet shows."""

ENDS = {"AP": ("H", "F"), "LR": ("H", "F"), "SI": ("A", "P")}
"""Axis that counts slices -> what lies at the upper and the lower edge (geometry.SLICE_ORDER)."""
READING_ORDER = ("right", "left")
"""The patient's right leg is on the left of a picture."""

NEVER_CALIBRATED = (
    "Probabilities are the model's own and not calibrated; folds that agree may err together."
)  # fmt: skip
BURDEN_HEADER = ("Leg", "Part", "Volume\nmL", "Pieces", "Length\nmm", f"Largest section\nmm² (over {SLICE_MM:g} mm)",
                 "Top above\nlevel, mm", "Bottom above\nlevel, mm", "Nearly marked\nmL")  # fmt: skip
LESION_HEADER = ("No.", "Leg", "Part", "Volume\nmL", "Probability\nmean", "Probability\npeak", "Folds agree\nmean",
                 "Folds agree\nleast", "Slice", "Centre (LPS)\nmm")  # fmt: skip


def write(
    found: Findings, image_SHW: np.ndarray, marked_SHW: np.ndarray, grid: Grid, paths: tuple[Path, Path, Path]
) -> None:
    """Write the summary of a scan that was analysed.

    Args:
        found: what is told.
        image_SHW: its first channel in slice order.
        marked_SHW: its mask; every value but 0 is thrombus.
        grid: of both.
        paths: of the HTML page, the PDF and the PNG.

    Raises:
        DvtError: if a file cannot be written.
    """
    shown = _Shown.of(found, image_SHW, marked_SHW != 0, grid)
    sheet = draw(found, shown)
    html, *drawn = paths
    for path in drawn:
        figures.save(sheet.figure, path)
    artifacts.write_text(html, document(found, shown))


# --- pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Of:
    """The slice of a limb that holds most of what was marked in it."""

    limb: str
    number: int
    """Counted from 1."""
    panel: Panel


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """The pictures of a scan."""

    front: Panel
    limbs: tuple[_Of, ...]
    """Of the limbs with anything marked, in reading order."""
    slices: int

    @classmethod
    def of(cls, found: Findings, image: np.ndarray, marked: np.ndarray, grid: Grid) -> _Shown:
        """Cut them out of a scan in slice order."""
        order = to_slice_order(grid, "AP")
        there, front_grid = np.argwhere(marked), order.grid(grid)
        front = Panel(
            image_HW=order.apply(image).max(axis=0),
            marked_HW=np.any(order.apply(marked), axis=0),
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
                marked_HW=marked[s],
                pixel_mm=(grid.spacing_mm[1], grid.spacing_mm[2]),
                sides=SIDES[axis],
                ends=ENDS[axis],
                lines=tuple(replace(line, name="") for line in level_lines(grid, found.levels, s)),
                focus_HW=focus,
            )
            limbs.append(_Of(limb=limb, number=s + 1, panel=panel))
        return cls(front=front, limbs=tuple(limbs), slices=len(image))


def _tag(lesion: Lesion, grid: Grid) -> Tag:
    """The number of a lesion at its centre."""
    _, row, column = grid.index_of(np.asarray(lesion.centre_lps_mm))
    return Tag(text=str(lesion.number), row=float(row), column=float(column))


def _front(panel: Panel, width_mm: float) -> Sheet:
    """The projection alone."""
    sheet = Sheet(width_mm, width_mm * panel.slim)
    sheet.picture(panel, 0, 0, width_mm, sheet.height_mm)
    return sheet


def _limb(panel: Panel, width_mm: float) -> Sheet:
    """The slice, and its window without and with what was marked."""
    places = _arranged(panel.slim, width_mm, 1.2 * width_mm)
    sheet = Sheet(width_mm, max(top + height for _, top, _, height in places))
    _place_limb(sheet, panel, 0, 0, width_mm, 1.2 * width_mm)
    return sheet


GAP_MM = 1.5

_Place = tuple[float, float, float, float]
"""Left, top, width, height in mm."""


def _arranged(slim: float, width_mm: float, most_mm: float) -> tuple[_Place, _Place, _Place]:
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


def _place_limb(sheet: Sheet, panel: Panel, x: float, y: float, width_mm: float, most_mm: float) -> None:
    """Draw a slice, and its window without and with what was marked."""
    whole, plain, outlined = _arranged(panel.slim, width_mm, most_mm)
    for (left, top, width, height), zoomed, outline in (
        (whole, False, True),
        (plain, True, False),
        (outlined, True, True),
    ):
        sheet.picture(panel, x + left, y + top, width, height, outline=outline, zoomed=zoomed)


# --- the sheet ------------------------------------------------------------------------------------


def draw(found: Findings, shown: _Shown) -> Sheet:
    """One page of A4: warnings, what was marked in words, pictures, tables, and what it rests on."""
    sheet = Sheet(*A4_MM)
    x, width = MARGIN_MM, A4_MM[0] - 2 * MARGIN_MM
    y = _heading(sheet, found, x, width)
    y = _warned(sheet, found, x, y, width)
    y = _headline(sheet, found, x, y, width)
    foot = _foot(sheet, found, x, width)
    burden_mm = _table_mm(len(found.burden))
    lesion_rows = min(len(found.lesions), 8)
    lesions_mm = _table_mm(lesion_rows) + 4 if lesion_rows else 0.0
    pictures_mm = foot - y - burden_mm - lesions_mm - 9
    y = _pictures(sheet, found, shown, x, y, width, pictures_mm) + 3
    y = _table(sheet, x, y, width, "How much", BURDEN_HEADER, _burden_rows(found),
               (0, 16, 48, 62, 81, 110, 135, 159, 184))  # fmt: skip
    if lesion_rows:
        more = len(found.lesions) - lesion_rows
        title = "How sure" + (f" (the {lesion_rows} largest; {more} smaller in the HTML page)" if more else "")
        _table(sheet, x, y + 2, width, title, LESION_HEADER, _lesion_rows(found.lesions[:lesion_rows]),
               (0, 12, 28, 70, 89, 108, 127, 146, 159, 184))  # fmt: skip
    return sheet


def _heading(sheet: Sheet, found: Findings, x: float, width: float) -> float:
    y = sheet.words(x, 9, "LEG VEINS ON MR  ·  WHAT A NETWORK MARKED AS THROMBUS", size=7, bold=True, colour=QUIET)
    name = found.case_id if len(found.case_id) <= LONGEST_ID else f"{found.case_id[: LONGEST_ID - 1]}…"
    below = sheet.words(x, y + 0.5, name, size=15, bold=True)
    sheet.words(x + width, 9, _date(found), size=8, colour=QUIET, align="right")
    sheet.words(x + width, y + 1.5, found.disclaimer.replace(". ", ".\n", 1), size=7.5, bold=True, align="right")
    sheet.rule(x, below + 1.5, width, colour=INK, thick=1.0)
    return below + 4.0


def _warned(sheet: Sheet, found: Findings, x: float, y: float, width: float) -> float:
    if not found.warnings:
        return y
    lines = [figures.wrap(line, 7.5, width - 9) for line in found.warnings]
    height = sum(figures.height_mm(line, 7.5) + 0.7 for line in lines) + 3
    sheet.box(x, y, width, height, fill=WARN_PAPER, edge=WARN_RULE)
    at = y + 1.7
    for line in lines:
        sheet.words(x + 2.5, at, "!", size=7.5, bold=True, colour=WARN_INK)
        at = sheet.words(x + 5.5, at, line, size=7.5, colour=WARN_INK) + 0.7
    return y + height + 3


def _headline(sheet: Sheet, found: Findings, x: float, y: float, width: float) -> float:
    y = sheet.words(x, y, figures.wrap(found.in_words, 12, width, bold=True), size=12, bold=True)
    y = sheet.words(x, y + 0.5, figures.wrap(_in_numbers(found), 8.5, width), size=8.5)
    return y + 2


CAPTION_MM = 4.0
CAPTIONS_MM = 12.0
"""What the lines beside a wide projection take."""
NARROWEST_MM = 45.0
"""Of the column that a narrow projection stands in."""
EMPTY_MM = 15.0
"""What a limb without anything marked takes."""


def _pictures(sheet: Sheet, found: Findings, shown: _Shown, x: float, y: float, width: float, height: float) -> float:
    """The projection with the limbs beside it, or, where it is wide, below it. The patient's right leg comes first.

    Returns:
        The y below all, at most ``height`` further down.
    """
    drawn = {one.limb: one for one in shown.limbs}
    empty = [limb for limb in READING_ORDER if limb not in drawn]
    if shown.front.slim > 1:
        column = NARROWEST_MM
        for _ in range(2):  # A wider column has a lower caption, which may widen it further.
            caption_mm = figures.height_mm(figures.wrap(_front_caption(shown), 6.5, column), 6.5) + 1.0
            front_width = min((height - CAPTION_MM - caption_mm) / shown.front.slim, 0.36 * width)
            column = max(front_width, NARROWEST_MM)
        below = y + CAPTION_MM + front_width * shown.front.slim + 0.8
        _place_front(sheet, shown, x, y, front_width, caption=(x, below, column))
        at, top = x + column + 5, y
        each = (height - EMPTY_MM * len(empty)) / max(len(drawn), 1)
        for limb in READING_ORDER:
            _limb_block(sheet, found, shown, drawn.get(limb), limb, (at, top, width - column - 5, each))
            top += each if limb in drawn else EMPTY_MM
        return y + height if drawn else min(below + caption_mm, y + height)
    front_width = min(0.62 * width, (0.42 if drawn else 0.8) * height / shown.front.slim)
    at, beside = x + front_width + 4, width - front_width - 4
    _place_front(sheet, shown, x, y, front_width, caption=(at, y + CAPTION_MM, beside))
    for k, limb in enumerate(empty):
        _limb_block(sheet, found, shown, None, limb, (at, y + CAPTIONS_MM + CAPTION_MM + k * (EMPTY_MM + 4), beside, 0))
    top = y + CAPTION_MM + front_width * shown.front.slim + 3
    each = (width - 5 * (len(drawn) - 1)) / max(len(drawn), 1)
    for k, one in enumerate(shown.limbs):
        place = (x + k * (each + 5), top, each, height - (top - y))
        _limb_block(sheet, found, shown, one, one.limb, place)
    return y + height if drawn else max(top, y + CAPTIONS_MM + 2 * (EMPTY_MM + 4))


def _place_front(
    sheet: Sheet, shown: _Shown, x: float, y: float, width: float, *, caption: tuple[float, float, float]
) -> None:
    """The projection with its title, and its caption at a place of some width."""
    sheet.words(x, y, "From the front", size=8, bold=True)
    sheet.picture(shown.front, x, y + CAPTION_MM, width, width * shown.front.slim)
    sheet.words(*caption[:2], figures.wrap(_front_caption(shown), 6.5, caption[2]), size=6.5, colour=QUIET)


def _limb_block(sheet: Sheet, found: Findings, shown: _Shown, one: _Of | None, limb: str, place: _Place) -> None:
    """What is said and shown of a limb."""
    x, y, width, height = place
    at = sheet.words(x, y, _limb_title(found, limb), size=8, bold=True) + 0.2
    if one is None:
        sheet.words(x, at, figures.wrap(_limb_empty(found, limb), 8, width), size=8)
        return
    at = sheet.words(x, at, figures.wrap(_limb_caption(found, shown, one), 6.5, width), size=6.5, colour=QUIET) + 0.5
    _place_limb(sheet, one.panel, x, at, width, height - (at - y) - 3)


def _table_mm(rows: int) -> float:
    return 12.5 + rows * 4.0


def _table(
    sheet: Sheet, x: float, y: float, width: float, title: str, header: Sequence[str],
    rows: Sequence[Sequence[str]], ends: Sequence[float],
) -> float:  # fmt: skip
    """A table whose first column begins, and whose columns of words begin, at ``ends``; numbers end there."""
    sheet.words(x, y, title, size=8, bold=True)
    words = [k == 0 or not any(_is_number(row[k]) for row in rows) for k in range(len(header))]
    places = [(x + end, "left" if word else "right") for end, word in zip(ends, words, strict=True)]
    for (at, align), name in zip(places, header, strict=True):
        sheet.words(at, y + 3.8, name if "\n" in name else f"\n{name}", size=6.3, colour=QUIET, align=align)
    top = y + 10.2
    sheet.rule(x, top, width)
    for k, row in enumerate(rows):
        for (at, align), cell in zip(places, row, strict=True):
            sheet.words(at, top + 0.6 + 4.0 * k, cell, size=7.5, bold=row[1] == "all", align=align)
        if k + 1 < len(rows) and row[0] != rows[k + 1][0] and not _is_number(row[0]):
            sheet.rule(x, top + 4.0 * (k + 1), width)
    return top + 4.0 * len(rows) + 1


def _foot(sheet: Sheet, found: Findings, x: float, width: float) -> float:
    """What it rests on, at the end of the page; gives the y at which it begins."""
    text = figures.wrap(" ".join(_provenance(found)), 6.3, width)
    y = A4_MM[1] - 9 - figures.height_mm(text, 6.3)
    sheet.rule(x, y - 1.5, width)
    sheet.words(x, y, text, size=6.3, colour=QUIET)
    return y - 2


# --- words ----------------------------------------------------------------------------------------


def _in_numbers(found: Findings) -> str:
    """The whole in one or two sentences."""
    told = []
    if found.volume_ml > 0:
        parts = [
            f"{b.limb} leg {_ml(b.volume_ml)} in {how_many(b.pieces, 'piece')}" for b in _wholes(found) if b.pieces
        ]
        told.append(f"{_ml(found.volume_ml)} were marked: {', '.join(parts)}.")
    elif found.highest_probability is not None:
        told.append(f"The highest probability of any voxel is {found.highest_probability:.2f}; "
                    "voxels are marked from 0.50 on.")  # fmt: skip
    nearly = sum(found.nearly_marked_ml.values())
    told.append(f"Another {_ml(nearly)} were nearly marked (probability {NEARLY:g} to 0.5)." if found.volume_ml > 0
                else f"{_ml(nearly)} were nearly marked (probability {NEARLY:g} to 0.5).")  # fmt: skip
    return " ".join(told)


def _wholes(found: Findings) -> list[Burden]:
    """The burden of each limb as a whole, in reading order."""
    by = {burden.limb: burden for burden in found.burden if burden.region == "all"}
    return [by[limb] for limb in READING_ORDER if limb in by]


def _limb_title(found: Findings, limb: str) -> str:
    whole = next((b for b in _wholes(found) if b.limb == limb), None)
    name = f"{limb.capitalize()} leg"
    if whole is None or not whole.pieces:
        return f"{name}: nothing marked"
    return f"{name}: {_ml(whole.volume_ml)}, {how_many(whole.pieces, 'piece')}"


def _limb_empty(found: Findings, limb: str) -> str:
    nearly = found.nearly_marked_ml.get(limb, 0.0)
    return f"No voxel was marked as thrombus in the {limb} leg. {NOT_RULED_OUT} Nearly marked: {_ml(nearly)}."


def _where(found: Findings, shown: _Shown, one: _Of) -> str:
    view, start = VIEWS[found.maker.slice_axis]
    return f"{view} slice {one.number} of {shown.slices}, counted {start}"


def _limb_caption(found: Findings, shown: _Shown, one: _Of) -> str:
    return (
        f"The slice with most of it: {_where(found, shown, one)}; the white box magnified, without and with its edge."
    )


def _front_caption(shown: _Shown) -> str:
    red = " Red: edge of what was marked." if shown.limbs else ""
    told = f"Maximum intensity projection.{red} R, L: patient's right and left."
    if shown.front.lines:
        told += " Dotted: level of each limb."
    return f"{told} Numbers: lesions below." if shown.front.tags else told


def _burden_rows(found: Findings) -> list[tuple[str, ...]]:
    ordered = sorted(found.burden, key=lambda b: READING_ORDER.index(b.limb))
    return [
        (
            b.limb,
            b.region,
            f"{b.volume_ml:.1f}",
            str(b.pieces),
            f"{b.length_mm:.0f}" if b.pieces else "–",
            f"{b.largest_section_mm2:.0f}" if b.pieces else "–",
            "–" if b.top_mm is None else _signed(b.top_mm),
            "–" if b.bottom_mm is None else _signed(b.bottom_mm),
            f"{found.nearly_marked_ml.get(b.limb, 0.0):.1f}" if b.region == "all" else "",
        )
        for b in ordered
    ]


def _lesion_rows(lesions: Sequence[Lesion]) -> list[tuple[str, ...]]:
    return [
        (
            str(one.number),
            one.limb,
            " / ".join(filter(None, (one.label, one.region))) or "not divided",
            f"{one.volume_ml:.2f}",
            f"{one.probability_mean:.2f}",
            f"{one.probability_peak:.2f}",
            "–" if one.agreement_mean is None else f"{100 * one.agreement_mean:.0f} %",
            "–" if one.agreement_min is None else f"{100 * one.agreement_min:.0f} %",
            str(one.slice_number),
            ", ".join(_signed(c) for c in one.centre_lps_mm),
        )
        for one in lesions
    ]


def _provenance(found: Findings) -> list[str]:
    maker = found.maker
    data = called(maker.dataset, maker.phantom)
    folds = how_many(len(maker.folds), "fold")
    told = [
        f"Model: {maker.network or 'network'}, {folds} ({', '.join(map(str, maker.folds))}), trained on {data}, digest "
        f"{maker.digest[:16]}.",
        f"Software: {', '.join(f'{name} {version}' for name, version in maker.versions.items())}.",
        f"Image: {', '.join(found.images)}. Mask: {found.mask}, SHA-256 {(found.mask_digest or '')[:16]}.",
    ]
    if found.levels is None:
        told.append("Levels: none.")
    else:
        left, right = found.levels.both_mm
        origin = SAID_BY.get(found.level_source or "none", found.level_source)
        told.append(f"Levels ({origin}): left z {_signed(left)}, right z {_signed(right)} mm.")
    told.append("Length: of the pieces' centre lines. A piece: voxels that touch, by a corner at least.")
    if found.lesions:
        told.append(
            "Folds agree: share of a lesion's voxels that a fold alone would mark." if len(maker.folds) > 1
            else "One fold predicted, so there is no agreement of folds to tell."
        )  # fmt: skip
    return [*told, NEVER_CALIBRATED]


def _date(found: Findings) -> str:
    return found.made.replace("T", " ")[:16]


def _ml(volume: float) -> str:
    return f"{volume:.1f} mL" if volume >= 0.05 or volume == 0 else "< 0.1 mL"


def _signed(value: float) -> str:
    return f"{round(value)}".replace("-", "−")


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in ("−", "–")


# --- the HTML page --------------------------------------------------------------------------------


def document(found: Findings, shown: _Shown) -> str:
    """The page: the sheet's content with every lesion, its pictures told in words too."""
    opening = page.join(
        (
            *(page.banner(line) for line in found.warnings),
            page.paragraph(page.element("strong", found.in_words)),
            page.paragraph(_in_numbers(found), kind="lead"),
            page.paragraph(f"{_date(found)}. {found.disclaimer}", kind="note"),
        )
    )
    return page.document(
        f"Leg veins on MR: {found.case_id}",
        (("pictures", "Pictures"), ("burden", "How much"), ("lesions", "How sure"), ("making", "What it rests on")),
        opening,
        page.section("pictures", "Pictures", page.grid(*_figures(found, shown)), *_empty_limbs(found, shown)),
        page.section("burden", "How much", _burden_table(found)),
        page.section("lesions", "How sure", _lesion_table(found), page.paragraph(NEVER_CALIBRATED, kind="note")),
        page.section("making", "What it rests on", page.bullets(_provenance(found)[:-1])),
        footer=found.disclaimer,
    )


def _figures(found: Findings, shown: _Shown) -> list[Html]:
    width_mm = figures.WIDTH_IN * figures.MM_PER_IN
    parts = [_limb_title(found, limb) for limb in READING_ORDER]
    made = [
        page.figure(
            figures.encode(_front(shown.front, width_mm).figure, "jpeg", PICTURE_BYTES),
            "jpeg",
            f"Maximum intensity projection of {found.case_id} from the front with the edge of what was marked: "
            f"{'; '.join(parts)}.",
            f"From the front. {_front_caption(shown)}",
        )
    ]
    for one in shown.limbs:
        made.append(
            page.figure(
                figures.encode(_limb(one.panel, width_mm).figure, "jpeg", PICTURE_BYTES),
                "jpeg",
                f"{_where(found, shown, one).capitalize()}, with most of what was marked in the {one.limb} leg; its "
                "neighbourhood magnified without and with the edge of what was marked.",
                f"{_limb_title(found, one.limb)}. {_limb_caption(found, shown, one)}",
            )
        )
    return made


def _empty_limbs(found: Findings, shown: _Shown) -> list[Html]:
    drawn = {one.limb for one in shown.limbs}
    return [page.paragraph(_limb_empty(found, limb)) for limb in READING_ORDER if limb not in drawn]


def _burden_table(found: Findings) -> Html:
    caption = "What was marked in each leg and part. A negative distance lies below the level."
    return page.table(caption, _flat(BURDEN_HEADER), [("", _burden_rows(found))])


def _lesion_table(found: Findings) -> Html:
    if not found.lesions:
        return page.paragraph(found.in_words)
    caption = f"{how_many(len(found.lesions), 'lesion')}, by volume. Numbers as in the projection."
    return page.table(caption, _flat(LESION_HEADER), [("", _lesion_rows(found.lesions))])


def _flat(header: Sequence[str]) -> list[str]:
    """A header in one line each."""
    return [name.replace("\n", ", " if name.endswith(("\nmL", "\nmm")) else " ") for name in header]
