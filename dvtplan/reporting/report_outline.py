"""The sections of the report: their anchors and titles."""

from __future__ import annotations

from dvtplan.rendering import html_page
from dvtplan.rendering.html_page import Html

SECTIONS = {
    "overview": "At a glance",
    "scores": "Scores",
    "figures": "Figures",
    "methods": "How the networks were made",
    "patients": "Patients",
}
"""Anchor -> title, in the order of the page."""


def section(anchor: str, *content: str, kind: str = "") -> Html:
    """Return a section of the page; ``anchor`` is a key of ``SECTIONS``."""
    return html_page.section(anchor, SECTIONS[anchor], *content, kind=kind)
