"""Write masks in additional formats: DICOM segmentation objects, and label names for ITK-SNAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dvtplan.core import console
from dvtplan.core.files import write_text
from dvtplan.data.edited_masks import edited_masks
from dvtplan.data.mask_files import dicom_seg_path, labels_path
from dvtplan.dicom import segmentation_reader, segmentation_writer
from dvtplan.dicom.segmentation_writer import class_colour
from dvtplan.imaging import volume_io
from dvtplan.inference.inputs import PredictionInput
from dvtplan.inference.kept_masks import require_usable
from dvtplan.inference.model import Model
from dvtplan.inference.options import DICOM_SEG, LABELS, PredictOptions


def write_formats(
    masks: Sequence[Path], stations: Sequence[Path], source: PredictionInput, model: Model, options: PredictOptions
) -> list[Path]:
    """Write masks in the formats of ``options.extra_formats``.

    Args:
        masks: of the cases; for stations, the mask of the whole.
        stations: mask of each station, from head to foot, then other files.
        source: the input.
        model: the model.
        options: of the prediction.

    Returns:
        The files, including those that were kept.

    Raises:
        DvtError: if a file cannot be written, or an edited mask does not fit its series.
    """
    written = list[Path]()
    if LABELS in options.extra_formats:
        for mask in [*masks, *stations[: len(source.stations)]]:
            write_label_descriptions(labels_path(mask), model.classes)
            written.append(labels_path(mask))
    if DICOM_SEG in options.extra_formats:
        written += _write_dicom_seg(masks, stations, source, model, overwrite=options.overwrite)
    return written


def require_writable(source: PredictionInput, model: Model, options: PredictOptions) -> None:
    """Check before a prediction that its masks can be written in the formats of ``options.extra_formats``.

    Raises:
        DvtError: if the series lacks tags that a DICOM segmentation object takes from it.
    """
    if DICOM_SEG in options.extra_formats and source.study is not None:
        for volumes in source.source_volumes:
            segmentation_writer.require_source(source.study, volumes, model.classes)


def _write_dicom_seg(
    masks: Sequence[Path], stations: Sequence[Path], source: PredictionInput, model: Model, *, overwrite: bool
) -> list[Path]:
    """Write a DICOM segmentation object for each mask of a scan, or of a station."""
    if source.study is None:
        raise ValueError("a DICOM segmentation object needs a DICOM series")
    written, edited = list[Path](), edited_masks([*masks, *stations])
    is_stitched = source.stitched is not None
    on_series = stations[: len(source.source_volumes)] if is_stitched else masks
    for mask, volumes in zip(on_series, source.source_volumes, strict=False):
        if mask in edited:
            name = f"{source.study.source}: series {volumes[0].name}"
            require_usable(mask, name, volumes[0].grid, model.classes)
        path = dicom_seg_path(mask)
        written.append(path)
        corrected = mask in edited or (is_stitched and masks[0] in edited)
        if overwrite or not _keeps(path, mask, corrected=corrected):
            values, _ = volume_io.read(mask)
            segmentation_writer.write_segmentation(
                path, values, source.study, volumes, model.classes, model=model.digest[:16], corrected=corrected
            )
    return written


def _keeps(path: Path, mask: Path, *, corrected: bool) -> bool:
    """Return whether an existing object is kept: one by another program, or one that is newer than its mask."""
    if not path.exists():
        return False
    manufacturer, kinds = segmentation_reader.read_algorithm(path)
    if manufacturer != segmentation_writer.MANUFACTURER:
        console.warn(f"{path}: was written by another program and is kept. Set `overwrite=True` to replace it.")
        return True
    is_newer = path.stat().st_mtime_ns >= mask.stat().st_mtime_ns
    return is_newer and not (corrected and "AUTOMATIC" in kinds)


def write_label_descriptions(path: Path, classes: Mapping[str, int]) -> None:
    """Write the names and colours of a mask's values as ITK-SNAP reads them: index, R, G, B, opacity, two flags, name.

    Raises:
        DvtError: if the file cannot be written.
    """
    rows = [(0, (0, 0, 0), 0, "Clear Label")]
    rows += [(value, class_colour(k), 1, name.replace('"', "'")) for k, (name, value) in enumerate(classes.items())]
    lines = [
        f'{value:5d} {r:5d} {g:4d} {b:4d} {visible:8d} {visible:2d} {visible:2d}    "{name}"'
        for value, (r, g, b), visible, name in rows
    ]
    head = "# Labels of the masks in this folder: index, red, green, blue, opacity, visible, in 3-D, name"
    write_text(path, "\n".join([head, *lines]) + "\n")
