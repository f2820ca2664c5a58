"""Build a self-contained HTML page from text and images.

A string is text and is escaped. Only ``Html`` is markup, and only this module creates it. The page has no script and
loads nothing; its policy forbids both.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: only the images and styles inside the page."""

MOST_ROWS_UNBROKEN = 20
"""A printed table with more rows may continue on the next page."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1b2026; --quiet: #4b555f; --paper: #ffffff; --soft: #f2f4f6; --line: #c3cad1; --link: #0a558c;
  --warn-paper: #fff1c9; --warn-ink: #4a3800; --warn-line: #b98900;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e8ebee; --quiet: #b3bcc5; --paper: #14181c; --soft: #1f252b; --line: #465059; --link: #86c5f4;
    --warn-paper: #3d3000; --warn-ink: #ffe9ad; --warn-line: #d9a514;
  }
  figure.chart img { filter: invert(1) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere;
}
h1, h2, h3, h4 { line-height: 1.25; margin: 2rem 0 .6rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin-top: .5rem; }
h2 { font-size: 1.3rem; border-bottom: 2px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1.1rem; }
p, ul, ol { margin: .6rem 0; max-width: 46rem; }
li { margin: .25rem 0; }
a { color: var(--link); }
a:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; }
.skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; list-style: none; padding: 0; }
nav a { display: inline-block; padding: .25rem 0; }
.lead, .note, figcaption, caption { color: var(--quiet); }
.note, figcaption { font-size: .875rem; }
.banner {
  border: 2px solid var(--warn-line); background: var(--warn-paper); color: var(--warn-ink);
  padding: .7rem 1rem; margin: 1rem 0; max-width: none; font-weight: 600;
}
.scroll {
  overflow-x: auto; margin: 1rem 0; container-type: inline-size;
  background:
    linear-gradient(to right, var(--paper) 40%, transparent) left / 2.5rem 100%,
    linear-gradient(to left, var(--paper) 40%, transparent) right / 2.5rem 100%,
    linear-gradient(to right, var(--line), transparent) left / .7rem 100%,
    linear-gradient(to left, var(--line), transparent) right / .7rem 100%;
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll;
}
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
caption span { display: block; position: sticky; left: 0; width: max-content; }
caption span { max-width: min(46rem, 100cqw); }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th, td { overflow-wrap: normal; }
td { white-space: nowrap; }
td.wide { min-width: 14rem; white-space: normal; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid var(--line); }
tbody th { font-weight: 400; }
tbody th[scope="rowgroup"] { font-weight: 700; background: var(--soft); }
figure { margin: 1rem 0; }
figure img { display: block; width: 100%; height: auto; }
figure.chart img { background: #ffffff; }
figcaption { margin-top: .4rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 1.5rem; }
.tables { grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); }
.grid > figure { max-width: 36rem; }
.grid > .scroll { min-width: 0; }
.patient .grid > .scroll { grid-column: 1 / -1; }
.terms { columns: 22rem; column-gap: 2rem; }
.terms p { margin: 0 0 .6rem; break-inside: avoid; }
.patient { border-top: 1px solid var(--line); }
.patient h3 { margin-top: 1.2rem; }
footer { margin-top: 3rem; border-top: 2px solid var(--line); }
@media (max-width: 30rem) {
  body { padding: .7rem; }
  table { font-size: .82rem; }
  th, td { padding: .25rem .3rem; }
  td.wide { min-width: 7rem; }
}
@page { margin: 14mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  p, ul { max-width: none; }
  nav, .skip, .back { display: none; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .banner, .short { break-inside: avoid; }
  thead { display: table-header-group; }
  table, .note, figcaption { font-size: 8.5pt; }
  th, td { padding: .2rem .4rem; }
  caption span { position: static; width: auto; max-width: none; }
  .scroll { overflow: visible; margin: 0 0 4mm; background: none; container-type: normal; }
  .grid { grid-template-columns: 1fr 1fr; gap: 0 6mm; }
  .tables { grid-template-columns: 1fr; }
  .grid > figure { margin: 0 0 4mm; max-width: none; }
  .paged { break-before: page; }
  .patient { break-inside: avoid; break-before: page; border: 0; }
  .patient h3 { margin-top: 0; }
  .patient .grid > .scroll { grid-column: auto; order: 1; }
  .patient figure img { width: auto; max-width: 100%; max-height: 105mm; }
  .banner { border: 2pt solid #000000; background: none; color: #000000; }
  a { color: inherit; text-decoration: none; }
}
"""


class Html(str):
    """Markup. Any other string is text."""

    __slots__ = ()


def text(value: str) -> Html:
    """Escape a text and keep its line ends; return markup unchanged."""
    return value if isinstance(value, Html) else Html(html.escape(value).replace("\n", "<br>"))


def join(parts: Iterable[str], between: str = "") -> Html:
    """Join texts and markup."""
    return Html(text(between).join(text(part) for part in parts))


INLINE = ("a", "strong", "span")
"""Elements inside a line, without a line end after them."""


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Make an element. Write the attribute class as ``class_``, and a hyphen as an underscore."""
    named = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    attributes_text = "".join(f' {name}="{html.escape(value)}"' for name, value in named)
    return Html(f"<{tag}{attributes_text}>{join(content)}</{tag}" + (">" if tag in INLINE else ">\n"))


def paragraph(*content: str, kind: str = "") -> Html:
    """Make a paragraph; ``kind`` is a class of ``STYLE``, such as 'note' or 'lead'."""
    return element("p", *content, class_=kind) if kind else element("p", *content)


def banner(*content: str) -> Html:
    """Make a prominent warning."""
    return element("p", *content, class_="banner", role="note")


def bullets(items: Iterable[str]) -> Html:
    """Make an unordered list; empty for no items."""
    points = [element("li", item) for item in items]
    return element("ul", *points) if points else Html("")


def terms(pairs: Iterable[tuple[str, str]]) -> Html:
    """Make a glossary: one paragraph per term and its meaning."""
    entries = [paragraph(element("strong", f"{word}."), " ", meaning) for word, meaning in pairs]
    return element("div", *entries, class_="terms")


def link(target: str, *content: str) -> Html:
    """Make a link to an id in the page."""
    return element("a", *content, href=f"#{target}")


def section(id_: str, title: str, *content: str, level: int = 2, kind: str = "") -> Html:
    """Make a section with a heading and an id for links."""
    more = {"class_": kind} if kind else {}
    heading = element(f"h{level}", title, id=f"{id_}-title")
    return element("section", heading, *content, id=id_, aria_labelledby=f"{id_}-title", **more)


def table(
    caption: str,
    header: Sequence[str],
    groups: Iterable[tuple[str, Iterable[Sequence[str]]]],
    wide: Sequence[int] = (),
) -> Html:
    """Make a table that scrolls sideways on a narrow page.

    Args:
        caption: of the table.
        header: one title per column.
        groups: name and rows; the name is printed above its rows unless empty. The first cell of a row is its header.
        wide: indices of columns with sentences, whose text may wrap.
    """
    bodies, count = [], 0
    for name, rows in groups:
        lines = [element("tr", element("th", name, scope="rowgroup", colspan=str(len(header))))] if name else []
        for first, *cells in rows:
            count += 1
            kinds = [{"class_": "wide"} if k in wide else {} for k in range(1, len(cells) + 1)]
            others = [element("td", cell, **kind) for cell, kind in zip(cells, kinds, strict=True)]
            lines.append(element("tr", element("th", first, scope="row"), *others))
        bodies.append(element("tbody", *lines))
    titles = element("thead", element("tr", *(element("th", title, scope="col") for title in header)))
    whole = element("table", element("caption", element("span", caption)), titles, *bodies)
    kind = "scroll short" if count <= MOST_ROWS_UNBROKEN else "scroll"
    return element("div", whole, class_=kind, role="region", tabindex="0", aria_label=_plain(caption))


def figure(image: bytes, kind: str, alt: str, *caption: str) -> Html:
    """Make a figure with the image inside the page.

    Args:
        image: the file's bytes.
        kind: 'png' for a chart, which is inverted in dark mode, or 'jpeg' for a picture, which is not.
        alt: alternative text.
        caption: printed below.
    """
    shown = Html(f'<img src="{data_uri(image, kind)}" alt="{html.escape(_plain(alt))}">')
    return element("figure", shown, element("figcaption", *caption), class_="chart" if kind == "png" else "picture")


def grid(*content: str, kind: str = "") -> Html:
    """Arrange figures or tables side by side, as many as fit. On paper the kind 'tables' has one per row."""
    return element("div", *content, class_=f"grid {kind}".rstrip())


def data_uri(image: bytes, kind: str) -> str:
    """Return the data URI of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def document(title: str, contents: Sequence[tuple[str, str]], before: str, *sections: str, footer: str = "") -> str:
    """Make the whole page.

    Args:
        title: of the window and the first heading.
        contents: id and name of each entry in the table of contents.
        before: content between the heading and the table of contents.
        sections: the main content.
        footer: content at the end.
    """
    leads = element("nav", bullets(link(id_, name) for id_, name in contents), aria_label="Contents")
    head = (
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n"
    )
    body = join(
        (
            element("a", "Skip to the results", href="#main", class_="skip"),
            element("header", element("h1", title), before, leads),
            element("main", *sections, id="main"),
            element("footer", footer),
        )
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}</head>\n<body>\n{body}</body>\n</html>\n'


def _plain(value: str) -> str:
    """Return text as one line, for an attribute."""
    return " ".join(value.split())
