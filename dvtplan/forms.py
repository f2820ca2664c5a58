"""A mask in further forms, beside it: a DICOM segmentation object, names of its values for ITK-SNAP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvtplan import dicom, journal, ledger, segments, volumes
from dvtplan.inference import Model
from dvtplan.scans import Given
from dvtplan.workspace import stem

DICOM_SEG, LABELS = "dicom-seg", "itksnap"
ALSO = {DICOM_SEG: "a DICOM segmentation object", LABELS: "names of the values for ITK-SNAP"}
"""Further forms of a mask -> what they are."""


def write(
    masks: Sequence[Path],
    parts: Sequence[Path],
    given: Given,
    model: Model,
    also: Sequence[str],
    *,
    overwrite: bool,
) -> list[Path]:
    """Write masks in further forms; an object that is younger than its mask is that mask's, and stays what it is.

    Args:
        masks: of the cases that were given; of stations the one of the whole.
        parts: of stations, the mask of each, from head to foot.
        given: what was predicted.
        model: what predicted.
        also: forms, of ``ALSO``.
        overwrite: make anew what is there, also where it comes from elsewhere.

    Returns:
        The files.

    Raises:
        DvtError: if one cannot be written, as ``segments.write``.
    """
    written = list[Path]()
    changed = ledger.changed([*masks, *parts]) if DICOM_SEG in also else set()
    on_series = parts[: len(given.shown)] if given.composed is not None else masks
    for path in [*masks, *parts[: len(given.stations)]] if LABELS in also else []:
        segments.write_descriptions(beside := path.with_name(f"{stem(path)}_labels.txt"), model.classes)
        written.append(beside)
    for path, shown in zip(on_series, given.shown, strict=False) if DICOM_SEG in also else []:
        beside = object_path(path)
        written.append(beside)
        corrected = path in changed or (given.composed is not None and masks[0] in changed)
        if beside.exists() and not overwrite:
            maker, kinds = dicom.maker_of(beside)
            if maker != segments.MAKER:
                journal.warn(f"{beside}: comes from elsewhere, and is kept. --overwrite makes it anew.")
                continue
            if beside.stat().st_mtime_ns >= path.stat().st_mtime_ns and not (corrected and "AUTOMATIC" in kinds):
                continue
        if given.found is None:
            raise ValueError("a segmentation object without a series")
        mask, _ = volumes.read(path)
        segments.write(beside, mask, given.found, shown, model.classes, model=model.digest[:16], corrected=corrected)
    return written


def object_path(mask: Path) -> Path:
    """Where a mask lies as a DICOM segmentation object."""
    return mask.with_name(f"{stem(mask)}_seg.dcm")
