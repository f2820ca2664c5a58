"""One case: image in, mask out."""

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
from dvtplan.findings.writer import FindingsBuilder, FindingsModel, FindingsOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.slice_buffer import SliceBuffer
from dvtplan.inference import network_pass
from dvtplan.inference.inputs import image_names
from dvtplan.inference.model import Model
from dvtplan.models import devices


@dataclass(frozen=True, slots=True)
class Timings:
    """What a case took, from file to file."""

    slices: int
    reading_s: float
    network_s: float
    """With resizing there and back."""
    writing_s: float
    telling_s: float
    """Findings and page, where they are asked for."""


def require_not_an_input(case: Case, mask: Path) -> None:
    if mask.exists() and any(p.exists() and p.samefile(mask) for p in case.images):
        raise DvtError(f"{mask}: is the image itself, which the mask would replace. Name another -o.")


# --- one case -------------------------------------------------------------------------------------


def predict_case(
    case: Case,
    path: Path,
    model: Model,
    *,
    save_probabilities: bool = False,
    asked: FindingsOptions | None = None,
    spoken: Mapping[Path, str] | None = None,
    made: Callable[[Path, Timings], None] | None = None,
) -> Timings:
    """Write the mask of one case on the grid of its first image file, and warn where the scan is unlike the training.

    Slices pass through a nameless file on disk, block by block, so memory does not grow with their
    number. With ``save_probabilities`` a float32 volume per class is written too, named
    ``ID_probability_CLASS.nii.gz``; those are assembled in memory. What is ``asked`` is written beside the mask;
    what was told of an earlier mask goes. ``spoken`` holds the names of files that go again. ``made`` is called with
    the draft of the mask, before it takes its place.

    Returns:
        How many slices the case has, and where the time went.

    Raises:
        DvtError: if an image cannot be read or is not finite, channels lie on different grids, or
            the disk is full; nothing half-written stays.
    """
    require_not_an_input(case, path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.explain_out_of_memory("Use --device cpu, or name fewer --folds."))
        times = [time.monotonic()]
        opened = network_pass.open_case(case, path.parent, model, stack)
        odd = writer.warn_if_out_of_range(case.id, opened.looks, opened.grid, model.training)
        times.append(time.monotonic())
        masks = stack.enter_context(SliceBuffer(path.parent))
        chances = [stack.enter_context(SliceBuffer(path.parent)) for _ in model.classes] if save_probabilities else []
        division = LevelAssignment() if asked is None else writer.resolve_levels(case, path, asked)
        evidence = None
        if asked is not None and asked.record:
            of = FindingsModel(model.maker, model.classes, model.training)
            evidence = FindingsBuilder(case, opened.sliced_grid, of, asked, division, path.parent, stack)
        for chance_BKHW, votes_BHW in network_pass.probabilities(opened, model, with_votes=evidence is not None):
            marked_BHW = network_pass.decide(chance_BKHW, model.classes)
            masks.append(marked_BHW)
            if evidence is not None:
                evidence.add(chance_BKHW.sum(axis=1), marked_BHW, votes_BHW)
            for chance, volume_BHW in zip(chances, np.moveaxis(chance_BKHW, 1, 0), strict=False):
                chance.append(volume_BHW)
        times.append(time.monotonic())
        for name, chance in zip(model.classes, chances, strict=False):
            volume = network_pass.in_file_order(chance, opened, np.float32)
            volume_io.write_probabilities(probability_path(path, name), volume, opened.grid)

        def noted(draft: Path) -> None:
            if made is not None:
                reading_s, network_s, writing_s = np.diff([*times, time.monotonic()]).tolist()
                made(draft, Timings(len(masks), reading_s, network_s, writing_s, telling_s=0.0))
            # What is there of an earlier mask goes with it.
            writer.remove_outputs(path)
            for name in () if save_probabilities else model.classes:
                probability_path(path, name).unlink(missing_ok=True)

        mask = network_pass.in_file_order(masks, opened, np.uint8)
        volume_io.write_mask(path, mask, opened.grid, names=model.classes, before_move=noted)
        times.append(time.monotonic())
        if evidence is not None:
            evidence.tell(path, masks.read(), opened.channels[0], image_names(case, spoken or {}), odd)
        times.append(time.monotonic())
        spent = Timings(len(masks), *np.diff(times).tolist())
        console.debug(
            f"{case.id}: {spent.reading_s:.2g} s reading, {spent.network_s:.2g} s network and resizing, "
            f"{spent.writing_s:.2g} s writing, {spent.telling_s:.2g} s telling"
        )
        return spent
