"""The network on one case: slices in, probabilities and mask values out; memory does not grow with their number."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import Case
from dvtplan.findings import lesion_confidence
from dvtplan.imaging import volume_checks, volume_io
from dvtplan.imaging.geometry import Grid, Reorientation, to_slice_order
from dvtplan.imaging.normalize import limits
from dvtplan.imaging.resize import triangle, weights
from dvtplan.imaging.slice_buffer import SliceBuffer
from dvtplan.inference.model import Model, slices_at_once
from dvtplan.planning import measurement, slice_preprocessing
from dvtplan.planning.fingerprint import ChannelFingerprint

THRESHOLD = 0.5
"""Probability from which a voxel counts as lesion (one output)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCase:
    """One case with its channels on disk, slice by slice."""

    grid: Grid
    """Of the files."""
    order: Reorientation
    """From the files to slices."""
    channels: tuple[SliceBuffer, ...]
    bounds: tuple[np.ndarray, ...]
    """Of each channel, the intensities that become 0 and 1 in every slice."""
    looks: tuple[ChannelFingerprint, ...]
    """Measured intensities, where the model knows those of its training."""

    @property
    def sliced_grid(self) -> Grid:
        """Of the slices."""
        return self.order.grid(self.grid)


def open_case(case: Case, scratch: Path, model: Model, stack: contextlib.ExitStack) -> OpenedCase:
    """Put a case's channels on disk slice by slice, find the limits of their intensities, and measure them where
    there is something to compare them with.

    Raises:
        DvtError: if an image cannot be read or is not finite, or channels lie on different grids.
    """
    grid: Grid | None = None
    channels, bounds, looks = [], [], []
    for image_path in case.images:
        array, here = volume_io.read(image_path)
        faults = [*volume_checks.image_faults(image_path, array)]
        if grid is not None:
            faults += volume_checks.grid_faults(image_path, here, case.images[0], grid)
        if faults:
            raise DvtError("\n".join(faults))
        grid = grid or here
        if model.training is not None:
            looks.append(measurement.channel(array, here))
        sliced = to_slice_order(grid, model.plan.slice_axis).apply(array)
        bounds.append(limits(sliced, model.plan.normalization))
        file = stack.enter_context(SliceBuffer(scratch))
        file.append(sliced)
        channels.append(file)
        del array, sliced
    if grid is None:
        raise ValueError(f"case {case.id} has no image")
    return OpenedCase(
        grid=grid,
        order=to_slice_order(grid, model.plan.slice_axis),
        channels=tuple(channels),
        bounds=tuple(bounds),
        looks=tuple(looks),
    )


def probabilities(
    opened: OpenedCase, model: Model, *, with_votes: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Blocks of probabilities on the native in-plane grid, float32 (B, classes, H, W).

    The background of a softmax is left out; it is what the classes lack to 1. With votes, and several folds, bit k
    of an unsigned (B, H, W) is set where fold k alone would mark.
    """
    channels, bounds = opened.channels, opened.bounds
    with_votes = with_votes and len(model.networks) > 1
    shape, device = model.plan.target_shape, model.setup.device
    count, native = len(channels[0]), channels[0].read(0, 1).shape[1:]
    rows, columns = (
        torch.from_numpy(weights(n_in, n_out, triangle).toarray().astype(np.float32)).to(device)
        for n_in, n_out in zip(shape, native, strict=True)
    )
    block = slices_at_once(shape, device)
    for start in console.progress(range(0, count, block), "slices", leave=False):
        stop = min(start + block, count)
        image = np.stack(
            [
                np.stack(
                    [
                        slice_preprocessing.preprocess_slice(one, limit, shape)
                        for one, limit in zip(file.read(start, stop), bound[start:stop], strict=True)
                    ]
                )
                for file, bound in zip(channels, bounds, strict=True)
            ],
            axis=1,
        )
        with torch.inference_mode():
            total, votes = torch.zeros((), device=device), None
            for k, chance in enumerate(_averaged_folds(torch.from_numpy(image).to(device), model, block)):
                total = total + chance
                if with_votes:
                    alone = decide((rows @ chance @ columns.T).cpu().numpy(), model.classes) != 0
                    bits = alone.astype(lesion_confidence.vote_type(len(model.networks))) << k
                    votes = bits if votes is None else votes | bits
            mean = total / len(model.networks)
            yield (rows @ mean @ columns.T).cpu().numpy(), votes


def _averaged_folds(image_BCHW: torch.Tensor, model: Model, block: int) -> Iterator[torch.Tensor]:
    """Probabilities of the foreground classes by each fold, float32 (B, classes, h, w).

    A network that was compiled for blocks of slices gets whole blocks, or it would be compiled again.
    """
    count = len(image_BCHW)
    if model.setup.compiled and count < block:
        image_BCHW = nn.functional.pad(image_BCHW, (0, 0, 0, 0, 0, 0, 0, block - count))
    image = image_BCHW.contiguous(memory_format=model.setup.memory_format)
    for network in model.networks:
        with model.setup.autocast():
            logits = network(image)[:count].float()
        yield torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)[:, 1:]


def decide(probability_BKHW: np.ndarray, classes: dict[str, int]) -> np.ndarray:
    """Mask values, uint8 (B, H, W): the likeliest class, or lesion from probability 0.5."""
    values = np.array([0, *classes.values()], np.uint8)
    if len(classes) == 1:
        return values[(probability_BKHW[:, 0] >= THRESHOLD).astype(np.uint8)]
    background = 1.0 - probability_BKHW.sum(axis=1, keepdims=True)
    return values[np.concatenate([background, probability_BKHW], axis=1).argmax(axis=1)]


def in_file_order(slices: SliceBuffer, opened: OpenedCase, dtype: type) -> np.ndarray:
    """All slices as the array of their file, which is the only one made."""
    whole: np.ndarray = np.empty(opened.grid.shape, dtype)
    slices.read_into(opened.order.apply(whole))
    return whole
