"""Handle a scan that cannot be analysed: remove its earlier outputs and record the failure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dvtplan.core import console
from dvtplan.core.errors import DvtError, WriteFailed, cannot_write
from dvtplan.data import edited_masks, mask_files
from dvtplan.data.dataset import Case
from dvtplan.data.edited_masks import known_digests
from dvtplan.findings import writer
from dvtplan.findings.record import read_findings
from dvtplan.imaging.volume_names import ENDINGS, stem
from dvtplan.inference import inputs
from dvtplan.inference.model import Model
from dvtplan.inference.outcome import PredictionOutcome


def write_failure(case: Case, mask: Path, model: Model, error: DvtError, names: Mapping[Path, str]) -> None:
    """Write the findings of a failed case; ``names`` are display names of temporary files."""
    images, reason = inputs.image_names(case, names), inputs.one_line(error, names)
    writer.write_failure(case.id, images, mask, model.identity, reason)


def remove_outputs(mask: Path, known: Mapping[str, Collection[str]], model: Model) -> None:
    """Remove an earlier mask and all that describes it; edited masks are kept with a warning.

    Args:
        mask: may be missing.
        known: ``edited_masks.known_digests`` of its folder.
        model: the model, whose classes name the probability volumes.

    Raises:
        WriteFailed: if a file cannot be removed.
    """
    if not mask.parent.is_dir():
        return
    try:
        for kept in edited_masks.remove_mask(mask, known):
            console.warn(f"{kept}: was edited or comes from elsewhere and is kept.")
        writer.remove_outputs(mask)
        for name in model.classes:
            mask_files.probability_path(mask, name).unlink(missing_ok=True)
    except OSError as error:
        raise WriteFailed(cannot_write(mask, error)) from error
    if (path := mask_files.dicom_seg_path(mask)).exists():
        console.warn(f"{path}: belongs to an earlier mask of this scan and is kept.")


def unreadable_input(
    source: Path, output: Path, model: Model, error: DvtError, series: Sequence[str] | None, *, record: bool
) -> PredictionOutcome:
    """Handle an unreadable input: remove its earlier outputs and record the failure.

    Args:
        source: the input.
        output: folder or mask.
        model: the model.
        error: why the input cannot be read.
        series: of the options.
        record: whether to write findings about the failure.
    """
    name, reason = stem(source.absolute()), inputs.one_line(error, {})
    masks = [output] if output.name.endswith(ENDINGS) else [output / f"{name}.nii.gz"]
    if series and not output.name.endswith(ENDINGS):
        masks.append(output / f"{name}_series_{'_'.join(series)}.nii.gz")
    earlier = [mask for mask in masks if mask.exists() or read_findings(mask_files.findings_path(mask)) is not None]
    for mask in earlier or masks[-1:]:
        remove_outputs(mask, known_digests(mask.parent), model)
        if record:
            writer.write_failure(stem(mask), [source.name], mask, model.identity, reason)
    return PredictionOutcome(failed={stem((earlier or masks)[-1]): reason})
