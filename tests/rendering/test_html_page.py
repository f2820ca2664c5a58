"""The page: every text escaped, nothing loaded from elsewhere, and what a reader of any kind needs."""

from __future__ import annotations

import base64
import re

import pytest
from helpers.html_reader import Reader

from dvtplan.rendering import html_page

PNG = b"\x89PNG\r\n\x1a\n<not really>"
EVIL = '<script>alert("1")</script> & <b>'


def whole(*content: str) -> str:
    return html_page.document("A report", [("one", "One")], html_page.paragraph("before"), *content, footer="end")


def test_a_string_is_text_and_markup_stays_markup() -> None:
    assert html_page.text("a < b & 'c'\n\"d\"") == "a &lt; b &amp; &#x27;c&#x27;<br>&quot;d&quot;"
    assert html_page.text(html_page.element("b", "x")) == html_page.element("b", "x")
    assert html_page.element("p", "<", html_page.element("span", ">"), class_="k", aria_label='"') == (
        '<p class="k" aria-label="&quot;">&lt;<span>&gt;</span></p>\n'
    )


def test_every_door_escapes() -> None:
    made = html_page.document(
        EVIL,
        [(EVIL, EVIL)],
        html_page.banner(EVIL),
        html_page.section(
            "s", EVIL, html_page.paragraph(EVIL), html_page.bullets([EVIL]), html_page.terms([(EVIL, EVIL)])
        ),
        html_page.table(EVIL, (EVIL, EVIL), [(EVIL, [(EVIL, EVIL)])]),
        html_page.figure(PNG, "png", EVIL, EVIL),
        html_page.grid(EVIL),
        EVIL,
        footer=EVIL,
    )
    read = Reader(made)
    assert not read.open and not read.all("script") and not read.all("b")
    assert read.all("img")[0]["alt"] == EVIL
    # Title, h1, contents; banner, h2, p, li, 2 terms; 6 in the table; caption, grid, loose text, footer.
    assert read.text.count("alert") == 3 + 6 + 6 + 4


def test_the_page_loads_nothing_and_forbids_it() -> None:
    made = whole(html_page.figure(PNG, "png", "alt", "caption"))
    assert "://" not in made and "@import" not in made and "url(" not in made
    read = Reader(made)
    assert not {tag for tag, _ in read.elements} & {"script", "link", "iframe", "object", "base"}
    policy = next(m["content"] for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == html_page.POLICY and policy.startswith("default-src 'none'")


def test_an_image_is_carried_whole() -> None:
    image = Reader(html_page.figure(PNG, "png", "two\nlines", "caption")).all("img")[0]
    kind, _, data = image["src"].partition(";base64,")
    assert kind == "data:image/png" and base64.b64decode(data) == PNG and image["alt"] == "two lines"


def test_a_document_has_a_language_a_title_a_heading_and_a_way_past_the_contents() -> None:
    read = Reader(whole(html_page.section("one", "One", "text")))
    assert not read.open and read.all("html") == [{"lang": "en"}]
    assert len(read.all("h1")) == len(read.all("title")) == len(read.all("main")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.all("meta")
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in read.all("a")} == {"#main", "#one"} and {"main", "one"} <= set(ids)
    assert read.all("section") == [{"id": "one", "aria-labelledby": "one-title"}]


def test_a_table_says_what_its_headers_head() -> None:
    made = html_page.table("Scores", ("Region", "DSC", "Note"), [("net", [("all", "0.80", "two\nlines")])], wide=(2,))
    read = Reader(made)
    assert [th["scope"] for th in read.all("th")] == ["col", "col", "col", "rowgroup", "row"]
    assert read.all("th")[3]["colspan"] == "3"
    assert read.all("td") == [{}, {"class": "wide"}] and "two<br>lines" in made
    assert len(read.all("caption")) == 1
    assert read.all("div") == [{"class": "scroll short", "role": "region", "tabindex": "0", "aria-label": "Scores"}]


def test_a_long_table_may_be_divided_between_pages() -> None:
    rows = [(str(k), "x") for k in range(html_page.MOST_ROWS_UNBROKEN + 1)]
    assert Reader(html_page.table("c", ("a", "b"), [("", rows)])).all("div")[0]["class"] == "scroll"
    assert Reader(html_page.table("c", ("a", "b"), [("", rows[1:])])).all("div")[0]["class"] == "scroll short"


def test_a_group_without_a_name_has_no_row_for_it_and_an_empty_list_is_nothing() -> None:
    assert "rowgroup" not in html_page.table("c", ("a",), [("", [("x",)])])
    assert html_page.bullets([]) == ""


def test_charts_turn_dark_and_pictures_do_not() -> None:
    assert 'class="chart"' in html_page.figure(PNG, "png", "a", "c")
    assert 'class="picture"' in html_page.figure(PNG, "jpeg", "a", "c")
    dark = html_page.STYLE.partition("prefers-color-scheme: dark")[2].partition("\n}\n")[0]
    assert "figure.chart img { filter: invert(1)" in dark and "picture" not in dark


def schemes() -> list[dict[str, str]]:
    light, _, rest = html_page.STYLE.partition("prefers-color-scheme: dark")
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part.partition("}")[0])) for part in (light, rest)]


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "paper"),
    [("ink", "paper"), ("ink", "soft"), ("quiet", "paper"), ("link", "paper"), ("warn-ink", "warn-paper")],
)
def test_text_stands_out_from_its_background(scheme: int, ink: str, paper: str) -> None:
    """7:1 is WCAG's level AAA."""
    colours = schemes()[scheme]
    lighter, darker = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= (4.5 if ink == "link" else 7)


def test_paper_hides_what_is_for_the_screen_and_keeps_figures_whole() -> None:
    paper = html_page.STYLE.partition("@media print")[2]
    assert "nav, .skip, .back { display: none; }" in paper
    assert "figure, tr, .banner, .short { break-inside: avoid; }" in paper
