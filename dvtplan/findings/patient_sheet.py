"""Draw the summary of one patient as one A4 page, for PDF and PNG."""

from __future__ import annotations

from collections.abc import Sequence

from dvtplan.findings.patient_images import LimbPicture, Place, ScanPictures, front_caption, limb_caption, place_limb
from dvtplan.findings.patient_text import (
    BURDEN_HEADER,
    BURDEN_TITLE,
    CONFIDENCE_TITLE,
    LESION_HEADER,
    READING_ORDER,
    burden_rows,
    date_line,
    in_numbers,
    is_number,
    lesion_rows,
    limb_empty,
    limb_title,
    provenance,
)
from dvtplan.findings.record import Findings
from dvtplan.rendering import page_layout
from dvtplan.rendering.page_layout import INK, QUIET, WARN_INK, WARN_PAPER, WARN_RULE, PageLayout

A4_MM = (210.0, 297.0)
MARGIN_MM = 13.0
MAX_ID_LENGTH = 46
"""Longer scan names are cut in the heading."""


def draw(found: Findings, shown: ScanPictures) -> PageLayout:
    """Draw warnings, the result in words, pictures, tables, and how the result was made."""
    sheet = PageLayout(*A4_MM)
    x, width = MARGIN_MM, A4_MM[0] - 2 * MARGIN_MM
    y = _heading(sheet, found, x, width)
    y = _warnings(sheet, found, x, y, width)
    y = _headline(sheet, found, x, y, width)
    foot = _foot(sheet, found, x, width)
    burden_mm = _table_mm(len(found.burden))
    rows = min(len(found.lesions), 8)
    lesions_mm = _table_mm(rows) + 4 if rows else 0.0
    pictures_mm = foot - y - burden_mm - lesions_mm - 9
    y = _pictures(sheet, found, shown, x, y, width, pictures_mm) + 3
    y = _table(sheet, x, y, width, BURDEN_TITLE, BURDEN_HEADER, burden_rows(found),
               (0, 16, 42, 62, 81, 110, 135, 159, 184))  # fmt: skip
    if rows:
        more = len(found.lesions) - rows
        title = CONFIDENCE_TITLE + (f" (the {rows} largest lesions; {more} more in the HTML page)" if more else "")
        _table(sheet, x, y + 2, width, title, LESION_HEADER, lesion_rows(found.lesions[:rows]),
               (0, 12, 28, 70, 89, 108, 127, 146, 159, 184))  # fmt: skip
    return sheet


def _heading(sheet: PageLayout, found: Findings, x: float, width: float) -> float:
    y = sheet.text(x, 9, "LEG VEINS ON MR  ·  THROMBUS SEGMENTED BY A NETWORK", size=7, bold=True, colour=QUIET)
    name = found.case_id if len(found.case_id) <= MAX_ID_LENGTH else f"{found.case_id[: MAX_ID_LENGTH - 1]}…"
    below = sheet.text(x, y + 0.5, name, size=15, bold=True)
    sheet.text(x + width, 9, date_line(found), size=8, colour=QUIET, align="right")
    sheet.text(x + width, y + 1.5, found.disclaimer.replace(". ", ".\n", 1), size=7.5, bold=True, align="right")
    sheet.horizontal_line(x, below + 1.5, width, colour=INK, thick=1.0)
    return below + 4.0


def _warnings(sheet: PageLayout, found: Findings, x: float, y: float, width: float) -> float:
    if not found.warnings:
        return y
    lines = [page_layout.wrap(line, 7.5, width - 9) for line in found.warnings]
    height = sum(page_layout.height_mm(line, 7.5) + 0.7 for line in lines) + 3
    sheet.box(x, y, width, height, fill=WARN_PAPER, edge=WARN_RULE)
    at = y + 1.7
    for line in lines:
        sheet.text(x + 2.5, at, "!", size=7.5, bold=True, colour=WARN_INK)
        at = sheet.text(x + 5.5, at, line, size=7.5, colour=WARN_INK) + 0.7
    return y + height + 3


def _headline(sheet: PageLayout, found: Findings, x: float, y: float, width: float) -> float:
    y = sheet.text(x, y, page_layout.wrap(found.in_words, 12, width, bold=True), size=12, bold=True)
    y = sheet.text(x, y + 0.5, page_layout.wrap(in_numbers(found), 8.5, width), size=8.5)
    return y + 2


CAPTION_MM = 4.0
CAPTIONS_MM = 12.0
"""Height of the captions next to a wide projection."""
MIN_COLUMN_MM = 45.0
"""Smallest width of the column of a narrow projection."""
EMPTY_MM, REMOVED_MM = 15.0, 7.0
"""Height of the text of a limb without thrombus, and more of it where components were removed."""


def _empty_mm(found: Findings) -> float:
    return EMPTY_MM + (REMOVED_MM if found.removed else 0.0)


def _pictures(
    sheet: PageLayout, found: Findings, shown: ScanPictures, x: float, y: float, width: float, height: float
) -> float:
    """Draw the projection, with the limbs next to it or, if it is wide, below it. The right leg comes first.

    Returns:
        The y below all, at most ``height`` further down.
    """
    draw_all = _tall_projection if shown.front.aspect_ratio > 1 else _wide_projection
    return draw_all(sheet, found, shown, (x, y, width, height))


def _tall_projection(sheet: PageLayout, found: Findings, shown: ScanPictures, place: Place) -> float:
    """Draw the projection on the left and the limbs right of it, one below the other."""
    x, y, width, height = place
    drawn = {one.limb: one for one in shown.limbs}
    column = MIN_COLUMN_MM
    for _ in range(2):  # A wider column has a lower caption, which may widen it further.
        caption_mm = page_layout.height_mm(page_layout.wrap(front_caption(shown), 6.5, column), 6.5) + 1.0
        front_width = min((height - CAPTION_MM - caption_mm) / shown.front.aspect_ratio, 0.36 * width)
        column = max(front_width, MIN_COLUMN_MM)
    below = y + CAPTION_MM + front_width * shown.front.aspect_ratio + 0.8
    _place_front(sheet, shown, x, y, front_width, caption=(x, below, column))
    left, top = x + column + 5, y
    each = (height - _empty_mm(found) * (len(READING_ORDER) - len(drawn))) / max(len(drawn), 1)
    for limb in READING_ORDER:
        _limb_block(sheet, found, shown, drawn.get(limb), limb, (left, top, width - column - 5, each))
        top += each if limb in drawn else _empty_mm(found)
    return y + height if drawn else min(below + caption_mm, y + height)


def _wide_projection(sheet: PageLayout, found: Findings, shown: ScanPictures, place: Place) -> float:
    """Draw the projection at the top, limbs without thrombus right of it, and the others below it in a row."""
    x, y, width, height = place
    drawn = {one.limb for one in shown.limbs}
    empty = [limb for limb in READING_ORDER if limb not in drawn]
    front_width = min(0.62 * width, (0.42 if drawn else 0.8) * height / shown.front.aspect_ratio)
    left, rest = x + front_width + 4, width - front_width - 4
    _place_front(sheet, shown, x, y, front_width, caption=(left, y + CAPTION_MM, rest))
    for k, limb in enumerate(empty):
        below = y + CAPTIONS_MM + CAPTION_MM + k * (_empty_mm(found) + 4)
        _limb_block(sheet, found, shown, None, limb, (left, below, rest, 0))
    top = y + CAPTION_MM + front_width * shown.front.aspect_ratio + 3
    each = (width - 5 * (len(drawn) - 1)) / max(len(drawn), 1)
    for k, one in enumerate(shown.limbs):
        _limb_block(sheet, found, shown, one, one.limb, (x + k * (each + 5), top, each, height - (top - y)))
    return y + height if drawn else max(top, y + CAPTIONS_MM + 2 * (_empty_mm(found) + 4))


def _place_front(
    sheet: PageLayout, shown: ScanPictures, x: float, y: float, width: float, *, caption: tuple[float, float, float]
) -> None:
    """Draw the projection with its title and its caption (x, y, width)."""
    sheet.text(x, y, "From the front", size=8, bold=True)
    sheet.picture(shown.front, x, y + CAPTION_MM, width, width * shown.front.aspect_ratio)
    sheet.text(*caption[:2], page_layout.wrap(front_caption(shown), 6.5, caption[2]), size=6.5, colour=QUIET)


def _limb_block(
    sheet: PageLayout, found: Findings, shown: ScanPictures, one: LimbPicture | None, limb: str, place: Place
) -> None:
    """Write the title and caption of a limb and draw its slice."""
    x, y, width, height = place
    at = sheet.text(x, y, limb_title(found, limb), size=8, bold=True) + 0.2
    if one is None:
        sheet.text(x, at, page_layout.wrap(limb_empty(found, limb), 8, width), size=8)
        return
    at = sheet.text(x, at, page_layout.wrap(limb_caption(found, shown, one), 6.5, width), size=6.5, colour=QUIET) + 0.5
    place_limb(sheet, one.panel, x, at, width, height - (at - y) - 3)


def _table_mm(rows: int) -> float:
    return 12.5 + rows * 4.0


def _table(
    sheet: PageLayout, x: float, y: float, width: float, title: str, header: Sequence[str],
    rows: Sequence[Sequence[str]], ends: Sequence[float],
) -> float:  # fmt: skip
    """Draw a table. Columns of words start at ``ends``, columns of numbers end there."""
    sheet.text(x, y, title, size=8, bold=True)
    words = [k == 0 or not any(is_number(row[k]) for row in rows) for k in range(len(header))]
    places = [(x + end, "left" if word else "right") for end, word in zip(ends, words, strict=True)]
    for (at, align), name in zip(places, header, strict=True):
        sheet.text(at, y + 3.8, name if "\n" in name else f"\n{name}", size=6.3, colour=QUIET, align=align)
    top = y + 10.2
    sheet.horizontal_line(x, top, width)
    for k, row in enumerate(rows):
        for (at, align), cell in zip(places, row, strict=True):
            sheet.text(at, top + 0.6 + 4.0 * k, cell, size=7.5, bold=row[1] == "all", align=align)
        if k + 1 < len(rows) and row[0] != rows[k + 1][0] and not is_number(row[0]):
            sheet.horizontal_line(x, top + 4.0 * (k + 1), width)
    return top + 4.0 * len(rows) + 1


def _foot(sheet: PageLayout, found: Findings, x: float, width: float) -> float:
    """Write how the result was made at the end of the page; return the y of its top."""
    text = page_layout.wrap(" ".join(provenance(found)), 6.3, width)
    y = A4_MM[1] - 9 - page_layout.height_mm(text, 6.3)
    sheet.horizontal_line(x, y - 1.5, width)
    sheet.text(x, y, text, size=6.3, colour=QUIET)
    return y - 2
