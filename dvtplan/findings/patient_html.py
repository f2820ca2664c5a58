"""Write the HTML summary of one patient."""

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
    BURDEN_TITLE,
    CONFIDENCE_TITLE,
    LESION_HEADER,
    NOT_CALIBRATED,
    ORIGIN_TITLE,
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


def document(found: Findings, shown: ScanPictures) -> str:
    """Return the HTML page: the content of the sheet, every lesion, and a description of each picture."""
    header = html_page.join(
        (
            *(html_page.banner(line) for line in found.warnings),
            html_page.paragraph(html_page.element("strong", found.in_words)),
            html_page.paragraph(in_numbers(found), kind="lead"),
            html_page.paragraph(f"{date_line(found)}. {found.disclaimer}", kind="note"),
        )
    )
    return html_page.document(
        f"Leg veins on MR: {found.case_id}",
        (("pictures", "Pictures"), ("burden", BURDEN_TITLE), ("lesions", CONFIDENCE_TITLE), ("origin", ORIGIN_TITLE)),
        header,
        html_page.section("pictures", "Pictures", html_page.grid(*_figures(found, shown)), *_empty_limbs(found, shown)),
        html_page.section("burden", BURDEN_TITLE, _burden_table(found)),
        html_page.section(
            "lesions", CONFIDENCE_TITLE, _lesion_table(found), html_page.paragraph(NOT_CALIBRATED, kind="note")
        ),
        html_page.section("origin", ORIGIN_TITLE, html_page.bullets(provenance(found)[:-1])),
        footer=found.disclaimer,
    )


def _figures(found: Findings, shown: ScanPictures) -> list[Html]:
    width_mm = output.WIDTH_IN * page_layout.MM_PER_IN
    titles = [limb_title(found, limb) for limb in READING_ORDER]
    figures = [
        html_page.figure(
            output.encode(draw_projection(shown.front, width_mm).figure, "jpeg", PICTURE_BYTES),
            "jpeg",
            f"Maximum intensity projection of {found.case_id} from the front with the outline of the segmentation: "
            f"{'; '.join(titles)}.",
            f"From the front. {front_caption(shown)}",
        )
    ]
    for one in shown.limbs:
        figures.append(
            html_page.figure(
                output.encode(draw_limb(one.panel, width_mm).figure, "jpeg", PICTURE_BYTES),
                "jpeg",
                f"{slice_position(found, shown, one).capitalize()}, the slice with most thrombus in the "
                f"{one.limb} leg; its neighbourhood enlarged, without and with the outline.",
                f"{limb_title(found, one.limb)}. {limb_caption(found, shown, one)}",
            )
        )
    return figures


def _empty_limbs(found: Findings, shown: ScanPictures) -> list[Html]:
    drawn = {one.limb for one in shown.limbs}
    return [html_page.paragraph(limb_empty(found, limb)) for limb in READING_ORDER if limb not in drawn]


def _burden_table(found: Findings) -> Html:
    caption = "Thrombus burden of each leg and region. A negative distance is below the level."
    return html_page.table(caption, _flat(BURDEN_HEADER), [("", burden_rows(found))])


def _lesion_table(found: Findings) -> Html:
    if not found.lesions:
        return html_page.paragraph(found.in_words)
    caption = f"{plural(len(found.lesions), 'lesion')}, by volume. Numbers as in the projection."
    return html_page.table(caption, _flat(LESION_HEADER), [("", lesion_rows(found.lesions))])


def _flat(header: Sequence[str]) -> list[str]:
    """Put each heading on one line."""
    return [name.replace("\n", ", " if name.endswith(("\nmL", "\nmm")) else " ") for name in header]
