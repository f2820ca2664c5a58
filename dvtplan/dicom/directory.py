"""Read DICOMDIR, the list of a medium's files, to notice images that were not copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvtplan.core.errors import DvtError
from dvtplan.dicom.reader import Opener, read_all_tags

Listing = Mapping[str, Mapping[str, str]]
"""Series UID -> SOP instance UID -> file name."""


def read_directory(name: str, opener: Opener) -> Listing:
    """Return the images that a DICOMDIR lists; nothing if it is damaged, because it is not needed."""
    try:
        records = read_all_tags(name, opener).get("DirectoryRecordSequence") or ()
        return _listed(records)
    except (DvtError, ValueError, TypeError, AttributeError):
        return {}


def _listed(records: Any) -> Listing:
    """Return the images of each series. The record of a series comes before those of its images."""
    listing: dict[str, dict[str, str]] = {}
    series_uid = ""
    for record in records:
        kind = str(record.get("DirectoryRecordType") or "").strip()
        if kind == "SERIES":
            series_uid = str(record.get("SeriesInstanceUID") or "").strip()
        elif kind == "IMAGE" and series_uid:
            words = record.get("ReferencedFileID") or ""
            file = words if isinstance(words, str) else "/".join(map(str, words))
            listing.setdefault(series_uid, {})[str(record.get("ReferencedSOPInstanceUIDInFile") or "").strip()] = file
    return listing
