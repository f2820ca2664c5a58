"""Names of the values of a mask, as the header of its file states them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.imaging import volume_io
from dvtplan.imaging.volume_names import stem

MITK_GROUPS = "org.mitk.multilabel.segmentation.labelgroups"
"""Field of MITK: the labels of each layer, as JSON."""
LABEL_DESCRIPTION = re.compile(r'(\d{1,5})\s+\d+\s+\d+\s+\d+\s+[\d.]+\s+[01]\s+[01]\s+"([^"]*)"')
"""Line of a label description of ITK-SNAP: value, colour, opacity, visibility, name."""
LONGEST_TEXT = 1 << 16
"""Bytes of a label description, at most."""
OFFSET = "Segmentation_ReferenceImageExtentOffset"
"""Field of 3D Slicer: voxels x, y, z of the image before the first voxel of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedValue:
    """The name of a value of a mask."""

    name: str
    value: int
    layer: int = 0
    """Several values per voxel are layers, whose segments may overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueNames:
    """The names in the header of a mask."""

    values: tuple[NamedValue, ...] = ()
    """Empty if the header names no value."""
    is_cut: bool = False
    """The header has no room for all names, so the last ones are missing."""
    is_segmentation: bool = False
    """A segmentation of 3D Slicer or MITK, which may have layers, and may be cropped to its segments."""
    offset: tuple[int, int, int] = (0, 0, 0)
    """Of a cropped segmentation: voxels of its image before its first voxel, in file order (slowest axis first)."""


def read_value_names(path: Path) -> ValueNames:
    """Read the names of a mask's values: segments of 3D Slicer, or the notes that ``volume_io.write_mask`` writes.

    Raises:
        DvtError: if the header cannot be read, or contradicts itself.
    """
    fields = volume_io.read_metadata(path)
    segments: dict[int, dict[str, str]] = {}
    for key, text in fields.items():
        if match := re.fullmatch(r"Segment(\d+)_(ID|Name|LabelValue|Layer)", key):
            segments.setdefault(int(match[1]), {})[match[2]] = text.strip()
    if segments:
        return _of_slicer(path, segments, fields.get(OFFSET, "0 0 0"))
    if MITK_GROUPS in fields:
        return _of_mitk(path, fields[MITK_GROUPS])
    return _of_notes(fields.get(volume_io.NOTES, "").strip())


def _of_slicer(path: Path, segments: Mapping[int, Mapping[str, str]], offset: str) -> ValueNames:
    try:
        # Before version 5 each segment was a layer of its own, with the value 1, in the order of the segments.
        values = tuple(
            NamedValue(
                name=one.get("Name") or one.get("ID") or f"segment {number}",
                value=int(one.get("LabelValue") or 1),
                layer=int(one.get("Layer") or (0 if "LabelValue" in one else number)),
            )
            for number, one in sorted(segments.items())
        )
        x, y, z = (int(word) for word in offset.split())
    except ValueError:
        raise DvtError(f"{path}: its header describes segments by words, expected numbers. Save it again.") from None
    return ValueNames(values=_unique(path, values), is_segmentation=True, offset=(z, y, x))


def _of_mitk(path: Path, text: str) -> ValueNames:
    try:
        values = tuple(
            NamedValue(name=str(one["name"]), value=int(one["value"]), layer=layer)
            for layer, group in enumerate(json.loads(text))
            for one in group.get("labels", ())
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DvtError(f"{path}: its header lists no labels as MITK writes them. Save it again.") from None
    return ValueNames(values=_unique(path, values), is_segmentation=bool(values))


def _unique(path: Path, values: tuple[NamedValue, ...]) -> tuple[NamedValue, ...]:
    """Refuse two segments in one place."""
    places = [(one.layer, one.value) for one in values]
    twice = next((value for layer, value in places if places.count((layer, value)) > 1), None)
    if twice is not None:
        raise DvtError(f"{path}: its header gives the value {twice} to two segments. Save it again.")
    return values


def _of_notes(text: str) -> ValueNames:
    """Parse '1 proximal; 2 distal'; nothing for any other text."""
    is_cut = len(text) >= volume_io.MAX_NOTES - 1  # it may have ended with a space
    parts = text.split("; ")[: -1 if is_cut else None]
    found = [match for part in parts if (match := re.fullmatch(r"(\d{1,3}) (\S.*)", part))]
    numbers = [int(match[1]) for match in found]
    if len(found) < len(parts) or numbers != sorted(set(numbers)) or not all(0 < number < 255 for number in numbers):
        return ValueNames()
    return ValueNames(values=tuple(NamedValue(name=match[2], value=int(match[1])) for match in found), is_cut=is_cut)


def read_label_descriptions(path: Path) -> tuple[NamedValue, ...]:
    """Read the names of a mask's values from the text that ITK-SNAP saves next to it.

    Returns:
        The names of the file whose name begins like that of the mask, or of the only one; empty without such a file.
    """
    found: dict[str, tuple[NamedValue, ...]] = {}
    for file in sorted(path.parent.glob("*")):
        if file.suffix.lower() in (".txt", ".label") and file.is_file() and file.stat().st_size <= LONGEST_TEXT:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            matches = [match for line in lines if (match := LABEL_DESCRIPTION.fullmatch(line.strip()))]
            found[file.name] = tuple(NamedValue(name=match[2], value=int(match[1])) for match in matches)
    texts = {name: values for name, values in found.items() if values}
    named = [values for name, values in texts.items() if name.startswith(stem(path))] or list(texts.values())
    return named[0] if len(named) == 1 else ()


def labels_by_name(named: Collection[NamedValue], labels: Mapping[str, int]) -> dict[NamedValue, int]:
    """Return the value of the label of the same name, for the named values that have one.

    Upper and lower case are the same, and so are both encodings of an accent. Our notes have '?' for letters that are
    not ASCII; a name that may be two labels then is none.
    """
    known: dict[str, set[int]] = {}
    for name, value in labels.items():
        for key in {_plain(name), _plain(name).encode("ascii", "replace").decode()}:
            known.setdefault(key, set()).add(value)
    found = {one: known.get(_plain(one.name), set()) for one in named}
    return {one: min(values) for one, values in found.items() if len(values) == 1}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def name_faults(path: Path, array: np.ndarray, labels: Mapping[str, int]) -> Iterable[str]:
    """Yield the values of a mask that its header gives the name of another label, in one line."""
    named = read_value_names(path).values
    if not named:
        return
    meant = labels_by_name(named, labels)
    wrong = [one for one in named if meant.get(one, one.value) != one.value and (array == one.value).any()]
    if wrong:
        found = shorten_list([f"{one.value} {one.name}" for one in wrong])
        listed = shorten_list([f"{value} {name}" for name, value in labels.items()])
        yield (
            f"{path}: its header names the values {found}, but dataset.json lists {listed}. Renumber the mask, or fix "
            "its header."
        )
