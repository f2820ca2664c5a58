"""Predict one case: image in, mask out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import Case
from dvtplan.data.mask_files import probability_path
from dvtplan.findings import writer
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.options import FindingsOptions
from dvtplan.findings.writer import FindingsBuilder, FindingsModel
from dvtplan.imaging import volume_io
from dvtplan.imaging.slice_buffer import SliceBuffer
from dvtplan.inference import network_pass, postprocessing
from dvtplan.inference.inputs import image_names
from dvtplan.inference.model import Model
from dvtplan.inference.network_pass import OpenedCase
from dvtplan.models import devices


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds from reading a case to writing its mask."""

    slices: int
    reading_s: float
    network_s: float
    """Includes resizing to the network's grid and back."""
    writing_s: float


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """Result of predicting one case."""

    timings: Timings
    levels: LevelAssignment | None
    """None without findings."""


BeforeReplace = Callable[[Path, Timings], None]
"""Called with the complete draft of a mask, before it takes the place of an earlier one."""


def require_not_an_input(case: Case, mask: Path) -> None:
    """Refuse to replace an image, or a folder, by a mask.

    Raises:
        DvtError: if the mask is one of the case's files, or a folder.
    """
    if mask.is_dir():
        raise DvtError(f"{mask}: is a folder, but the mask needs this name. Move it, or choose another `output`.")
    if mask.exists() and any(path.exists() and path.samefile(mask) for path in case.images):
        raise DvtError(f"{mask}: is the image, which the mask would replace. Choose another `output`.")


def predict_case(
    case: Case,
    path: Path,
    model: Model,
    *,
    save_probabilities: bool = False,
    findings: FindingsOptions | None = None,
    display_names: Mapping[Path, str] | None = None,
    before_replace: BeforeReplace | None = None,
) -> CaseOutcome:
    """Write the mask of one case on the grid of its first image, and warn if the scan differs from the training scans.

    Slices pass through an unnamed file on disk, block by block, so memory does not grow with their number.
    Probability volumes are assembled in memory, and so is the mask if small components are removed from it. Findings
    and probabilities of an earlier mask are removed.

    Args:
        case: the case.
        path: of the mask.
        model: the model.
        save_probabilities: also write a float32 volume per class, ``ID_probability_CLASS.nii.gz``.
        findings: what to write about the scan next to its mask; None for nothing.
        display_names: temporary file -> name to show to the user.
        before_replace: called before the mask is moved into place.

    Raises:
        DvtError: if an image cannot be read or is not finite, channels have different grids, or the disk is full. No
            partial file remains.
    """
    require_not_an_input(case, path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.explain_out_of_memory("Use `device='cpu'`, or fewer `folds`."))
        times = [time.monotonic()]
        opened = network_pass.open_case(case, path.parent, model, stack)
        out_of_range = writer.warn_if_out_of_range(case.id, opened.intensities, opened.grid, model.training)
        times.append(time.monotonic())
        levels = None if findings is None else writer.resolve_levels(case, path, findings)
        builder = None
        if findings is not None and levels is not None and findings.record:
            described = FindingsModel(model.identity, model.classes, model.training)
            builder = FindingsBuilder(case, opened.slice_grid, described, findings, levels, path.parent, stack)
        with_small, probabilities = _run_network(opened, model, path.parent, stack, save_probabilities, builder)
        masks = postprocessing.apply_smallest(with_small, opened.slice_grid, model.rule, path.parent, stack)
        times.append(time.monotonic())
        for name, volume in probabilities.items():
            in_order = network_pass.in_file_order(volume, opened, np.float32)
            volume_io.write_probabilities(probability_path(path, name), in_order, opened.grid)

        def replace_earlier(draft: Path) -> None:
            if before_replace is not None:
                before_replace(draft, _timings(len(masks), [*times, time.monotonic()]))
            writer.remove_outputs(path)
            for name in () if save_probabilities else model.classes:
                probability_path(path, name).unlink(missing_ok=True)

        mask = network_pass.in_file_order(masks, opened, np.uint8)
        volume_io.write_mask(path, mask, opened.grid, names=model.classes, before_move=replace_earlier)
        times.append(time.monotonic())
        if builder is not None:
            images = image_names(case, display_names or {})
            removed_SHW = None if masks is with_small else (with_small.read() != 0) & (masks.read() == 0)
            builder.write(path, masks.read(), removed_SHW, opened.channels[0], images, out_of_range)
        timings = _timings(len(masks), times)
        _log_timings(case, timings, time.monotonic() - times[-1])
        return CaseOutcome(timings, levels)


def _run_network(
    opened: OpenedCase,
    model: Model,
    scratch: Path,
    stack: contextlib.ExitStack,
    save_probabilities: bool,
    builder: FindingsBuilder | None,
) -> tuple[SliceBuffer, dict[str, SliceBuffer]]:
    """Run the network over all slices; return the mask and the probabilities by class, in slice order."""
    masks = stack.enter_context(SliceBuffer(scratch))
    values = np.array([0, *model.classes.values()], np.uint8)
    saved = model.classes if save_probabilities else ()
    probabilities = {name: stack.enter_context(SliceBuffer(scratch)) for name in saved}
    for probability_BKHW, votes_BHW in network_pass.probabilities(opened, model, with_votes=builder is not None):
        mask_BHW = values[postprocessing.decide(probability_BKHW, model.rule.threshold)]
        masks.append(mask_BHW)
        if builder is not None:
            builder.add(probability_BKHW.sum(axis=1), mask_BHW, votes_BHW)
        for buffer, volume_BHW in zip(probabilities.values(), np.moveaxis(probability_BKHW, 1, 0), strict=False):
            buffer.append(volume_BHW)
    return masks, probabilities


def _timings(slices: int, times: list[float]) -> Timings:
    """Return the timings from the start and the ends of reading, network and writing."""
    reading_s, network_s, writing_s = np.diff(times).tolist()
    return Timings(slices, reading_s, network_s, writing_s)


def _log_timings(case: Case, timings: Timings, findings_s: float) -> None:
    console.debug(
        f"{case.id}: {timings.reading_s:.2g} s reading, {timings.network_s:.2g} s network and resizing, "
        f"{timings.writing_s:.2g} s writing, {findings_s:.2g} s findings"
    )
