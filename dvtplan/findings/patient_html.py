"""The HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from dvtplan.core.text import plural
from dvtplan.findings.patient_images import (
    PICTURE_BYTES,
    ScanPictures,
    draw_limb,
    draw_projection,
    front_caption,
    limb_caption,
    slice_position,
)
from dvtplan.findings.patient_text import (
    BURDEN_HEADER,
    LESION_HEADER,
    NEVER_CALIBRATED,
    READING_ORDER,
    burden_rows,
    date_line,
    in_numbers,
    lesion_rows,
    limb_empty,
    limb_title,
    provenance,
)
from dvtplan.findings.record import Findings
from dvtplan.rendering import html_page, output, page_layout
from dvtplan.rendering.html_page import Html

# --- the HTML page --------------------------------------------------------------------------------


def document(found: Findings, shown: ScanPictures) -> str:
    """The page: the sheet's content with every lesion, its pictures told in words too."""
    opening = html_page.join(
        (
            *(html_page.banner(line) for line in found.warnings),
            html_page.paragraph(html_page.element("strong", found.in_words)),
            html_page.paragraph(in_numbers(found), kind="lead"),
            html_page.paragraph(f"{date_line(found)}. {found.disclaimer}", kind="note"),
        )
    )
    return html_page.document(
        f"Leg veins on MR: {found.case_id}",
        (("pictures", "Pictures"), ("burden", "How much"), ("lesions", "How sure"), ("making", "What it rests on")),
        opening,
        html_page.section("pictures", "Pictures", html_page.grid(*_figures(found, shown)), *_empty_limbs(found, shown)),
        html_page.section("burden", "How much", _burden_table(found)),
        html_page.section(
            "lesions", "How sure", _lesion_table(found), html_page.paragraph(NEVER_CALIBRATED, kind="note")
        ),
        html_page.section("making", "What it rests on", html_page.bullets(provenance(found)[:-1])),
        footer=found.disclaimer,
    )


def _figures(found: Findings, shown: ScanPictures) -> list[Html]:
    width_mm = output.WIDTH_IN * page_layout.MM_PER_IN
    parts = [limb_title(found, limb) for limb in READING_ORDER]
    made = [
        html_page.figure(
            output.encode(draw_projection(shown.front, width_mm).figure, "jpeg", PICTURE_BYTES),
            "jpeg",
            f"Maximum intensity projection of {found.case_id} from the front with the edge of what was marked: "
            f"{'; '.join(parts)}.",
            f"From the front. {front_caption(shown)}",
        )
    ]
    for one in shown.limbs:
        made.append(
            html_page.figure(
                output.encode(draw_limb(one.panel, width_mm).figure, "jpeg", PICTURE_BYTES),
                "jpeg",
                f"{slice_position(found, shown, one).capitalize()}, with most of what was marked in the {one.limb} "
                "leg; its neighbourhood magnified without and with the edge of what was marked.",
                f"{limb_title(found, one.limb)}. {limb_caption(found, shown, one)}",
            )
        )
    return made


def _empty_limbs(found: Findings, shown: ScanPictures) -> list[Html]:
    drawn = {one.limb for one in shown.limbs}
    return [html_page.paragraph(limb_empty(found, limb)) for limb in READING_ORDER if limb not in drawn]


def _burden_table(found: Findings) -> Html:
    caption = "What was marked in each leg and part. A negative distance lies below the level."
    return html_page.table(caption, _flat(BURDEN_HEADER), [("", burden_rows(found))])


def _lesion_table(found: Findings) -> Html:
    if not found.lesions:
        return html_page.paragraph(found.in_words)
    caption = f"{plural(len(found.lesions), 'lesion')}, by volume. Numbers as in the projection."
    return html_page.table(caption, _flat(LESION_HEADER), [("", lesion_rows(found.lesions))])


def _flat(header: Sequence[str]) -> list[str]:
    """A header in one line each."""
    return [name.replace("\n", ", " if name.endswith(("\nmL", "\nmm")) else " ") for name in header]
