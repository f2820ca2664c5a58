"""A mask in further forms, beside it: a DICOM segmentation object, names of its values for ITK-SNAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dvtplan.core import console
from dvtplan.core.files import write_text
from dvtplan.data import prediction_log
from dvtplan.data.mask_files import dicom_seg_path
from dvtplan.dicom import segmentation_reader, segmentation_writer
from dvtplan.dicom.segmentation_writer import class_colour
from dvtplan.imaging import volume_io
from dvtplan.imaging.volume_io import stem
from dvtplan.inference.inputs import PredictionInput
from dvtplan.inference.model import Model

DICOM_SEG, LABELS = "dicom-seg", "itksnap"
EXTRA_FORMATS = {DICOM_SEG: "a DICOM segmentation object", LABELS: "names of the values for ITK-SNAP"}
"""Further forms of a mask -> what they are."""


def write_formats(
    masks: Sequence[Path],
    parts: Sequence[Path],
    given: PredictionInput,
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
    changed = prediction_log.changed([*masks, *parts]) if DICOM_SEG in also else set()
    on_series = parts[: len(given.shown)] if given.composed is not None else masks
    for path in [*masks, *parts[: len(given.stations)]] if LABELS in also else []:
        write_label_descriptions(beside := path.with_name(f"{stem(path)}_labels.txt"), model.classes)
        written.append(beside)
    for path, shown in zip(on_series, given.shown, strict=False) if DICOM_SEG in also else []:
        beside = dicom_seg_path(path)
        written.append(beside)
        corrected = path in changed or (given.composed is not None and masks[0] in changed)
        if beside.exists() and not overwrite:
            maker, kinds = segmentation_reader.read_algorithm(beside)
            if maker != segmentation_writer.MANUFACTURER:
                console.warn(f"{beside}: comes from elsewhere, and is kept. --overwrite makes it anew.")
                continue
            if beside.stat().st_mtime_ns >= path.stat().st_mtime_ns and not (corrected and "AUTOMATIC" in kinds):
                continue
        if given.found is None:
            raise ValueError("a segmentation object without a series")
        mask, _ = volume_io.read(path)
        segmentation_writer.write_segmentation(
            beside, mask, given.found, shown, model.classes, model=model.digest[:16], corrected=corrected
        )
    return written


def write_label_descriptions(path: Path, classes: Mapping[str, int]) -> None:
    """Write the names and colours of a mask's values as ITK-SNAP reads them: index, R, G, B, opacity, two flags, name.

    Raises:
        DvtError: if it cannot be written.
    """
    rows = [(0, (0, 0, 0), 0, "Clear Label")]
    rows += [(value, class_colour(k), 1, name.replace('"', "'")) for k, (name, value) in enumerate(classes.items())]
    lines = [
        f'{value:5d} {r:5d} {g:4d} {b:4d} {shown:8d} {shown:2d} {shown:2d}    "{name}"'
        for value, (r, g, b), shown, name in rows
    ]
    head = "# Labels of the masks beside this file: index, red, green, blue, opacity, visible, in 3-D, name"
    write_text(path, "\n".join([head, *lines]) + "\n")
