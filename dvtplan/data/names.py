"""Names of labels, channels, cases and patients: one spelling, and which of them files and tables can hold."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from dvtplan.anatomy.levels import ALL

LONGEST_NAME = 64
"""Most characters of a label's name: the most that a label in DICOM may have."""
LONGEST_FILE = 255
"""Most bytes of a file name."""
TEMPORARY = len(".writing-1234-12345678-")
"""Bytes that the name of an unfinished file has before the name."""
RESERVED_LABELS = {
    "background": "is the name of the value 0",
    "ignore": "would be trained and scored like any other: give its voxels a true label and remove it",
    ALL: "is the name of the union of all labels",
}
"""Name that no foreground label may have, in upper or lower case -> why."""
_NOT_IN_NAMES = '/\\:*?"<>|'
"""Characters that no file name may have on some system, and the separator of ``--split``."""
_BLANK = frozenset(map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)))
"""Letters and marks that show nothing, besides control and format characters and variation selectors."""


def normalized(text: str) -> str:
    """Return a name in its composed form (NFC), because file systems and programs differ in that."""
    return unicodedata.normalize("NFC", text)


def visible(text: str) -> str:
    """Return a text as a reader sees it: composed, without invisible characters, with single spaces between words."""
    spaced = "".join(" " if c.isspace() else c for c in normalized(text) if c.isspace() or _shows(c))
    return " ".join(spaced.split())


def _shows(character: str) -> bool:
    selector = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    return not selector and character not in _BLANK and unicodedata.category(character) not in ("Cc", "Cf")


def same_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that differ only in case or in invisible characters."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(normalized(visible(name).casefold()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def name_fault(name: str) -> str:
    """Return why a label cannot have a name, which becomes part of file names and tables; empty if it can."""
    if not name:
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters, more than {LONGEST_NAME}"
    if not name.isprintable() or visible(name) != normalized(name):
        return "contains characters that cannot be seen, or spaces at its ends"
    if found := [c for c in name if c in _NOT_IN_NAMES]:
        return f"contains {found[0]}, which a file name cannot have"
    if name.startswith(".") or name.endswith("."):
        return "begins or ends with a point"
    return ""


def label_faults(names: Iterable[str]) -> list[str]:
    """Return why foreground labels cannot have these names, each with its name; an empty list if they can."""
    names = list(names)
    faults = [f"the label {shown(name)} {fault}" for name in names if (fault := name_fault(name))]
    faults += [
        f"the label {shown(name)} {RESERVED_LABELS[found]}"
        for name in names
        if (found := name.casefold()) in RESERVED_LABELS
    ]
    return faults + [f"the labels {' and '.join(map(shown, group))} differ only in case" for group in same_names(names)]


def shown(name: str) -> str:
    """Return a name for a message, in one line and not too long."""
    return repr(name[:LONGEST_NAME]) + ("..." if len(name) > LONGEST_NAME else "")
